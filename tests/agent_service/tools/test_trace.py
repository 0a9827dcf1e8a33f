"""A real production trace: every figure against plain Python over the same file."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest

from agent_service.engine.events import JsonObject
from tests.support.datasets import TRACE, DataBench, items, number, part, percentile, read_csv, usd

ROWS = read_csv(TRACE.read_bytes())
# The trace has 7 digits after the second and the last is always 0: nothing is lost with 6.
TIMES = [datetime.strptime(row["TIMESTAMP"][:-1], "%Y-%m-%d %H:%M:%S.%f") for row in ROWS]  # noqa: DTZ007 - UTC
INPUT = [int(row["ContextTokens"]) for row in ROWS]
OUTPUT = [int(row["GeneratedTokens"]) for row in ROWS]


def rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds") + "Z"


def busiest(weights: list[int], start_of: Callable[[datetime], datetime]) -> JsonObject:
    totals: Counter[datetime] = Counter()
    for moment, weight in zip(TIMES, weights, strict=True):
        totals[start_of(moment)] += weight
    start = min(totals, key=lambda bucket: (-totals[bucket], bucket))
    inside = [index for index, moment in enumerate(TIMES) if start_of(moment) == start]
    return {
        "start": rfc3339(start),
        "requests": len(inside),
        "input_tokens": sum(INPUT[index] for index in inside),
        "output_tokens": sum(OUTPUT[index] for index in inside),
    }


def minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def hour(moment: datetime) -> datetime:
    return minute(moment).replace(minute=0)


def day(moment: datetime) -> datetime:
    return hour(moment).replace(hour=0)


@pytest.fixture
async def summary() -> JsonObject:
    async with DataBench() as bench:
        await bench.put("trace.csv.gz", TRACE.read_bytes())
        return await bench.result("usage_summary", assume_model="gpt-4o")


def test_the_trace_is_what_its_notice_says() -> None:
    assert len(ROWS) == 19_366
    assert all(row["TIMESTAMP"].endswith("0") for row in ROWS)


async def test_totals_time_and_peaks_are_exact(summary: JsonObject) -> None:
    assert part(summary, "dataset", "rows") == 19_366
    assert part(summary, "totals", "requests") == 19_366
    assert part(summary, "totals", "input_tokens") == sum(INPUT)
    assert part(summary, "totals", "output_tokens") == sum(OUTPUT)
    assert part(summary, "totals", "total_tokens") == sum(INPUT) + sum(OUTPUT)
    first, last = min(TIMES), max(TIMES)
    assert part(summary, "time", "start") == rfc3339(first)
    assert part(summary, "time", "end") == rfc3339(last)
    assert part(summary, "time", "span_s") == (last - first) / timedelta(seconds=1)
    assert part(summary, "time", "days") == 1
    ones = [1] * len(ROWS)
    assert part(summary, "peaks", "minute") == busiest(ones, minute)
    assert part(summary, "peaks", "hour") == busiest(ones, hour)
    assert part(summary, "peaks", "day") == busiest(ones, day)
    both = [a + b for a, b in zip(INPUT, OUTPUT, strict=True)]
    assert part(summary, "peaks", "tokens_minute") == busiest(both, minute)


async def test_percentiles_interpolate_between_the_closest_ranks(summary: JsonObject) -> None:
    for column, values in (("input_tokens", INPUT), ("output_tokens", OUTPUT)):
        for key, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            assert part(summary, "per_request", column, key) == round(percentile(values, share), 3)
        assert part(summary, "per_request", column, "min") == min(values)
        assert part(summary, "per_request", column, "max") == max(values)
        assert part(summary, "per_request", column, "mean") == round(sum(values) / len(values), 3)
    assert "linear interpolation" in str(part(summary, "percentile_definition"))


async def test_assumed_model_prices_every_request_exactly(summary: JsonObject) -> None:
    cost = (sum(INPUT) * Decimal("2.5") + sum(OUTPUT) * Decimal(10)) / 1_000_000
    assert part(summary, "totals", "cost_usd") == usd(cost)
    assert part(summary, "pricing", "assumed_model") == "gpt-4o"
    assert part(summary, "pricing", "requests_priced") == 19_366
    assert part(summary, "pricing", "requests_unpriced") == 0
    assert part(summary, "per_request", "cost_usd_mean") == usd(cost / len(ROWS))


async def test_what_is_missing_is_said_and_nothing_is_invented() -> None:
    async with DataBench() as bench:
        await bench.put("trace.csv.gz", TRACE.read_bytes())
        plain = await bench.result("usage_summary")
        latency = await bench.result("latency_analysis")
    missing = {entry["column"] for entry in items(plain, "missing")}
    assert {"model", "latency", "cost"} <= missing
    assert part(plain, "totals", "cost_usd") is None
    assert part(plain, "pricing", "source") == "none"
    assert part(plain, "pricing", "requests_unpriced") == 19_366
    assert part(plain, "latency_ms") is None
    assert part(plain, "totals", "errors") is None
    groups = part(plain, "groups")
    assert isinstance(groups, Mapping)
    assert list(groups) == ["day"]
    assert part(plain, "sufficiency", "level") == "partial"
    assert part(latency, "overall") is None
    assert part(latency, "slowest") == []
    assert "latency" in {entry["column"] for entry in items(latency, "missing")}


async def test_the_pattern_of_the_trace() -> None:
    async with DataBench() as bench:
        await bench.put("trace.csv.gz", TRACE.read_bytes())
        pattern = await bench.result("usage_pattern", buckets=60)
    by_hour = Counter(moment.hour for moment in TIMES)
    assert [row["requests"] for row in items(pattern, "hourly")] == [by_hour[index] for index in range(24)]
    assert part(pattern, "busiest_hour") == 18
    assert part(pattern, "busiest_weekday") == "Thursday"
    points = items(pattern, "series", "points")
    assert part(pattern, "series", "bucket_s") == 60
    assert sum(number(point, "requests") for point in points) == 19_366
    assert sum(number(point, "input_tokens") for point in points) == sum(INPUT)
    ordered = sorted(TIMES)
    steps = sorted(((b - a, a, b) for a, b in pairwise(ordered)), key=lambda gap: (-gap[0], gap[1]))
    assert items(pattern, "gaps") == [
        {"start": rfc3339(a), "end": rfc3339(b), "duration_s": step / timedelta(seconds=1)} for step, a, b in steps[:5]
    ]
