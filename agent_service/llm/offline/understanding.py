"""What a person wants: the intent by weighted evidence, and what the message names, earlier messages included."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from agent_service.engine.intents import INTENT_RULES, Intent
from agent_service.llm.offline.corrections import without_corrections
from agent_service.llm.offline.entities import Entities
from agent_service.llm.offline.evidence import facet_names, scores
from agent_service.llm.offline.languages import FOREIGN_FROM_WORDS, foreign_language
from agent_service.llm.offline.named import find_entities, with_model_word, with_plain_file_names
from agent_service.llm.offline.requests import parts
from agent_service.llm.offline.words import COMMON, KNOWN, READ_CHARACTERS, normalise, tokens


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
    """What a message asks for. `rival` is the next best intent, `also` what else it asks for beside its intent.

    `follows` says that it goes on with an earlier message.
    """

    intent: Intent
    confidence: float
    rival: Intent
    facets: frozenset[Facet]
    entities: Entities
    follows: bool = False
    also: tuple[Intent, ...] = ()


MEASURED: Final = frozenset({Intent.COST_ANALYSIS, Intent.BENCHMARKING, Intent.PRICING, Intent.TECHNICAL})
"""Intents that measured facts alone answer."""

ACTS: Final = frozenset(
    {Facet.CREATE, Facet.ADD, Facet.SEARCH, Facet.UPDATE, Facet.DELETE, Facet.EXPORT, Facet.STATISTICS}
)
"""What may be done with a knowledge base: one thing in a message, which replaces what an earlier one asked for."""

LEVERS: Final = frozenset({Facet.CACHING, Facet.ROUTING, Facet.BATCHING, Facet.TRIMMING})
"""Ways to save: "and batching?" asks for another one."""

BUILDS_ON: Final = frozenset(
    {Facet.PLAN, Facet.POLICY, Facet.APPLY, Facet.TRACK, Facet.PDF, Facet.CHARTS, Facet.VALIDATE}
)
"""What is done with what was found before: "make a plan", "as PDF"."""

_FOLLOW: Final = re.compile(
    r"^\W*(?:and|or|now|then|also|what about|how about|same|only|just|instead|ok(?:ay)?,?(?: now)?|yes|no|split|group|"
    r"by|per|for|in|over|during|between|until|since|but|show (?:it|that|this|them)|assum\w+|use|with|it (?:is|was)|"
    r"it's|they (?:are|were)|(?:do|try|repeat|run) (?:it|that|this|the same)|make (?:it|that|them)|as an?|why|how come|"
    r"how so|which of|what changed|compare (?:(?:it|that|this|them) )?(?:with|to))\b"
)
_ADDS: Final = re.compile(r"^\W*(?:(?:ok|okay|now|then) )?(?:and|or|also|now|then|what about|how about|what if)\b")
"""How a few words go on with what was said, however clear they are by themselves: "and batching?"."""
_MORE_OF: Final = re.compile(
    r"^\W*(?:and|or|what about|how about)(?: (?:for|about|with|on|the|our))* (?:[\w.-]+ ?){1,3}\W*$"
)
"""More of the same kind: "and timeouts?" after a search."""
_REFERRING: Final = re.compile(
    r"\b(?:it|this|these|those|them|same|instead)\b|\bthat\b(?! (?:look|looks|is|are|was|were|we|i|it|they|can|could|"
    r"would|has|have|had|do|does|our|my|the)\b)"
)
_STANDS_FOR: Final = re.compile(
    r"\b(?:it|them|instead|the same)\b|\b(?:this|that|these|those)\b(?= (?:for|in|into|as|with|by|per|to|again|too|up|"
    r"first|out)\b|\W*$)"
)
"""Words that stand for what was said before; "this file" does not."""
_AGAIN_WITH: Final = re.compile(
    r"^\W*(?:and |ok |then )*(?:now|again|same)(?: (?:it|that|the same|but|again))* (?:with|on|for|using) "
)

_DECLINED: Final = (
    (Facet.CHARTS, re.compile(r"\b(?:without|no|not|skip|leave out|drop) (?:the |any )?(?:charts?|graphs?|plots?)\b")),
    (Facet.PDF, re.compile(r"\b(?:without|no|not|skip) (?:the |an? |any )?pdf\b")),
)
_IN_REACH: Final = re.compile(
    r"\b(?:tokens?|requests?|llms?|logs?|prompts?|costs?|spend\w*|bills?|latenc\w+|usage|traffic|datasets?|workloads?|savings?|"
    r"knowledge ?bases?|database|MODEL)\b"
)
"""What speaks for a question that can be answered here, though it is not understood."""
_MAKES: Final = re.compile(
    r"\b(?:generat\w+|creat\w+|mak(?:e|ing)|produc(?:e|ing)|simulat\w+|synthesi[sz]\w+|fabricat\w+|invent)\b"
)
_METRICS: Final = MappingProxyType(
    {
        Intent.COST_ANALYSIS: "cost",
        Intent.PRICING: "cost",
        Intent.OPTIMIZATION: "cost",
        Intent.REPORTING: "cost",
        Intent.BENCHMARKING: "latency",
    }
)
"""What a number is about that follows a request of this kind: "cut it by 20 %"."""

_OF_ONE_MESSAGE: Final = frozenset(
    {Facet.FORECAST, Facet.SEVERAL, Facet.DELETE, Facet.UPDATE, Facet.APPLY, Facet.TRACK, Facet.PLAN, Facet.VALIDATE}
)
"""What a message that goes on with another one does not ask again."""
_NOT_OF_A_QUESTION: Final = frozenset({Facet.GREETING, Facet.HELP, Facet.THANKS, Facet.GIBBERISH, Facet.FOREIGN})

MAX_FOLLOW_WORDS: Final = 12
"""A longer message stands for itself."""

FRAGMENT_WORDS: Final = 3
"""A message of so few words that names something is a fragment of a longer one."""

ADDED_WORDS: Final = 6
"""So few words after "and" add to what was said before."""

MAX_EARLIER: Final = 8
"""Earlier messages that are looked through for what a follow-up goes on with."""

SETTLED_ELSEWHERE: Final = 2.2
SHARED_EVIDENCE: Final = 0.65
"""Where another intent has this much evidence, words about cost count only so much for a cost analysis."""

WEAKEST: Final = 1.1
"""Less evidence than this is none."""

CERTAIN: Final = 0.97
FOLLOWS: Final = 0.9
PLAIN_ENGLISH: Final = 0.6
WITHIN_REACH: Final = 0.45
"""Of a message that no rule speaks for, and that may be about one's usage all the same: it is asked back."""
UNREADABLE: Final = 0.3


def understand(request: str, earlier: Sequence[str], now: datetime) -> Understanding:
    """Return what a message asks for; `earlier` are the person's messages before it, oldest first.

    A short message without evidence of its own ("and by feature?", "assume gpt-4o") goes on with the last one that
    had some; "put it in a report" asks for something else, of the same.
    """
    own = _alone(request, now)
    if _is_small_talk(own) or not earlier or not _goes_on(request, own):
        return own
    before = list(earlier[-MAX_EARLIER:])
    while before:
        context = understand(before.pop(), before, now)
        if context.intent is not Intent.GENERAL and _can_go_on_with(own, context):
            return _going_on(request, own, context, now)
    return own


def _can_go_on_with(own: Understanding, context: Understanding) -> bool:
    """False where the message speaks of data, and the earlier one of documents."""
    named = own.entities
    of_data = bool(named.group_by or named.models or named.features or named.columns or named.goals or named.limits)
    return context.intent is not Intent.CORPUS or not of_data


def _going_on(request: str, own: Understanding, context: Understanding, now: datetime) -> Understanding:
    """Return what a message asks for that goes on with what was asked before."""
    normalised = normalise(request)
    intent = own.intent if _asks_for_another(normalised, own, context) else context.intent
    talked_of = context.entities.goals[0].metric if context.entities.goals else _METRICS.get(context.intent, "")
    named = find_entities(request, now, after=intent, talked_of=talked_of)
    if intent is Intent.CORPUS and own.entities.query:
        named = replace(named, query=own.entities.query)
    if named.models and context.intent is Intent.COST_ANALYSIS and _AGAIN_WITH.search(normalised):
        # "Now with gpt-4o": what the same traffic would cost as that model.
        intent, named = Intent.PRICING, replace(named, assume_model="")
    kept = context.facets - _OF_ONE_MESSAGE
    for rivals in (ACTS, LEVERS):
        kept -= rivals if own.facets & rivals else frozenset()
    if intent is not Intent.CORPUS:
        kept -= ACTS
    facets = (own.facets | kept) - _NOT_OF_A_QUESTION - _declined(normalised)
    if intent is Intent.CORPUS and named.query and not facets & ACTS:
        facets |= {Facet.SEARCH}
    return Understanding(
        intent, FOLLOWS, context.rival, facets, named.over(context.entities), follows=True, also=own.also
    )


def _asks_for_another(normalised: str, own: Understanding, context: Understanding) -> bool:
    """True when a message that goes on asks for another kind of answer than the one before."""
    if own.intent is Intent.GENERAL or (own.entities.columns and own.intent is Intent.COST_ANALYSIS):
        # With a column read otherwise, the same is to be answered anew.
        return False
    sure = own.confidence >= (INTENT_RULES[own.intent].threshold if own.intent is Intent.REPORTING else FOLLOWS)
    more_of_it = context.intent is Intent.CORPUS or Facet.BEFORE_AFTER in context.facets
    if more_of_it and own.intent in {Intent.TECHNICAL, Intent.BENCHMARKING} and _MORE_OF.search(normalised):
        return False
    return sure


def _declined(normalised: str) -> frozenset[Facet]:
    """Return what a message does not want any more: "without charts"."""
    return frozenset(facet for facet, rule in _DECLINED if rule.search(normalised))


@lru_cache(maxsize=256)
def _alone(request: str, now: datetime) -> Understanding:
    """Return what the message asks for by itself."""
    entities = find_entities(request, now)
    read = normalise(request) if entities.sql else _read_aloud(request)
    text = with_model_word(with_plain_file_names(read))
    facets = _facets(text, entities)
    if not entities.sql and foreign_language(request) is not None:
        return Understanding(Intent.GENERAL, FOLLOWS, Intent.COST_ANALYSIS, facets | {Facet.FOREIGN}, entities)
    whole = _read(text, facets, entities)
    if whole is None:
        return _without_evidence(text, entities, facets)
    return whole if entities.sql else _with_other_requests(whole, text)


def _read_aloud(request: str) -> str:
    """Return the normalised message without what it only says about columns."""
    return normalise(without_corrections(request[:READ_CHARACTERS]))


def _facets(text: str, entities: Entities) -> frozenset[Facet]:
    facets = frozenset(Facet(name) for name in facet_names(text))
    if entities.sql:
        facets |= {Facet.SQL}
    if entities.columns:
        facets |= {Facet.COLUMNS}
    if len(entities.datasets) > 1:
        facets |= {Facet.SEVERAL}
    if entities.query and not facets & (ACTS - {Facet.EXPORT, Facet.STATISTICS}):
        facets |= {Facet.SEARCH}
    if entities.change_time:
        facets |= {Facet.BEFORE_AFTER}
    if Facet.PROFILE in facets and _MAKES.search(text):
        # The rows are what is asked for; what they are like is learnt on the way.
        facets -= {Facet.PROFILE}
    changed = {
        goal.metric for goal in entities.goals if goal.change_percent or goal.amount_usd is not None or goal.limit_ms
    }
    if entities.limits or (Facet.FORECAST in facets and changed == {"usage"}):
        facets |= {Facet.CAPACITY}
    elif changed - {"usage"}:
        # A target asks for ways to reach it, not only for what will be.
        facets -= {Facet.CAPACITY}
    return facets


def _read(text: str, facets: frozenset[Facet], entities: Entities) -> Understanding | None:
    """Return the intent that most speaks for, None where nothing does."""
    (intent, score), (rival, second) = _ranked(text, facets, entities)[:2]
    if intent in {Intent.GENERAL, *MEASURED} - {Intent.PRICING} and Facet.SEVERAL in facets:
        # One dataset is analysed at a time: that is said first, then what can be measured.
        speed = intent is not Intent.GENERAL and bool(facets & {Facet.LATENCY, Facet.ERRORS})
        return Understanding(intent if speed else Intent.COST_ANALYSIS, FOLLOWS, rival, facets, entities)
    if score < WEAKEST:
        return None
    confidence = min(CERTAIN, 0.44 + 0.13 * score + 0.12 * min(score - second, 2.0))
    return Understanding(intent, round(confidence, 2), rival, facets, entities)


def _with_other_requests(whole: Understanding, text: str) -> Understanding:
    """Return the understanding with what else the message asks for.

    A report is made of whatever the others find, and options of what is measured: these two lead.
    """
    asked = parts(text)
    if len(asked) <= 1:
        return whole
    found: dict[Intent, float] = {}
    for part in asked:
        # What is named belongs to the whole message; a part of it is told by its words.
        read = _read(part, _facets(part, Entities()), Entities())
        if read is None or read.intent is Intent.GENERAL or read.confidence < INTENT_RULES[read.intent].threshold:
            continue
        kind: Intent = read.intent
        if kind in MEASURED:
            kind = whole.intent if whole.intent in MEASURED else next((one for one in found if one in MEASURED), kind)
        found.setdefault(kind, read.confidence)
    if len(found) <= 1:
        return whole
    first = next((intent for intent in (Intent.REPORTING, Intent.OPTIMIZATION) if intent in found), next(iter(found)))
    also = tuple(intent for intent in found if intent is not first)
    return replace(whole, intent=first, confidence=min(found.values()), rival=also[0], also=also)


def _ranked(text: str, facets: frozenset[Facet], entities: Entities) -> list[tuple[Intent, float]]:
    found = scores(text)
    _add_what_is_named(found, facets, entities)
    if max(score for intent, score in found.items() if intent is not Intent.COST_ANALYSIS) >= SETTLED_ELSEWHERE:
        # Cost is what most requests are about; what to do with it decides.
        found[Intent.COST_ANALYSIS] *= SHARED_EVIDENCE
    order = list(Intent)
    return sorted(found.items(), key=lambda item: (-item[1], order.index(item[0])))


def _add_what_is_named(found: dict[Intent, float], facets: frozenset[Facet], entities: Entities) -> None:
    """Add to the scores of words what the things that are named speak for."""
    goals = entities.goals
    forecast = Facet.FORECAST in facets and Facet.SEVERAL not in facets
    priced = bool(entities.models) and found[Intent.PRICING] >= SETTLED_ELSEWHERE
    for intent, weight, named in (
        # Naming the model of one's traffic, or a column's meaning, is part of an analysis.
        (Intent.COST_ANALYSIS, 2.2, bool(entities.assume_model or entities.columns)),
        (Intent.COST_ANALYSIS, 0.8, bool(entities.group_by and found[Intent.COST_ANALYSIS])),
        (Intent.COST_ANALYSIS, 0.6, bool(entities.features)),
        (Intent.OPTIMIZATION, 1.0, any(goal.change_percent for goal in goals)),
        # More traffic for a certain budget.
        (Intent.OPTIMIZATION, 2.0, {"cost", "usage"} <= {goal.metric for goal in goals}),
        (Intent.OPTIMIZATION, 2.5, bool(entities.limits)),
        (Intent.OPTIMIZATION, 3.0, forecast and not priced),
        (Intent.OPTIMIZATION, 4.0, Facet.BEFORE_AFTER in facets),
        (Intent.CORPUS, 1.0, bool(entities.query)),
    ):
        found[intent] += weight if named else 0.0


def _without_evidence(normalised: str, entities: Entities, facets: frozenset[Facet]) -> Understanding:
    """Return what to make of a message that no rule speaks for: another topic, or nothing at all."""
    words = tokens(normalised)
    confidence = WITHIN_REACH if _IN_REACH.search(normalised) else PLAIN_ENGLISH
    if not words or (len(words) < FOREIGN_FROM_WORDS and not _english(words)):
        facets, confidence = facets | {Facet.GIBBERISH}, UNREADABLE
    return Understanding(Intent.GENERAL, confidence, Intent.COST_ANALYSIS, facets, entities)


def _english(words: Sequence[str]) -> int:
    return sum(word in COMMON or word in KNOWN for word in words)


def _is_small_talk(own: Understanding) -> bool:
    talk = {Facet.GREETING, Facet.HELP, Facet.THANKS}
    return own.intent is Intent.GENERAL and own.confidence >= FOLLOWS and bool(own.facets & talk)


def _goes_on(request: str, own: Understanding) -> bool:
    normalised = _read_aloud(request)
    words = tokens(normalised)
    if len(words) > MAX_FOLLOW_WORDS or Facet.FOREIGN in own.facets:
        return False
    unsure = own.confidence < FOLLOWS
    names_something = own.entities != Entities()
    follows = bool(_FOLLOW.search(normalised))
    if names_something and (len(words) <= FRAGMENT_WORDS or follows or _REFERRING.search(normalised)):
        return True
    if (unsure and (names_something or follows)) or (len(words) <= ADDED_WORDS and _ADDS.search(normalised)):
        return True
    builds_on = bool(own.facets & BUILDS_ON) or own.intent is Intent.REPORTING
    return not names_something and (builds_on or bool(_STANDS_FOR.search(normalised)))
