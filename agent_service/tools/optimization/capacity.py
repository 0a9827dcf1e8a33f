"""The tool forecast_capacity: more traffic, its cost, and its peaks against limits."""

from collections.abc import Sequence
from typing import Final

from pydantic import Field

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.analysis import PricedArgs, Workbench
from agent_service.tools.measures import clip, counted, moment, number, rounded, whole
from agent_service.tools.optimization.bench import Ready, ready
from agent_service.tools.optimization.options import money
from agent_service.tools.roles import Role
from agent_service.tools.sandbox import Cell
from agent_service.tools.sandbox_child.sql import sql_text

MAX_LIMIT: Final = 1_000_000_000_000
"""The largest limit of requests or tokens per minute that may be named."""

SHOWN_MODELS: Final = 10
"""Models, those with most requests, whose own peaks are shown."""

MINUTE_US: Final = 60_000_000
"""Microseconds of a minute."""


class ForecastCapacityArgs(PricedArgs):
    """Arguments of forecast_capacity."""

    growth_percent: float = Field(
        default=0.0, ge=-99, le=10_000, description="How much more traffic to expect, in percent; 0: as it is."
    )
    rpm_limit: int | None = Field(default=None, ge=1, le=MAX_LIMIT, description="Requests per minute allowed.")
    tpm_limit: int | None = Field(
        default=None, ge=1, le=MAX_LIMIT, description="Tokens per minute allowed, input and output together."
    )


async def forecast_capacity(bench: Workbench, context: ToolContext, args: ForecastCapacityArgs) -> ToolOutput:
    """Forecast load and cost."""
    async with ready(bench, context, args) as it:
        timed = it.has(Role.TIMESTAMP)
        total = await _peaks(it, args, "") if timed else None
        parts: JsonObject = {
            "growth_percent": args.growth_percent,
            "limits": {"rpm": args.rpm_limit, "tpm": args.tpm_limit},
            "cost": _cost(it, args),
            "peaks": total,
            "models": await _models(it, args) if timed else [],
            "limits_note": "limits are compared with all requests together and, by model, with each model's own: "
            "providers usually set them per model",
            "definition": "a peak is the busiest calendar minute in the data, scaled by the growth; retries and bursts "
            "within a minute are not in it",
        }
        lacking = it.facts.missing(Role.TIMESTAMP, Role.INPUT_TOKENS, Role.OUTPUT_TOKENS, Role.MODEL)
        result = it.result(args, lacking, parts)
    return ToolOutput(_summary(it, args, total), result)


def _cost(it: Ready, args: ForecastCapacityArgs) -> JsonObject:
    baseline, factor = it.simulation.baseline, 1 + args.growth_percent / 100
    grown, monthly = round(baseline.units * factor), baseline.per_month(round(baseline.units * factor))
    return {
        "now_usd": money(baseline.units) if baseline.priced else None,
        "then_usd": money(grown) if baseline.priced else None,
        "then_usd_per_month": money(monthly) if monthly is not None and baseline.priced else None,
    }


async def _peaks(it: Ready, args: ForecastCapacityArgs, where: str) -> JsonObject | None:
    """Return the busiest minutes of the rows that the SQL condition lets through; None where none has a time."""
    minutes = (
        f"SELECT epoch_us(ts) // {MINUTE_US} AS minute, count(*) AS requests, "
        "sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) AS tokens "
        f"FROM sim WHERE ts IS NOT NULL {where} GROUP BY 1"
    )
    factor = repr(1 + args.growth_percent / 100)
    fields = []
    for name, limit in (("requests", args.rpm_limit), ("tokens", args.tpm_limit)):
        over = f"count_if({name} * {factor} > {limit})" if limit is not None else "NULL"
        fields += [f"max({name})", f"first(minute ORDER BY {name} DESC, minute)", f"quantile_cont({name}, 0.99)", over]
    (row,) = (await it.facts.session.run(f"SELECT count(*), {', '.join(fields)} FROM ({minutes})")).rows
    if not whole(row[0]):
        return None
    tokened = it.has(Role.INPUT_TOKENS) or it.has(Role.OUTPUT_TOKENS)
    return {
        "active_minutes": whole(row[0]),
        "requests_per_minute": _peak(row[1:5], args, args.rpm_limit),
        "tokens_per_minute": _peak(row[5:9], args, args.tpm_limit) if tokened else None,
    }


def _peak(cells: Sequence[Cell], args: ForecastCapacityArgs, limit: int | None) -> JsonObject:
    """Return one peak against its limit. Headroom is the share of the limit that is left; negative: over it."""
    peak, minute, p99, over = cells
    now = whole(peak) or 0
    then = now * (1 + args.growth_percent / 100)
    part: JsonObject = {
        "now": now,
        "then": rounded(then, 1),
        "at": moment(int(str(minute)) * MINUTE_US),
        "p99_minute_then": rounded(number(p99) * (1 + args.growth_percent / 100), 1),
        "limit": limit,
    }
    if limit is None:
        return {**part, "fits": None, "headroom_share": None, "minutes_over": None, "growth_until_limit_percent": None}
    return {
        **part,
        "fits": then <= limit,
        "headroom_share": rounded(1 - then / limit, 6),
        "minutes_over": whole(over),
        "growth_until_limit_percent": rounded((limit / now - 1) * 100, 2) if now else None,
    }


async def _models(it: Ready, args: ForecastCapacityArgs) -> list[JsonValue]:
    rows = await it.facts.session.run(
        "SELECT key, count(*) FROM sim WHERE key IS NOT NULL AND ts IS NOT NULL "
        f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {SHOWN_MODELS}"
    )
    found: list[JsonValue] = []
    for key, requests in rows.rows:
        peaks = await _peaks(it, args, f"AND key = {sql_text(str(key))}")
        found.append({"model": clip(str(key)), "requests": whole(requests), **(peaks or {})})
    return found


def _summary(it: Ready, args: ForecastCapacityArgs, total: JsonObject | None) -> str:
    name = it.opened.session.name
    grown = f"{args.growth_percent:+g} % traffic" if args.growth_percent else "The traffic as it is"
    if total is None:
        return f"{grown}: {name} has no times, so there are no peaks"
    said = []
    for key, unit in (("requests_per_minute", "request"), ("tokens_per_minute", "token")):
        peak = total[key]
        if isinstance(peak, dict):
            fits = {True: " (fits)", False: " (over the limit)", None: ""}[peak["fits"]]
            said.append(f"{counted(round(peak['then']), unit)} in the busiest minute{fits}")
    return f"{grown} in {name}: {', '.join(said)}"
