"""The offline model where there is nothing to measure: greetings, help, other topics, what is not available here."""

from typing import Final

from agent_service.engine.events import JsonObject
from agent_service.engine.intents import Intent
from agent_service.llm.offline.conversation import Conversation, Saying, Words, child, children, names, text
from agent_service.llm.offline.gathering import gather
from agent_service.llm.offline.understanding import Facet, Understanding, understand

TRY: Final = (
    "Analyze my AI costs",
    "Analyze my AI costs, assume gpt-4o",
    "What would gpt-4o-mini cost for this traffic?",
    "Compare the latency of our models",
    "When is our traffic highest?",
)
"""Messages that work, for people who do not know what to ask."""

_ABILITIES: Final = (
    "say what your AI usage costs, by model, feature, user and day, with prices by date from a catalogue",
    "price the same traffic with other models",
    "measure latency (p50, p95, p99), failures, peaks and gaps",
    "describe your data, and run one SQL SELECT over it",
)

_SUBJECTS: Final = {
    Intent.CORPUS: "Knowledge bases (building one, or searching your documents)",
    Intent.SYNTHETIC: "Generated workloads",
    Intent.REPORTING: "Rendered reports (charts, PDF)",
    Intent.OPTIMIZATION: "Computed options with savings",
}


def reply(conversation: Conversation) -> list[Saying]:
    """Return the answer: words only, nothing made up."""
    understanding = understand(conversation.request, conversation.earlier, conversation.now)
    lines = gather(conversation) or _answer(understanding, conversation)
    return [Words("\n".join(lines).strip() + "\n")]


def _answer(understanding: Understanding, conversation: Conversation) -> list[str]:  # noqa: PLR0911 - a case each
    notes = conversation.findings.get("supervisor", {})
    facets = understanding.facets
    if understanding.intent in _SUBJECTS and children(notes, "not_available"):
        return _absent(_SUBJECTS[understanding.intent], notes)
    if understanding.intent is Intent.TECHNICAL and Facet.DATABASE in facets:
        return _absent("Looking into databases (slow queries, indexes, cache hits)", notes)
    if Facet.FOREIGN in facets:
        opening = "I am sorry, the offline model understands English only. Please ask again in English."
        return [f"**{opening}**", "", *_offer(notes)]
    if Facet.GREETING in facets and Facet.HELP not in facets:
        return ["**Hello, I am Apex.** I tell you what your AI workloads cost, and why.", "", *_offer(notes)]
    if Facet.THANKS in facets:
        return ["You are welcome. Ask on whenever you like, for example “And by feature?”."]
    if Facet.HELP in facets:
        return ["**I am Apex: I measure AI workloads from your usage logs.**", "", *_offer(notes)]
    if understanding.intent is Intent.GENERAL:
        opening = "That is outside of what I can do here: I analyse the cost and speed of AI workloads from usage logs."
        return [f"**{opening}**", "", *_offer(notes)]
    return [f"**I understood a question about {understanding.intent.words}.**", "", *_offer(notes)]


def _absent(subject: str, notes: JsonObject) -> list[str]:
    return [
        f"**{subject}: that is not available in this installation yet, so I do not pretend to do it.**",
        "",
        *_offer(notes),
    ]


def _offer(notes: JsonObject) -> list[str]:
    """Return what can be done today: by the agents that are there, with messages to try."""
    agents = children(notes, "available")
    measures = any("usage_summary" in names(agent, "tools") for agent in agents)
    lines = []
    if measures:
        lines += ["What I can do for you today:", "", *(f"- {ability}" for ability in _ABILITIES)]
    lines += [
        f"- {text(agent, 'does')}"
        for agent in agents
        if "usage_summary" not in names(agent, "tools") and child(agent, "does")
    ]
    if measures:
        lines += ["", "Upload a usage log (CSV, JSONL, JSON or Parquet), or try the built-in sample:", ""]
        lines += [f"- “{message}”" for message in TRY]
    return lines
