"""The offline model as the triage agent: look at the data, then say what is asked in the typed form."""

from collections.abc import Sequence
from typing import Final

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.intents import DATA, INTENT_RULES, Intent
from agent_service.llm.offline.conversation import Call, Conversation, Exchange, Saying, Thought, children, names
from agent_service.llm.offline.conversation import number as number_at
from agent_service.llm.offline.conversation import text as text_at
from agent_service.llm.offline.entities import Entities
from agent_service.llm.offline.suggestions import after_failure, suggestions
from agent_service.llm.offline.thread_columns import with_corrections
from agent_service.llm.offline.understanding import Facet, Understanding, understand

FIELDS: Final = frozenset({"category", "confidence", "entities", "next_agents"})
"""An output with these fields is a triage."""

_NEEDS_DATA: Final = frozenset(
    {Intent.COST_ANALYSIS, Intent.BENCHMARKING, Intent.PRICING, Intent.OPTIMIZATION, Intent.REPORTING}
)

_MEASURABLE: Final = frozenset(
    {
        Facet.SQL,
        Facet.LATENCY,
        Facet.ERRORS,
        Facet.PATTERN,
        Facet.USAGE,
        Facet.ANOMALIES,
        Facet.CORRELATION,
        Facet.DUPLICATES,
    }
)
"""What a technical request may ask for that usage logs tell."""

DATABASE_TOOL: Final = "database_analyzer"
"""Whoever has this tool looks into databases."""

_ORDER: Final = (DATA, "corpus_admin", "synthetic_data", "optimizations", "actions", "reporting")
"""Specialists, in the order of their work."""

MAX_SUMMARY: Final = 500
MAX_NAME: Final = 200
MAX_NAMES: Final = 20
MAX_GOALS: Final = 10
"""What a triage holds at most: characters of its summary and of one name, names of a kind, goals."""

_ASKS: Final = {
    Intent.COST_ANALYSIS: "what your AI usage costs and why",
    Intent.BENCHMARKING: "how fast your models answer",
    Intent.PRICING: "what a model would cost",
    Intent.OPTIMIZATION: "how to spend less or be faster",
    Intent.CORPUS: "a knowledge base of your documents",
    Intent.SYNTHETIC: "generated test data",
    Intent.REPORTING: "a report",
    Intent.TECHNICAL: "errors, load and other technical matters",
    Intent.GENERAL: "something general",
}


def reply(conversation: Conversation) -> list[Saying]:
    """Return the next turn of triage."""
    understanding = understand(conversation.request, conversation.earlier, conversation.now)
    understanding = with_corrections(understanding, conversation)
    looks = [name for name in ("list_datasets", "describe_dataset") if name in conversation.tools]
    if not conversation.exchanges and looks and _looks_at_data(understanding):
        thought = f"This seems to be about {_ASKS[understanding.intent]}. I look at which data there is for it."
        arguments = understanding.entities.dataset_arguments()
        return [
            Thought(thought),
            *(Call(name, arguments if name == "describe_dataset" else {}) for name in looks),
        ]
    return [
        Thought(_conclusion(understanding, conversation)),
        Call(conversation.output_tool, _triage(understanding, conversation)),
    ]


def _looks_at_data(understanding: Understanding) -> bool:
    return not _NEEDS_DATA.isdisjoint({understanding.intent, *understanding.also}) or _wants_data(understanding)


def _wants_data(understanding: Understanding) -> bool:
    """True for requests that only a look at the user's data answers, though their intent alone does not say so."""
    facets = understanding.facets
    match understanding.intent:
        case Intent.TECHNICAL:
            return Facet.DATABASE not in facets and not facets.isdisjoint(_MEASURABLE)
        case Intent.GENERAL:
            talk = {Facet.GREETING, Facet.FOREIGN, Facet.GIBBERISH}
            return facets.isdisjoint(talk) and not facets.isdisjoint(
                {Facet.FILES, Facet.COLUMNS, Facet.ANOMALIES, Facet.CORRELATION, Facet.DUPLICATES}
            )
        case Intent.SYNTHETIC:
            return not facets.isdisjoint({Facet.PROFILE, Facet.VALIDATE}) or bool(understanding.entities.datasets)
        case _:
            return False


def _description(conversation: Conversation) -> Exchange | None:
    found = [exchange for exchange in conversation.exchanges if exchange.tool_name == "describe_dataset"]
    return found[-1] if found else None


def _conclusion(understanding: Understanding, conversation: Conversation) -> str:
    if not _looks_at_data(understanding):
        return "This needs no look at the data."
    asks = " and ".join(_ASKS[intent] for intent in (understanding.intent, *understanding.also))
    sentence = f"You ask about {asks}"
    if understanding.follows:
        sentence += ", going on with your earlier question"
    described = _description(conversation)
    if described is None:
        return f"{sentence}."
    if described.result is None:
        return f"{sentence}. The data could not be read: {described.error or described.summary}"
    name = text_at(described.result, "dataset", "name")
    rows = number_at(described.result, "dataset", "rows")
    lacks = ", ".join(_missing(conversation)) or "nothing important"
    return f"{sentence}. The data is {name} with {rows or 0:,.0f} rows; it lacks {lacks}."


def _missing(conversation: Conversation) -> list[str]:
    described = _description(conversation)
    if described is None or described.result is None:
        return []
    return [text_at(entry, "column") for entry in children(described.result, "missing")]


def _triage(understanding: Understanding, conversation: Conversation) -> JsonObject:
    intent = understanding.intent
    threshold = INTENT_RULES[intent].threshold
    level = _level(understanding, conversation)
    result: dict[str, JsonValue] = {
        "category": intent.value,
        "confidence": understanding.confidence,
        "summary": _summary(understanding),
        "entities": _entities(understanding.entities),
        "sufficiency": level,
        "missing": _missing(conversation),
        "next_agents": next_agents(understanding, level, looks_into_databases=_looks_into_databases(conversation)),
        "question": _question(understanding) if understanding.confidence < threshold else "",
        "suggestions": _suggestions(understanding, conversation),
        "standalone": not understanding.follows,
    }
    return result


def _level(understanding: Understanding, conversation: Conversation) -> str:
    """Return how much of the answer the data allows; a request that needs no data lacks nothing."""
    if not _looks_at_data(understanding):
        return "sufficient"
    described = _description(conversation)
    return text_at(described.result, "sufficiency", "level") or "insufficient" if described else "insufficient"


def _looks_into_databases(conversation: Conversation) -> bool:
    agents = children(conversation.findings.get("supervisor"), "available")
    return any(DATABASE_TOOL in names(agent, "tools") for agent in agents)


def _summary(understanding: Understanding) -> str:
    entities = understanding.entities
    details = []
    if entities.assume_model:
        details.append(f"assuming {entities.assume_model}")
    elif entities.models:
        details.append(f"models: {', '.join(entities.models)}")
    if entities.group_by:
        details.append(f"by {', '.join(entities.group_by)}")
    if entities.period.start or entities.period.end:
        start, end = entities.period.start, entities.period.end
        details.append(f"from {start:%Y-%m-%d}" if start else "from the beginning")
        details.append(f"to {end:%Y-%m-%d}" if end else "to the end")
    if entities.change_time:
        details.append(f"before and after {entities.change_time:%Y-%m-%d}")
    if entities.corpus:
        details.append(f"knowledge base {entities.corpus}")
    if entities.query:
        details.append(f"looking for {entities.query}")
    if entities.rows:
        details.append(f"{entities.rows:,} rows")
    if entities.preset:
        details.append(f"like {entities.preset}")
    asks = " and ".join(_ASKS[intent] for intent in (understanding.intent, *understanding.also))
    sentence = f"The request is about {asks}"
    return (f"{sentence} ({', '.join(details)})" if details else sentence)[: MAX_SUMMARY - 1] + "."


def _entities(entities: Entities) -> JsonObject:
    period = entities.period
    return {
        "models": _names(entities.models),
        "assume_model": entities.assume_model[:MAX_NAME],
        "features": _names(entities.features),
        "files": _names(entities.files),
        "group_by": list(entities.group_by),
        "start_time": period.start.isoformat() if period.start else None,
        "end_time": period.end.isoformat() if period.end else None,
        "goals": [
            {"metric": goal.metric, "change_percent": goal.change_percent, "amount_usd": goal.amount_usd}
            for goal in entities.goals[:MAX_GOALS]
        ],
        "rows": entities.rows,
        "days": entities.days,
        "seed": entities.seed,
        "preset": entities.preset,
        "corpus": entities.corpus[:MAX_NAME],
        "query": entities.query,
        "change_time": entities.change_time.isoformat() if entities.change_time else None,
    }


def _names(said: Sequence[str]) -> Sequence[JsonValue]:
    return [name for name in said if len(name) <= MAX_NAME][:MAX_NAMES]


def next_agents(understanding: Understanding, level: str, *, looks_into_databases: bool = True) -> list[str]:
    """Return the specialists that should work on a request, in order, for data of this sufficiency."""
    wanted: set[str] = set()
    for intent in (understanding.intent, *understanding.also):
        match intent, level:
            case (Intent.OPTIMIZATION, _) if Facet.TRACK in understanding.facets and not understanding.also:
                wanted |= {"actions"}
            case (Intent.OPTIMIZATION | Intent.REPORTING, "insufficient"):
                wanted |= {"reporting"}
            case (Intent.OPTIMIZATION, "partial"):
                wanted |= {DATA, "optimizations", "reporting"}
            case (Intent.REPORTING, "partial"):
                wanted |= {DATA, "reporting"}
            case (Intent.OPTIMIZATION | Intent.REPORTING, _):
                wanted |= {DATA, "optimizations", "actions", "reporting"}
            case (Intent.TECHNICAL, _) if Facet.DATABASE in understanding.facets:
                wanted |= {DATA} if looks_into_databases else set()
            case (Intent.TECHNICAL, _) if intent is not understanding.intent:
                wanted |= {DATA}
            case (Intent.TECHNICAL | Intent.GENERAL, _):
                wanted |= {DATA} if _wants_data(understanding) else set()
            case _:
                wanted |= {*INTENT_RULES[intent].agents}
    return [name for name in _ORDER if name in wanted]


def _question(understanding: Understanding) -> str:
    """Return the question that separates the two likeliest readings."""
    if Facet.GIBBERISH in understanding.facets:
        return (
            "I could not make sense of that. What would you like to know: what your AI usage costs, how fast it is, "
            "or what another model would cost?"
        )
    if understanding.intent is Intent.GENERAL:
        return (
            "I am not sure I understand. Is it about what your AI usage costs, how fast it is, how to spend less, or "
            "your documents? One sentence more will do."
        )
    return (
        f"I am not sure I understand: is it about {_ASKS[understanding.intent]}, or about "
        f"{_ASKS[understanding.rival]}? One sentence more will do."
    )


def _suggestions(understanding: Understanding, conversation: Conversation) -> list[str]:
    """Return up to three messages that the person could send next."""
    described = _description(conversation)
    if described is not None and described.result is None:
        return after_failure(understanding, conversation)
    missing = frozenset(_missing(conversation)) if described is not None else None
    return suggestions(understanding, conversation, missing)
