"""What a message names: models, dimensions, features, files, times, goals, corrections of columns, SQL, and more."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from agent_service.engine.events import JsonValue
from agent_service.llm.offline.dates import ALWAYS, Period

DOCUMENT_ENDINGS: Final = (".md", ".markdown", ".txt", ".pdf", ".html", ".htm", ".rst", ".docx")
"""Of files that hold text for people."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A target or an expectation. `change_percent` below 0 means less; None where no number was said.

    `amount_usd` is what a month may cost at most, `limit_ms` how long an answer may take.
    """

    metric: str
    change_percent: float | None = None
    amount_usd: float | None = None
    limit_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Entities:
    """What a message names, in order. `columns` maps a canonical column to the file's own.

    `rows`, `days`, `seed` and `preset` are of a workload to be made, `corpus` names a knowledge base, `query` is what
    to search it for, `change_time` is when something changed (UTC), `limits` are at most one each of `rpm` (requests
    per minute) and `tpm` (tokens per minute). `files` are datasets and documents alike.
    """

    models: tuple[str, ...] = ()
    assume_model: str = ""
    group_by: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    period: Period = ALWAYS
    goals: tuple[Goal, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    sql: str = ""
    rows: int | None = None
    days: int | None = None
    seed: int | None = None
    preset: str = ""
    corpus: str = ""
    query: str = ""
    change_time: datetime | None = None
    limits: tuple[tuple[str, int], ...] = ()

    @property
    def datasets(self) -> tuple[str, ...]:
        """The files named that can hold data, as their endings tell."""
        return tuple(name for name in self.files if not name.lower().endswith(DOCUMENT_ENDINGS))

    def over(self, earlier: "Entities") -> "Entities":
        """Return these, and what only an earlier message named: for a message that goes on with that one."""
        return replace(
            earlier,
            models=self.models or earlier.models,
            assume_model=self.assume_model or earlier.assume_model,
            group_by=self.group_by or earlier.group_by,
            features=self.features or earlier.features,
            files=self.files or earlier.files,
            period=self.period if self.period != ALWAYS else earlier.period,
            goals=tuple({goal.metric: goal for goal in (*earlier.goals, *self.goals)}.values()),
            columns=tuple({**dict(earlier.columns), **dict(self.columns)}.items()),
            sql=self.sql,
            rows=self.rows if self.rows is not None else earlier.rows,
            days=self.days if self.days is not None else earlier.days,
            seed=self.seed if self.seed is not None else earlier.seed,
            preset=self.preset or earlier.preset,
            corpus=self.corpus or earlier.corpus,
            query=self.query or earlier.query,
            change_time=self.change_time or earlier.change_time,
            limits=tuple({**dict(earlier.limits), **dict(self.limits)}.items()),
        )

    def dataset_arguments(self) -> dict[str, JsonValue]:
        """Return the arguments of a data tool that say which dataset is meant, and how its columns are to be read."""
        arguments: dict[str, JsonValue] = {}
        if self.datasets:
            arguments["dataset_id"] = self.datasets[0]
        if self.columns:
            arguments["columns"] = dict(self.columns)
        return arguments
