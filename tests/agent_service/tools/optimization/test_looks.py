"""Prices, other models, capacity, and before and after: against plain Python."""

import random
import statistics
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import pytest_asyncio

from agent_service.engine.tool import ToolError
from tests.support.datasets import TRACE, items, number, part, percentile, read_csv, table, usd
from tests.support.optimization import OptimizationBench, Request, log, price

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY = datetime(2026, 5, 10, tzinfo=UTC)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[OptimizationBench]:
    async with OptimizationBench() as bench:
        yield bench


async def put(bench: OptimizationBench, content: bytes, name: str = "log.csv") -> str:
    return (await bench.put(name, content)).file_id


# --- Prices ----------------------------------------------------------------------------------------------------------


async def test_prices_of_a_day(bench: OptimizationBench) -> None:
    result = await bench.found("price_lookup", models=["gpt-4o", "claude-sonnet-4-5", "gpt-4o-maxi"])
    gpt, claude, unknown = items(result, "models")
    assert (gpt["input_usd_per_mtok"], gpt["output_usd_per_mtok"], gpt["cached_usd_per_mtok"]) == (2.5, 10, 1.25)
    assert part(gpt, "batch") == {"known": True, "input_usd_per_mtok": 1.25, "output_usd_per_mtok": 5}
    assert part(claude, "larger_requests", 0, "above_input_tokens") == 200_000
    assert claude["cache_write_usd_per_mtok"] == 3.75
    assert unknown["found"] is False
    assert "gpt-4o-mini" in str(unknown["near_names"])
    early = await bench.found("price_lookup", models=["gpt-4o"], date="2026-10-13")
    assert "only from 2026-10-14" in str(part(early, "models", 0, "batch", "why"))


@pytest.mark.parametrize("year", [1969, 2201])
async def test_a_time_far_off_is_refused_in_words(bench: OptimizationBench, year: int) -> None:
    with pytest.raises(ToolError, match=f"The year {year} is out of range"):
        await bench.run("price_lookup", models=["gpt-4o"], date=f"{year}-05-01")


async def test_the_same_traffic_with_other_models(bench: OptimizationBench) -> None:
    rows = [
        Request(DAY, "gpt-4o", "chat", 1_000, 100, 200, latency_ms=700),
        Request(DAY, "gpt-4o-mini", "chat", 500, 300, latency_ms=300),
    ]
    data = await put(bench, log(rows))
    result = await bench.found("compare_models", dataset_id=data, candidates=["gpt-4o", "gpt-4o-mini", "my-model"])
    cheap, dear = items(result, "models")
    assert cheap["cost_usd"] == usd(sum((price(row, model="gpt-4o-mini") for row in rows), Decimal(0)))
    assert dear["cost_usd"] == usd(sum((price(row, model="gpt-4o") for row in rows), Decimal(0)))
    assert number(dear, "change_percent") > 0 > number(cheap, "change_percent")
    assert (number(cheap, "measured", "p50_ms"), number(dear, "measured", "p50_ms")) == (300, 700)
    assert "'my-model' cannot be priced" in str(part(result, "unknown", 0))


async def test_only_unknown_models_are_an_error_in_words(bench: OptimizationBench) -> None:
    data = await put(bench, log([Request(DAY, "gpt-4o", "chat", 1, 1)]))
    with pytest.raises(ToolError, match="'my-model' cannot be priced: the price catalogue does not know this model"):
        await bench.run("compare_models", dataset_id=data, candidates=["my-model"])


# --- Capacity --------------------------------------------------------------------------------------------------------


async def test_peaks_of_the_trace_against_plain_counting(bench: OptimizationBench) -> None:
    rows = read_csv(TRACE.read_bytes())
    requests = Counter(row["TIMESTAMP"][:16] for row in rows)
    tokens: Counter[str] = Counter()
    for row in rows:
        tokens[row["TIMESTAMP"][:16]] += int(row["ContextTokens"]) + int(row["GeneratedTokens"])
    data = await put(bench, TRACE.read_bytes(), "trace.csv.gz")
    result = await bench.found(
        "forecast_capacity", dataset_id=data, growth_percent=50, rpm_limit=500, tpm_limit=500_000
    )
    rpm, tpm = part(result, "peaks", "requests_per_minute"), part(result, "peaks", "tokens_per_minute")
    assert (number(rpm, "now"), number(rpm, "then")) == (max(requests.values()), 1.5 * max(requests.values()))
    assert (number(tpm, "now"), number(tpm, "then")) == (max(tokens.values()), 1.5 * max(tokens.values()))
    assert number(rpm, "minutes_over") == sum(1.5 * count > 500 for count in requests.values())
    assert number(tpm, "minutes_over") == sum(1.5 * count > 500_000 for count in tokens.values())
    assert part(result, "cost", "then_usd") is None
    assert "model" in {entry["column"] for entry in items(result, "missing")}


@pytest.mark.parametrize(("limit", "fits"), [(3, True), (2, False)], ids=["at-the-limit", "over"])
async def test_a_peak_at_the_limit_fits(bench: OptimizationBench, limit: int, fits: bool) -> None:  # noqa: FBT001
    rows = [Request(DAY + timedelta(seconds=second), "gpt-4o", "chat", 100_000, 0) for second in (0, 59, 60)]
    data = await put(bench, log(rows))
    result = await bench.found("forecast_capacity", dataset_id=data, growth_percent=50, rpm_limit=limit)
    peak = part(result, "peaks", "requests_per_minute")
    assert (number(peak, "now"), number(peak, "then"), part(peak, "fits")) == (2, 3, fits)
    assert number(peak, "growth_until_limit_percent") == (limit / 2 - 1) * 100
    assert (number(result, "cost", "now_usd"), number(result, "cost", "then_usd")) == (0.75, 1.125)


async def test_without_times_there_are_no_peaks(bench: OptimizationBench) -> None:
    data = await put(bench, table("model,input_tokens,output_tokens", "gpt-4o,100000,0"))
    output = await bench.run("forecast_capacity", dataset_id=data, growth_percent=100)
    assert "no times" in output.summary
    assert number(output.result, "cost", "then_usd") == 0.5
    assert "timestamp" in {entry["column"] for entry in items(output.result, "missing")}


# --- Before and after ------------------------------------------------------------------------------------------------


def upgrade(seed: int = 7) -> list[Request]:
    """From May 10 on: another model, faster, a third of the requests more, and more failures."""
    chance = random.Random(seed)
    before = [
        Request(DAY - timedelta(minutes=1 + i), "gpt-4o", "chat", 1_000 + chance.randrange(200), 100, latency_ms=lat)
        for i, lat in enumerate(chance.randrange(900, 1_300) for _ in range(60))
    ]
    after = [
        Request(
            DAY + timedelta(minutes=i), "gpt-4o-mini", "chat", 1_000 + chance.randrange(200), 100,
            latency_ms=lat, status="error" if i % 2 else "ok",
        )
        for i, lat in enumerate(chance.randrange(500, 700) for _ in range(80))
    ]  # fmt: skip
    return [*before, *after]


async def test_before_and_after_against_the_statistics_module(bench: OptimizationBench) -> None:
    rows = upgrade()
    data = await put(bench, log(rows))
    result = await bench.found("evaluate_change", dataset_id=data, change_time="2026-05-10T00:00:00Z")
    sides = [[row for row in rows if (row.time >= DAY) is is_after] for is_after in (False, True)]
    measures = {str(measure["name"]): measure for measure in items(result, "measures")}
    values = [[float(row.latency_ms) for row in side] for side in sides]
    latency = measures["latency"]
    difference = statistics.mean(values[1]) - statistics.mean(values[0])
    error = sum(statistics.variance(side) / len(side) for side in values) ** 0.5
    assert number(latency, "difference") == pytest.approx(difference)
    assert number(latency, "difference_low") == pytest.approx(difference - 1.959964 * error)
    assert (number(latency, "measured_before"), number(latency, "measured_after")) == (60, 80)
    costs = [[float(price(row)) for row in side] for side in sides]
    assert number(measures["cost_per_request"], "mean_after") == pytest.approx(statistics.mean(costs[1]))
    assert number(measures["error_rate"], "mean_after") == 0.5
    directions = {name: measure["direction"] for name, measure in measures.items()}
    assert directions == {
        "cost_per_request": "better",
        "latency": "better",
        "error_rate": "worse",
        "input_tokens": "no clear difference",
        "output_tokens": "no clear difference",
    }
    assert str(part(result, "verdict", "words")).startswith("A trade: better cost per request, latency, worse error")
    assert number(result, "before", "latency_ms", "p95") == pytest.approx(percentile(values[0], 0.95))
    assert {entry["name"]: entry["share_after"] for entry in items(result, "mix", "model")} == {
        "gpt-4o-mini": 1.0,
        "gpt-4o": 0.0,
    }


async def test_a_change_of_the_mix_of_features_is_not_taken_for_one_of_cost(bench: OptimizationBench) -> None:
    rows = [
        Request(DAY + sign * timedelta(minutes=number), "gpt-4o", feature, size + number % 3, 0)
        for sign, feature, size, count in ((-1, "chat", 1_000, 60), (-1, "report", 9_000, 20),
                                           (1, "chat", 1_000, 20), (1, "report", 9_000, 60))
        for number in range(1, count + 1)
    ]  # fmt: skip
    result = await bench.found("evaluate_change", dataset_id=await put(bench, log(rows)), change_time="2026-05-10")
    (cost,) = [measure for measure in items(result, "measures") if measure["name"] == "cost_per_request"]
    # Each feature costs what it did: all of the difference is in the mix.
    assert number(cost, "change_percent") > 100
    assert number(cost, "p_value") < 0.01
    assert abs(number(cost, "same_mix", "change_percent")) < 0.1
    assert cost["direction"] == "no clear difference"
    shares = {entry["name"]: (entry["share_before"], entry["share_after"]) for entry in items(result, "mix", "feature")}
    assert shares == {"chat": (0.75, 0.25), "report": (0.25, 0.75)}


@pytest.mark.parametrize("day", ["2026-05-01", "2026-06-01"], ids=["none-before", "none-after"])
async def test_a_side_without_requests_is_said(bench: OptimizationBench, day: str) -> None:
    data = await put(bench, log(upgrade()))
    with pytest.raises(ToolError, match=r"has no request (before|after) .*it reaches from 2026-05-09"):
        await bench.run("evaluate_change", dataset_id=data, change_time=day)


async def test_without_times_before_and_after_cannot_be_told(bench: OptimizationBench) -> None:
    data = await put(bench, table("model,input_tokens,output_tokens", "gpt-4o,1,1"))
    with pytest.raises(ToolError, match=r"no usable time column\. Add a column such as timestamp"):
        await bench.run("evaluate_change", dataset_id=data, change_time="2026-05-10")
