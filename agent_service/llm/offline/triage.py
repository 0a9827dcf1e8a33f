"""The offline model as the triage agent: look at the data, then say what is asked in the typed form."""

from typing import Final

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.intents import DATA, INTENT_RULES, Intent
from agent_service.llm.offline.conversation import Call, Conversation, Exchange, Saying, Thought, children
from agent_service.llm.offline.conversation import number as number_at
from agent_service.llm.offline.conversation import text as text_at
from agent_service.llm.offline.entities import Entities
from agent_service.llm.offline.understanding import Facet, Understanding, understand

FIELDS: Final = frozenset({"category", "confidence", "entities", "next_agents"})
"""An output with these fields is a triage."""

_NEEDS_DATA: Final = frozenset(
    {Intent.COST_ANALYSIS, Intent.BENCHMARKING, Intent.PRICING, Intent.OPTIMIZATION, Intent.REPORTING}
)

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
    return understanding.intent in _NEEDS_DATA or _wants_data(understanding)


def _wants_data(understanding: Understanding) -> bool:
    """True for technical and general requests that a look at the user's data answers."""
    facets = understanding.facets
    if understanding.intent is Intent.TECHNICAL:
        return Facet.DATABASE not in facets and bool(
            facets & {Facet.SQL, Facet.LATENCY, Facet.ERRORS, Facet.PATTERN, Facet.USAGE}
        )
    if understanding.intent is Intent.GENERAL and not facets & {Facet.GREETING, Facet.FOREIGN, Facet.GIBBERISH}:
        return bool(facets & {Facet.FILES, Facet.COLUMNS})
    return False


def _description(conversation: Conversation) -> Exchange | None:
    found = [exchange for exchange in conversation.exchanges if exchange.tool_name == "describe_dataset"]
    return found[-1] if found else None


def _conclusion(understanding: Understanding, conversation: Conversation) -> str:
    if not _looks_at_data(understanding):
        return "This needs no look at the data."
    sentence = f"You ask about {_ASKS[understanding.intent]}"
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
    described = _description(conversation)
    threshold = INTENT_RULES[intent].threshold
    level = text_at(described.result, "sufficiency", "level") if described else ""
    result: dict[str, JsonValue] = {
        "category": intent.value,
        "confidence": understanding.confidence,
        "summary": _summary(understanding),
        "entities": _entities(understanding.entities),
        "sufficiency": level or "insufficient",
        "missing": _missing(conversation),
        "next_agents": _next_agents(understanding),
        "question": _question(understanding) if understanding.confidence < threshold else "",
        "suggestions": _suggestions(understanding, conversation),
        "standalone": not understanding.follows,
    }
    return result


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
    sentence = f"The request is about {_ASKS[understanding.intent]}"
    return f"{sentence} ({', '.join(details)})." if details else f"{sentence}."


def _entities(entities: Entities) -> JsonObject:
    return {
        "models": list(entities.models),
        "assume_model": entities.assume_model,
        "features": list(entities.features),
        "files": list(entities.files),
        "group_by": list(entities.group_by),
        "start_time": entities.period.start.isoformat() if entities.period.start else None,
        "end_time": entities.period.end.isoformat() if entities.period.end else None,
        "goals": [
            {"metric": goal.metric, "change_percent": goal.change_percent, "amount_usd": goal.amount_usd}
            for goal in entities.goals[:10]
        ],
    }


def _next_agents(understanding: Understanding) -> list[str]:
    agents = list(INTENT_RULES[understanding.intent].agents)
    return [*agents, DATA] if not agents and _wants_data(understanding) else agents


def _question(understanding: Understanding) -> str:
    """Return the question that separates the two likeliest readings."""
    if Facet.GIBBERISH in understanding.facets:
        return (
            "I could not make sense of that. What would you like to know: what your AI usage costs, how fast it is, "
            "or what another model would cost?"
        )
    return (
        f"I am not sure I understand: is it about {_ASKS[understanding.intent]}, or about "
        f"{_ASKS[understanding.rival]}? One sentence more will do."
    )


def _after_failure(understanding: Understanding, conversation: Conversation) -> list[str]:
    """Return messages that do not meet the same failure: what there is, and the newest other dataset."""
    listed = [exchange.result for exchange in conversation.exchanges if exchange.tool_name == "list_datasets"]
    datasets = children(listed[-1], "datasets") if listed else []
    named = {name.casefold() for name in understanding.entities.files}
    failed = "" if named else text_at(listed[-1], "dataset", "name") if listed else ""
    own = [text_at(entry, "name") for entry in datasets]
    others = [name for name in own if name.casefold() not in named and name != failed]
    return ["Which datasets do I have?", *(f"Analyze {name}" for name in others[:1])]


def _suggestions(understanding: Understanding, conversation: Conversation) -> list[str]:
    """Return up to three messages that the person could send next, as they would write them."""
    if understanding.intent in {Intent.CORPUS, Intent.SYNTHETIC} or not _looks_at_data(understanding):
        return ["Analyze my AI costs", "When is our traffic highest?", "What columns does my data have?"]
    described = _description(conversation)
    if described is not None and described.result is None:
        return _after_failure(understanding, conversation)
    missing, entities = set(_missing(conversation)), understanding.entities
    ideas = []
    breaks_down = understanding.intent in {Intent.COST_ANALYSIS, Intent.BENCHMARKING}
    if understanding.intent in {Intent.GENERAL, Intent.TECHNICAL} and "model" not in missing:
        ideas.append("Analyze my AI costs")
    if "model" in missing and not entities.assume_model:
        ideas.append("Analyze my AI costs, assume gpt-4o")
    if breaks_down and "feature" not in missing and "feature" not in entities.group_by:
        ideas.append("And by feature?")
    if breaks_down and "model" not in missing and "model" not in entities.group_by:
        ideas.append("And by model?")
    if "latency" not in missing and understanding.intent is not Intent.BENCHMARKING:
        ideas.append("Compare the latency of our models")
    if understanding.intent is not Intent.PRICING:
        ideas.append("What would gpt-4o-mini cost for this traffic?")
    if "timestamp" not in missing and understanding.intent is not Intent.TECHNICAL:
        ideas.append("When is our traffic highest?")
    return ideas[:3]
