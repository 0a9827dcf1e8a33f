"""The tool cost_breakdown: what costs how much."""

from pydantic import Field

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.analysis import (
    MAX_TOP,
    Dimension,
    PricedArgs,
    Workbench,
    bounded,
    dataset_part,
    filter_part,
    mapping_part,
    missing_part,
    notes_part,
    other_part,
    pricing_part,
    unused_part,
)
from agent_service.tools.facts import Facts
from agent_service.tools.measures import DIMENSIONS, Totals, counted, groups, shares, totals
from agent_service.tools.pricing import Pricing, mean_usd, price, usd
from agent_service.tools.roles import Missing, Role, missing


class CostBreakdownArgs(PricedArgs):
    """Arguments of cost_breakdown."""

    group_by: list[Dimension] = Field(
        default=["model"], min_length=1, max_length=2, description="One or two dimensions to sum by."
    )
    top: int = Field(default=10, ge=1, le=MAX_TOP, description="Groups; the rest is summed as other.")


async def cost_breakdown(bench: Workbench, context: ToolContext, args: CostBreakdownArgs) -> ToolOutput:
    """Break the cost down."""
    async with bench.load(context, args) as (opened, facts):
        await context.progress("Columns recognised, pricing", 0.3)
        pricing = await price(facts, args.assume_model, bench.clock.now())
        found = await totals(facts, source="priced", latency=False)
        group_by = [d for d in dict.fromkeys(args.group_by) if DIMENSIONS[d][0] in facts.readings]
        fixed: JsonObject = {
            "dataset": dataset_part(opened.chosen, facts.rows),
            "filter": filter_part(args, facts),
            "mapping": mapping_part(facts),
            "unused_columns": unused_part(facts),
            "notes": notes_part(facts),
            "group_by": group_by,
            "total_cost_usd": found.cost_usd,
            "requests": found.requests,
            "cost_per_request_usd": mean_usd(found.units, found.priced),
            "cost_per_day_usd": await _per_day(facts, found),
            "components": await _components(facts, pricing),
            "pricing": pricing_part(pricing),
            "missing": missing_part(_missing(facts, pricing, args)),
        }

        async def make(top: int) -> JsonObject:
            return {**fixed, **await _groups_part(facts, group_by, top)}

        result = await bounded(args.top, make)
    if found.cost_usd is None:
        summary = f"The cost of {opened.session.name} is not known: no request could be priced"
    else:
        rest = f"; {counted(pricing.unpriced, 'request')} without a price" if pricing.unpriced else ""
        summary = f"{found.cost_usd:,.2f} USD for {counted(pricing.priced, 'request')} in {opened.session.name}{rest}"
    return ToolOutput(summary, result)


def _missing(facts: Facts, pricing: Pricing, args: CostBreakdownArgs) -> list[Missing]:
    wanted: list[Role] = []
    if Role.COST not in facts.readings:
        wanted += [Role.INPUT_TOKENS, Role.OUTPUT_TOKENS, Role.MODEL]
    found = facts.missing(*wanted, *(DIMENSIONS[dimension][0] for dimension in args.group_by))
    if not pricing.priced and Role.COST not in facts.readings:
        found.append(missing(Role.COST, facts.unusable.get(Role.COST, "")))
    return found


async def _per_day(facts: Facts, found: Totals) -> float | None:
    """Return the cost per calendar day from the first to the last, days without requests included."""
    if Role.TIMESTAMP not in facts.readings or found.units is None:
        return None
    ((days,),) = (await facts.session.run("SELECT date_diff('day', min(ts), max(ts)) + 1 FROM f")).rows
    return None if days is None else float(usd(round(found.units / int(str(days)))))


async def _components(facts: Facts, pricing: Pricing) -> JsonObject | None:
    if pricing.source != "catalogue":
        return None
    (row,) = (
        await facts.session.run(
            "SELECT sum(cost_input), sum(cost_output), sum(cost_cached), sum(cost_request) FROM priced "
            "WHERE cost IS NOT NULL"
        )
    ).rows
    names = ("input_usd", "output_usd", "cached_usd", "requests_usd")
    return {name: float(usd(int(str(value or 0)))) for name, value in zip(names, row, strict=True)}


async def _groups_part(facts: Facts, group_by: list[Dimension], top: int) -> JsonObject:
    found = await groups(facts, group_by, source="priced", order="sum(cost)", top=top, latency=False)
    known = any(group.units is not None for group in found.all)
    parts = dict(zip(found.all, shares([group.units or 0 for group in found.all]), strict=True))

    def part(group: Totals) -> JsonObject:
        return {
            "name": group.name,
            "keys": dict(zip(group_by, group.keys, strict=True)) if len(group.keys) == len(group_by) else {},
            "requests": group.requests,
            "input_tokens": group.input_tokens,
            "output_tokens": group.output_tokens,
            "cached_tokens": group.cached_tokens,
            "cost_usd": group.cost_usd,
            "share": parts[group] if known and group.units is not None else None,
            "cost_per_request_usd": mean_usd(group.units, group.priced),
            "requests_unpriced": group.requests - group.priced,
        }

    return {"groups": [part(group) for group in found.shown], "other": other_part(found, part)}
