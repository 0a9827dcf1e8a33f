"""The tools usage_summary and usage_pattern: how much is used, and when."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.analysis import (
    MAX_TOP,
    FilteredArgs,
    Opened,
    PricedArgs,
    Workbench,
    bounded,
    dataset_part,
    filter_part,
    latency_part,
    mapping_part,
    missing_part,
    notes_part,
    other_part,
    pricing_part,
    sufficiency_part,
    unused_part,
)
from agent_service.tools.facts import Facts
from agent_service.tools.measures import (
    DIMENSIONS,
    PERCENTILES,
    Totals,
    bucket,
    counted,
    groups,
    moment,
    number,
    peaks,
    rounded,
    shares,
    time_span,
    totals,
    whole,
)
from agent_service.tools.pricing import Pricing, mean_usd, price
from agent_service.tools.roles import Missing, Role, missing
from agent_service.tools.sandbox import Cell

MAX_GAPS = 5
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
BUCKETS_S = (1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 7 * 86400)

Dimension = Literal["model", "feature", "user", "day", "hour", "status"]


class UsageSummaryArgs(PricedArgs):
    """Arguments of usage_summary."""

    group_by: list[Dimension] = Field(
        default=["model", "feature", "user", "day"], max_length=6, description="Dimensions to sum by."
    )
    top: int = Field(default=10, ge=1, le=MAX_TOP, description="Groups per dimension; the rest is summed as other.")


class UsagePatternArgs(FilteredArgs):
    """Arguments of usage_pattern."""

    buckets: int = Field(default=60, ge=10, le=100, description="At most so many points in the time series.")


async def usage_summary(bench: Workbench, context: ToolContext, args: UsageSummaryArgs) -> ToolOutput:
    """Summarise usage."""
    async with bench.load(context, args) as (opened, facts):
        await context.progress("Columns recognised, measuring", 0.3)
        pricing = await price(facts, args.assume_model, bench.clock.now())
        whole_ = await totals(facts, source="priced")
        fixed: JsonObject = {
            "dataset": dataset_part(opened.chosen, facts.rows),
            "filter": filter_part(args, facts),
            "mapping": mapping_part(facts),
            "unused_columns": unused_part(facts),
            "notes": notes_part(facts),
            "sufficiency": sufficiency_part(facts.sufficiency),
            "totals": await _totals_part(facts, whole_),
            "per_request": await _per_request(facts, whole_),
            "time": await time_span(facts),
            "peaks": await peaks(facts),
            "latency_ms": latency_part(whole_.latency),
            "percentile_definition": PERCENTILES,
            "pricing": pricing_part(pricing),
            "missing": missing_part(_missing(facts, pricing, args.group_by)),
        }

        async def make(top: int) -> JsonObject:
            return {**fixed, **await _groups_part(facts, args.group_by, top)}

        result = await bounded(args.top, make)
    return ToolOutput(_summary(opened, facts, whole_, pricing, result), result)


def _missing(facts: Facts, pricing: Pricing, group_by: Sequence[str]) -> list[Missing]:
    wanted = [Role.TIMESTAMP, Role.INPUT_TOKENS, Role.OUTPUT_TOKENS]
    if not pricing.priced or (pricing.assumed_model and Role.COST not in facts.readings):
        wanted.append(Role.MODEL)
    wanted += [Role.LATENCY, Role.STATUS, *(DIMENSIONS[dimension][0] for dimension in group_by)]
    found = facts.missing(*wanted)
    if not pricing.priced and Role.COST not in facts.readings:
        found.append(missing(Role.COST, facts.unusable.get(Role.COST, "")))
    return found


async def _totals_part(facts: Facts, found: Totals) -> JsonObject:
    parts: dict[str, JsonValue] = {
        "requests": found.requests,
        "input_tokens": found.input_tokens,
        "output_tokens": found.output_tokens,
        "cached_tokens": found.cached_tokens,
        "total_tokens": _sum(found.input_tokens, found.output_tokens),
        "cost_usd": found.cost_usd,
        "errors": found.errors,
        "error_rate": found.error_rate,
    }
    (row,) = (
        await facts.session.run(
            "SELECT count(DISTINCT model), count(DISTINCT feature), count(DISTINCT customer) FROM f"
        )
    ).rows
    for key, role, value in zip(
        ("models", "features", "users"), (Role.MODEL, Role.FEATURE, Role.USER), row, strict=True
    ):
        parts[key] = whole(value) if role in facts.readings else None
    return parts


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


async def _per_request(facts: Facts, found: Totals) -> JsonObject:
    parts: dict[str, JsonValue] = {}
    for role, column in ((Role.INPUT_TOKENS, "input_tokens"), (Role.OUTPUT_TOKENS, "output_tokens")):
        parts[column] = None
        if role in facts.readings:
            (row,) = (
                await facts.session.run(
                    f"SELECT avg({column}), quantile_cont({column}, [0.5, 0.95, 0.99]), min({column}), max({column}) "
                    "FROM f"
                )
            ).rows
            mean, quantiles, low, high = row
            if isinstance(quantiles, list):
                p50, p95, p99 = (rounded(number(value)) for value in quantiles)
                parts[column] = {
                    "mean": rounded(number(mean)),
                    "p50": p50,
                    "p95": p95,
                    "p99": p99,
                    "min": whole(low),
                    "max": whole(high),
                }
    parts["cost_usd_mean"] = mean_usd(found.units, found.priced)
    return parts


async def _groups_part(facts: Facts, group_by: Sequence[str], top: int) -> JsonObject:
    shown: dict[str, JsonValue] = {}
    other: dict[str, JsonValue] = {}
    for dimension in dict.fromkeys(group_by):
        if DIMENSIONS[dimension][0] not in facts.readings:
            continue
        found = await groups(facts, [dimension], source="priced", order="count(*)", top=top)
        parts = dict(zip(found.all, shares([group.requests for group in found.all]), strict=True))

        def part(group: Totals, parts: dict[Totals, float] = parts) -> JsonObject:
            return {
                "name": group.name,
                "requests": group.requests,
                "input_tokens": group.input_tokens,
                "output_tokens": group.output_tokens,
                "cached_tokens": group.cached_tokens,
                "cost_usd": group.cost_usd,
                "errors": group.errors,
                "latency_ms": latency_part(group.latency),
                "share_of_requests": parts[group],
            }

        shown[dimension] = [part(group) for group in found.shown]
        other[dimension] = other_part(found, part)
    return {"groups": shown, "other": other}


def _summary(opened: Opened, facts: Facts, found: Totals, pricing: Pricing, result: JsonObject) -> str:
    parts = [counted(found.requests, "request")]
    tokens = [
        f"{value:,} {kind}"
        for value, kind in ((found.input_tokens, "input"), (found.output_tokens, "output"))
        if value is not None
    ]
    if tokens:
        parts.append(" and ".join(tokens) + " tokens")
    time = result["time"]
    if isinstance(time, dict):
        first, last = (str(time[key])[:16].replace("T", " ") for key in ("start", "end"))
        parts.append(f"{first} to {last} UTC")
    if found.cost_usd is None:
        parts.append("cost not known")
    else:
        assumed = (
            f" if all were {pricing.assumed_model}"
            if pricing.assumed_model and Role.MODEL not in facts.readings
            else ""
        )
        rest = f" ({counted(pricing.unpriced, 'request')} without a price)" if pricing.unpriced else ""
        parts.append(f"{found.cost_usd:,.2f} USD{assumed}{rest}")
    return f"{', '.join(parts)} in {opened.session.name}"


# --- When ------------------------------------------------------------------------------------------------------------


async def usage_pattern(bench: Workbench, context: ToolContext, args: UsagePatternArgs) -> ToolOutput:
    """Show when usage happens."""
    async with bench.load(context, args) as (opened, facts):
        span = await time_span(facts)
        result: dict[str, JsonValue] = {
            "dataset": dataset_part(opened.chosen, facts.rows),
            "filter": filter_part(args, facts),
            "timezone": "UTC",
            "time": span,
            "peaks": None,
            "peak_to_mean": None,
            "hourly": [],
            "weekly": [],
            "busiest_hour": None,
            "busiest_weekday": None,
            "series": None,
            "gaps": [],
            "missing": missing_part(facts.missing(Role.TIMESTAMP)),
        }
        summary = f"{opened.session.name} has no times, so there is no pattern to see"
        if span is not None:
            found_peaks = await peaks(facts)
            hourly = await _cycle(facts, "hour(ts)", list(range(24)))
            weekly = await _cycle(facts, "isodow(ts) - 1", list(range(7)))
            result |= {
                "peaks": found_peaks,
                "peak_to_mean": await _peak_to_mean(facts, found_peaks),
                "hourly": [{"hour": index, **row} for index, row in enumerate(hourly)],
                "weekly": [{"weekday": WEEKDAYS[index], **row} for index, row in enumerate(weekly)],
                "busiest_hour": _busiest(hourly),
                "busiest_weekday": WEEKDAYS[_busiest(weekly)],
                "series": await _series(facts, args.buckets),
                "gaps": await _gaps(facts),
            }
            summary = (
                f"{counted(facts.matched, 'request')} in {opened.session.name}, most on {result['busiest_weekday']} "
                f"and between {result['busiest_hour']}:00 and {(_busiest(hourly) + 1) % 24}:00 UTC"
            )
    return ToolOutput(summary, result)


async def _cycle(facts: Facts, sql: str, slots: Sequence[int]) -> list[dict[str, JsonValue]]:
    found = await facts.session.run(
        f"SELECT {sql} AS slot, count(*), sum(input_tokens), sum(output_tokens) FROM f "
        "WHERE ts IS NOT NULL GROUP BY slot"
    )
    by_slot: dict[int, Sequence[Cell]] = {int(str(row[0])): row for row in found.rows}
    empty = [0 if role in facts.readings else None for role in (Role.INPUT_TOKENS, Role.OUTPUT_TOKENS)]
    rows = [by_slot.get(slot, [slot, 0, *empty]) for slot in slots]
    parts = shares([whole(row[1]) or 0 for row in rows])
    return [
        {"requests": whole(row[1]), "share": share, "input_tokens": whole(row[2]), "output_tokens": whole(row[3])}
        for row, share in zip(rows, parts, strict=True)
    ]


def _busiest(rows: Sequence[dict[str, JsonValue]]) -> int:
    return max(range(len(rows)), key=lambda index: int(str(rows[index]["requests"])))


async def _peak_to_mean(facts: Facts, found: JsonObject | None) -> JsonObject:
    (row,) = (
        await facts.session.run(
            "SELECT count(ts), "
            + ", ".join(f"date_diff('{unit}', min(ts), max(ts)) + 1" for unit in ("minute", "hour", "day"))
            + " FROM f"
        )
    ).rows
    requests, *buckets = (int(str(value)) for value in row)
    ratios: dict[str, JsonValue] = {}
    for unit, count in zip(("minute", "hour", "day"), buckets, strict=True):
        peak = found.get(unit) if found else None
        ratios[unit] = rounded(int(str(peak["requests"])) * count / requests) if isinstance(peak, dict) else None
    return ratios


async def _series(facts: Facts, limit: int) -> JsonObject:
    ((first, last),) = (await facts.session.run("SELECT epoch_us(min(ts)), epoch_us(max(ts)) FROM f")).rows
    start, end = int(str(first)) // 1_000_000, int(str(last)) // 1_000_000
    size = next((size for size in BUCKETS_S if end // size - start // size < limit), 0)
    if not size:
        size = BUCKETS_S[-1]
        while end // size - start // size >= limit:
            size *= 2
    found = await facts.session.run(
        f"SELECT epoch_us(ts) // 1000000 // {size} AS slot, count(*), sum(input_tokens), sum(output_tokens) "
        "FROM f WHERE ts IS NOT NULL GROUP BY slot"
    )
    rows = {int(str(row[0])): row for row in found.rows}
    empty = [0 if role in facts.readings else None for role in (Role.INPUT_TOKENS, Role.OUTPUT_TOKENS)]
    points: list[JsonValue] = []
    for slot in range(start // size, end // size + 1):
        row = rows.get(slot, [slot, 0, *empty])
        points.append(bucket([slot * size * 1_000_000, *row[1:]]))
    return {"bucket_s": size, "points": points}


async def _gaps(facts: Facts) -> list[JsonValue]:
    found = await facts.session.run(
        "SELECT epoch_us(before), epoch_us(ts), epoch_us(ts) - epoch_us(before) AS us FROM "
        "(SELECT ts, lag(ts) OVER (ORDER BY ts) AS before FROM f WHERE ts IS NOT NULL) "
        f"WHERE before IS NOT NULL AND us > 0 ORDER BY us DESC, before LIMIT {MAX_GAPS}"
    )
    return [
        {"start": moment(row[0]), "end": moment(row[1]), "duration_s": rounded(number(row[2]) / 1_000_000, 6)}
        for row in found.rows
    ]
