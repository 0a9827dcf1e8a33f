"""The offline model as the optimizations agent: what it calls, and what it writes of what it finds."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from agent_service.engine.events import JsonObject
from agent_service.engine.intents import Intent
from agent_service.llm.offline import advice, audits, optimizer
from agent_service.llm.offline.conversation import Call, Conversation, Exchange, Words
from agent_service.llm.offline.dates import Period
from agent_service.llm.offline.entities import Entities, Goal
from agent_service.llm.offline.facts import SUCCESS, Facts
from agent_service.llm.offline.figures import limits, means_tail, prefix_tokens, trim
from agent_service.llm.offline.understanding import Facet, Understanding
from tests.support.conversations import Bench
from tests.support.optimization import OptimizationBench, Request, log

DAY = datetime(2026, 5, 10, tzinfo=UTC)
TOOLS = frozenset({*optimizer.OPTIONS, "combine_options", "forecast_capacity", "evaluate_change", "compare_models"})


def conversation(request: str = "", exchanges: tuple[Exchange, ...] = ()) -> Conversation:
    measured = Exchange("usage_summary", {}, SUCCESS, "", {"dataset": {"dataset_id": "measured-one"}}, "", "call-1")
    return Conversation(request, (), DAY, {}, exchanges, TOOLS, evidence={"data": (measured,)})


def understanding(
    *facets: Facet, intent: Intent = Intent.OPTIMIZATION, entities: Entities | None = None
) -> Understanding:
    return Understanding(intent, 0.95, Intent.GENERAL, frozenset(facets), entities or Entities())


def calls(found: Understanding, request: str = "") -> dict[str, JsonObject]:
    return {call.tool_name: call.args for call in optimizer.first_calls(found, conversation(request))[0]}


@pytest.mark.parametrize(
    ("facet", "tool"),
    [
        (Facet.CACHING, "simulate_caching"),
        (Facet.ROUTING, "simulate_routing"),
        (Facet.BATCHING, "simulate_batching"),
        (Facet.TRIMMING, "simulate_prompt_trim"),
    ],
    ids=["caching", "routing", "batching", "trimming"],
)
def test_one_look_is_one_call(facet: Facet, tool: str) -> None:
    assert calls(understanding(facet)).keys() == {tool}


def test_goals_need_every_option_over_the_rows_that_were_measured() -> None:
    found = calls(understanding(Facet.CACHING, entities=Entities(goals=(Goal("cost", -30.0), Goal("latency", -50.0)))))
    assert found.keys() == set(optimizer.OPTIONS)
    assert {arguments["dataset_id"] for arguments in found.values()} == {"measured-one"}
    assert found["simulate_routing"]["faster"] is True


def test_capacity_takes_growth_and_limits_from_the_words() -> None:
    request = "will +50 % traffic fit our limits of 500 RPM and 200k TPM?"
    found = calls(understanding(Facet.CAPACITY, entities=Entities(goals=(Goal("usage", 50.0),))), request)
    expected = {"dataset_id": "measured-one", "growth_percent": 50.0, "rpm_limit": 500, "tpm_limit": 200_000}
    assert found == {"forecast_capacity": expected}


def test_a_change_is_compared_without_the_filter_of_its_day() -> None:
    period = Period(DAY, DAY.replace(day=11))
    found = calls(understanding(Facet.BEFORE_AFTER, entities=Entities(period=period, change_time=DAY)))
    assert found == {"evaluate_change": {"dataset_id": "measured-one", "change_time": DAY.isoformat()}}
    assert calls(understanding(Facet.BEFORE_AFTER)) == {}
    assert "When did it change?" in audits.ask_for_a_date(conversation())


def test_a_day_without_a_year_is_looked_for_where_the_data_is() -> None:
    error = "log.csv has no request after … that counts: it reaches from 2024-02-01T00:04 to 2025-10-30T23:44 UTC."
    arguments: JsonObject = {"change_time": "2026-10-10T00:00:00+00:00"}
    failed = Exchange("evaluate_change", arguments, "failed", "", None, error)
    said = optimizer.reply(conversation("was the upgrade on October 10 worth it?", (failed,)))
    assert said[1:] == [Call("evaluate_change", {"change_time": "2025-10-10T00:00:00+00:00"})]
    for request, exchanges in (("the upgrade on October 10 2026", (failed,)), ("on October 10", (failed, failed))):
        (_, words) = optimizer.reply(conversation(request, exchanges))
        assert isinstance(words, Words)
        assert words.text == f"**{error}**\n"


def test_models_in_question_are_compared() -> None:
    found = calls(understanding(intent=Intent.PRICING, entities=Entities(models=("gpt-4o-mini",))))
    assert found["compare_models"]["candidates"] == ["gpt-4o-mini"]


def test_the_assumed_model_is_no_target() -> None:
    assumed = Entities(models=("gpt-4o",), assume_model="gpt-4o")
    assert calls(understanding(Facet.ROUTING, entities=assumed))["simulate_routing"] == {
        "dataset_id": "measured-one",
        "assume_model": "gpt-4o",
    }


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        ("500 RPM and 200k TPM", (500, 200_000)),
        ("1,000 requests per minute", (1_000, None)),
        ("2 million tokens a minute", (None, 2_000_000)),
        ("150k tokens/min, 60 calls/min", (60, 150_000)),
        ("500 requests and 200k tokens", (None, None)),
    ],
    ids=["short", "requests", "tokens", "slashes", "no-rate"],
)
def test_limits_in_words(request_: str, found: tuple[int | None, int | None]) -> None:
    assert limits(request_) == found


def test_other_figures_in_words() -> None:
    assert prefix_tokens("Audit caching; our system prompt has 1,200 tokens") == 1_200
    assert prefix_tokens("we send a 2k token system prompt") == 2_000
    assert prefix_tokens("audit caching") is None
    assert trim("shorten prompts by 20 %") == (20.0, None)
    assert trim("cut the inputs to 4k tokens") == (None, 4_000)
    assert trim("cut costs by 20 %") == (None, None)
    assert means_tail("p95 latency 2x faster")
    assert not means_tail("2x faster")


# --- What it writes --------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def tools() -> AsyncIterator[OptimizationBench]:
    async with OptimizationBench() as bench:
        yield bench


async def written(bench: OptimizationBench, *wanted: Call) -> Facts:
    exchanges = []
    for call in wanted:
        output = await bench.run(call.tool_name, **call.args)
        exchanges.append(Exchange(call.tool_name, call.args, SUCCESS, output.summary, output.result, ""))
    return Facts(exchanges)


async def test_single_looks_in_words(tools: OptimizationBench) -> None:
    rows = [
        *[Request(DAY.replace(day=9, hour=hour), "gpt-4o", "chat", 1_000, 10, prompt="a") for hour in range(12)],
        *[Request(DAY.replace(hour=hour), "gpt-4o-mini", "chat", 1_000, 10, prompt="a") for hour in range(12)],
    ]
    await tools.put("log.csv", log(rows))
    text = advice.write(understanding(Facet.CACHING), await written(tools, Call("simulate_caching", {})))
    # 22 of 24 are repeats; what they cost: 11 · $0.0026 + 11 · $0.000156.
    assert text.startswith("**In log.csv, up to $0.030316 of $0.033072 (91.7 %) can be saved.**")
    assert "| 1 hour | 22 | 91.7 % | $0.030316 | 91.7 % |" in text
    text = audits.write(await written(tools, Call("evaluate_change", {"change_time": DAY.isoformat()})))
    assert text.startswith("**No clear difference between before and after, since 2026-05-10 00:00 UTC in log.csv.**")
    assert "| Cost per request, mean | $0.0026 | $0.000156 | -94.0 % | -94.0 % | too few requests to tell |" in text
    text = audits.write(await written(tools, Call("forecast_capacity", {"growth_percent": 50, "rpm_limit": 1})))
    assert text.startswith("**In log.csv, at +50 % traffic, it does not fit: 2 requests per minute where 1 are allowed")
    text = audits.write(await written(tools, Call("compare_models", {"candidates": ["gpt-4o-mini", "nope"]})))
    assert text.startswith("**The traffic of log.csv would cost $0.003744 with gpt-4o-mini, against $0.033072")
    assert "'nope' cannot be priced" in text


async def test_without_prices_nothing_is_promised(tools: OptimizationBench) -> None:
    await tools.put("log.csv", b"timestamp,input_tokens,output_tokens\n2026-05-09,10,10\n2026-05-10,20,10\n")
    text = advice.write(
        understanding(), await written(tools, Call("simulate_routing", {}), Call("simulate_caching", {}))
    )
    assert text.startswith("**No saving can be computed for log.csv: what its requests cost is not known.**")
    assert "$" not in text
    assert "assume gpt-4o" in text.partition("### What is missing")[2]


async def test_a_whole_run_computes_combines_and_judges() -> None:
    rows = [
        Request(DAY.replace(day=day), model, "chat", 1_000, 100, latency_ms=ms)
        for day in (7, 8)
        for model, ms in (("gpt-4o", 900), ("gpt-4o-mini", 400))
        for _ in range(15)
    ]
    async with Bench() as bench:
        await bench.put("log.csv", log(rows))
        told = await bench.ask("cut spend 30 %, keep quality", agent="optimizations")
    answer = told.final.content
    # 30 · $0.0035 + 30 · $0.00021; with gpt-4o-mini for all, 30 · $0.00329 less.
    assert answer.startswith(
        "**In log.csv, all goals can be met together, as far as a usage log can tell: this saves $0.0987 of $0.1113"
    )
    best = told.result("combine_options")["best"]
    assert isinstance(best, dict)
    assert best["option_ids"] == ["route-gpt-4o-to-gpt-4o-mini-small"]
    assert "| cost -30 % | $0.07791 | $0.1113 | $0.0126 | met |" in answer
    assert "quality unchanged" in answer
    assert "Judge 1,238 answers" in answer
