"""What the optimization tools share: opening a dataset for simulation, and the parts that every result has."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolContext, ToolError
from agent_service.tools.analysis import (
    Opened,
    PricedArgs,
    Workbench,
    dataset_part,
    filter_part,
    mapping_part,
    missing_part,
    notes_part,
    pricing_part,
)
from agent_service.tools.facts import Facts
from agent_service.tools.optimization.options import baseline_part
from agent_service.tools.optimization.simulation import Simulation, simulation
from agent_service.tools.roles import Missing, Role, missing

FIRST_YEAR, LAST_YEAR = 1970, 2200
"""The years of moments that can be asked about."""


def utc(moment: datetime) -> datetime:
    """Return a moment in UTC, which is meant where no zone is given. Raises `ToolError` for one far off."""
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ToolError(f"The year {moment.year} is out of range: name a time from {FIRST_YEAR} to {LAST_YEAR}.")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Ready:
    """A dataset, open and ready to be simulated."""

    opened: Opened
    simulation: Simulation

    @property
    def facts(self) -> Facts:
        """The rows that count."""
        return self.simulation.facts

    def has(self, role: Role) -> bool:
        """Return whether the dataset has this column."""
        return role in self.facts.readings

    def result(self, args: PricedArgs, lacking: Sequence[Missing], parts: JsonObject) -> JsonObject:
        """Return the parts that all results begin and end with, and these."""
        common: JsonObject = {
            "dataset": dataset_part(self.opened.chosen, self.facts.rows),
            "filter": filter_part(args, self.facts),
            "mapping": mapping_part(self.facts),
            "notes": notes_part(self.facts),
            "baseline": baseline_part(self.simulation.baseline),
        }
        ending: JsonObject = {
            "pricing": pricing_part(self.simulation.pricing),
            "missing": missing_part([*self.unpriced(), *lacking]),
        }
        return {**common, **parts, **ending}

    def unpriced(self) -> list[Missing]:
        """Return what stands in the way of prices, where there is none at all."""
        if self.simulation.baseline.priced:
            return []
        wanted = (Role.MODEL, Role.INPUT_TOKENS, Role.OUTPUT_TOKENS)
        return [*self.facts.missing(*wanted), missing(Role.COST, self.facts.unusable.get(Role.COST, ""))]


@asynccontextmanager
async def ready(
    bench: Workbench, context: ToolContext, args: PricedArgs, *, repeats: bool = False, idle: bool = False
) -> AsyncIterator[Ready]:
    """Open the dataset and price its rows. Raises `ToolError`."""
    async with bench.load(context, args) as (opened, facts):
        await context.progress("Columns recognised, pricing", 0.3)
        made = await simulation(facts, args.assume_model, bench.clock.now(), repeats=repeats, idle=idle)
        await context.progress("Priced, simulating", 0.5)
        yield Ready(opened, made)
