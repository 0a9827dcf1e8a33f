"""The offline model as the data agent: which tools answer the question, and when there is enough to write."""

import re
from typing import Final

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.intents import Intent
from agent_service.llm.offline.answers import write_answer
from agent_service.llm.offline.conversation import Call, Conversation, Saying, Thought, Words
from agent_service.llm.offline.entities import Entities
from agent_service.llm.offline.facts import SUCCESS, misplaced
from agent_service.llm.offline.narrowing import SHARE, closer_look
from agent_service.llm.offline.thread_columns import corrects, with_corrections
from agent_service.llm.offline.understanding import Facet, Understanding, understand

MAX_WHAT_IF_MODELS: Final = 3
"""Models that one answer prices the traffic with."""

WHAT_IF_COLUMNS: Final = {"model": "", "cost": ""}
"""Declares both columns absent, so that every request is priced as the assumed model."""

FILTERS: Final = frozenset({"start_time", "end_time", "models", "features"})

_REPEATS: Final = frozenset({Facet.DUPLICATES, Facet.CACHING})
"""What advice looks at repeated prompts for. Elsewhere caching may as well mean a provider's cached tokens."""

_SUMMARY_DIMENSIONS: Final = ("model", "feature", "user", "day")
_LATENCY_DIMENSIONS: Final = ("model", "feature", "user", "day", "hour", "weekday", "status")

_THOUGHTS: Final = {
    Intent.COST_ANALYSIS: "I measure the usage in total and by group, and what it costs.",
    Intent.BENCHMARKING: "I measure the latency by group, and the usage behind it.",
    Intent.PRICING: "I measure the traffic, then price exactly the same requests with the models in question.",
    Intent.OPTIMIZATION: "Before any advice I measure the baseline: where the money goes, and when.",
    Intent.REPORTING: "I collect the numbers that a report would rest on.",
    Intent.TECHNICAL: "I measure when the load comes, how fast the answers are, and what fails.",
}


_OVER_DATA: Final = re.compile(r"\bfrom\s+data\b", re.IGNORECASE)
"""How a query over the dataset reads."""

MAX_SHOWN_STATEMENT: Final = 4_000
"""Characters of a database's statement that are passed on."""

_MEASURES: Final = (
    (r"latenc\w+|response times?|fast\w*|slow\w*|speed|duration", ("latency_ms",)),
    (r"tokens?|prompts?|lengths?|sizes?|long|longer", ("input_tokens", "output_tokens")),
    (r"costs?|spend\w*|prices?|bills?|expensive", ("cost_usd",)),
    (r"errors?|fail\w*|timeouts?", ("failed",)),
    (r"hours?|time of (?:the )?day", ("hour",)),
    (r"cach\w+", ("cached_tokens",)),
)
"""What a request calls the measures of `correlate`."""

_SPECIAL_THOUGHTS: Final = {
    "database_analyzer": "I read what the database tells about itself: statements, scans, indexes, memory, dead rows.",
    "anomaly_scan": "I look at every bucket of time for requests, tokens, cost, errors and latency that are unusual.",
    "correlate": "I compare the measures of each request with one another.",
    "duplicate_prompts": "I look for prompts that were asked before, and what answering from a cache would have saved.",
}
"""What is thought before the first call, where that is one of these."""


def can_play(conversation: Conversation) -> bool:
    """True when the tools on offer are those of the data agent."""
    return bool(conversation.tools & {"usage_summary", "describe_dataset", "query_dataset"})


def reply(conversation: Conversation) -> list[Saying]:
    """Return the next turn: a thought and tool calls, or the answer."""
    understanding = understand(conversation.request, conversation.earlier, conversation.now)
    understanding = with_corrections(understanding, conversation)
    if not conversation.exchanges:
        calls = [call for call in _calls(understanding, conversation.request) if call.tool_name in conversation.tools]
        if calls:
            thought = _THOUGHTS.get(understanding.intent, "I look at the data first.")
            thought = _SPECIAL_THOUGHTS.get(calls[0].tool_name, thought)
            return [Thought(thought), *calls]
    if not corrects(conversation) and (anew := _without_corrections(conversation)):
        return [Thought("Your earlier corrections are about another file's columns. I look without them."), *anew]
    again = _second_look(conversation)
    if again:
        return [Thought("That filter leads nowhere. I look at what the data holds without it."), *again]
    if closer := closer_look(understanding, conversation):
        return [Thought("The data tells which part of it is meant. I measure that part."), *closer]
    return [Thought("The numbers are there. I write them up."), Words(write_answer(understanding, conversation))]


def _calls(understanding: Understanding, request: str) -> list[Call]:  # noqa: PLR0911 - one return for each kind of request
    entities, facets = understanding.entities, understanding.facets
    if entities.sql and not _shows_statement(understanding):
        return [Call("query_dataset", {**entities.dataset_arguments(), "sql": entities.sql})]
    if special := _special(understanding, request):
        return special
    match understanding.intent:
        case Intent.COST_ANALYSIS:
            only = not SHARE.search(request)
            return [_usage(entities, *_SUMMARY_DIMENSIONS, models=only), _costs(entities, models=only)]
        case Intent.BENCHMARKING:
            return [_latency(entities), _usage(entities, "model")]
        case Intent.PRICING:
            return [_usage(entities, "model"), *_what_ifs(entities)]
        case Intent.OPTIMIZATION:
            return [
                _usage(entities, "model", "feature"),
                _costs(entities),
                _pattern(entities),
                *([_duplicates(entities)] if facets & _REPEATS else []),
                *_what_ifs(entities),
            ]
        case Intent.REPORTING:
            return [
                _usage(entities, *_SUMMARY_DIMENSIONS),
                _costs(entities),
                _latency(entities),
                _pattern(entities),
            ]
        case Intent.TECHNICAL:
            wants_time = Facet.PATTERN in facets
            wants_speed = bool(facets & {Facet.LATENCY, Facet.ERRORS}) or not wants_time
            looks = [_pattern(entities)] if wants_time else []
            return [*looks, *([_latency(entities)] if wants_speed else []), _usage(entities, "day")]
        case _:
            return [Call("list_datasets", {}), Call("describe_dataset", entities.dataset_arguments())]


def _special(understanding: Understanding, request: str) -> list[Call]:
    """Return the calls for a request that names one kind of look; none for an ordinary one.

    Advice and reports rest on the whole baseline, so they are never answered by one look alone.
    """
    entities, facets = understanding.entities, understanding.facets
    if understanding.intent is Intent.TECHNICAL and Facet.DATABASE in facets:
        shown = [entities.sql[:MAX_SHOWN_STATEMENT]] if _shows_statement(understanding) else []
        return [Call("database_analyzer", {"queries": shown} if shown else {})]
    if understanding.intent in {Intent.OPTIMIZATION, Intent.REPORTING, Intent.PRICING}:
        return []
    looks = []
    if Facet.ANOMALIES in facets:
        looks.append(
            Call("anomaly_scan", {**_filtered(entities, models=True), **_assumed(entities), **_bucket(entities)})
        )
    if Facet.CORRELATION in facets:
        looks.append(
            Call("correlate", {**_filtered(entities, models=True), **_assumed(entities), **_measures(request)})
        )
    if Facet.DUPLICATES in facets:
        looks.append(_duplicates(entities))
    return [*looks, _usage(entities, "model")] if looks else []


def _shows_statement(understanding: Understanding) -> bool:
    """Return whether the SQL is one of a database's, to be looked at, and no query over the dataset."""
    entities, about = understanding.entities, understanding.intent is Intent.TECHNICAL
    return (
        about and Facet.DATABASE in understanding.facets and bool(entities.sql) and not _OVER_DATA.search(entities.sql)
    )


def _measures(request: str) -> dict[str, JsonValue]:
    """Return which measures are to be compared: those named, if that is more than one thing; else all."""
    named = [names for words, names in _MEASURES if re.search(rf"\b(?:{words})\b", request.lower())]
    measures = list(dict.fromkeys(name for names in named for name in names))
    return {"measures": measures} if len(named) > 1 else {}


def _bucket(entities: Entities) -> dict[str, JsonValue]:
    asked = [name for name in entities.group_by if name in {"hour", "day"}]
    return {"bucket": asked[0]} if asked else {}


def _duplicates(entities: Entities) -> Call:
    return Call("duplicate_prompts", {**_filtered(entities, models=True), **_assumed(entities)})


def _second_look(conversation: Conversation) -> list[Call]:
    """Return a look without filters, once, when a filtered one failed: most often because it left nothing."""
    looks = [exchange for exchange in conversation.exchanges if exchange.tool_name == "usage_summary"]
    if len(looks) != 1 or looks[0].status == SUCCESS or not FILTERS & looks[0].args.keys():
        return []
    kept = {name: value for name, value in looks[0].args.items() if name not in FILTERS}
    return [Call("usage_summary", kept)]


def _without_corrections(conversation: Conversation) -> list[Call]:
    """Return the failed calls anew, once, where corrections from earlier messages do not fit this dataset."""
    calls = [exchange for exchange in conversation.exchanges if misplaced(exchange)]
    if len(calls) != len(conversation.exchanges):
        return []
    return [
        Call(exchange.tool_name, {name: value for name, value in exchange.args.items() if name != "columns"})
        for exchange in calls
    ]


def _filtered(entities: Entities, *, models: bool = False) -> dict[str, JsonValue]:
    arguments = entities.dataset_arguments()
    if entities.period.start:
        arguments["start_time"] = entities.period.start.isoformat()
    if entities.period.end:
        arguments["end_time"] = entities.period.end.isoformat()
    if entities.features:
        arguments["features"] = list(entities.features)
    if models and entities.models and not entities.assume_model:
        arguments["models"] = list(entities.models)
    return arguments


def _assumed(entities: Entities) -> dict[str, JsonValue]:
    return {"assume_model": entities.assume_model} if entities.assume_model else {}


def _usage(entities: Entities, *dimensions: str, models: bool = False) -> Call:
    """Return the summary by what was asked and by `dimensions`: what is not asked for is not missed.

    With `models` it is about the models that are named, and no others.
    """
    asked = [name for name in entities.group_by if name in {*_SUMMARY_DIMENSIONS, "hour", "status"}]
    groups = list(dict.fromkeys([*asked, *dimensions]))
    return Call("usage_summary", {**_filtered(entities, models=models), **_assumed(entities), "group_by": groups})


def _costs(entities: Entities, *, models: bool = False) -> Call:
    groups = list(entities.group_by[:2]) or (["feature"] if entities.features else ["model"])
    return Call("cost_breakdown", {**_filtered(entities, models=models), **_assumed(entities), "group_by": groups})


def _latency(entities: Entities) -> Call:
    groups = [name for name in entities.group_by if name in _LATENCY_DIMENSIONS][:1] or ["model"]
    return Call("latency_analysis", {**_filtered(entities, models=True), "group_by": groups})


def _pattern(entities: Entities) -> Call:
    return Call("usage_pattern", _filtered(entities))


def _what_ifs(entities: Entities) -> list[Call]:
    return [what_if(entities, model) for model in entities.models[:MAX_WHAT_IF_MODELS]]


def what_if(entities: Entities, model: str) -> Call:
    """Return the call that prices every request as this model, whatever it really used."""
    arguments: JsonObject = {
        **_filtered(entities),
        "columns": {**dict(entities.columns), **WHAT_IF_COLUMNS},
        "assume_model": model,
        "group_by": ["day"],
    }
    return Call("cost_breakdown", arguments)
