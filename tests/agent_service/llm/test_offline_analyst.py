"""Which looks the data agent takes, and how it writes up what they found, over the real tools."""

import statistics
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from agent_service.agents.data import DATA
from agent_service.engine.events import JsonObject
from agent_service.engine.intents import Intent
from agent_service.engine.tool import ToolError
from agent_service.llm.offline import analyses, analyst, answers
from agent_service.llm.offline.conversation import Call, Conversation, Exchange, Thought, Words
from agent_service.llm.offline.entities import Entities, Goal
from agent_service.llm.offline.facts import SUCCESS
from agent_service.llm.offline.understanding import Facet, Understanding
from tests.support.datasets import DataBench, context, table

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOURS = [6, 7, 8, 6, 7, 9, 8, 7, 60, 8, 6, 7, 7, 8, 7, 6, 8]
LOG = table(
    "timestamp,model,prompt,input_tokens,output_tokens,latency_ms",
    *(
        f"2026-03-02T{hour:02}:{number % 60:02}:00Z,gpt-4o,question {number % 4},{100 + number},10,{200 + number}"
        for hour, count in enumerate(HOURS)
        for number in range(count)
    ),
)
NO_PROMPTS = table("timestamp,input_tokens,output_tokens", "2026-03-02T00:00:00Z,1,1", "2026-03-02T01:00:00Z,1,1")
MODELS = table(
    "timestamp,model,user,input_tokens,output_tokens",
    "2026-03-02T00:00:00Z,gpt-4o,ann,1000000,0",
    "2026-03-02T01:00:00Z,gpt-4o-mini,ben,2000000,0",
    "2026-03-02T02:00:00Z,our-own,ben,1000,0",
)
TOOLS = frozenset(DATA.tools)


def asking(intent: Intent, *facets: Facet, entities: Entities | None = None) -> Understanding:
    return Understanding(intent, 0.9, Intent.GENERAL, frozenset(facets), entities or Entities())


def conversation(*exchanges: Exchange) -> Conversation:
    return Conversation("?", (), NOW, {}, exchanges, TOOLS)


@pytest.mark.parametrize(
    ("understanding", "tools"),
    [
        (asking(Intent.TECHNICAL, Facet.DATABASE, Facet.LATENCY), ["database_analyzer"]),
        (asking(Intent.TECHNICAL, Facet.ANOMALIES, Facet.PATTERN), ["anomaly_scan", "usage_summary"]),
        (asking(Intent.COST_ANALYSIS, Facet.ANOMALIES), ["anomaly_scan", "usage_summary"]),
        (asking(Intent.GENERAL, Facet.CORRELATION), ["correlate", "usage_summary"]),
        (asking(Intent.BENCHMARKING, Facet.CORRELATION, Facet.LATENCY), ["correlate", "usage_summary"]),
        (asking(Intent.COST_ANALYSIS, Facet.DUPLICATES), ["duplicate_prompts", "usage_summary"]),
        (asking(Intent.COST_ANALYSIS, Facet.CACHING), ["usage_summary", "cost_breakdown"]),
        (
            asking(Intent.OPTIMIZATION, Facet.CACHING),
            ["usage_summary", "cost_breakdown", "usage_pattern", "duplicate_prompts"],
        ),
        (asking(Intent.OPTIMIZATION), ["usage_summary", "cost_breakdown", "usage_pattern"]),
        (
            asking(Intent.TECHNICAL, Facet.DATABASE, entities=Entities(sql="SELECT 1 FROM data")),
            ["query_dataset"],
        ),
    ],
    ids=lambda value: f"{value.intent}-{'-'.join(sorted(value.facets))}" if isinstance(value, Understanding) else "",
)
def test_a_request_leads_to_the_looks_that_answer_it(
    understanding: Understanding, tools: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyst, "understand", lambda *_: understanding)
    thought, *calls = analyst.reply(conversation())
    assert isinstance(thought, Thought)
    assert [call.tool_name for call in calls if isinstance(call, Call)] == tools


def test_a_statement_of_the_database_is_looked_at_and_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    sql = "SELECT * FROM orders WHERE customer = 7"
    understanding = asking(Intent.TECHNICAL, Facet.DATABASE, Facet.SQL, entities=Entities(sql=sql))
    monkeypatch.setattr(analyst, "understand", lambda *_: understanding)
    _, call = analyst.reply(conversation())
    assert call == Call("database_analyzer", {"queries": [sql]})


def test_filters_and_the_unit_go_along(monkeypatch: pytest.MonkeyPatch) -> None:
    entities = Entities(files=("a.csv",), group_by=("day",), features=("chat",), assume_model="gpt-4o")
    monkeypatch.setattr(analyst, "understand", lambda *_: asking(Intent.TECHNICAL, Facet.ANOMALIES, entities=entities))
    _, scan, _ = analyst.reply(conversation())
    assert isinstance(scan, Call)
    assert scan.args == {"dataset_id": "a.csv", "features": ["chat"], "assume_model": "gpt-4o", "bucket": "day"}


@pytest.mark.parametrize(
    ("request_", "measures"),
    [
        ("Do latency and tokens correlate?", ["latency_ms", "input_tokens", "output_tokens"]),
        ("does the cost depend on the time of day?", ["cost_usd", "hour"]),
        ("are errors linked to latency", ["latency_ms", "failed"]),
        ("what correlates with latency?", None),
        ("any correlations?", None),
    ],
)
def test_measures_that_are_named_are_compared(
    request_: str, measures: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyst, "understand", lambda *_: asking(Intent.TECHNICAL, Facet.CORRELATION))
    _, call, _ = analyst.reply(replace(conversation(), request=request_))
    assert isinstance(call, Call)
    assert call.args.get("measures") == measures


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[DataBench]:
    async with DataBench() as made:
        await made.put("bare.csv", NO_PROMPTS)
        await made.put("log.csv", LOG)
        await made.put("models.csv", MODELS)
        yield made


async def written(bench: DataBench, understanding: Understanding, *tools: str, dataset: str = "log.csv") -> str:
    """Return the answer that follows from these tools' real results."""
    exchanges = []
    for name in tools:
        output = await bench.call(name, dataset_id=dataset)
        exchanges.append(Exchange(name, {}, SUCCESS, output.summary, output.result, ""))
    return answers.write_answer(understanding, conversation(*exchanges))


@pytest.mark.asyncio(loop_scope="module")
async def test_anomalies_are_written_up_with_their_numbers(bench: DataBench) -> None:
    exchange = await bench.call("anomaly_scan", bucket="hour", dataset_id="log.csv")
    found = Exchange("anomaly_scan", {}, SUCCESS, "", exchange.result, "")
    answer = answers.write_answer(asking(Intent.TECHNICAL, Facet.ANOMALIES), conversation(found))
    first, *_ = answer.splitlines()
    assert "anomalies in 17 hours of log.csv" in first
    assert "2026-03-02 08:00 UTC" in first
    score = (60 - statistics.fmean(HOURS)) / statistics.stdev(HOURS)
    # The quartiles are 7 and 8, so 5.5 to 9.5 is usual.
    assert f"| 2026-03-02 08:00 UTC | requests | IQR, z-score | 60 | 6 to 10 | {score:+.1f} |" in answer
    assert "### What is usual for an hour" in answer


@pytest.mark.asyncio(loop_scope="module")
async def test_correlations_are_written_up_with_their_cautions(bench: DataBench) -> None:
    answer = await written(bench, asking(Intent.TECHNICAL, Facet.CORRELATION), "correlate", "usage_summary")
    assert answer.startswith(
        "**In log.csv, input tokens and latency rise together most clearly: a strong correlation (r = 1.00,"
    )
    assert "Correlation is no cause" in answer
    assert "| input tokens | latency | strong | yes | 175 | 1.000 | 1.000 |" in answer
    assert "### What it rests on" in answer


@pytest.mark.asyncio(loop_scope="module")
async def test_repeated_prompts_are_written_up_with_what_a_cache_could_have_saved(bench: DataBench) -> None:
    answer = await written(bench, asking(Intent.COST_ANALYSIS, Facet.DUPLICATES), "duplicate_prompts")
    # 4 prompts, each at one model and within a day of the one before: all but the first of each repeat.
    assert answer.startswith(
        f"**In log.csv, {sum(HOURS) - 4} requests ({(sum(HOURS) - 4) / sum(HOURS):.1%}".replace("%", " %")
    )
    assert "a cache could have answered them, and would have saved $" in answer
    assert "| question 3 |" in answer


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_not_there_is_said_first_and_how_to_supply_it_later(bench: DataBench) -> None:
    repeats = await written(
        bench, asking(Intent.COST_ANALYSIS, Facet.DUPLICATES), "duplicate_prompts", dataset="bare.csv"
    )
    assert repeats.startswith(
        "**Repeated prompts cannot be found: bare.csv has no column of prompts or their hashes.**"
    )
    assert "**prompt**: Without the prompt or its hash" in repeats
    little = await written(bench, asking(Intent.TECHNICAL, Facet.ANOMALIES), "anomaly_scan", dataset="bare.csv")
    assert "too short to say what is unusual" not in little  # two requests an hour apart are 61 minutes
    assert "61 minutes of bare.csv" in little
    nothing = await written(bench, asking(Intent.TECHNICAL, Facet.CORRELATION), "correlate", dataset="bare.csv")
    assert nothing.startswith("**There are no two measures in bare.csv that vary")


@pytest.mark.asyncio(loop_scope="module")
async def test_advice_on_caching_rests_on_repeated_prompts_too(bench: DataBench) -> None:
    entities = Entities(goals=(Goal("cost", -20.0),))
    understanding = replace(asking(Intent.OPTIMIZATION, Facet.CACHING), entities=entities)
    answer = await written(
        bench, understanding, "usage_summary", "cost_breakdown", "usage_pattern", "duplicate_prompts"
    )
    assert answer.startswith("**This is the measured baseline of log.csv")
    assert "### What a cache could have saved" in answer


FOUND: JsonObject = {
    "target": {"name": "shop", "kind": "postgresql", "version": "PostgreSQL 15.2"},
    "targets": ["shop", "wiki"],
    "overview": {"size_bytes": 3 * 1024 * 1024, "tables": 2, "cache_hit_share": 0.99, "connections": 4},
    "checked": ["slow statements"],
    "counts": {"high": 1, "medium": 0, "low": 1},
    "findings_total": 2,
    "findings": [
        {
            "kind": "slow_query",
            "severity": "high",
            "place": "SELECT a | b",
            "detail": "It is slow.",
            "suggestion": "Look.",
        },
        {"kind": "unused_index", "severity": "low", "place": "i", "detail": "Unused.", "suggestion": "Drop."},
    ],
    "findings_not_shown": 0,
    "tables": [{"name": "orders", "rows": 10, "size_bytes": 2048, "sequential_scans": 3, "index_scans": 4}],
    "missing": [{"column": "statement history", "why_it_matters": "Why.", "how_to_supply": "How."}],
}


def test_a_database_is_written_up() -> None:
    exchange = Exchange("database_analyzer", {}, SUCCESS, "", FOUND, "")
    _, words = analyst.reply(conversation(exchange))
    assert isinstance(words, Words)
    answer = words.text
    assert answer.startswith(
        "**2 findings in the database shop (PostgreSQL 15.2), 1 of them heavy. First: It is slow.**"
    )
    assert "| high | slow statement | SELECT a \\| b | It is slow. | Look. |" in answer
    assert "| orders | 10 | 2 KiB | 3 | 4 |" in answer
    assert "- **statement history**: Why. How." in answer
    assert "“Analyze the database wiki”" in answer


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        ("denied", "database_analyzer needs the scope databases:read.", "Ask whoever runs this service"),
        ("error", "No database may be looked at here.", "No database may be looked at here."),
    ],
)
def test_a_database_that_may_not_be_looked_at_is_said_with_a_way_out(status: str, error: str, says: str) -> None:
    exchange = Exchange("database_analyzer", {}, status, "", None, error)
    _, words = analyst.reply(conversation(exchange))
    assert isinstance(words, Words)
    assert words.text.startswith("**I could not look at the database.**")
    assert says in words.text
    assert "Upload" not in words.text


def test_measures_of_the_file_keep_their_names() -> None:
    pair: JsonObject = {
        "first": "column retries",
        "second": "hour",
        "rows": 20,
        "pearson": 0.05,
        "spearman": None,
        "strength": "none",
        "significant": False,
    }
    lines = analyses.correlations({"dataset": {"name": "a.csv"}, "pairs": [pair], "constant": [], "cautions": []})
    opening = (
        "**Nothing in a.csv goes together to speak of; the closest are column retries and hour of the day (r = 0.05)."
    )
    assert lines[0] == f"{opening}**"
    assert "| column retries | hour of the day | none | no | 20 | 0.050 | not defined |" in lines


async def answered(bench: DataBench, request: str, *earlier: str) -> str:
    """Let the data agent take its looks with the real tools, and return what it writes."""
    exchanges: tuple[Exchange, ...] = ()
    while True:
        so_far = Conversation(request, earlier, NOW, {}, exchanges, TOOLS)
        sayings = analyst.reply(so_far)
        calls = [saying for saying in sayings if isinstance(saying, Call)]
        if not calls:
            return next(saying.text for saying in sayings if isinstance(saying, Words))
        for call in calls:
            exchanges = (*exchanges, await looked(bench, call))


async def looked(bench: DataBench, call: Call) -> Exchange:
    try:
        tool = bench.tools[call.tool_name]
        output = await tool.run(context(), tool.args.model_validate({**call.args, "dataset_id": "models.csv"}))
        return Exchange(call.tool_name, call.args, SUCCESS, output.summary, output.result, "")
    except ToolError as error:
        return Exchange(call.tool_name, call.args, "error", "", None, str(error))


@pytest.mark.asyncio(loop_scope="module")
async def test_what_one_model_cost_is_about_that_model_alone(bench: DataBench) -> None:
    answer = await answered(bench, "How much did gpt-4o cost?")
    assert answer.startswith("**In models.csv, 1 request with gpt-4o costs $2.50: 1,000,000 context")
    assert "gpt-4o-mini |" not in answer


@pytest.mark.asyncio(loop_scope="module")
async def test_a_share_rests_on_all_models_and_no_price_is_no_share(bench: DataBench) -> None:
    answer = await answered(bench, "What share of our cost is gpt-4o?")
    assert "| gpt-4o | 1 | 1,000,000 | 0 | $2.50 | 89.3 % |" in answer  # 2.50 of 2.50 + 2 * 0.15
    assert "| our-own | 1 | 1,000 | 0 | not known | not known |" in answer


@pytest.mark.asyncio(loop_scope="module")
async def test_a_filter_that_leaves_nothing_does_not_take_away_what_was_asked_by(bench: DataBench) -> None:
    answer = await answered(bench, "What did it cost by user in January 2020?")
    assert "matches the filter" in answer
    assert "| ben | 2 | 66.7 % |" in answer
