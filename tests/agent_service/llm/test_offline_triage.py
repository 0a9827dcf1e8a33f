"""The offline model as triage and as the supervisor's voice: who is asked, and what is offered."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.intents import Intent, Triage, is_confident
from agent_service.llm.offline import triage, voice
from agent_service.llm.offline.conversation import Call, Conversation, Exchange, Words

NOW: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
LOOKS: Final = frozenset({"list_datasets", "describe_dataset"})
SPECIALISTS: Final = ("data", "optimizations", "actions", "reporting", "corpus_admin", "synthetic_data")
TOOLS: Final[Mapping[str, Sequence[str]]] = {"data": ("usage_summary", "anomaly_scan", "database_analyzer")}


def notes(installed: Sequence[str], tools: Mapping[str, Sequence[str]] = TOOLS) -> JsonObject:
    """Return the supervisor's note when these specialists are there."""
    available: list[JsonValue] = [
        {"agent": name, "does": f"Does {name}.", "tools": list(tools.get(name, ()))} for name in installed
    ]
    absent: list[JsonValue] = [{"agent": name, "does": name} for name in SPECIALISTS if name not in installed]
    return {"intent": "", "available": available, "not_available": absent}


def described(level: str, *missing: str) -> Exchange:
    """Return what a look at a dataset found."""
    result: JsonObject = {
        "dataset": {"name": "log.csv", "rows": 6},
        "sufficiency": {"level": level},
        "missing": [{"column": name} for name in missing],
    }
    return Exchange("describe_dataset", {}, "success", "", result, "")


def conversation(
    request: str,
    *exchanges: Exchange,
    installed: Sequence[str] = SPECIALISTS,
    tools: Mapping[str, Sequence[str]] = TOOLS,
    earlier: tuple[str, ...] = (),
) -> Conversation:
    return Conversation(
        request,
        earlier,
        NOW,
        {"supervisor": notes(installed, tools)},
        exchanges,
        LOOKS,
        output_tool="final_result",
        output_fields=triage.FIELDS,
    )


def found(one: Conversation) -> Triage:
    """Return triage's typed result; the last thing said must be one."""
    *_, last = triage.reply(one)
    assert isinstance(last, Call)
    assert last.tool_name == "final_result", "it looks at the data first"
    return Triage.model_validate(last.args)


def says(one: Conversation) -> str:
    """Return the words of the supervisor's voice."""
    (words,) = voice.reply(one)
    assert isinstance(words, Words)
    return words.text


@pytest.mark.parametrize(
    "request_text",
    [
        "create a knowledge base for our runbooks",
        "what do our docs say about retries?",
        "generate 10,000 requests that look like Black Friday",
        "Analyze my database performance",
        "hello",
        "write a poem about the sea",
    ],
)
def test_a_request_that_needs_no_data_is_sufficient_without_a_look(request_text: str) -> None:
    assert found(conversation(request_text)).sufficiency == "sufficient"


@pytest.mark.parametrize(
    "request_text",
    [
        "Analyze my AI costs",
        "cut spend by 20 %",
        "find anomalies in our usage",
        "profile usage.csv and generate a similar dataset",
        "create a knowledge base for our runbooks and analyze my costs",
    ],
)
def test_a_request_that_needs_data_looks_at_it_first(request_text: str) -> None:
    calls = [saying.tool_name for saying in triage.reply(conversation(request_text)) if isinstance(saying, Call)]
    assert calls == ["list_datasets", "describe_dataset"]


def test_what_is_named_is_in_the_triage() -> None:
    text = "generate 5,000 synthetic requests of a bank over 14 days with seed 3"
    entities = found(conversation(text)).entities
    assert (entities.rows, entities.days, entities.seed, entities.preset) == (5000, 14, 3, "financial")
    entities = found(conversation("what does our wiki say about SSO?")).entities
    assert (entities.corpus, entities.query) == ("wiki", "SSO")
    upgrade = conversation("was the upgrade on May 10 worth it?", described("sufficient"))
    assert found(upgrade).entities.change_time == datetime(2026, 5, 10, tzinfo=UTC)


def test_the_agents_follow_from_what_the_data_allows() -> None:
    text = "cut spend 30 %, keep quality"
    assert found(conversation(text, described("sufficient"))).next_agents == [
        "data",
        "optimizations",
        "actions",
        "reporting",
    ]
    partial = found(conversation(text, described("partial", "model")))
    assert (partial.sufficiency, partial.missing) == ("partial", ["model"])
    assert partial.next_agents == ["data", "optimizations", "reporting"]


def test_a_mixed_request_names_the_agents_of_both_and_says_so() -> None:
    text = "analyze my costs and create a knowledge base for our runbooks"
    result = found(conversation(text, described("sufficient")))
    assert result.next_agents == ["data", "corpus_admin"]
    assert "what your AI usage costs" in result.summary
    assert "knowledge base" in result.summary


def test_a_database_is_the_data_agents_only_where_it_can_look_into_one() -> None:
    text = "Analyze my database performance"
    assert found(conversation(text)).next_agents == ["data"]
    assert found(conversation(text, tools={"data": ("usage_summary",)})).next_agents == []


def test_more_names_than_a_triage_holds_are_cut() -> None:
    names = " ".join(f"gpt-4.{number}" for number in range(1, 10)) + " "
    text = f"what would {names * 3} cost, " + " ".join(f"file{number}.csv" for number in range(30))
    result = found(conversation(text, described("sufficient")))
    assert len(result.entities.files) == triage.MAX_NAMES
    long = found(conversation("Analyze " + "x" * 1_500 + ".csv", described("sufficient")))
    assert len(long.summary) <= triage.MAX_SUMMARY


WORDS: Final = (
    "cut cost by 20 % and what do our docs say about retries? create knowledge base for generate 10,000 requests "
    "seed 5 gpt-4o since 2026-05-01 report PDF a.csv 500 RPM $5k select 'x' upgrade on May 10 it that ; , . per feature"
)


@given(st.lists(st.sampled_from(WORDS.split()), max_size=40).map(" ".join), st.lists(st.text(max_size=40), max_size=3))
def test_whatever_is_said_makes_a_valid_triage(text: str, earlier: list[str]) -> None:
    result = found(conversation(text, described("sufficient"), earlier=tuple(earlier)))
    assert set(result.next_agents) <= set(SPECIALISTS)
    assert bool(result.question) == (not is_confident(result))


@pytest.mark.parametrize("text", ["jumble our tokens sideways", "paint the workload purple"])
def test_what_may_be_about_usage_is_asked_back_rather_than_turned_away(text: str) -> None:
    result = found(conversation(text, described("sufficient")))
    assert not is_confident(result)
    assert result.question.endswith("One sentence more will do.")


@pytest.mark.parametrize("installed", [("data",), SPECIALISTS], ids=["data-only", "everybody"])
@pytest.mark.parametrize("intent", list(Intent))
def test_suggestions_are_for_agents_that_are_there(intent: Intent, installed: tuple[str, ...]) -> None:
    asked = {
        Intent.COST_ANALYSIS: "Analyze my AI costs",
        Intent.BENCHMARKING: "compare the latency of our models",
        Intent.PRICING: "what would gpt-4o-mini cost for this traffic?",
        Intent.OPTIMIZATION: "cut spend 30 %, keep quality",
        Intent.CORPUS: "create a knowledge base for our runbooks",
        Intent.SYNTHETIC: "generate 10,000 requests that look like Black Friday",
        Intent.REPORTING: "report for management, with charts, PDF",
        Intent.TECHNICAL: "find anomalies in our usage",
        Intent.GENERAL: "which files have I uploaded?",
    }
    exchanges = () if intent in {Intent.CORPUS, Intent.SYNTHETIC} else (described("sufficient"),)
    result = found(conversation(asked[intent], *exchanges, installed=installed))
    assert result.category is intent
    assert 1 <= len(result.suggestions) <= 3
    assert len(set(result.suggestions)) == len(result.suggestions)
    for suggestion in result.suggestions:
        needed = found(conversation(suggestion, described("sufficient"), earlier=(asked[intent],))).next_agents
        assert set(needed) & set(installed), suggestion
        assert len(installed) > 1 or needed == ["data"], suggestion


def test_everybody_that_is_there_is_offered_and_nobody_else() -> None:
    whole = says(conversation("what can you do?"))
    alone = says(conversation("what can you do?", installed=("data",), tools={"data": ("usage_summary",)}))
    for message in ("Cut our spend", "Make an action plan", "Report for management", "knowledge base", "Black Friday"):
        assert message in whole
        assert message not in alone
    assert "database performance" in whole
    assert "database" not in alone
    assert "Analyze my AI costs" in alone
    assert "Does " not in whole, "a description stands only for agents that are not known here"


def test_an_agent_of_a_plug_in_is_offered_in_its_own_words() -> None:
    assert "- Does carbon." in says(conversation("what can you do?", installed=("data", "carbon")))


@pytest.mark.parametrize(
    ("text", "agent", "subject"),
    [
        ("create a knowledge base for our runbooks", "corpus_admin", "Knowledge bases"),
        ("generate 10,000 requests that look like Black Friday", "synthetic_data", "Generated workloads"),
    ],
)
def test_only_what_is_not_installed_is_said_not_to_be(text: str, agent: str, subject: str) -> None:
    others = [name for name in SPECIALISTS if name != agent]
    assert says(conversation(text, installed=others)).startswith(f"**{subject}")
    assert "not available" not in says(conversation(text))


def test_another_language_is_answered_in_it_and_in_english() -> None:
    text = says(conversation("Wie viel kosten uns unsere Modelle im Monat?"))
    assert text.startswith("Ich verstehe hier nur Englisch")
    assert "the offline model understands English only" in text
