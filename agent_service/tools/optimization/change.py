"""The tool evaluate_change: before and after a moment, and whether the difference is more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import Field

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolContext, ToolError, ToolOutput
from agent_service.tools.analysis import PricedArgs, Workbench, time_text
from agent_service.tools.facts import UNITS_PER_USD
from agent_service.tools.measures import clip, number, rounded, whole
from agent_service.tools.optimization.bench import Ready, ready, utc
from agent_service.tools.optimization.significance import Difference, Sample, compare, stratified
from agent_service.tools.roles import Role
from agent_service.tools.sandbox import Cell
from agent_service.tools.sandbox_child.sql import sql_text

SIGNIFICANT: Final = 0.01
"""Below this probability a difference is not taken for chance. Strict, for several measures are judged at once."""

MAX_STRATA: Final = 1_000
"""Features, the most frequent, within which before and after are compared."""

SHOWN_SHARES: Final = 8
"""Models or features whose shares are shown."""


@dataclass(frozen=True, slots=True)
class _Measure:
    """`sql` is its value in a row, `factor` brings it to `unit`. `good` is the sign that is better, 0 for neither."""

    name: str
    sql: str
    unit: str
    good: int = 0
    factor: float = 1.0


_MEASURES: Final = (
    _Measure("cost_per_request", "cost", "USD", -1, 1 / UNITS_PER_USD),
    _Measure("latency", "latency", "ms", -1),
    _Measure("error_rate", "CASE WHEN failed IS NOT NULL THEN CAST(failed AS INTEGER) END", "share", -1),
    _Measure("input_tokens", "input_tokens", "tokens per request"),
    _Measure("output_tokens", "output_tokens", "tokens per request"),
)


class EvaluateChangeArgs(PricedArgs):
    """Arguments of evaluate_change."""

    change_time: datetime = Field(description="When it changed (UTC where no zone is given): the first moment after.")
    window_days: float | None = Field(
        default=None, gt=0, le=3_660, description="Compare only so many days on each side; null: all there is."
    )


async def evaluate_change(bench: Workbench, context: ToolContext, args: EvaluateChangeArgs) -> ToolOutput:
    """Compare before and after."""
    change = utc(args.change_time)
    async with ready(bench, context, args) as it:
        if not it.has(Role.TIMESTAMP):
            (gap,) = it.facts.missing(Role.TIMESTAMP)
            raise ToolError(
                f"Before and after cannot be told apart in {it.opened.session.name}: it has no usable time column. "
                f"{gap.how_to_supply}"
            )
        await _split(it, change, args.window_days)
        sides = await _sides(it, change)
        measures = [found for measure in _MEASURES if (found := await _measured(it, measure))]
        verdict = _verdict(measures)
        parts: JsonObject = {
            "change_time": time_text(change),
            "window_days": args.window_days,
            "before": sides["before"],
            "after": sides["after"],
            "measures": list[JsonValue](measures),
            "mix": await _mix(it),
            "verdict": verdict,
            "definition": "Welch's test of the means, two-sided, normal approximation; for a share that is the test of "
            "two proportions. Where features are known, requests are compared within each, so that another mix of them "
            f"is not taken for a change. Chance is ruled out below p = {SIGNIFICANT:g}. It shows a difference, not its "
            "cause: whatever else changed on that day is in it.",
        }
        lacking = it.facts.missing(Role.LATENCY, Role.STATUS, Role.INPUT_TOKENS, Role.OUTPUT_TOKENS)
        result = it.result(args, lacking, parts)
    return ToolOutput(f"{verdict['words']} in {it.opened.session.name}", result)


async def _split(it: Ready, change: datetime, window_days: float | None) -> None:
    """Make the view `sides`: the rows of either side. Raises `ToolError` where one side is empty."""
    at = _sql(change)
    near = ""
    if window_days is not None:
        window = timedelta(days=window_days)
        near = f" AND ts >= {_sql(change - window)} AND ts < {_sql(change + window)}"
    await it.facts.session.run(
        f"CREATE VIEW sides AS SELECT *, ts >= {at} AS is_after FROM sim WHERE ts IS NOT NULL{near}"
    )
    (row,) = (
        await it.facts.session.run("SELECT count_if(NOT is_after), count_if(is_after), min(ts), max(ts) FROM sides")
    ).rows
    if not whole(row[0]) or not whole(row[1]):
        (span,) = (await it.facts.session.run("SELECT min(ts), max(ts) FROM sim")).rows
        side = "before" if not whole(row[0]) else "after"
        raise ToolError(
            f"{it.opened.session.name} has no request {side} {change:%Y-%m-%d %H:%M} UTC that counts: it reaches from "
            f"{str(span[0])[:16]} to {str(span[1])[:16]} UTC. Name a moment within."
        )


async def _sides(it: Ready, change: datetime) -> dict[str, JsonObject]:
    rows = (
        await it.facts.session.run(
            "SELECT is_after, count(*), min(ts), max(ts), sum(cost), count(cost), "
            "quantile_cont(latency, [0.5, 0.95, 0.99]) FROM sides GROUP BY 1 ORDER BY 1"
        )
    ).rows
    found: dict[str, JsonObject] = {}
    for is_after, requests, first, last, units, priced, quantiles in rows:
        start, end = (change, last) if is_after else (first, change)
        days = max((_time(end) - _time(start)).total_seconds() / 86_400, 1 / 1_440)
        latency = [rounded(number(value)) for value in quantiles] if isinstance(quantiles, list) else [None] * 3
        if quantiles is None or (isinstance(quantiles, list) and quantiles[0] is None):
            latency = [None] * 3
        found["after" if is_after else "before"] = {
            "requests": whole(requests),
            "first": str(first)[:19] + "Z",
            "last": str(last)[:19] + "Z",
            "requests_per_day": rounded((whole(requests) or 0) / days, 3),
            "cost_usd": None if units is None else rounded(int(str(units)) / UNITS_PER_USD, 6),
            "requests_priced": whole(priced),
            "latency_ms": None if latency[0] is None else dict(zip(("p50", "p95", "p99"), latency, strict=True)),
        }
    return found


async def _measured(it: Ready, measure: _Measure) -> JsonObject | None:
    """Return one measure on both sides; None where one side has none."""
    rows = (
        await it.facts.session.run(
            "SELECT is_after, count(value), avg(value), var_samp(value) FROM "
            f"(SELECT is_after, ({measure.sql})::DOUBLE AS value FROM sides) GROUP BY 1 ORDER BY 1"
        )
    ).rows
    samples = [_sample(row[1:], measure.factor) for row in rows]
    if len(samples) < len(("before", "after")) or not all(sample.count for sample in samples):
        return None
    before, after = samples
    found = compare(before, after)
    strata = await _strata(it, measure)
    same_mix = stratified(strata) if strata else None
    judged = same_mix or found
    return {
        "name": measure.name,
        "unit": measure.unit,
        "mean_before": rounded(before.mean, 9),
        "mean_after": rounded(after.mean, 9),
        "difference": rounded(found.difference, 9),
        "change_percent": rounded(100 * found.difference / before.mean, 2) if before.mean else None,
        "difference_low": rounded(found.low, 9),
        "difference_high": rounded(found.high, 9),
        "measured_before": before.count,
        "measured_after": after.count,
        "p_value": _p(found),
        "same_mix": _same_mix(strata, same_mix),
        "judged_by": "within features" if same_mix else "all requests",
        "direction": _direction(measure, judged),
    }


def _same_mix(strata: Sequence[tuple[Sample, Sample]], found: Difference | None) -> JsonObject | None:
    """Return the difference within features, at the mix of features after."""
    if found is None:
        return None
    requests = sum(after.count for _, after in strata)
    before = sum(after.count * before.mean for before, after in strata) / requests
    return {
        "features": len(strata),
        "mean_before": rounded(before, 9),
        "mean_after": rounded(before + found.difference, 9),
        "change_percent": rounded(100 * found.difference / before, 2) if before else None,
        "p_value": _p(found),
    }


def _p(found: Difference) -> float | None:
    return None if found.p_value is None else rounded(found.p_value, 6)


def _direction(measure: _Measure, found: Difference) -> str:
    if found.p_value is None:
        return "too few requests to tell"
    if found.p_value >= SIGNIFICANT:
        return "no clear difference"
    names = ("worse", "better") if measure.good else ("less", "more")
    return names[(found.difference > 0) == (measure.good >= 0)]


async def _strata(it: Ready, measure: _Measure) -> list[tuple[Sample, Sample]]:
    """Return the measure by feature, before and after: those features that are used on both sides."""
    if not it.has(Role.FEATURE):
        return []
    sides = ", ".join(
        f"count(value) FILTER (WHERE {side}), avg(value) FILTER (WHERE {side}), var_samp(value) FILTER (WHERE {side})"
        for side in ("NOT is_after", "is_after")
    )
    rows = await it.facts.session.run(
        f"SELECT {sides} FROM (SELECT feature, is_after, ({measure.sql})::DOUBLE AS value FROM sides "
        "WHERE feature IS NOT NULL) GROUP BY feature HAVING count(value) FILTER (WHERE is_after) > 1 "
        "AND count(value) FILTER (WHERE NOT is_after) > 1 "
        f"ORDER BY count(value) DESC, feature LIMIT {MAX_STRATA}"
    )
    return [(_sample(row[:3], measure.factor), _sample(row[3:], measure.factor)) for row in rows.rows]


def _sample(cells: Sequence[Cell], factor: float) -> Sample:
    count, mean, variance = cells
    if not int(str(count)):
        return Sample(0, 0.0, 0.0)
    return Sample(int(str(count)), number(mean) * factor, (0.0 if variance is None else number(variance)) * factor**2)


def _verdict(measures: list[JsonObject]) -> JsonObject:
    """Return what got better and what got worse beyond chance; never more than that."""
    judged = [m for m in measures if m["name"] in {"cost_per_request", "latency", "error_rate"}]
    better, worse = (
        [str(m["name"]) for m in judged if m["direction"] == direction] for direction in ("better", "worse")
    )
    said = {"cost_per_request": "cost per request", "latency": "latency", "error_rate": "error rate"}
    if not judged:
        words = "There is neither cost nor latency nor status to judge the change by"
    elif better and worse:
        words = f"A trade: better {', '.join(said[n] for n in better)}, worse {', '.join(said[n] for n in worse)}"
    elif better:
        words = f"Worth it by what was measured: better {', '.join(said[n] for n in better)}, nothing clearly worse"
    elif worse:
        words = f"Not worth it by what was measured: worse {', '.join(said[n] for n in worse)}, nothing clearly better"
    else:
        words = "No clear difference between before and after"
    return {"words": words, "better": list[JsonValue](better), "worse": list[JsonValue](worse)}


async def _mix(it: Ready) -> JsonObject:
    """Return how the shares of models and features moved."""
    found: dict[str, JsonValue] = {}
    for name, column, role in (("model", "key", Role.MODEL), ("feature", "feature", Role.FEATURE)):
        if not it.has(role):
            found[name] = None
            continue
        rows = await it.facts.session.run(
            f"SELECT {column}, count_if(NOT is_after), count_if(is_after), avg(cost) FILTER (WHERE NOT is_after), "
            f"avg(cost) FILTER (WHERE is_after) FROM sides WHERE {column} IS NOT NULL GROUP BY 1 "
            f"ORDER BY count(*) DESC, 1 LIMIT {SHOWN_SHARES}"
        )
        (counts,) = (
            await it.facts.session.run(
                f"SELECT count_if(NOT is_after), count_if(is_after) FROM sides WHERE {column} IS NOT NULL"
            )
        ).rows
        totals = [whole(cell) or 1 for cell in counts]
        found[name] = [
            {
                "name": clip(str(row[0])),
                "share_before": rounded((whole(row[1]) or 0) / totals[0], 6),
                "share_after": rounded((whole(row[2]) or 0) / totals[1], 6),
                "cost_per_request_before_usd": _mean(row[3]),
                "cost_per_request_after_usd": _mean(row[4]),
            }
            for row in rows.rows
        ]
    return found


def _mean(cell: Cell) -> float | None:
    return None if cell is None else rounded(number(cell) / UNITS_PER_USD, 9)


def _sql(moment: datetime) -> str:
    return f"TIMESTAMP {sql_text(moment.strftime('%Y-%m-%d %H:%M:%S.%f'))}"


def _time(cell: object) -> datetime:
    if isinstance(cell, datetime):
        return cell
    return datetime.fromisoformat(str(cell)).replace(tzinfo=UTC)
