"""The optimization tools over files in memory, and what a policy costs, in plain Python."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

import genai_prices
from pydantic import BaseModel

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import Tool, ToolOutput, ToolRecord
from agent_service.tools.analysis import PricedArgs, Workbench
from agent_service.tools.optimization.simulation import Simulation, simulation
from agent_service.tools.optimization.tools import optimization_tools
from tests.support.datasets import DataBench, context

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
"""A day on which the catalogue has batch prices."""


@dataclass(frozen=True, slots=True)
class ClockAt:
    """Implements `ports.Clock`: it is always this moment."""

    moment: datetime = NOW

    def now(self) -> datetime:
        return self.moment

    def monotonic_ms(self) -> int:
        return 0


class OptimizationBench(DataBench):
    """A user with files; what was called is on record for the next call, as in a run."""

    def __init__(self, moment: datetime = NOW) -> None:
        super().__init__()
        self.work = Workbench(self.files, self.sandbox, ClockAt(moment))
        self.own: Mapping[str, Tool[BaseModel]] = {tool.name: tool for tool in optimization_tools(self.work)}
        self.records: list[ToolRecord] = []

    async def run(self, tool: str, **args: object) -> ToolOutput:
        """Call a tool; each call has an id of its own: `call-1`, `call-2`, …"""
        found = self.own[tool]
        call_id = f"call-{len(self.records) + 1}"
        given = replace(context(), tool_call_id=call_id, records=lambda: tuple(self.records))
        output = await found.run(given, found.args.model_validate(args))
        self.records.append(ToolRecord(call_id, "optimizations", tool, {}, output.summary, output.result))
        return output

    async def found(self, tool: str, **args: object) -> JsonObject:
        """Call a tool and return its result."""
        return (await self.run(tool, **args)).result

    @asynccontextmanager
    async def simulated(self, **args: object) -> AsyncIterator[Simulation]:
        """Open a dataset, ready to be simulated."""
        priced = PricedArgs.model_validate(args)
        async with self.work.load(context(), priced) as (_, facts):
            yield await simulation(facts, priced.assume_model, self.work.clock.now(), repeats=True, idle=True)


@dataclass(frozen=True, slots=True)
class Request:
    """One row of a log."""

    time: datetime
    model: str
    feature: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    latency_ms: int = 1_000
    status: str = "ok"
    prompt: str = ""

    @property
    def line(self) -> str:
        """The row as CSV, in the order of `HEADER`."""
        cells = (f"{self.time:%Y-%m-%dT%H:%M:%SZ}", self.model, self.feature, self.input_tokens, self.output_tokens)
        return ",".join(map(str, (*cells, self.cached_tokens, self.latency_ms, self.status, self.prompt)))


HEADER = "timestamp,model,feature,input_tokens,output_tokens,cached_tokens,latency_ms,status,prompt_hash"


def log(rows: Sequence[Request]) -> bytes:
    """Return the rows as a CSV file."""
    return ("\n".join([HEADER, *(row.line for row in rows)]) + "\n").encode()


def price(row: Request, *, model: str = "", input_tokens: int | None = None, batch: bool = False) -> Decimal:
    """Return what a row costs, as it is or changed, by the catalogue itself."""
    sent = row.input_tokens if input_tokens is None else input_tokens
    usage = genai_prices.Usage(
        input_tokens=sent, output_tokens=row.output_tokens, cache_read_tokens=min(row.cached_tokens, sent)
    )
    return genai_prices.calc_price(
        usage,
        model or row.model,
        genai_request_timestamp=NOW if batch else row.time,
        price_context={"processing": "batch"} if batch else None,
    ).total_price


def hits(rows: Sequence[Request], ttl_s: int | None) -> list[bool]:
    """Return which rows a cache answers whose entries live so long after their last good use."""
    used: dict[tuple[str, str], datetime] = {}
    found = [False] * len(rows)
    for index in sorted(range(len(rows)), key=lambda i: (rows[i].time, i)):
        row = rows[index]
        last = used.get((row.prompt, row.model))
        if row.prompt and last is not None:
            found[index] = ttl_s is None or (row.time - last).total_seconds() <= ttl_s
        if row.status == "ok":
            used[row.prompt, row.model] = row.time
    return found
