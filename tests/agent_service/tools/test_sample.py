"""The built-in sample: remade from its seed, and every figure of it against plain Python."""

import gzip
from collections import Counter, defaultdict
from decimal import Decimal

import pytest

from agent_service.engine.events import JsonObject
from agent_service.tools.datasets import SAMPLE_PATH
from agent_service.tools.sample import generate
from tests.support.datasets import DataBench, items, number, part, percentile, read_csv, table, usd

ROWS = read_csv(SAMPLE_PATH.read_bytes())
MAX_FILE_BYTES = 400 * 1024
# US dollars per million tokens of input, output and cached input in October 2025.
PRICES = {
    "gpt-4o": ("2.5", "10", "1.25"),
    "gpt-4o-mini": ("0.15", "0.6", "0.075"),
    "claude-sonnet-4-5": ("3", "15", "0.3"),
    "gemini-2.5-flash": ("0.3", "2.5", "0.03"),
}


def cost(row: dict[str, str]) -> Decimal:
    fresh, answer, kept = (Decimal(price) for price in PRICES[row["model"]])
    cached = int(row["cached_tokens"])
    return (
        (int(row["input_tokens"]) - cached) * fresh + int(row["output_tokens"]) * answer + cached * kept
    ) / 1_000_000


def test_the_file_is_what_the_generator_makes() -> None:
    assert gzip.decompress(SAMPLE_PATH.read_bytes()).decode() == generate.text()
    assert SAMPLE_PATH.stat().st_size <= MAX_FILE_BYTES


def test_another_seed_makes_another_dataset() -> None:
    assert generate.text(1) != generate.text()


def test_the_readme_is_true() -> None:
    assert len(ROWS) == 10_062
    repeated = 1 - len({row["prompt_hash"] for row in ROWS}) / len(ROWS)
    assert 0.05 < repeated < 0.1
    spike = [row for row in ROWS if "2025-10-21T14:00" <= row["timestamp"] < "2025-10-21T14:20"]
    assert len(spike) >= 420
    assert Counter(row["user_id"] for row in spike).most_common(1)[0][0] == "user_007"
    assert len({row["user_id"] for row in ROWS}) <= 60
    assert all(int(row["cached_tokens"]) <= int(row["input_tokens"]) for row in ROWS)


@pytest.fixture
async def summary() -> JsonObject:
    async with DataBench() as bench:
        return await bench.result("usage_summary", top=20)


async def test_summary_of_the_sample(summary: JsonObject) -> None:
    assert part(summary, "dataset", "builtin_sample") is True
    assert "built-in sample" in str(part(summary, "dataset", "chosen_because"))
    assert part(summary, "totals", "requests") == len(ROWS)
    for column in ("input_tokens", "output_tokens", "cached_tokens"):
        assert part(summary, "totals", column) == sum(int(row[column]) for row in ROWS)
    assert part(summary, "totals", "cost_usd") == usd(sum((cost(row) for row in ROWS), Decimal(0)))
    failed = sum(row["status"] != "ok" for row in ROWS)
    assert part(summary, "totals", "errors") == failed
    assert part(summary, "totals", "error_rate") == round(failed / len(ROWS), 6)
    latencies = [float(row["latency_ms"]) for row in ROWS]
    for key, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        assert part(summary, "latency_ms", key) == pytest.approx(percentile(latencies, share), abs=0.001)
    assert part(summary, "sufficiency", "level") == "sufficient"
    assert part(summary, "missing") == []


@pytest.mark.parametrize(
    ("dimension", "column"), [("model", "model"), ("feature", "feature"), ("user", "user_id"), ("day", "timestamp")]
)
async def test_groups_of_the_sample(summary: JsonObject, dimension: str, column: str) -> None:
    expected: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in ROWS:
        expected[row[column][:10] if dimension == "day" else row[column]].append(row)
    shown = items(summary, "groups", dimension)
    assert len(shown) == min(20, len(expected))
    assert [entry["requests"] for entry in shown] == sorted(map(len, expected.values()), reverse=True)[: len(shown)]
    for entry in shown:
        rows = expected.pop(str(entry["name"]))
        assert entry["requests"] == len(rows)
        assert entry["input_tokens"] == sum(int(row["input_tokens"]) for row in rows)
        assert entry["cost_usd"] == usd(sum((cost(row) for row in rows), Decimal(0)))
        assert entry["errors"] == sum(row["status"] != "ok" for row in rows)
        p95 = percentile([float(row["latency_ms"]) for row in rows], 0.95)
        assert part(entry, "latency_ms", "p95") == pytest.approx(p95, abs=0.001)
    other = part(summary, "other", dimension)
    rest = [row for rows in expected.values() for row in rows]
    if rest:
        assert part(other, "groups") == len(expected)
        assert part(other, "requests") == len(rest)
        p50 = percentile([float(row["latency_ms"]) for row in rest], 0.5)
        assert part(other, "latency_ms", "p50") == pytest.approx(p50, abs=0.001)
    else:
        assert other is None


async def test_latency_by_model_and_the_slowest() -> None:
    async with DataBench() as bench:
        result = await bench.result("latency_analysis")
    by_model: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in ROWS:
        by_model[row["model"]].append(row)
    shown = items(result, "groups")
    assert {str(entry["name"]) for entry in shown} == set(by_model)
    assert [number(entry, "p95") for entry in shown] == sorted((number(entry, "p95") for entry in shown), reverse=True)
    for entry in shown:
        rows = by_model[str(entry["name"])]
        paces = [float(row["latency_ms"]) / int(row["output_tokens"]) for row in rows if int(row["output_tokens"])]
        assert entry["ms_per_output_token_p50"] == pytest.approx(percentile(paces, 0.5), abs=0.001)
        assert entry["p90"] == pytest.approx(percentile([float(row["latency_ms"]) for row in rows], 0.9), abs=0.001)
    slowest = sorted((float(row["latency_ms"]) for row in ROWS), reverse=True)[:5]
    assert [entry["latency_ms"] for entry in items(result, "slowest")] == slowest
    statuses = Counter(row["status"] for row in ROWS if row["status"] != "ok")
    assert {entry["name"]: entry["requests"] for entry in items(result, "errors", "by_status")} == statuses
    hours: dict[str, list[float]] = defaultdict(list)
    for row in ROWS:
        hours[row["timestamp"][:13]].append(float(row["latency_ms"]))
    worst = max(percentile(values, 0.95) for values in hours.values() if len(values) >= 5)
    assert number(result, "slowest_hours", 0, "p95") == pytest.approx(worst, abs=0.001)


async def test_the_sample_is_for_those_without_data_only() -> None:
    async with DataBench() as bench:
        listed = await bench.result("list_datasets")
        assert [entry["builtin_sample"] for entry in items(listed, "datasets")] == [True]
        assert part(await bench.result("describe_dataset", dataset_id="sample"), "dataset", "builtin_sample") is True
        await bench.put("mine.csv", table("model,input_tokens", "gpt-4o,1"))
        listed = await bench.result("list_datasets")
        assert [entry["name"] for entry in items(listed, "datasets")] == ["mine.csv"]
        with pytest.raises(Exception, match="only for users without data"):
            await bench.call("describe_dataset", dataset_id="sample")


async def test_describing_the_sample() -> None:
    async with DataBench() as bench:
        result = await bench.result("describe_dataset")
    assert part(result, "mapping") == {
        "timestamp": "timestamp",
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens",
        "cached_tokens": "cached_tokens",
        "model": "model",
        "latency": "latency_ms",
        "status": "status",
        "feature": "feature",
        "user": "user_id",
        "prompt": "prompt_hash",
    }
    assert part(result, "sufficiency", "score") == 1.0
    by_name = {entry["name"]: entry for entry in items(result, "columns")}
    assert by_name["model"]["distinct"] == 4
    assert by_name["input_tokens"]["nulls"] == 0
