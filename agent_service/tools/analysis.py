"""What every analysis of a dataset shares: its arguments, opening it, and the parts that every result has."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.ports import Clock
from agent_service.engine.tool import ToolContext
from agent_service.tools.datasets import Chosen, local_path, resolve
from agent_service.tools.facts import Extra, Facts, RowFilter, load
from agent_service.tools.measures import Groups, Latency, Totals, clip
from agent_service.tools.pricing import Pricing
from agent_service.tools.roles import Missing, Sufficiency
from agent_service.tools.sandbox import Sandbox, SandboxError, Session
from storage.interfaces import Files

MAX_RESULT_BYTES = 30 * 1024
MAX_TOP = 20
SHOWN_MODELS = 20
SHOWN_GAPS = 10
SHOWN_UNUSED = 20
MAX_DATASET_NAME_CHARACTERS = 128
MAX_NOTE_CHARACTERS = 1_000

ReadT = TypeVar("ReadT")

Dimension: TypeAlias = Literal["model", "feature", "user", "day", "hour", "weekday", "status"]


class DatasetArgs(BaseModel):
    """Which dataset, and how its columns are to be read."""

    model_config = ConfigDict(extra="forbid")

    dataset_id: str = Field(
        default="",
        max_length=300,
        description="Id or name of a dataset. Empty: the one that the message refers to or names, else the newest.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        max_length=20,
        description="Corrections by the user: timestamp, input_tokens, output_tokens, cached_tokens, model, latency, "
        "cost, status, feature, user or prompt → the column of the file; an empty string: there is none.",
    )


class FilteredArgs(DatasetArgs):
    """Which rows."""

    start_time: datetime | None = Field(
        default=None, description="Only from this time on (UTC where no zone is given)."
    )
    end_time: datetime | None = Field(default=None, description="Only before this time.")
    models: list[str] = Field(default_factory=list, max_length=20, description="Only these models.")
    features: list[str] = Field(default_factory=list, max_length=20, description="Only these features.")

    def row_filter(self) -> RowFilter:
        """Return the filter."""
        return RowFilter(self.start_time, self.end_time, tuple(self.models), tuple(self.features))


class PricedArgs(FilteredArgs):
    """What rows without a model cost."""

    assume_model: str = Field(
        default="", max_length=200, description="Price rows without a model as if it were this one, e.g. gpt-4o."
    )


@dataclass(frozen=True, slots=True)
class Opened:
    """An open dataset."""

    chosen: Chosen
    session: Session


@dataclass(frozen=True, slots=True)
class Workbench:
    """What the tools work with."""

    files: Files
    sandbox: Sandbox
    clock: Clock

    @asynccontextmanager
    async def open(
        self,
        context: ToolContext,
        dataset_id: str,
        read: Callable[[Session], Awaitable[ReadT]],
        *,
        exact_types: bool = False,
    ) -> AsyncIterator[tuple[Opened, ReadT]]:
        """Open and read the dataset that is meant. Raises `ToolError`.

        Where nobody asked for one, a dataset that cannot be read gives way to the next: a broken upload must not stand
        before all that was there already.
        """
        chosen = await resolve(self.files, context, dataset_id)
        if self.sandbox.is_busy:
            await context.progress("Waiting for other analyses to end")
        while True:
            async with AsyncExitStack() as stack:
                path = await local_path(self.files, context.user_id, chosen.dataset)
                name = clip(chosen.dataset.name)
                try:
                    opening = self.sandbox.session(path, name, exact_types=exact_types)
                    session = await stack.enter_async_context(opening)
                    found = await read(session)
                except SandboxError as error:
                    if error.kind != "file" or not chosen.by_default:
                        raise
                    chosen = chosen.instead(str(error))
                    continue
                yield Opened(chosen, session), found
                return

    @asynccontextmanager
    async def load(
        self, context: ToolContext, args: FilteredArgs, extra: Extra | None = None
    ) -> AsyncIterator[tuple[Opened, Facts]]:
        """Open the dataset and read its rows, with `extra` columns beside the canonical ones. Raises `ToolError`."""

        async def read(session: Session) -> Facts:
            return await load(session, args.columns, args.row_filter(), extra)

        async with self.open(context, args.dataset_id, read) as (opened, facts):
            yield opened, facts


# --- Parts of results ------------------------------------------------------------------------------------------------


def dataset_part(chosen: Chosen, rows: int | None) -> JsonObject:
    """Return which dataset was used and why; `note` says what else to know about the choice, or is empty."""
    return {
        "dataset_id": chosen.dataset.dataset_id,
        "name": clip(chosen.dataset.name, MAX_DATASET_NAME_CHARACTERS),
        "rows": rows,
        "builtin_sample": chosen.dataset.builtin_sample,
        "chosen_because": chosen.because,
        "note": clip(chosen.note, MAX_NOTE_CHARACTERS),
    }


def missing_part(found: Sequence[Missing]) -> list[JsonValue]:
    """Return what was missing, once each."""
    unique = {entry.role: entry for entry in found}
    return [
        {
            "column": entry.role.value,
            "why_it_matters": clip(entry.why_it_matters, 400),
            "how_to_supply": entry.how_to_supply,
        }
        for entry in unique.values()
    ]


def filter_part(args: FilteredArgs, facts: Facts) -> JsonObject:
    """Return which rows were used."""
    return {
        "start_time": time_text(args.start_time),
        "end_time": time_text(args.end_time),
        "models": [clip(name) for name in args.models],
        "features": [clip(name) for name in args.features],
        "matched_rows": facts.matched,
    }


def mapping_part(facts: Facts) -> JsonObject:
    """Return canonical name → column of the file."""
    return {role.value: clip(reading.column) for role, reading in facts.readings.items()}


def unused_part(facts: Facts) -> list[JsonValue]:
    """Return the columns of the file that nothing was recognised in."""
    used = {reading.column for reading in facts.readings.values()}
    unused = [p.name for p in facts.profiles if p.name not in used]
    return [clip(name) for name in unused[:SHOWN_UNUSED]]


def sufficiency_part(found: Sufficiency) -> JsonObject:
    """Return how much of an analysis the columns allow."""
    return {
        "score": found.score,
        "level": found.level,
        "present": [role.value for role in found.present],
        "missing": [role.value for role in found.missing],
    }


def notes_part(facts: Facts) -> list[JsonValue]:
    """Return what is worth knowing about how the file was read."""
    return [clip(note, 300) for note in facts.notes[:10]]


def latency_part(latency: Latency | None) -> JsonObject | None:
    """Return milliseconds."""
    if latency is None:
        return None
    return {
        "mean": latency.mean,
        "p50": latency.p50,
        "p95": latency.p95,
        "p99": latency.p99,
        "min": latency.minimum,
        "max": latency.maximum,
        "measured": latency.measured,
    }


def other_part(groups: Groups, part: Callable[[Totals], JsonObject]) -> JsonObject | None:
    """Return the rest as one row that says for how many groups it stands."""
    return None if groups.other is None else {**part(groups.other), "groups": groups.other.groups}


def pricing_part(pricing: Pricing) -> JsonObject:
    """Return where the prices come from, and what has none."""
    by_name = {model.model: model for model in pricing.known}
    models: list[JsonValue] = [
        {
            "model": clip(name),
            "matched": by_name[name].matched,
            "provider": by_name[name].provider,
            "requests": requests,
            "assumed": assumed,
            "input_usd_per_mtok": float(by_name[name].input_usd_per_mtok),
            "output_usd_per_mtok": float(by_name[name].output_usd_per_mtok),
            "cached_usd_per_mtok": _optional(by_name[name].cached_usd_per_mtok),
            "price_changes": by_name[name].price_changes,
            "note": by_name[name].note,
        }
        for name, assumed, requests in pricing.counts[:SHOWN_MODELS]
    ]
    gaps: list[JsonValue] = [
        {
            "model": clip(gap.model),
            "requests": gap.requests,
            "input_tokens": gap.input_tokens,
            "output_tokens": gap.output_tokens,
            "why": gap.why,
        }
        for gap in pricing.gaps[:SHOWN_GAPS]
    ]
    return {
        "source": pricing.source,
        "catalogue": pricing.catalogue,
        "assumed_model": pricing.assumed_model or None,
        "requests_priced": pricing.priced,
        "requests_unpriced": pricing.unpriced,
        "models": models,
        "models_not_shown": max(0, len(pricing.counts) - SHOWN_MODELS),
        "unpriced": gaps,
        "unpriced_not_shown": max(0, len(pricing.gaps) - SHOWN_GAPS),
        "cached_note": pricing.cached_note,
    }


def _optional(value: object) -> float | None:
    return None if value is None else float(str(value))


def time_text(moment: datetime | None) -> str | None:
    """Return RFC 3339 with 6 digits."""
    if moment is None:
        return None
    utc = moment.astimezone(UTC) if moment.tzinfo else moment
    return utc.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


async def bounded(top: int, make: Callable[[int], Awaitable[JsonObject]]) -> JsonObject:
    """Make a result with `top` groups, or with fewer until it is small enough; the rest is in `other`."""
    while True:
        result = await make(top)
        if top <= 1 or len(json.dumps(result, ensure_ascii=False).encode()) <= MAX_RESULT_BYTES:
            return result
        top //= 2
