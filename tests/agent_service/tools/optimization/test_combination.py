"""Combinations: simulated as one, never more than the cost, judged against every goal at once."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_service.engine.tool import ToolError
from agent_service.tools.analysis import MAX_RESULT_BYTES
from agent_service.tools.facts import UNITS_PER_USD
from agent_service.tools.optimization.constraints import Goals, is_feasible, judge, preference
from agent_service.tools.optimization.options import Lever
from agent_service.tools.optimization.policy import (
    BatchRule,
    CacheRule,
    Policy,
    PrefixRule,
    RouteRule,
    TrimRule,
    combine,
)
from agent_service.tools.optimization.selection import (
    MAX_COMBINATIONS,
    MAX_OPTIONS,
    MAX_TOGETHER,
    MIN_COMBINATIONS,
    ROW_BUDGET,
    Part,
    sets_of,
)
from agent_service.tools.optimization.simulation import Affected, Baseline, Outcome, Simulation, Speed
from tests.support.datasets import items, number, part
from tests.support.optimization import OptimizationBench, Request, hits, log, price

DAY = datetime(2025, 11, 3, 10, tzinfo=UTC)
MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "gemini-2.5-flash")


def requests() -> st.SearchStrategy[Request]:
    return st.builds(
        Request,
        st.integers(0, 72).map(lambda hours: DAY + timedelta(hours=hours)),
        st.sampled_from(MODELS),
        st.sampled_from(["chat", "mail"]),
        st.integers(0, 60_000),
        st.integers(0, 2_000),
        st.just(0),
        st.integers(1, 9_000),
        st.sampled_from(["ok", "error"]),
        st.sampled_from(["", "a", "b"]),
    )


ROUTES = st.builds(
    RouteRule,
    models=st.lists(st.sampled_from(MODELS), max_size=2, unique=True),
    max_input_tokens=st.none() | st.integers(0, 60_000),
    target=st.sampled_from(MODELS),
)
POLICIES = st.builds(
    Policy,
    routes=st.lists(ROUTES, max_size=2),
    cache=st.none() | st.builds(CacheRule, ttl_s=st.none() | st.integers(1, 100_000)),
    trims=st.lists(st.builds(TrimRule, max_input_tokens=st.integers(0, 60_000)), max_size=1),
    batches=st.lists(st.builds(BatchRule, features=st.just(["mail"])), max_size=1),
)


def expected(rows: list[Request], policy: Policy) -> Decimal:
    """What the policy saves, in plain Python: route, cache, cut, batch, and ask the catalogue."""
    saved = Decimal(0)
    is_hit = hits(rows, policy.cache.ttl_s) if policy.cache else [False] * len(rows)
    for row, hit in zip(rows, is_hit, strict=True):
        target = next((rule.target for rule in policy.routes if _takes(rule, row)), row.model)
        sent = min([row.input_tokens, *(rule.max_input_tokens or 0 for rule in policy.trims)])
        batched = bool(policy.batches) and row.feature == "mail"
        changed = hit or batched or target != row.model or sent != row.input_tokens
        # A request that costs nothing has nothing to save.
        if changed and (row.input_tokens or row.output_tokens):
            saved += price(row) - (0 if hit else price(row, model=target, input_tokens=sent, batch=batched))
    return saved


def _takes(rule: RouteRule, row: Request) -> bool:
    return (not rule.models or row.model in rule.models) and (
        rule.max_input_tokens is None or row.input_tokens <= rule.max_input_tokens
    )


def test_a_combination_saves_what_the_catalogue_says_and_never_more_than_the_cost() -> None:
    with asyncio.Runner() as runner:
        bench = OptimizationBench()

        @settings(max_examples=8)
        @given(st.lists(requests(), min_size=1, max_size=25), st.lists(POLICIES, min_size=1, max_size=3))
        def check(rows: list[Request], policies: list[Policy]) -> None:
            runner.run(hold(bench, rows, policies))

        try:
            check()
        finally:
            runner.run(bench.__aexit__(None, None, None))


async def hold(bench: OptimizationBench, rows: list[Request], policies: list[Policy]) -> None:
    record = await bench.put("log.csv", log(rows))
    async with bench.simulated(dataset_id=record.file_id) as simulation:
        for policy in policies:
            outcome = await simulation.outcome(policy)
            assert outcome.saved == int(expected(rows, policy) * UNITS_PER_USD)
            assert outcome.saved <= simulation.baseline.units
        nothing = await simulation.outcome(Policy())
        assert (nothing.saved, nothing.touched, nothing.speed) == (0, 0, simulation.baseline.speed)
        await hold_together(simulation, policies)


async def hold_together(simulation: Simulation, policies: list[Policy]) -> None:
    """All at once, the provider's cache among it: never more than there is, whatever the parts save alone."""
    together = combine([*policies, Policy(prefix=PrefixRule(tokens=1_024, ttl_s=7_200))])
    outcome = await simulation.outcome(together)
    assert outcome.saved <= simulation.baseline.units
    assert outcome.touched <= simulation.baseline.requests
    shorter = together.model_copy(update={"trims": [*together.trims, TrimRule(max_input_tokens=0)], "prefix": None})
    assert (await simulation.outcome(shorter)).saved <= simulation.baseline.units


# --- Goals -----------------------------------------------------------------------------------------------------------

BASE = Baseline(100, 100, 100 * UNITS_PER_USD, 10, 864_000.0, Speed(100, 1_000.0, 4_000.0))


def outcome(saved_usd: float, p50: float = 1_000.0) -> Outcome:
    return Outcome(round(saved_usd * UNITS_PER_USD), 10, 0, 0, 0, BASE.speed, Speed(100, p50, 4 * p50), 0, Affected())


@pytest.mark.parametrize(
    ("goals", "met"),
    [
        (Goals(cost_change_percent=-20), True),
        (Goals(cost_change_percent=-20.1), False),
        (Goals(cost_change_percent=0, growth_percent=25), True),
        (Goals(cost_change_percent=0, growth_percent=25.1), False),
        (Goals(max_cost_usd_per_month=240), True),
        (Goals(max_cost_usd_per_month=239.99), False),
        (Goals(latency_change_percent=-50), True),
        (Goals(latency_change_percent=-50.1), False),
        (Goals(latency_change_percent=-50, latency_percentile="p95"), True),
        (Goals(max_latency_ms=500), True),
        (Goals(max_latency_ms=499.9), False),
    ],
    ids=[
        "cost",
        "cost-missed",
        "growth",
        "growth-missed",
        "month",
        "month-missed",
        "fast",
        "fast-missed",
        "tail",
        "limit",
        "limit-missed",
    ],
)
def test_a_goal_is_met_at_its_very_limit(goals: Goals, met: bool) -> None:  # noqa: FBT001
    # $80 of $100 are left, over ten days; half of the latency.
    (verdict,) = judge(goals, BASE, outcome(20, 500), "", "none")
    assert verdict.met is met
    assert (verdict.gap > 0) is not met


def test_what_cannot_be_judged_is_not_met() -> None:
    unknown = replace(outcome(20), speed_unknown=1)
    (late,) = judge(Goals(max_latency_ms=500), BASE, unknown, "why", "none")
    assert (late.met, late.note) == (None, "why")
    verdicts = judge(Goals(latency_change_percent=-50, cost_change_percent=-10), BASE, unknown, "why", "none")
    assert [(v.metric, v.met) for v in verdicts] == [("cost", True), ("latency", None)]
    assert not is_feasible(verdicts)
    short = replace(BASE, span_s=86_399.0)
    (month,) = judge(Goals(max_cost_usd_per_month=1), short, outcome(20), "", "none")
    assert month.met is None


def test_quality_is_a_risk_to_validate_and_never_claimed() -> None:
    for risk, met in (("none", True), ("low", None)):
        (verdict,) = judge(Goals(keep_quality=True), BASE, outcome(20), "", risk)
        assert verdict.met is met
        assert is_feasible([verdict])


@given(st.floats(0, 200), st.floats(0, 200), st.floats(-50, 99))
def test_more_traffic_never_meets_a_goal_that_less_does_not(one: float, two: float, saved: float) -> None:
    less, more = sorted((one, two))
    at = [
        judge(Goals(cost_change_percent=-10, growth_percent=growth), BASE, outcome(saved), "", "none")[0]
        for growth in (less, more)
    ]
    assert at[0].gap <= at[1].gap
    assert at[0].met or not at[1].met


def test_with_goals_the_risk_counts_before_the_saving_and_without_after_it() -> None:
    safe, bold = (outcome(20), "none"), (outcome(60), "high")
    for goals, best in (
        (Goals(), bold),
        (Goals(cost_change_percent=-10), safe),
        (Goals(cost_change_percent=-50), bold),
    ):
        ranked = sorted(
            (safe, bold), key=lambda one: preference(judge(goals, BASE, one[0], "", one[1]), BASE, one[0].saved, one[1])
        )
        assert ranked[0] is best


# --- The tool --------------------------------------------------------------------------------------------------------

ROWS = (
    *[Request(DAY + timedelta(hours=hour), "gpt-4o", "chat", 10_000, 100, prompt="a") for hour in range(4)],
    *[Request(DAY + timedelta(hours=hour), "gpt-4o", "report", 2_000, 2_000) for hour in range(4)],
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_bench() -> AsyncIterator[OptimizationBench]:
    async with OptimizationBench() as bench:
        await bench.put("log.csv", log(ROWS))
        yield bench


@pytest.fixture
def bench(one_bench: OptimizationBench) -> OptimizationBench:
    one_bench.records.clear()
    return one_bench


@pytest.mark.asyncio(loop_scope="module")
async def test_options_are_simulated_together_and_never_added(bench: OptimizationBench) -> None:
    route = await bench.found("simulate_routing", rules=[{"target": "gpt-4o-mini"}])
    cache = await bench.found("simulate_caching")
    result = await bench.found("combine_options")
    best = part(result, "best")
    alone = [number(found, "options", 0, "saving_usd") for found in (route, cache)]
    # Three of the four chats are hits; everything else goes to the other model.
    left = sum((price(row, model="gpt-4o-mini") for row in (ROWS[0], *ROWS[4:])), Decimal(0))
    assert number(best, "saving_usd") == pytest.approx(float(sum(price(row) for row in ROWS) - left), abs=1e-6)
    assert number(best, "sum_of_parts_usd") == pytest.approx(sum(alone), abs=1e-6)
    assert max(alone) < number(best, "saving_usd") < sum(alone)
    assert part(best, "option_ids") == ["cache-exact-repeats", "route-to-gpt-4o-mini"]
    assert {str(entry["tool_call_id"]) for entry in items(best, "parts")} == {"call-1", "call-2"}


@pytest.mark.asyncio(loop_scope="module")
async def test_goals_that_cannot_be_met_are_said_with_what_comes_nearest(bench: OptimizationBench) -> None:
    await bench.run("simulate_caching")
    output = await bench.run("combine_options", goals={"cost_change_percent": -90, "growth_percent": 30})
    result = output.result
    assert part(result, "feasible") is False
    assert part(result, "best") is None
    (constraint,) = items(result, "nearest", "constraints")
    total = sum((price(row) for row in ROWS), Decimal(0))
    after = (total - sum((price(row) for row in ROWS[1:4]), Decimal(0))) * Decimal("1.3")
    assert number(constraint, "value") == pytest.approx(float(after), abs=1e-6)
    assert number(constraint, "limit") == pytest.approx(float(total) * 0.1, abs=1e-6)
    assert constraint["met"] is False
    assert output.summary.startswith("log.csv: not all goals can be met; nearest:")


@pytest.mark.asyncio(loop_scope="module")
async def test_what_needs_a_decision_is_not_taken_for_granted(bench: OptimizationBench) -> None:
    await bench.run("simulate_batching")
    await bench.run("simulate_caching")
    result = await bench.found("combine_options")
    assert part(result, "best", "option_ids") == ["cache-exact-repeats"]
    assert "wait for their answers?" in str(part(result, "with_decisions", "question"))
    assert number(result, "with_decisions", "saving_usd") > number(result, "best", "saving_usd")


@pytest.mark.asyncio(loop_scope="module")
async def test_options_are_cited_not_retyped(bench: OptimizationBench) -> None:
    with pytest.raises(ToolError, match="no option to combine yet"):
        await bench.run("combine_options")
    await bench.run("simulate_prompt_trim", max_input_tokens=5_000)
    await bench.run("simulate_caching")
    with pytest.raises(ToolError, match="no call 'call-9' with options"):
        await bench.run("combine_options", options=[{"tool_call_id": "call-9"}])
    cited = [{"tool_call_id": "call-1", "option_id": "trim-to-limit"}]
    result = await bench.found("combine_options", options=cited)
    assert part(result, "best", "option_ids") == ["trim-to-limit"]


@pytest.mark.asyncio(loop_scope="module")
async def test_options_over_other_rows_are_left_out(bench: OptimizationBench) -> None:
    await bench.run("simulate_caching", features=["chat"])
    await bench.run("simulate_prompt_trim", max_input_tokens=5_000)
    result = await bench.found("combine_options")
    assert part(result, "best", "option_ids") == ["trim-to-limit"]
    assert "other rows" in str(part(result, "left_out", 0))


def part_of(number: int, *, asks: bool = False) -> Part:
    name = f"model-{number:02}"
    policy = Policy(routes=[RouteRule(models=[name], target="gpt-4o-mini")])
    lever = Lever(name, "routing", name, policy, "low", "", "S", "", "", question="May it wait?" if asks else "")
    return Part("call-1", lever, 1.0 + number, 0.0)


def test_sets_are_bounded_by_number_and_by_rows() -> None:
    parts = [part_of(number, asks=number > 9) for number in range(MAX_OPTIONS)]
    decided, asking, skipped = sets_of(parts, 1)
    assert len(decided) + len(asking) == MAX_COMBINATIONS
    assert all(any(one.lever.question for one in chosen) for chosen in asking)
    assert not any(one.lever.question for chosen in decided for one in chosen)
    every = sum(math.comb(MAX_OPTIONS, size) for size in range(1, MAX_TOGETHER + 1))
    assert skipped == every - MAX_COMBINATIONS
    assert max(map(len, decided)) == MAX_TOGETHER
    for rows, sets in ((ROW_BUDGET // 20, 20), (ROW_BUDGET, MIN_COMBINATIONS), (10 * ROW_BUDGET, MIN_COMBINATIONS)):
        assert sum(map(len, sets_of(parts, rows)[:2])) == sets


@pytest.mark.asyncio(loop_scope="module")
async def test_so_many_options_are_combined_and_the_rest_is_named(bench: OptimizationBench) -> None:
    await bench.run("simulate_prompt_trim", max_input_tokens=5_000)
    (record,) = bench.records
    (option,) = items(record.result or {}, "options")
    limits = range(5_000, 5_000 + MAX_OPTIONS + 1)
    options = [
        {**option, "id": f"trim-{limit}", "how": Policy(trims=[TrimRule(max_input_tokens=limit)]).as_data()}
        for limit in limits
    ]
    bench.records[:] = [replace(record, result={**(record.result or {}), "options": options})]
    result = await bench.found("combine_options")
    assert len(items(result, "options")) == number(result, "simulated") == MAX_OPTIONS
    assert str(part(result, "left_out", 0)).endswith(f"only {MAX_OPTIONS} are combined")
    assert len(json.dumps(result, ensure_ascii=False).encode()) <= MAX_RESULT_BYTES
