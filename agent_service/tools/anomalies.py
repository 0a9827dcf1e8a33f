"""The tool anomaly_scan: the hours or days that are not like the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import Field

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.analysis import (
    PricedArgs,
    Workbench,
    bounded,
    dataset_part,
    filter_part,
    mapping_part,
    missing_part,
    notes_part,
    unused_part,
)
from agent_service.tools.facts import Facts
from agent_service.tools.measures import PERCENTILES, counted, moment, number, rounded, time_span, whole
from agent_service.tools.outliers import IQR_LIMIT, MIN_VALUES, Z_LIMIT, Baseline, baseline
from agent_service.tools.pricing import Pricing, price, usd
from agent_service.tools.roles import Missing, Role, missing
from agent_service.tools.sandbox import Cell

Unit = Literal["minute", "hour", "day"]

SECONDS: Final[Mapping[Unit, int]] = {"minute": 60, "hour": 3_600, "day": 86_400}
"""Lengths of the buckets, shortest first."""

MAX_BUCKETS: Final = 1_000
"""Of one scan; the unit is chosen, or made larger, so that there are no more."""

CHOSEN_BUCKETS: Final = 800
"""Nobody asked for a unit: the shortest one is taken that makes no more buckets than these."""

MIN_MEASURED: Final = 5
"""Requests with a latency that a bucket needs for its p95."""

MAX_ANOMALIES: Final = 50
"""That one result shows."""


class AnomalyScanArgs(PricedArgs):
    """Arguments of anomaly_scan."""

    bucket: Literal["auto", "minute", "hour", "day"] = Field(
        default="auto", description="Length of the buckets of time; auto: by the time span."
    )
    top: int = Field(default=20, ge=1, le=MAX_ANOMALIES, description="Anomalies shown, the most unusual first.")


@dataclass(frozen=True, slots=True)
class Series:
    """One measure over time: slot (number of the bucket since 1970) → value. Slots without a value are not there."""

    metric: str
    unit: str
    values: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A bucket in which one measure is out of its expected range."""

    slot: int
    metric: str
    value: float
    expected: tuple[float, float]
    score: float
    methods: tuple[str, ...]

    @property
    def is_high(self) -> bool:
        """True for more than expected."""
        return self.value > self.expected[1]


async def anomaly_scan(bench: Workbench, context: ToolContext, args: AnomalyScanArgs) -> ToolOutput:
    """Scan for anomalies."""
    async with bench.load(context, args) as (opened, facts):
        await context.progress("Columns recognised, looking at every bucket of time", 0.3)
        pricing = await price(facts, args.assume_model, bench.clock.now())
        span = await time_span(facts)
        fixed: JsonObject = {
            "dataset": dataset_part(opened.chosen, facts.rows),
            "filter": filter_part(args, facts),
            "mapping": mapping_part(facts),
            "unused_columns": unused_part(facts),
            "notes": notes_part(facts),
            "timezone": "UTC",
            "time": span,
            "method": _method(),
            "pricing": {"source": pricing.source, "assumed_model": pricing.assumed_model or None},
            "missing": missing_part(_missing(facts, pricing)),
        }
        if span is None:
            empty: JsonObject = {"bucket": None, "buckets": 0, "metrics": [], "anomalies": [], "too_little": ""}
            result: JsonObject = {**fixed, **empty, "anomalies_total": 0, "anomalies_not_shown": 0}
            return ToolOutput(f"{opened.session.name} has no times, so no bucket can be unusual", result)
        unit, slots = await _buckets(facts, args.bucket)
        series = await _series(facts, SECONDS[unit], slots)
    usual = {one.metric: baseline(tuple(one.values.values())) for one in series}
    found = find(series, usual, slots)

    async def make(top: int) -> JsonObject:
        return {
            **fixed,
            "bucket": unit,
            "buckets": len(slots),
            "unit_note": _unit_note(args.bucket, unit),
            "metrics": [_metric_part(one, usual[one.metric], found) for one in series],
            "anomalies": [_part(anomaly, SECONDS[unit]) for anomaly in found[:top]],
            "anomalies_total": len(found),
            "anomalies_not_shown": max(0, len(found) - top),
            "too_little": _too_little(unit, slots),
        }

    return ToolOutput(_summary(opened.session.name, unit, slots, found), await bounded(args.top, make))


def find(series: Sequence[Series], usual: Mapping[str, Baseline | None], slots: range) -> list[Anomaly]:
    """Return what is unusual, the farthest from the mean first.

    The first and the last bucket may have been cut off by the data's ends: they are never too low.
    """
    found: list[Anomaly] = []
    for one in series:
        base = usual[one.metric]
        if base is None:
            continue
        for slot, value in one.values.items():
            methods = base.methods(value)
            anomaly = Anomaly(slot, one.metric, value, base.expected(value), base.z_score(value), methods)
            if methods and (anomaly.is_high or slots[0] < slot < slots[-1]):
                found.append(anomaly)
    return sorted(found, key=lambda anomaly: (-abs(anomaly.score), anomaly.slot, anomaly.metric))


async def _buckets(facts: Facts, asked: str) -> tuple[Unit, range]:
    """Return the unit and the slots from the first request to the last."""
    ((first, last),) = (await facts.session.run("SELECT epoch_us(min(ts)), epoch_us(max(ts)) FROM f")).rows
    start, end = int(str(first)) // 1_000_000, int(str(last)) // 1_000_000
    bound = CHOSEN_BUCKETS if asked == "auto" else MAX_BUCKETS
    units = [unit for unit in SECONDS if asked == "auto" or SECONDS[unit] >= SECONDS[_unit(asked)]]
    made = {unit: range(start // SECONDS[unit], end // SECONDS[unit] + 1) for unit in units}
    unit = next((unit for unit, slots in made.items() if len(slots) <= bound), units[-1])
    return unit, made[unit][-MAX_BUCKETS:]


def _unit(asked: str) -> Unit:
    return next(unit for unit in SECONDS if unit == asked)


async def _series(facts: Facts, size: int, slots: range) -> list[Series]:
    """Measure every bucket; sums are 0 where nothing was requested, a percentile is not there."""
    have = facts.readings
    rows = (
        await facts.session.run(
            f"SELECT epoch_us(ts) // {size * 1_000_000} AS slot, count(*), "
            "sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)), sum(cost), count_if(failed), "
            "count(latency), quantile_cont(latency, 0.95) "
            f"FROM priced WHERE ts IS NOT NULL AND epoch_us(ts) >= {slots[0] * size * 1_000_000} GROUP BY slot"
        )
    ).rows
    by_slot: dict[int, Sequence[Cell]] = {int(str(row[0])): row for row in rows}

    def sums(metric: str, unit: str, column: int) -> Series:
        return Series(metric, unit, {slot: _count(by_slot.get(slot), column) for slot in slots})

    series = [sums("requests", "requests", 1)]
    if Role.INPUT_TOKENS in have or Role.OUTPUT_TOKENS in have:
        series.append(sums("tokens", "tokens", 2))
    if any(row[3] is not None for row in rows):
        costs = {slot: _cost(by_slot.get(slot)) for slot in slots}
        series.append(Series("cost_usd", "USD", costs))
    if Role.STATUS in have:
        series.append(sums("errors", "requests", 4))
    if Role.LATENCY in have:
        measured = {slot: row for slot, row in sorted(by_slot.items()) if (whole(row[5]) or 0) >= MIN_MEASURED}
        series.append(Series("latency_p95_ms", "ms", {slot: number(row[6]) for slot, row in measured.items()}))
    return series


def _count(row: Sequence[Cell] | None, column: int) -> float:
    return 0.0 if row is None else float(whole(row[column]) or 0)


def _cost(row: Sequence[Cell] | None) -> float:
    return 0.0 if row is None or row[3] is None else float(usd(int(str(row[3]))))


def _missing(facts: Facts, pricing: Pricing) -> list[Missing]:
    found = facts.missing(Role.TIMESTAMP, Role.LATENCY, Role.STATUS)
    if not pricing.priced:
        found += facts.missing(Role.INPUT_TOKENS, Role.OUTPUT_TOKENS, Role.MODEL)
        if Role.COST not in facts.readings:
            found.append(missing(Role.COST, facts.unusable.get(Role.COST, "")))
    return found


# --- Parts of the result ---------------------------------------------------------------------------------------------


def _method() -> JsonObject:
    return {
        "iqr": f"outside of the quartiles by more than {IQR_LIMIT:g} interquartile ranges",
        "z_score": f"at least {Z_LIMIT:g} standard deviations from the mean",
        "min_buckets": MIN_VALUES,
        "percentile_definition": PERCENTILES,
    }


def _unit_note(asked: str, unit: Unit) -> str:
    if asked in {"auto", unit}:
        return ""
    return f"buckets of a {unit}: by the {asked} there would be more than {MAX_BUCKETS:,}"


def _too_little(unit: Unit, slots: range) -> str:
    if len(slots) >= MIN_VALUES:
        return ""
    shorter = "" if unit == "minute" else ", or ask for shorter buckets"
    return (
        f"There are only {counted(len(slots), unit)} from the first request to the last; what is unusual can be said "
        f"from {MIN_VALUES} on. Bring a longer log{shorter}."
    )


def _metric_part(one: Series, base: Baseline | None, found: Sequence[Anomaly]) -> JsonObject:
    part: dict[str, JsonValue] = {
        "metric": one.metric,
        "unit": one.unit,
        "buckets": len(one.values),
        "anomalies": sum(anomaly.metric == one.metric for anomaly in found),
    }
    values: Mapping[str, float] = {} if base is None else _numbers(base)
    for name in ("mean", "stdev", "q1", "median", "q3", "iqr_low", "iqr_high"):
        part[name] = rounded(values[name], 6) if name in values else None
    too_few = f"{counted(len(one.values), 'bucket')} with a value; {MIN_VALUES} are needed"
    part["not_judged_because"] = "" if base is not None else too_few
    return part


def _numbers(base: Baseline) -> dict[str, float]:
    low, high = base.fences
    return {
        "mean": base.mean,
        "stdev": base.stdev,
        "q1": base.q1,
        "median": base.median,
        "q3": base.q3,
        "iqr_low": low,
        "iqr_high": high,
    }


def _part(anomaly: Anomaly, size: int) -> JsonObject:
    low, high = anomaly.expected
    return {
        "bucket": moment(anomaly.slot * size * 1_000_000),
        "metric": anomaly.metric,
        "value": rounded(anomaly.value, 6),
        "expected_low": rounded(max(0.0, low), 6),
        "expected_high": rounded(high, 6),
        "score": rounded(anomaly.score),
        "direction": "high" if anomaly.is_high else "low",
        "methods": list(anomaly.methods),
    }


def _summary(name: str, unit: Unit, slots: range, found: Sequence[Anomaly]) -> str:
    if len(slots) < MIN_VALUES:
        return f"{counted(len(slots), unit)} in {name}: too few to say what is unusual"
    if not found:
        return f"Nothing unusual in {counted(len(slots), unit)} of {name}"
    first = found[0]
    when = (moment(first.slot * SECONDS[unit] * 1_000_000) or "")[:16].replace("T", " ")
    anomalies = "1 anomaly" if len(found) == 1 else f"{len(found):,} anomalies"
    most = f"most of all {first.metric.replace('_', ' ')} at {when} UTC"
    return f"{anomalies} in {counted(len(slots), unit)} of {name}, {most}"
