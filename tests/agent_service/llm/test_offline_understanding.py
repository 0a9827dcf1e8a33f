"""What the offline model understands: a labelled set of phrasings, follow-ups, and what it leaves alone."""

import json
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from agent_service.engine.intents import INTENT_RULES, Intent
from agent_service.llm.offline.understanding import Facet, understand

NOW: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)


def labelled(name: str) -> list[tuple[str, Intent]]:
    lines = Path(__file__).with_name(name).read_text("utf-8").splitlines()
    return [(str(entry["text"]), Intent(entry["intent"])) for entry in map(json.loads, lines)]


PHRASINGS: Final = labelled("phrasings.jsonl")
UNSEEN: Final = labelled("unseen_phrasings.jsonl")
"""Written after the rules, and not to be used for them: what a new user meets."""

UNSEEN_FLOOR: Final = 0.75
MISREAD_CEILING: Final = 0.2
"""Of the unseen phrasings: misread, and sure enough of it not to ask back."""

ACCURACY_FLOOR: Final = 0.95
"""Of the labelled phrasings. They were used to write the rules: a new phrasing does worse."""

CONFIDENT_FLOOR: Final = 0.93
"""Of them, understood rightly and surely enough to be answered without a question."""


def test_the_labelled_phrasings_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    wrong, unsure = [], []
    by_intent: Counter[Intent] = Counter()
    for text, intent in PHRASINGS:
        found = understand(text, [], NOW)
        by_intent[intent] += 1
        if found.intent is not intent:
            wrong.append(f"{intent} read as {found.intent} ({found.confidence}): {text}")
        elif found.confidence < INTENT_RULES[intent].threshold:
            unsure.append(f"{intent} ({found.confidence}): {text}")
    accuracy = 1 - len(wrong) / len(PHRASINGS)
    confident = accuracy - len(unsure) / len(PHRASINGS)
    with capsys.disabled():
        sys.stdout.write(f"\noffline model: {accuracy:.1%} of {len(PHRASINGS)} phrasings, {confident:.1%} surely\n")
    assert set(by_intent) == set(Intent)
    assert min(by_intent.values()) >= 5
    assert accuracy >= ACCURACY_FLOOR, wrong
    assert confident >= CONFIDENT_FLOOR, [*wrong, *unsure]


def test_most_unseen_phrasings_are_understood_and_few_are_misread_for_sure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = [(understand(text, [], NOW), intent) for text, intent in UNSEEN]
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


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("anaylze my ai csots", Intent.COST_ANALYSIS),
        ("brekdown of spendng by modle", Intent.COST_ANALYSIS),
        ("compre the latncy of our modles", Intent.BENCHMARKING),
        ("generte syntetic requsts", Intent.SYNTHETIC),
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


@pytest.mark.parametrize("text", ["hello", "thanks a lot", "what can you do?", "compare latency of our models"])
def test_what_stands_for_itself_does_not_go_on(text: str) -> None:
    assert not understand(text, ["What do we spend by model?"], NOW).follows


def test_without_an_earlier_question_a_fragment_is_asked_back() -> None:
    found = understand("and then?", [], NOW)
    assert found.intent is Intent.GENERAL


@pytest.mark.parametrize("text", ["asdkjh qweoiu", "", "\x00\x01", "🦆"])
def test_gibberish_is_not_guessed_at(text: str) -> None:
    found = understand(text, [], NOW)
    assert found.confidence < INTENT_RULES[found.intent].threshold


@pytest.mark.parametrize(
    "text",
    [
        "Wie viel kostet uns die Nutzung unserer Modelle im Monat?",
        "¿Cuánto nos cuesta el uso de los modelos?",
        "Combien nous coûtent nos modèles chaque mois ?",
        "私たちのコストはいくらですか",
    ],
)
def test_other_languages_are_told_from_gibberish(text: str) -> None:
    found = understand(text, [], NOW)
    assert found.intent is Intent.GENERAL
    assert found.facets & {Facet.FOREIGN, Facet.GIBBERISH}


@pytest.mark.parametrize(
    "text", ["cut " * 16_000, "a" * 64_000, "select " * 9_000, "gpt-4o " * 9_000, "in may " * 9_000, "$1,000 " * 9_000]
)
def test_a_hostile_message_takes_no_long_time(text: str) -> None:
    began = time.process_time()
    understand(text, [text + str(number) for number in range(8)], NOW)
    assert time.process_time() - began < 5
