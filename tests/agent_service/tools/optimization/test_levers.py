"""Caching, batching and shorter inputs, against plain Python and the catalogue."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import pytest_asyncio
from pydantic import ValidationError

from agent_service.tools.datasets import SAMPLE_PATH
from agent_service.tools.optimization.options import sample_per_arm
from agent_service.tools.optimization.policy import BatchRule, CacheRule, Policy, RouteRule, TrimRule
from tests.support.datasets import items, number, part, percentile, read_csv, table, usd
from tests.support.optimization import OptimizationBench, Request, hits, log, price

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY = datetime(2025, 11, 3, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[OptimizationBench]:
    async with OptimizationBench() as bench:
        yield bench


async def put(bench: OptimizationBench, content: bytes, name: str = "log.csv") -> str:
    return (await bench.put(name, content)).file_id


# --- Caching ---------------------------------------------------------------------------------------------------------

ASKED = (
    Request(DAY, "gpt-4o", "chat", 1_000, 100, prompt="a"),
    Request(DAY + HOUR, "gpt-4o", "chat", 1_000, 100, prompt="a"),  # a hit: an hour is not more than an hour
    Request(DAY + 2 * HOUR + timedelta(seconds=1), "gpt-4o", "chat", 1_000, 100, prompt="a"),  # a second too late
    Request(DAY + HOUR, "gpt-4o-mini", "chat", 1_000, 100, prompt="a"),  # another model
    Request(DAY, "gpt-4o", "mail", 500, 100, status="error", prompt="b"),  # leaves no answer
    Request(DAY + HOUR, "gpt-4o", "mail", 500, 100, prompt="b"),
    Request(DAY, "gpt-4o", "mail", 500, 100),  # no prompt
    Request(DAY, "gpt-4o", "mail", 500, 100),
)


async def test_exact_repeats_within_their_lifetime_cost_nothing(bench: OptimizationBench) -> None:
    data = await put(bench, log(ASKED))
    result = await bench.found("simulate_caching", dataset_id=data, ttl_s=3_600)
    (option,) = items(result, "options")
    assert option["saving_usd"] == usd(price(ASKED[1]))
    assert part(option, "affected", "requests") == 1
    assert part(option, "quality_risk", "level") == "none"
    assert option["validation"] is None
    lifetimes = {row["ttl_s"]: row["hits"] for row in items(result, "exact_repeats", "lifetimes")}
    assert lifetimes == {3_600: 1, 86_400: 2, 604_800: 2, None: 2}


async def test_repeats_of_the_sample_against_a_plain_loop(bench: OptimizationBench) -> None:
    rows = [
        Request(
            datetime.fromisoformat(row["timestamp"]),
            row["model"],
            row["feature"],
            int(row["input_tokens"]),
            int(row["output_tokens"]),
            int(row["cached_tokens"]),
            int(row["latency_ms"]),
            row["status"],
            row["prompt_hash"],
        )
        for row in read_csv(SAMPLE_PATH.read_bytes())
    ]
    data = await put(bench, SAMPLE_PATH.read_bytes(), "sample.csv.gz")
    result = await bench.found("simulate_caching", dataset_id=data)
    found = {row["ttl_s"]: (row["hits"], row["saving_usd"]) for row in items(result, "exact_repeats", "lifetimes")}
    for ttl in (3_600, 86_400, 604_800, None):
        hit = hits(rows, ttl)
        saved = sum((price(row) for row, is_hit in zip(rows, hit, strict=True) if is_hit), Decimal(0))
        assert found[ttl] == (sum(hit), usd(saved))


async def test_without_prompts_only_what_can_be_is_computed(bench: OptimizationBench) -> None:
    content = table("timestamp,model,input_tokens,output_tokens,cached_tokens", "2025-11-03,gpt-4o,1000,10,400")
    result = await bench.found("simulate_caching", dataset_id=await put(bench, content))
    assert items(result, "options") == []
    assert part(result, "exact_repeats") is None
    assert "prompt_hash" in {str(e["column"]): str(e["how_to_supply"]) for e in items(result, "missing")}["prompt"]
    model = items(result, "provider_cache", "models")[0]
    # 400 tokens at $1.25 instead of $2.50 a million.
    assert (model["cached_share"], model["saved_usd"]) == (0.4, 0.0005)
    assert "our system prompt has" in str(part(result, "notes_on_prefix", 0))


async def test_without_times_repeats_never_expire_and_that_is_said(bench: OptimizationBench) -> None:
    content = table("model,input_tokens,output_tokens,prompt_hash", *["gpt-4o,1000,100,a"] * 3)
    result = await bench.found("simulate_caching", dataset_id=await put(bench, content))
    assert part(result, "options", 0, "affected", "requests") == 2
    assert "never expired" in str(part(result, "options", 0, "assumptions"))


async def test_a_shared_beginning_is_read_from_the_providers_cache(bench: OptimizationBench) -> None:
    times = (DAY, DAY + timedelta(seconds=300), DAY + timedelta(seconds=601))
    rows = [Request(time, "claude-sonnet-4-5", "chat", 2_000, 0) for time in times]
    result = await bench.found(
        "simulate_caching", dataset_id=await put(bench, log(rows)), prefix_tokens=1_000, prefix_ttl_s=300
    )
    option = {str(one["id"]): one for one in items(result, "options")}["cache-prompt-prefix"]
    # $3 a million tokens; read from the cache $0.30, written to it $3.75: one hit, two writes.
    assert option["saving_usd"] == usd((Decimal("2.70") - 2 * Decimal("0.75")) * 1_000 / 1_000_000)


# --- Batching --------------------------------------------------------------------------------------------------------

WAITING = (
    Request(DAY.replace(hour=2), "gpt-4o", "report", 1_000, 500),
    Request(DAY.replace(hour=3), "gpt-4o", "report", 2_000, 500),
    Request(DAY.replace(hour=3), "gpt-4o", "chat", 1_000, 500),
)


async def test_batches_have_the_catalogues_price(bench: OptimizationBench) -> None:
    data = await put(bench, log(WAITING))
    result = await bench.found("simulate_batching", dataset_id=data, batch_features=["report"])
    (option,) = items(result, "options")
    assert option["saving_usd"] == usd(sum((price(r) - price(r, batch=True) for r in WAITING[:2]), Decimal(0)))
    assert part(result, "question") == ""
    at_three = await bench.found("simulate_batching", dataset_id=data, batch_features=["report"], batch_hours=[3])
    assert part(at_three, "options", 0, "affected", "requests") == 1


async def test_what_may_wait_is_asked(bench: OptimizationBench) -> None:
    result = await bench.found("simulate_batching", dataset_id=await put(bench, log(WAITING)))
    questions = {str(option["question"]) for option in items(result, "options")}
    assert questions == {f"May requests of {name} wait for their answers?" for name in ("report", "chat")}


async def test_latency_of_batches_is_left_out_before_and_after(bench: OptimizationBench) -> None:
    rows = [*[Request(DAY, "gpt-4o", "report", 10, 10, latency_ms=9_000)] * 3, Request(DAY, "gpt-4o", "chat", 10, 10)]
    data = await put(bench, log(rows))
    result = await bench.found("simulate_batching", dataset_id=data, batch_features=["report"])
    latency = part(result, "options", 0, "latency")
    assert part(latency, "before") == part(latency, "after") == {"measured": 1, "p50": 1_000.0, "p95": 1_000.0}


async def test_before_the_catalogue_has_batch_prices_none_is_made_up() -> None:
    async with OptimizationBench(datetime(2026, 6, 1, tzinfo=UTC)) as bench:
        output = await bench.run("simulate_batching", dataset_id=await put(bench, log(WAITING)))
    assert items(output.result, "options") == []
    assert "batch price for this model only from 2026-10-14 on" in output.summary


# --- Shorter inputs --------------------------------------------------------------------------------------------------


async def test_inputs_are_cut_to_a_limit(bench: OptimizationBench) -> None:
    rows = [Request(DAY, "gpt-4o", "chat", size, 10, min(size, 300)) for size in (100, 1_000, 1_001, 5_000)]
    data = await put(bench, log(rows))
    result = await bench.found("simulate_prompt_trim", dataset_id=data, max_input_tokens=1_000)
    saved = sum((price(row) - price(row, input_tokens=min(row.input_tokens, 1_000)) for row in rows), Decimal(0))
    (option,) = items(result, "options")
    assert option["saving_usd"] == usd(saved)
    assert part(option, "affected", "requests") == 2
    assert part(option, "quality_risk", "level") == "high"


async def test_inputs_are_shortened_by_a_share(bench: OptimizationBench) -> None:
    rows = [Request(DAY, "gpt-4o", feature, 1_000, 10) for feature in ("chat", "mail")]
    data = await put(bench, log(rows))
    result = await bench.found("simulate_prompt_trim", dataset_id=data, percent=30, trim_features=["chat"])
    assert number(result, "options", 0, "saving_usd") == usd(300 * Decimal("2.5") / 1_000_000)


async def test_limits_are_tried_at_the_percentiles_of_the_data(bench: OptimizationBench) -> None:
    rows = [Request(DAY, "gpt-4o", "chat", 10 * i, 10) for i in range(1, 101)]
    result = await bench.found("simulate_prompt_trim", dataset_id=await put(bench, log(rows)))
    limits = {str(o["id"]): part(o, "how", "trims", 0, "max_input_tokens") for o in items(result, "options")}
    sizes = [row.input_tokens for row in rows]
    assert limits == {f"trim-to-p{p}": int(percentile(sizes, p / 100)) for p in (99, 95, 90)}


async def test_a_zero_limit_leaves_the_output_only(bench: OptimizationBench) -> None:
    rows = [Request(DAY, "gpt-4o", "chat", 1_000, 100, 200)]
    data = await put(bench, log(rows))
    result = await bench.found("simulate_prompt_trim", dataset_id=data, max_input_tokens=0)
    assert number(result, "options", 0, "cost_after_usd") == 0.001


# --- Rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "two", "conflict"),
    [
        (Policy(cache=CacheRule()), Policy(cache=CacheRule(ttl_s=60)), True),
        (Policy(cache=CacheRule()), Policy(trims=[TrimRule(percent=10)]), False),
        (
            Policy(routes=[RouteRule(models=["a"], target="x")]),
            Policy(routes=[RouteRule(models=["b"], target="x")]),
            False,
        ),
        (
            Policy(routes=[RouteRule(models=["A"], target="x")]),
            Policy(routes=[RouteRule(models=["a"], target="y")]),
            True,
        ),
        (Policy(routes=[RouteRule(models=["a"], target="x")]), Policy(routes=[RouteRule(target="y")]), True),
        (Policy(batches=[BatchRule(features=["a"])]), Policy(batches=[BatchRule(features=["b"])]), False),
    ],
    ids=["caches", "cache-and-trim", "other-models", "same-model", "all-models", "other-features"],
)
async def test_rules_about_the_same_requests_conflict(one: Policy, two: Policy, conflict: bool) -> None:  # noqa: FBT001
    assert one.conflicts(two) is conflict
    assert two.conflicts(one) is conflict


async def test_a_cut_has_one_way() -> None:
    for rule in ({}, {"percent": 10, "max_input_tokens": 10}):
        with pytest.raises(ValidationError, match="give either"):
            TrimRule.model_validate(rule)


async def test_the_sample_size_is_that_of_the_formula() -> None:
    # (1.645 + 0.842)² · 2 · 0.25 / 0.05² = 1237.03…
    assert sample_per_arm() == 1_238
    assert sample_per_arm(Decimal("0.1")) == 310
