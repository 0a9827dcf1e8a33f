"""What the offline model understands: labelled sets of phrasings, follow-ups, and what it leaves alone."""

import json
import re
import statistics
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Final

import pytest

from agent_service.engine.intents import INTENT_RULES, Intent
from agent_service.llm.offline import data
from agent_service.llm.offline.entities import Entities
from agent_service.llm.offline.languages import foreign_language
from agent_service.llm.offline.suggestions import EXAMPLES, FIRST_STEPS
from agent_service.llm.offline.triage import next_agents
from agent_service.llm.offline.understanding import Facet, Understanding, understand
from agent_service.llm.offline.voice import TRY
from agent_service.llm.offline.words import normalise

NOW: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
"""A Monday."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A phrasing and what it means: `intent` is None where several agents are asked, who are named then."""

    text: str
    intent: Intent | None = None
    facets: Sequence[str] = ()
    entities: Mapping[str, object] = field(default_factory=dict)
    agents: Sequence[str] = ()


@dataclass(slots=True)
class Score:
    """How many of the labelled things were found, and each one that was not, in words."""

    right: Counter[str] = field(default_factory=Counter)
    all: Counter[str] = field(default_factory=Counter)
    confusion: Counter[tuple[Intent, Intent]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)

    def count(self, kind: str, text: str, found: object, meant: object, *, right: bool) -> None:
        """Count one thing that was looked for."""
        self.all[kind] += 1
        self.right[kind] += right
        if not right:
            self.wrong.append(f"{kind}: {meant} read as {found}: {text}")

    def share(self, kind: str) -> float:
        """Return the share of what was found rightly."""
        return self.right[kind] / self.all[kind]


def labelled(name: str) -> list[Labelled]:
    """Return a set of phrasings."""
    lines = Path(__file__).with_name(name).read_text("utf-8").splitlines()
    return [
        Labelled(
            entry["text"],
            Intent(entry["intent"]) if "intent" in entry else None,
            entry.get("facets", ()),
            entry.get("entities", {}),
            entry.get("agents", ()),
        )
        for entry in map(json.loads, lines)
    ]


def score(phrasings: Sequence[Labelled]) -> Score:
    """Return how well these phrasings are understood."""
    result = Score()
    for one in phrasings:
        found = understand(one.text, [], NOW)
        if one.intent is not None:
            result.count("intent", one.text, found.intent, one.intent, right=found.intent is one.intent)
            result.confusion[one.intent, found.intent] += 1
            if found.intent is one.intent and found.confidence < INTENT_RULES[one.intent].threshold:
                result.unsure.append(f"{one.intent} ({found.confidence}): {one.text}")
        for name, meant in one.entities.items():
            was = plainly(found.entities, name)
            result.count("entity", one.text, f"{name}={was}", meant, right=agrees(name, was, meant))
        for facet in one.facets:
            right = Facet(facet) in found.facets
            result.count("facet", one.text, sorted(found.facets), facet, right=right)
        if one.agents:
            agents = next_agents(found, "sufficient")
            result.count("agents", one.text, agents, one.agents, right=set(one.agents) <= set(agents))
    return result


def plainly(entities: Entities, name: str) -> object:
    """Return an entity as it is written in the labelled sets."""
    value = getattr(entities, name)
    if name == "period":
        return [moment and moment.date().isoformat() for moment in (value.start, value.end)]
    if name == "change_time":
        return value and value.date().isoformat()
    if name == "goals":
        return [[goal.metric, goal.change_percent and round(goal.change_percent, 2), goal.amount_usd] for goal in value]
    if name == "columns":
        return dict(value)
    return [list(item) if isinstance(item, tuple) else item for item in value] if isinstance(value, tuple) else value


def agrees(name: str, found: object, meant: object) -> bool:
    """True when an entity is the one meant; of goals all those that are meant must be there."""
    if name == "goals" and isinstance(found, list) and isinstance(meant, list):
        return all(goal in found for goal in meant)
    if isinstance(found, str) and isinstance(meant, str):
        return found.casefold() == meant.casefold()
    return found == meant


def told(title: str, result: Score) -> str:
    """Return the accuracy in words, the confusion matrix (rows: what was meant), and everything that is wrong."""
    shares = ", ".join(f"{result.share(kind):.1%} of {count} {kind}" for kind, count in result.all.items())
    names = [intent.value[:9] for intent in Intent]
    rows = [
        f"{meant.value:>14} " + " ".join(f"{result.confusion[meant, found] or '·':>9}" for found in Intent)
        for meant in Intent
    ]
    matrix = "\n".join([" " * 15 + " ".join(f"{name:>9}" for name in names), *rows])
    return "\n".join([f"\noffline model, {title}: {shares}", matrix, *(f"  {line}" for line in result.wrong), ""])


PHRASINGS: Final = labelled("phrasings.jsonl")
UNSEEN: Final = labelled("unseen_phrasings.jsonl")
"""Written after the rules of the first intents, and not to be used for them: what a new user meets."""
HELD_OUT: Final = labelled("held_out_phrasings.jsonl")
"""Written before the rules of the specialists, and not used for them: with entities, facets and agents."""

UNSEEN_FLOOR: Final = 0.75
MISREAD_CEILING: Final = 0.2
"""Of the unseen phrasings: misread, and sure enough of it not to ask back."""

HELD_OUT_FLOOR: Final = 0.9
"""Of the intents, entities, facets and agents of the held-out phrasings, each."""

ACCURACY_FLOOR: Final = 0.95
"""Of the labelled phrasings. They were used to write the rules: a new phrasing does worse."""

CONFIDENT_FLOOR: Final = 0.93
"""Of them, understood rightly and surely enough to be answered without a question."""

MEDIAN_BUDGET_MS: Final = 1.0
"""To understand a short message."""


def test_the_labelled_phrasings_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    result = score(PHRASINGS)
    confident = result.share("intent") - len(result.unsure) / result.all["intent"]
    with capsys.disabled():
        sys.stdout.write(told(f"labelled set ({confident:.1%} surely)", result))
    by_intent = Counter(one.intent for one in PHRASINGS if one.intent is not None)
    assert set(by_intent) == set(Intent)
    assert min(by_intent.values()) >= 15
    assert sum(bool(one.entities or one.facets) for one in PHRASINGS) >= 120
    assert confident >= CONFIDENT_FLOOR, [*result.wrong, *result.unsure]
    for kind in result.all:
        assert result.share(kind) >= ACCURACY_FLOOR, result.wrong


def test_the_held_out_phrasings_are_understood_almost_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    result = score(HELD_OUT)
    with capsys.disabled():
        sys.stdout.write(told("held-out set", result))
    assert len(HELD_OUT) >= 60
    for kind in result.all:
        assert result.share(kind) >= HELD_OUT_FLOOR, result.wrong


def test_most_unseen_phrasings_are_understood_and_few_are_misread_for_sure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = [(understand(one.text, [], NOW), one.intent) for one in UNSEEN]
    right = sum(one.intent is intent for one, intent in found)
    misread = [
        one
        for one, intent in found
        if one.intent is not intent and one.confidence >= INTENT_RULES[one.intent].threshold
    ]
    with capsys.disabled():
        sys.stdout.write(
            f"\noffline model: {right / len(found):.1%} of {len(found)} unseen phrasings, "
            f"{len(misread) / len(found):.1%} misread without asking back\n"
        )
    assert right / len(found) >= UNSEEN_FLOOR
    assert len(misread) / len(found) <= MISREAD_CEILING


def test_no_phrasing_is_in_two_sets_or_a_rules_own_words() -> None:
    texts = [normalise(one.text) for one in (*PHRASINGS, *UNSEEN, *HELD_OUT)]
    assert [text for text, count in Counter(texts).items() if count > 1] == []
    tables = tomllib.loads(files(data).joinpath("evidence.toml").read_text("utf-8"))
    rules = [pattern for name in set(Intent) - {Intent.GENERAL} for pattern, _ in tables[name]["evidence"]]
    literal = [re.compile(rule) for rule in rules if "." not in rule and "\\w" not in rule]
    assert literal
    assert [text for text in texts if any(rule.fullmatch(text) for rule in literal)] == []


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("anaylze my ai csots", Intent.COST_ANALYSIS),
        ("brekdown of spendng by modle", Intent.COST_ANALYSIS),
        ("compre the latncy of our modles", Intent.BENCHMARKING),
        ("generte syntetic requsts", Intent.SYNTHETIC),
        ("creat a knowlege base for our runboks", Intent.CORPUS),
        ("reprot for mangement with chrats", Intent.REPORTING),
        ("anlyze my databse performence", Intent.TECHNICAL),
        ("find anomlies and outlires", Intent.TECHNICAL),
        ("redcue our spnding by 20%", Intent.OPTIMIZATION),
    ],
)
def test_typos_are_forgiven(text: str, intent: Intent) -> None:
    assert understand(text, [], NOW).intent is intent


@pytest.mark.parametrize(
    ("text", "intent", "group_by", "assumed"),
    [
        ("and by feature?", Intent.COST_ANALYSIS, ("feature",), ""),
        ("assume gpt-4o", Intent.COST_ANALYSIS, ("model",), "gpt-4o"),
        ("gpt-4o", Intent.COST_ANALYSIS, ("model",), "gpt-4o"),
        ("what would gpt-4o-mini cost instead?", Intent.PRICING, ("model",), ""),
        ("now per user and day", Intent.COST_ANALYSIS, ("user", "day"), ""),
    ],
)
def test_a_short_message_goes_on_with_the_last_question(
    text: str, intent: Intent, group_by: tuple[str, ...], assumed: str
) -> None:
    found = understand(text, ["hello", "What do we spend in log.csv by model?", "thanks"], NOW)
    assert (found.intent, found.follows) == (intent, True)
    assert found.entities.group_by == group_by
    assert found.entities.assume_model == assumed
    assert found.entities.files == ("log.csv",)


def test_follow_ups_build_on_each_other() -> None:
    found = understand("and by feature?", ["Analyze my AI costs", "assume gpt-4o", "only since 2023-11-01"], NOW)
    assert found.entities.assume_model == "gpt-4o"
    assert found.entities.group_by == ("feature",)
    assert found.entities.period.start == datetime(2023, 11, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Turn:
    """A message after others, and what is to be understood; what is None or empty is not looked at."""

    before: tuple[str, ...]
    text: str
    intent: Intent
    entities: Mapping[str, object] = field(default_factory=dict)
    facets: frozenset[Facet] = frozenset()
    not_facets: frozenset[Facet] = frozenset()


COSTS: Final = "Analyze my AI costs in log.csv"
SAVE: Final = "Cut spend 30 %, keep quality"
FITS: Final = "will +50 % traffic fit our limits of 500 RPM and 200k TPM?"
SHOP: Final = "generate 10,000 requests that look like Black Friday"
LOG: Final = {"files": ["log.csv"]}
LESS: Final = {"goals": [["cost", -30, None], ["quality", 0, None]]}

TURNS: Final = (
    Turn((COSTS,), "and per feature?", Intent.COST_ANALYSIS, LOG | {"group_by": ["feature"]}),
    Turn((COSTS,), "do that for last week", Intent.COST_ANALYSIS, LOG | {"period": ["2026-05-25", "2026-06-01"]}),
    Turn((COSTS, "and per feature?"), "put it in a report", Intent.REPORTING, LOG | {"group_by": ["feature"]}),
    Turn((COSTS, "put it in a report"), "as PDF", Intent.REPORTING, LOG, frozenset({Facet.PDF})),
    Turn((COSTS,), "as a chart", Intent.REPORTING, LOG, frozenset({Facet.CHARTS})),
    Turn((COSTS,), "now with gpt-4o", Intent.PRICING, LOG | {"models": ["gpt-4o"], "assume_model": ""}),
    Turn((COSTS,), "why?", Intent.COST_ANALYSIS, LOG),
    Turn((COSTS,), "cut it by 20%", Intent.OPTIMIZATION, LOG | {"goals": [["cost", -20, None]]}),
    Turn((COSTS,), "make it 2x faster", Intent.OPTIMIZATION, LOG | {"goals": [["latency", -50, None]]}),
    Turn((SAVE,), "which of these first?", Intent.OPTIMIZATION, LESS, frozenset({Facet.PLAN})),
    Turn((SAVE,), "make a plan", Intent.OPTIMIZATION, LESS, frozenset({Facet.PLAN})),
    Turn((SAVE, "make a plan"), "apply it", Intent.OPTIMIZATION, LESS, frozenset({Facet.APPLY})),
    Turn((SAVE,), "export the policy", Intent.OPTIMIZATION, LESS, frozenset({Facet.POLICY})),
    Turn((SAVE, "make a plan"), "mark A1 as done", Intent.OPTIMIZATION, LESS, frozenset({Facet.TRACK})),
    Turn((SAVE,), "what about 40%?", Intent.OPTIMIZATION, {"goals": [["cost", -40, None], ["quality", 0, None]]}),
    Turn(
        ("audit our caching",),
        "and batching?",
        Intent.OPTIMIZATION,
        facets=frozenset({Facet.BATCHING}),
        not_facets=frozenset({Facet.CACHING}),
    ),
    Turn(
        (SAVE, "apply it"), "and for May?", Intent.OPTIMIZATION, LESS, not_facets=frozenset({Facet.APPLY, Facet.DELETE})
    ),
    Turn((FITS,), "and with 100 %?", Intent.OPTIMIZATION, {"limits": [["rpm", 500], ["tpm", 200000]]}),
    Turn((FITS,), "what if the limit is 1000 rpm?", Intent.OPTIMIZATION, {"limits": [["rpm", 1000], ["tpm", 200000]]}),
    Turn(
        ("was the upgrade on May 10 worth it?",), "and for latency?", Intent.OPTIMIZATION, {"change_time": "2026-05-10"}
    ),
    Turn(("what do our docs say about retries?",), "and timeouts?", Intent.CORPUS, {"query": "timeouts"}),
    Turn(
        ("delete the runbooks knowledge base",),
        "and what do they say about retries?",
        Intent.CORPUS,
        {"query": "retries"},
        not_facets=frozenset({Facet.DELETE}),
    ),
    Turn(
        ("create a knowledge base for our runbooks",),
        "add failover.md to it",
        Intent.CORPUS,
        {"corpus": "runbooks", "files": ["failover.md"]},
        frozenset({Facet.ADD}),
        frozenset({Facet.CREATE}),
    ),
    Turn((SHOP,), "make it 50k", Intent.SYNTHETIC, {"rows": 50000, "preset": "ecommerce"}),
    Turn((SHOP,), "now for healthcare", Intent.SYNTHETIC, {"rows": 10000, "preset": "healthcare"}),
    Turn((SHOP,), "with seed 7", Intent.SYNTHETIC, {"rows": 10000, "seed": 7}),
    Turn((SHOP,), "over two weeks", Intent.SYNTHETIC, {"rows": 10000, "days": 14}),
    Turn(
        ("compare latency of gpt-4o and claude 3.5 sonnet in my logs",),
        "what about p99?",
        Intent.BENCHMARKING,
        {"models": ["gpt-4o", "claude-3-5-sonnet"]},
    ),
    Turn(
        ("report for management, with charts, PDF",),
        "without charts",
        Intent.REPORTING,
        facets=frozenset({Facet.PDF}),
        not_facets=frozenset({Facet.CHARTS}),
    ),
    Turn((COSTS, "create a knowledge base for our runbooks"), "and by feature?", Intent.COST_ANALYSIS, LOG),
    Turn(
        (COSTS,),
        'Analyze it again: column "Dur (ms)" is the latency, column "b-c" is the user, column "x" is the status',
        Intent.COST_ANALYSIS,
        LOG | {"columns": {"latency": "Dur (ms)", "user": "b-c", "status": "x"}},
    ),
    Turn(
        ("compare the latency of our models in log.csv",),
        "Dur_MS is the latency",
        Intent.BENCHMARKING,
        LOG | {"columns": {"latency": "Dur_MS"}},
    ),
    Turn(
        (COSTS, "column ts is the timestamp"),
        "no, GeneratedTokens is the output",
        Intent.COST_ANALYSIS,
        {"columns": {"timestamp": "ts", "output_tokens": "GeneratedTokens"}},
    ),
)


@pytest.mark.parametrize("turn", TURNS, ids=lambda turn: turn.text.replace(" ", "-"))
def test_a_message_goes_on_with_its_thread(turn: Turn) -> None:
    found = understand(turn.text, turn.before, NOW)
    assert (found.intent, found.follows) == (turn.intent, True)
    assert found.confidence >= INTENT_RULES[found.intent].threshold
    for name, meant in turn.entities.items():
        assert agrees(name, plainly(found.entities, name), meant), (name, plainly(found.entities, name))
    assert turn.facets <= found.facets
    assert not turn.not_facets & found.facets


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "thanks a lot",
        "what can you do?",
        "compare latency of our models",
        "analyze this file",
        "create a knowledge base for our runbooks",
        "who won the world cup in 1998?",
    ],
)
def test_what_stands_for_itself_does_not_go_on(text: str) -> None:
    found = understand(text, [COSTS], NOW)
    assert not found.follows
    assert "log.csv" not in found.entities.files


def test_without_an_earlier_question_a_fragment_is_asked_back() -> None:
    found = understand("and then?", [], NOW)
    assert found.intent is Intent.GENERAL


@pytest.mark.parametrize(
    ("text", "level", "agents"),
    [
        ("Analyze my AI costs", "sufficient", ["data"]),
        (SAVE, "sufficient", ["data", "optimizations", "actions", "reporting"]),
        (SAVE, "partial", ["data", "optimizations", "reporting"]),
        (SAVE, "insufficient", ["reporting"]),
        ("report for management, with charts, PDF", "sufficient", ["data", "optimizations", "actions", "reporting"]),
        ("report for management, with charts, PDF", "partial", ["data", "reporting"]),
        ("report for management, with charts, PDF", "insufficient", ["reporting"]),
        ("create a knowledge base for our runbooks", "insufficient", ["corpus_admin"]),
        (SHOP, "insufficient", ["synthetic_data"]),
        ("Analyze my database performance", "sufficient", ["data"]),
        ("find anomalies in our usage", "sufficient", ["data"]),
        ("hello", "sufficient", []),
        ("analyze my costs and create a knowledge base for our runbooks", "sufficient", ["data", "corpus_admin"]),
    ],
)
def test_the_specialists_follow_from_the_intent_and_the_data(text: str, level: str, agents: list[str]) -> None:
    assert next_agents(understand(text, [], NOW), level) == agents


def test_a_database_is_nobodys_where_nobody_looks_into_databases() -> None:
    found = understand("Analyze my database performance", [], NOW)
    assert next_agents(found, "sufficient", looks_into_databases=False) == []


@pytest.mark.parametrize(
    "text", ["compare latency of gpt-4o and gpt-4o-mini in my logs", "compare the models in our logs"]
)
def test_what_is_compared_in_ones_logs_is_not_the_logs(text: str) -> None:
    assert Facet.SEVERAL not in understand(text, (), NOW).facets


@pytest.mark.parametrize(
    "text", ["compare my logs", "compare the costs of my logs", "compare gpt-4o and gpt-4o-mini in both logs"]
)
def test_logs_that_are_compared_are_several(text: str) -> None:
    assert Facet.SEVERAL in understand(text, (), NOW).facets


def test_a_report_of_several_things_is_a_report() -> None:
    found = understand("Analyze my AI costs and put it in a PDF report", [], NOW)
    assert (found.intent, found.also) == (Intent.REPORTING, (Intent.COST_ANALYSIS,))
    assert Facet.PDF in found.facets


@pytest.mark.parametrize("text", [*(message for _, message in EXAMPLES), *FIRST_STEPS, *TRY])
def test_what_is_offered_is_understood(text: str) -> None:
    found = understand(text, [], NOW)
    assert found.confidence >= INTENT_RULES[found.intent].threshold
    agents = next_agents(found, "sufficient")
    assert agents
    for agent, message in EXAMPLES:
        if message == text:
            assert agent in agents


@pytest.mark.parametrize("text", ["asdkjh qweoiu", "", "\x00\x01", "🦆"])
def test_gibberish_is_not_guessed_at(text: str) -> None:
    found = understand(text, [], NOW)
    assert found.confidence < INTENT_RULES[found.intent].threshold


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Wie viel kostet uns die Nutzung unserer Modelle im Monat?", "german"),
        ("¿Cuánto nos cuesta el uso de los modelos?", "spanish"),
        ("Combien nous coûtent nos modèles chaque mois ?", "french"),
        ("Quanto ci costano i nostri modelli al mese?", "italian"),
        ("Quanto custam os nossos modelos por mês?", "portuguese"),
        ("Hoeveel kosten onze modellen per maand?", "dutch"),
        ("Ile kosztuje nas miesiąc i dlaczego?", "polish"),
        ("Bizim modeller için aylık maliyet ne kadar?", "turkish"),  # noqa: RUF001 - its own letters
        ("私たちのコストはいくらですか", "japanese"),
        ("请分析我们的成本", "chinese"),
        ("우리 비용을 분석해 주세요", "korean"),
        ("ما هي تكلفة نماذجنا؟", "arabic"),
        ("Сколько стоят наши модели?", "russian"),
        ("Πόσο κοστίζουν τα μοντέλα μας;", "greek"),
        ("Vad kostar våra modeller varje månad egentligen", ""),
    ],
    ids=lambda value: value if value.isascii() and " " not in value else "",
)
def test_other_languages_are_told_and_answered_in_their_own(text: str, language: str) -> None:
    found = understand(text, ["What do we spend by model?"], NOW)
    told_apart = foreign_language(text)
    assert found.intent is Intent.GENERAL
    assert Facet.FOREIGN in found.facets
    assert told_apart is not None
    assert told_apart.name == language
    assert bool(told_apart.answer) is bool(language)


@pytest.mark.parametrize(
    "text",
    [
        "is haiku 4.5 quicker than gpt-4.1 nano for us",
        "as a chart",
        "price of gpt-4.1 per million tokens",
        "export the findings as a pdf",
        "de-duplicate prompts by user_id in data.csv",
        "TPM? RPM?",
    ],
)
def test_english_is_not_taken_for_another_language(text: str) -> None:
    assert foreign_language(text) is None


HOSTILE: Final = (
    "cut ", "a", "select ", "gpt-4o ", "in may ", "$1,000 ", "search the docs for a ", "docs say ", "10 000 ", "1", "-",
    "knowledge base for ", "upgrade on ", "column a is ", '"a ', "what would you compare ", "by model, ", "and show ",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=[f"hostile-{number}" for number in range(len(HOSTILE))])
def test_a_hostile_message_takes_no_long_time(text: str) -> None:
    long = text * (64_000 // len(text))
    began = time.process_time()
    understand(long, [long + str(number) for number in range(8)], NOW)
    assert time.process_time() - began < 5


def test_a_short_message_is_understood_in_a_moment(capsys: pytest.CaptureFixture[str]) -> None:
    texts = [one.text for one in PHRASINGS]
    understood(texts)  # warms the words that are mended
    took = understood(texts)
    median = statistics.median(took)
    with capsys.disabled():
        sys.stdout.write(
            f"\noffline model: a message is understood in {median:.2f} ms (median), {max(took):.1f} ms at most\n"
        )
    assert median < MEDIAN_BUDGET_MS


def understood(texts: Sequence[str]) -> list[float]:
    """Return the CPU milliseconds that each of these messages takes, none of them remembered."""
    took = []
    for number, text in enumerate(texts):
        began = time.process_time()
        found = understand(text, [], NOW.replace(microsecond=number))
        took.append((time.process_time() - began) * 1000)
        assert isinstance(found, Understanding)
    return took
