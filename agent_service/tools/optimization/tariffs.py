"""Catalogue prices beside the rows: the table `tariffs`, which holds every model that a simulation speaks of."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from agent_service.tools.optimization.catalogue import batch_price, context_window
from agent_service.tools.pricing import KnownModel, PriceSpan, look_up
from agent_service.tools.sandbox import Session
from agent_service.tools.sandbox_child.sql import sql_text

DAY_S: Final = 86_400
"""Seconds of a day."""

_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 31, tzinfo=UTC)
_COLUMNS: Final = (
    "tariff_model VARCHAR, batch BOOLEAN, starts TIMESTAMP, ends TIMESTAMP, start_s INTEGER, end_s INTEGER, "
    "above BIGINT, up_to BIGINT, per_input HUGEINT, per_output HUGEINT, per_cached HUGEINT, per_written HUGEINT, "
    "per_request HUGEINT"
)


@dataclass(slots=True)
class Tariffs:
    """Prices between two moments (UTC). `now` dates rows without a time, and batch prices.

    `known` and `batch` map a model to its prices, or to why it has none.
    """

    session: Session
    first: datetime
    last: datetime
    now: datetime
    known: dict[str, KnownModel | str] = field(default_factory=dict)
    batch: dict[str, KnownModel | str] = field(default_factory=dict)
    windows: dict[str, int | None] = field(default_factory=dict)

    async def create(self) -> None:
        """Make the empty table."""
        await self.session.run(f"CREATE TABLE tariffs ({_COLUMNS})")

    async def know(self, models: Iterable[str]) -> None:
        """Add the prices of models that are not there yet."""
        new = [model for model in dict.fromkeys(models) if model not in self.known]
        found = await asyncio.to_thread(lambda: {name: look_up(name, self.first, self.last) for name in new})
        self.known |= found
        self.windows |= await asyncio.to_thread(lambda: {name: context_window(name) for name in new})
        await self._insert([s for m in found.values() if isinstance(m, KnownModel) for s in m.spans], batch=False)

    async def know_batch(self, models: Iterable[str]) -> None:
        """Add the batch prices of models: those of `now`, for every row."""
        new = [model for model in dict.fromkeys(models) if model not in self.batch]
        found = await asyncio.to_thread(lambda: {name: batch_price(name, self.now) for name in new})
        self.batch |= found
        await self._insert([s for m in found.values() if isinstance(m, KnownModel) for s in m.spans], batch=True)

    async def _insert(self, spans: Sequence[PriceSpan], *, batch: bool) -> None:
        if not spans:
            return
        rows = ", ".join(
            f"({sql_text(s.model)}, {batch}, {_moment(_EARLIEST if batch else s.start)}, "
            f"{_moment(_LATEST if batch else s.end)}, {s.start_s}, {s.end_s}, {s.above}, {s.up_to}, "
            f"{s.input}::HUGEINT, {s.output}::HUGEINT, {s.cached}::HUGEINT, {s.written or s.input}::HUGEINT, "
            f"{s.request}::HUGEINT)"
            for s in spans
        )
        await self.session.run(f"INSERT INTO tariffs VALUES {rows}")

    def joined(self, model: str, input_tokens: str, *, batch: str = "") -> str:
        """Return the SQL condition of a join with `tariffs`: one row at most for each request that has a price.

        `model`, `input_tokens` and `batch` are SQL; the request's time is `ts`.
        """
        ts = f"coalesce(ts, {_moment(self.now)})"
        parts = [f"tariff_model = {model}", f"batch = {batch}" if batch else "NOT batch"]
        known = [m for m in (*self.known.values(), *self.batch.values()) if isinstance(m, KnownModel)]
        spans = [span for one in known for span in one.spans]
        if any(one.price_changes for one in known):
            parts.append(f"{ts} >= starts AND {ts} < ends")
        if any(span.start_s or span.end_s != DAY_S for span in spans):
            second = f"(epoch_us({ts}) // 1000000) % {DAY_S}"
            parts.append(f"{second} >= start_s AND {second} < end_s")
        if any(span.above >= 0 for span in spans):
            parts.append(f"{input_tokens} > above AND {input_tokens} <= up_to")
        return " AND ".join(parts)


def _moment(moment: datetime) -> str:
    return f"TIMESTAMP '{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}'"
