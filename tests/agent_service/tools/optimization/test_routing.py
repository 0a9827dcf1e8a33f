"""Routing: savings against the catalogue itself, risks from the data, and what cannot be routed."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import pytest_asyncio

from agent_service.engine.tool import ToolError
from agent_service.tools.analysis import MAX_RESULT_BYTES
from agent_service.tools.datasets import SAMPLE_PATH
from tests.support.datasets import items, number, part, read_csv, table, usd
from tests.support.optimization import OptimizationBench, Request, log, price

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY = datetime(2025, 11, 3, 10, tzinfo=UTC)
ROWS = (
    Request(DAY, "gpt-4o", "chat", 1_000, 100),
    Request(DAY, "gpt-4o", "chat", 5_000, 100, 2_000),
    Request(DAY, "gpt-4o", "mail", 700, 900),
    Request(DAY, "gpt-4o-mini", "chat", 800, 50),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[OptimizationBench]:
    async with OptimizationBench() as bench:
        yield bench


async def put(bench: OptimizationBench, content: bytes) -> str:
    return (await bench.put("log.csv", content)).file_id


async def test_a_rule_by_size_saves_what_the_catalogue_says(bench: OptimizationBench) -> None:
    data = await put(bench, log(ROWS))
    rule = {"models": ["GPT-4o"], "max_input_tokens": 1_000, "target": "gpt-4o-mini"}
    result = await bench.found("simulate_routing", dataset_id=data, rules=[rule])
    (option,) = items(result, "options")
    moved = (ROWS[0], ROWS[2])
    saved = sum(price(row) - price(row, model="gpt-4o-mini") for row in moved)
    total = sum(price(row) for row in ROWS)
    assert option["saving_usd"] == usd(Decimal(saved))
    assert option["cost_after_usd"] == usd(Decimal(total - saved))
    assert option["saving_percent"] == float(round(100 * Decimal(saved) / Decimal(total), 2))
    assert part(option, "affected", "requests") == 2
    assert part(option, "affected", "features") == ["chat", "mail"]
    assert part(option, "affected", "models") == ["gpt-4o"]
    assert option["how"] == {"routes": [{"models": ["GPT-4o"], "max_input_tokens": 1_000, "target": "gpt-4o-mini"}]}


async def test_the_sample_against_a_plain_loop(bench: OptimizationBench) -> None:
    rows = read_csv(SAMPLE_PATH.read_bytes())
    data = (await bench.put("sample.csv.gz", SAMPLE_PATH.read_bytes())).file_id
    small = [row for row in rows if row["model"] == "gpt-4o" and int(row["input_tokens"]) <= 2_000]
    # $2.50, $1.25 and $10 a million tokens of gpt-4o; $0.15, $0.075 and $0.60 of gpt-4o-mini.
    saved = sum(
        (int(row["input_tokens"]) - int(row["cached_tokens"])) * Decimal("2.35")
        + int(row["cached_tokens"]) * Decimal("1.175")
        + int(row["output_tokens"]) * Decimal("9.4")
        for row in small
    )
    rule = {"models": ["gpt-4o"], "max_input_tokens": 2_000, "target": "gpt-4o-mini"}
    result = await bench.found("simulate_routing", dataset_id=data, rules=[rule])
    (option,) = items(result, "options")
    assert option["saving_usd"] == usd(Decimal(saved) / 1_000_000)
    assert part(option, "affected", "requests") == len(small)


async def test_the_first_rule_that_matches_counts(bench: OptimizationBench) -> None:
    data = await put(bench, log(ROWS))
    rules = [
        {"features": ["mail"], "target": "gemini-2.5-flash"},
        {"models": ["gpt-4o"], "target": "gpt-4o-mini"},
    ]
    result = await bench.found("simulate_routing", dataset_id=data, rules=rules)
    saved = sum(price(row) - price(row, model="gpt-4o-mini") for row in ROWS[:2])
    saved += price(ROWS[2]) - price(ROWS[2], model="gemini-2.5-flash")
    assert number(result, "options", 0, "saving_usd") == usd(Decimal(saved))


async def test_routing_to_the_same_model_changes_nothing(bench: OptimizationBench) -> None:
    data = await put(bench, log(ROWS[:3]))
    result = await bench.found("simulate_routing", dataset_id=data, rules=[{"target": "gpt-4o"}])
    option = items(result, "options")[0]
    assert (option["saving_usd"], part(option, "affected", "requests")) == (0.0, 0)


async def test_a_dearer_model_is_reported_as_an_increase(bench: OptimizationBench) -> None:
    data = await put(bench, log(ROWS[3:]))
    output = await bench.run("simulate_routing", dataset_id=data, rules=[{"target": "gpt-4o"}])
    option = items(output.result, "options")[0]
    assert option["is_increase"] is True
    assert number(option, "saving_usd") == usd(price(ROWS[3]) - price(ROWS[3], model="gpt-4o"))
    assert "costs" in output.summary


async def test_what_is_too_long_for_a_model_stays_where_it_is(bench: OptimizationBench) -> None:
    # gpt-4o-mini takes 128,000 tokens, input and output together.
    rows = [Request(DAY, "gemini-2.5-flash", "chat", size, 100) for size in (127_900, 127_901)]
    data = await put(bench, log(rows))
    result = await bench.found("simulate_routing", dataset_id=data, rules=[{"target": "gpt-4o-mini"}])
    assert part(result, "options", 0, "affected", "requests") == 1


async def test_an_unknown_model_is_named_with_near_ones(bench: OptimizationBench) -> None:
    data = await put(bench, log(ROWS))
    with pytest.raises(ToolError, match=r"'gpt-4o-mini-mega' cannot be priced.*Did you mean .*gpt-4o-mini"):
        await bench.run("simulate_routing", dataset_id=data, rules=[{"target": "gpt-4o-mini-mega"}])


async def test_a_recorded_discount_stays_one(bench: OptimizationBench) -> None:
    # Half of the list price of 100,000 input tokens of gpt-4o was paid: the target costs half of its list price, too.
    content = table("timestamp,model,input_tokens,output_tokens,cost_usd", "2025-11-03,gpt-4o,100000,0,0.125")
    data = await put(bench, content)
    result = await bench.found("simulate_routing", dataset_id=data, rules=[{"target": "gpt-4o-mini"}])
    assert number(result, "options", 0, "cost_after_usd") == 0.0075
    assert "recorded costs are scaled" in json.dumps(part(result, "options", 0, "assumptions"))


async def test_a_recorded_cost_without_tokens_is_not_guessed(bench: OptimizationBench) -> None:
    data = await put(bench, table("timestamp,model,cost_usd", "2025-11-03,gpt-4o,1.25"))
    result = await bench.found("simulate_routing", dataset_id=data, rules=[{"target": "gpt-4o-mini"}])
    option = items(result, "options")[0]
    assert option["saving_usd"] == 0.0
    assert "1 requests have a recorded cost" in str(part(option, "missing", 0))


async def test_candidates_are_of_the_family_and_explained(bench: OptimizationBench) -> None:
    data = await put(bench, log(ROWS))
    first = await bench.found("simulate_routing", dataset_id=data)
    again = await bench.found("simulate_routing", dataset_id=data)
    assert first == again
    assert "gpt-4o → gpt-4o-mini: same provider and family" in str(part(first, "candidates"))
    options = {str(option["id"]): option for option in items(first, "options")}
    small = options["route-gpt-4o-to-gpt-4o-mini-small"]
    assert part(small, "how", "routes", 0, "max_input_tokens") == 1_000
    assert options["route-gpt-4o-to-gpt-4o-mini-all"]["saving_usd"] == usd(
        sum((price(row) - price(row, model="gpt-4o-mini") for row in ROWS[:3]), Decimal(0))
    )
    savings = [number(option, "saving_usd") for option in items(first, "options")]
    assert savings == sorted(savings, reverse=True)


async def test_the_risk_is_lower_where_the_target_is_in_use_already(bench: OptimizationBench) -> None:
    data = await put(bench, log(ROWS))
    known = {"models": ["gpt-4o"], "features": ["chat"], "target": "gpt-4o-mini"}
    new = {"models": ["gpt-4o"], "features": ["mail"], "target": "gpt-4o-mini"}
    levels = []
    for rule in (known, new, {**known, "max_input_tokens": 2_000}, {**new, "max_input_tokens": 2_000}):
        result = await bench.found("simulate_routing", dataset_id=data, rules=[rule])
        levels.append(part(result, "options", 0, "quality_risk", "level"))
    assert levels == ["medium", "high", "low", "medium"]


async def test_latency_follows_the_models_own_pace_where_it_is_measured(bench: OptimizationBench) -> None:
    slow = [Request(DAY, "gpt-4o", "chat", 10, 100, latency_ms=4_000)] * 30
    fast = [Request(DAY, "gpt-4o-mini", "chat", 10, 100, latency_ms=1_000)] * 30
    rules = [{"models": ["gpt-4o"], "target": "gpt-4o-mini"}]
    result = await bench.found("simulate_routing", dataset_id=await put(bench, log([*slow, *fast])), rules=rules)
    assert part(result, "options", 0, "latency", "before") == {"measured": 60, "p50": 2_500.0, "p95": 4_000.0}
    assert part(result, "options", 0, "latency", "after") == {"measured": 60, "p50": 1_000.0, "p95": 1_000.0}
    one_less = await bench.found("simulate_routing", dataset_id=await put(bench, log([*slow, *fast[1:]])), rules=rules)
    assert part(one_less, "options", 0, "latency", "measurable") is False
    assert "not measurable" in str(part(one_less, "options", 0, "latency", "note"))


async def test_without_models_it_is_said_and_can_be_assumed(bench: OptimizationBench) -> None:
    data = await put(bench, table("timestamp,input_tokens,output_tokens", "2025-11-03,100000,0"))
    result = await bench.found("simulate_routing", dataset_id=data)
    assert items(result, "options") == []
    gaps = {str(entry["column"]): str(entry["how_to_supply"]) for entry in items(result, "missing")}
    assert "assume gpt-4o" in gaps["model"]
    assumed = await bench.found("simulate_routing", dataset_id=data, assume_model="gpt-4o")
    best = items(assumed, "options")[0]
    assert best["saving_usd"] == 0.235


async def test_without_times_no_month_is_computed(bench: OptimizationBench) -> None:
    data = await put(bench, table("model,input_tokens,output_tokens", "gpt-4o,100000,0"))
    result = await bench.found("simulate_routing", dataset_id=data, rules=[{"target": "gpt-4o-mini"}])
    assert part(result, "options", 0, "saving_usd_per_month") is None
    assert "no times" in str(part(result, "baseline", "month_basis"))


async def test_a_month_is_thirty_mean_days(bench: OptimizationBench) -> None:
    rows = [Request(DAY.replace(day=day), "gpt-4o", "chat", 100_000, 0) for day in (3, 8)]
    data = await put(bench, log(rows))
    result = await bench.found("simulate_routing", dataset_id=data, rules=[{"target": "gpt-4o-mini"}])
    assert number(result, "options", 0, "saving_usd_per_month") == round(2 * 0.235 * 30 / 6, 6)


async def test_results_stay_small(bench: OptimizationBench) -> None:
    rows = [
        Request(DAY, model, feature * 200, 1_000, 100)
        for model in ("gpt-4o", "claude-sonnet-4-5", "gemini-2.5-pro")
        for feature in "äöüß"
    ]
    targets = ["gpt-4o-mini", "gemini-2.5-flash", "claude-haiku-4-5"]
    result = await bench.found("simulate_routing", dataset_id=await put(bench, log(rows)), targets=targets)
    assert len(json.dumps(result, ensure_ascii=False).encode()) <= MAX_RESULT_BYTES
    assert number(result, "options_not_shown") > 0


async def test_a_name_that_is_too_long_for_a_rule_is_passed_over(bench: OptimizationBench) -> None:
    rows = [Request(DAY, "gpt-4o", name, 1_000, 100) for name in ("x" * 201, "x" * 201, "chat")]
    result = await bench.found("simulate_routing", dataset_id=await put(bench, log(rows)))
    by_feature = [
        part(one, "how", "routes", 0, "features") for one in items(result, "options") if "feature" in str(one["id"])
    ]
    assert by_feature == [["chat"]]
