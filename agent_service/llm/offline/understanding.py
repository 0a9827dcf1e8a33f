"""What a person wants: the intent by weighted evidence, and what the message names, earlier messages included."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from typing import Final, TypeAlias

from agent_service.engine.intents import Intent
from agent_service.llm.offline import data
from agent_service.llm.offline.entities import Entities
from agent_service.llm.offline.named import find_entities
from agent_service.llm.offline.words import COMMON, KNOWN, normalise, tokens

_Rules: TypeAlias = dict[Intent, tuple[tuple[re.Pattern[str], float], ...]]


class Facet(StrEnum):
    """What kind of look at the data, or of words, a message asks for."""

    USAGE = "usage"
    LATENCY = "latency"
    ERRORS = "errors"
    PATTERN = "pattern"
    FILES = "files"
    COLUMNS = "columns"
    SQL = "sql"
    DATABASE = "database"
    FORECAST = "forecast"
    SEVERAL = "several"
    ANOMALIES = "anomalies"
    CORRELATION = "correlation"
    DUPLICATES = "duplicates"
    CACHING = "caching"
    ROUTING = "routing"
    BATCHING = "batching"
    TRIMMING = "trimming"
    CAPACITY = "capacity"
    BEFORE_AFTER = "before_after"
    PLAN = "plan"
    POLICY = "policy"
    APPLY = "apply"
    TRACK = "track"
    CHARTS = "charts"
    PDF = "pdf"
    CREATE = "create"
    ADD = "add"
    SEARCH = "search"
    UPDATE = "update"
    DELETE = "delete"
    EXPORT = "export"
    STATISTICS = "statistics"
    PROFILE = "profile"
    VALIDATE = "validate"
    GREETING = "greeting"
    HELP = "help"
    THANKS = "thanks"
    FOREIGN = "foreign"
    GIBBERISH = "gibberish"


@dataclass(frozen=True, slots=True)
class Understanding:
    """What a message asks for. `rival` is the next best intent. `follows` says that it goes on with an earlier one."""

    intent: Intent
    confidence: float
    rival: Intent
    facets: frozenset[Facet]
    entities: Entities
    follows: bool = False


def _load() -> tuple[_Rules, dict[Facet, re.Pattern[str]]]:
    tables = tomllib.loads(files(data).joinpath("evidence.toml").read_text("utf-8"))
    facets = {Facet(name): re.compile(pattern) for name, pattern in tables.pop("facets").items()}
    rules = {
        Intent(name): tuple((re.compile(pattern), float(weight)) for pattern, weight in table["evidence"])
        for name, table in tables.items()
    }
    return rules, facets


_RULES, _FACETS = _load()

_FOLLOW: Final = re.compile(
    r"^\W*(?:and|or|now|then|also|what about|how about|same|only|just|instead|ok(?:ay)?,?(?: now)?|yes|no|split|group|"
    r"by|per|for|in|since|but|show (?:it|that|this|them)|assum\w+|use|with|it (?:is|was)|it's|they (?:are|were))\b"
)
_REFERRING: Final = re.compile(r"\b(?:it|that|this|those|these|them|same|instead)\b")

_OF_ONE_MESSAGE: Final = frozenset({Facet.FORECAST, Facet.SEVERAL})
"""What a message that goes on with another one does not ask again."""

MAX_FOLLOW_WORDS: Final = 12
"""A longer message stands for itself."""

FRAGMENT_WORDS: Final = 3
"""A message of so few words that names something is a fragment of a longer one."""

FOREIGN_FROM_WORDS: Final = 3
"""Fewer unknown words are taken for a slip of the keyboard, not for another language."""

MAX_EARLIER: Final = 8
"""Earlier messages that are looked through for what a follow-up goes on with."""

SETTLED_ELSEWHERE: Final = 2.2
SHARED_EVIDENCE: Final = 0.65
"""Where another intent has this much evidence, words about cost count only so much for a cost analysis."""

CERTAIN: Final = 0.97
FOLLOWS: Final = 0.9
PLAIN_ENGLISH: Final = 0.6
UNREADABLE: Final = 0.3


def understand(request: str, earlier: Sequence[str], now: datetime) -> Understanding:
    """Return what a message asks for; `earlier` are the person's messages before it, oldest first.

    A short message without evidence of its own ("and by feature?", "assume gpt-4o") goes on with the last one that
    had some.
    """
    own = _alone(request, now)
    if _is_small_talk(own) or not earlier or not _goes_on(request, own):
        return own
    before = list(earlier[-MAX_EARLIER:])
    while before:
        context = understand(before.pop(), before, now)
        if context.intent is not Intent.GENERAL:
            entities = own.entities.over(context.entities)
            facets = own.facets | (context.facets - _OF_ONE_MESSAGE)
            facets -= {Facet.GREETING, Facet.HELP, Facet.GIBBERISH, Facet.FOREIGN}
            intent = own.intent if own.confidence >= FOLLOWS and own.intent is not Intent.GENERAL else context.intent
            return Understanding(intent, FOLLOWS, context.rival, facets, entities, follows=True)
    return own


@lru_cache(maxsize=256)
def _alone(request: str, now: datetime) -> Understanding:
    """Return what the message asks for by itself."""
    normalised = normalise(request)
    entities = find_entities(request, normalised, now)
    text = _with_model_word(normalised, entities)
    ranked = _ranked(text, entities)
    (intent, score), (rival, second) = ranked[0], ranked[1]
    facets = frozenset(facet for facet, pattern in _FACETS.items() if pattern.search(normalised))
    if entities.sql:
        facets |= {Facet.SQL}
    if len(entities.files) > 1:
        facets |= {Facet.SEVERAL}
    measured = {Intent.GENERAL, Intent.COST_ANALYSIS, Intent.BENCHMARKING, Intent.TECHNICAL}
    if intent in measured and facets & _OF_ONE_MESSAGE:
        # Neither is there yet: that is said first, then what can be measured.
        speed = intent is not Intent.GENERAL and bool(facets & {Facet.LATENCY, Facet.ERRORS})
        kind = intent if speed else Intent.COST_ANALYSIS
        return Understanding(kind, FOLLOWS, rival, facets, entities)
    if score <= 0 or (not entities.sql and _is_foreign(text)):
        return _without_evidence(text, entities, facets)
    confidence = min(CERTAIN, 0.44 + 0.13 * score + 0.12 * min(score - second, 2.0))
    return Understanding(intent, round(confidence, 2), rival, facets, entities)


def _with_model_word(normalised: str, entities: Entities) -> str:
    """Return the text with every model's name as MODEL, so that evidence can speak of models."""
    text = normalised
    for name in sorted(entities.models, key=len, reverse=True):
        text = re.sub(re.escape(name).replace("\\-", "[-. ]?"), "MODEL", text)
    return text


def _ranked(text: str, entities: Entities) -> list[tuple[Intent, float]]:
    scores = {
        intent: sum(weight for pattern, weight in rules if pattern.search(text)) for intent, rules in _RULES.items()
    }
    if entities.assume_model or entities.columns:
        # Naming the model of one's traffic, or a column's meaning, is part of an analysis.
        scores[Intent.COST_ANALYSIS] += 2.2
    if any(goal.change_percent for goal in entities.goals):
        scores[Intent.OPTIMIZATION] += 1.0
    if entities.group_by and scores[Intent.COST_ANALYSIS]:
        scores[Intent.COST_ANALYSIS] += 0.8
    if entities.features:
        scores[Intent.COST_ANALYSIS] += 0.6
    if max(score for intent, score in scores.items() if intent is not Intent.COST_ANALYSIS) >= SETTLED_ELSEWHERE:
        # Cost is what most requests are about; what to do with it decides.
        scores[Intent.COST_ANALYSIS] *= SHARED_EVIDENCE
    order = list(Intent)
    return sorted(scores.items(), key=lambda item: (-item[1], order.index(item[0])))


def _without_evidence(normalised: str, entities: Entities, facets: frozenset[Facet]) -> Understanding:
    """Return what to make of a message that no rule speaks for: another topic, another language, or nothing at all."""
    words = tokens(normalised)
    confidence = PLAIN_ENGLISH
    if not words or (len(words) < FOREIGN_FROM_WORDS and not _english(words)):
        facets, confidence = facets | {Facet.GIBBERISH}, UNREADABLE
    elif _is_foreign(normalised):
        facets, confidence = facets | {Facet.FOREIGN}, FOLLOWS
    return Understanding(Intent.GENERAL, confidence, Intent.COST_ANALYSIS, facets, entities)


def _english(words: Sequence[str]) -> int:
    return sum(word in COMMON or word in KNOWN for word in words)


def _is_foreign(normalised: str) -> bool:
    """True when hardly any word is English."""
    words = tokens(normalised.replace("MODEL", ""))
    return len(words) >= FOREIGN_FROM_WORDS and _english(words) * 4 < len(words)


def _is_small_talk(own: Understanding) -> bool:
    talk = {Facet.GREETING, Facet.HELP, Facet.THANKS}
    return own.intent is Intent.GENERAL and own.confidence >= FOLLOWS and bool(own.facets & talk)


def _goes_on(request: str, own: Understanding) -> bool:
    normalised = normalise(request)
    words = tokens(normalised)
    if len(words) > MAX_FOLLOW_WORDS:
        return False
    unsure = own.confidence < FOLLOWS
    names_something = own.entities != Entities()
    if names_something and len(words) <= FRAGMENT_WORDS:
        return True
    return (unsure and (names_something or bool(_FOLLOW.search(normalised)))) or bool(
        names_something and (_FOLLOW.search(normalised) or _REFERRING.search(normalised))
    )
