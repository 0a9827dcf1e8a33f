"""Unusual buckets of time, against plain Python."""

import statistics
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from agent_service.tools.anomalies import CHOSEN_BUCKETS, MAX_BUCKETS
from agent_service.tools.outliers import MIN_VALUES
from tests.support.datasets import TRACE, DataBench, items, number, part, percentile, read_csv, table, unusual

pytestmark = pytest.mark.asyncio(loop_scope="module")

START = datetime(2026, 3, 2, tzinfo=UTC)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[DataBench]:
    async with DataBench() as made:
        yield made


def log(counts: Sequence[int], step: timedelta, *, latency: Sequence[float] = ()) -> bytes:
    """A log with so many requests in each step; every request of a step has the step's latency."""
    lines = []
    for index, count in enumerate(counts):
        for request in range(count):
            when = START + index * step + request * step / (count + 1)
            took = latency[index] if latency else 100
            status = "error" if request % 10 == 9 else "ok"
            lines.append(f"{when.isoformat()},gpt-4o,{100 + request},10,{took},{status}")
    return table("timestamp,model,input_tokens,output_tokens,latency_ms,status", *lines)


HOURLY = [6, 7, 8, 6, 7, 9, 8, 7, 60, 8, 6, 7, 0, 8, 7, 6, 8, 7, 9, 8, 7, 6, 8, 7, 3]


async def test_every_anomaly_is_one_by_plain_python_and_none_is_left_out(bench: DataBench) -> None:
    await bench.put("hourly.csv", log(HOURLY, timedelta(hours=1)))
    found = await bench.result("anomaly_scan", bucket="hour", top=50)
    assert part(found, "bucket") == "hour"
    assert part(found, "buckets") == len(HOURLY)
    expected = {}
    for metric, values in measured(HOURLY).items():
        for hour, value in enumerate(values):
            methods = unusual(values, value)
            low = value < statistics.median(values)
            if methods and not (low and hour in {0, len(values) - 1}):
                expected[metric, (START + timedelta(hours=hour)).strftime("%Y-%m-%dT%H:%M:%S.000000Z")] = methods
    shown = {(str(one["metric"]), str(one["bucket"])): one for one in items(found, "anomalies")}
    got = {key: {str(name) for name in methods_of(one["methods"])} for key, one in shown.items()}
    assert got == expected
    peak = shown["requests", "2026-03-02T08:00:00.000000Z"]
    mean, stdev = statistics.fmean(HOURLY), statistics.stdev(HOURLY)
    assert number(peak, "value") == 60
    assert number(peak, "score") == pytest.approx((60 - mean) / stdev, abs=0.001)
    assert number(peak, "expected_high") == percentile(HOURLY, 0.75) + 1.5 * (
        percentile(HOURLY, 0.75) - percentile(HOURLY, 0.25)
    )
    assert peak["direction"] == "high"
    silent = shown["requests", "2026-03-02T12:00:00.000000Z"]
    assert (silent["value"], silent["direction"]) == (0.0, "low")
    assert part(found, "anomalies_total") == len(expected)


def methods_of(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def measured(counts: Sequence[int]) -> dict[str, list[float]]:
    """Each measure of `log`, bucket by bucket."""
    tokens = [sum(110 + request for request in range(count)) for count in counts]
    costs = [round(sum((100 + request) * 2.5 + 10 * 10 for request in range(count)) / 1_000_000, 6) for count in counts]
    return {
        "requests": list(map(float, counts)),
        "tokens": list(map(float, tokens)),
        "cost_usd": costs,
        "errors": [float(count // 10) for count in counts],
    }


async def test_the_p95_of_latency_is_judged_where_enough_was_measured(bench: DataBench) -> None:
    counts = [6] * 15 + [4] + [6] * 4
    latency = [100.0 + index for index in range(20)]
    latency[10] = latency[15] = 5_000.0
    await bench.put("latency.csv", log(counts, timedelta(days=1), latency=latency))
    found = await bench.result("anomaly_scan", bucket="day")
    slow = [one for one in items(found, "anomalies") if one["metric"] == "latency_p95_ms"]
    assert [(one["bucket"], one["value"]) for one in slow] == [("2026-03-12T00:00:00.000000Z", 5_000.0)]
    (metric,) = [one for one in items(found, "metrics") if one["metric"] == "latency_p95_ms"]
    assert metric["buckets"] == 19  # the 16th has too few requests


@pytest.mark.parametrize(
    ("buckets", "enough"), [(MIN_VALUES - 1, False), (MIN_VALUES, True)], ids=["too-few", "just-enough"]
)
async def test_too_little_data_is_said(bench: DataBench, buckets: int, *, enough: bool) -> None:
    await bench.put("short.csv", log([2] * buckets, timedelta(hours=1)))
    output = await bench.call("anomaly_scan", bucket="hour")
    assert ("too few" not in output.summary) is enough
    assert (part(output.result, "too_little") == "") is enough
    assert part(output.result, "anomalies") == []


@pytest.mark.parametrize(
    ("asked", "span", "unit"),
    [
        ("auto", timedelta(minutes=CHOSEN_BUCKETS - 1), "minute"),
        ("auto", timedelta(minutes=CHOSEN_BUCKETS), "hour"),
        ("auto", timedelta(hours=CHOSEN_BUCKETS - 1), "hour"),
        ("auto", timedelta(hours=CHOSEN_BUCKETS), "day"),
        ("hour", timedelta(hours=MAX_BUCKETS - 1), "hour"),
        ("hour", timedelta(hours=MAX_BUCKETS), "day"),
        ("day", timedelta(hours=1), "day"),
        ("auto", timedelta(days=3 * MAX_BUCKETS), "day"),
    ],
)
async def test_the_unit_follows_from_the_span(bench: DataBench, asked: str, span: timedelta, unit: str) -> None:
    lines = [f"{(START + place).isoformat()},1,1" for place in (timedelta(), span)]
    await bench.put("span.csv", table("timestamp,input_tokens,output_tokens", *lines))
    found = await bench.result("anomaly_scan", bucket=asked)
    assert part(found, "bucket") == unit
    assert number(found, "buckets") <= MAX_BUCKETS
    assert bool(part(found, "unit_note")) is (asked == "hour" and unit == "day")


async def test_without_times_it_says_what_to_bring(bench: DataBench) -> None:
    await bench.put("timeless.csv", table("model,input_tokens,output_tokens", "gpt-4o,1,1"))
    found = await bench.result("anomaly_scan")
    assert "timestamp" in [entry["column"] for entry in items(found, "missing")]
    assert part(found, "anomalies") == []


async def test_the_trace_of_an_hour_is_scanned_by_minutes(bench: DataBench) -> None:
    await bench.put("trace.csv.gz", TRACE.read_bytes())
    found = await bench.result("anomaly_scan", dataset_id="trace.csv.gz", top=50)
    minutes: dict[str, int] = {}
    for row in read_csv(TRACE.read_bytes()):
        minute = f"{row['TIMESTAMP'][:16].replace(' ', 'T')}:00.000000Z"
        minutes[minute] = minutes.get(minute, 0) + 1
    assert part(found, "bucket") == "minute"
    assert part(found, "buckets") == len(minutes)
    values = [float(count) for count in minutes.values()]
    (metric,) = [one for one in items(found, "metrics") if one["metric"] == "requests"]
    assert number(metric, "mean") == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert number(metric, "stdev") == pytest.approx(statistics.stdev(values), abs=1e-6)
    for one in (one for one in items(found, "anomalies") if one["metric"] == "requests"):
        assert one["value"] == minutes[str(one["bucket"])]
