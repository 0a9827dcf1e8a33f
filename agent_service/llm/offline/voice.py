"""The offline model where there is nothing to measure: greetings, help, other topics, what is not available here."""

from typing import Final

from agent_service.engine.events import JsonObject
from agent_service.engine.intents import Intent
from agent_service.llm.offline.conversation import Conversation, Saying, Words, child, children, names, text
from agent_service.llm.offline.gathering import gather
from agent_service.llm.offline.languages import foreign_language
from agent_service.llm.offline.triage import DATABASE_TOOL
from agent_service.llm.offline.understanding import Facet, Understanding, understand

TRY: Final = (
    "Analyze my AI costs",
    "Analyze my AI costs, assume gpt-4o",
    "What would gpt-4o-mini cost for this traffic?",
    "Compare the latency of our models",
    "When is our traffic highest?",
)
"""Messages that work, for people who do not know what to ask."""

MEASURES: Final = "usage_summary"
"""Whoever has this tool measures usage logs."""

_ABILITIES: Final = (
    "say what your AI usage costs, by model, feature, user and day, with prices by date from a catalogue",
    "price the same traffic with other models",
    "measure latency (p50, p95, p99), failures, peaks and gaps",
    "describe your data, and run one SQL SELECT over it",
)
"""Of whoever measures, whatever else."""

_BY_TOOL: Final = (
    ("anomaly_scan", "find anomalies, correlations and repeated prompts", "Find anomalies in our usage"),
    (
        DATABASE_TOOL,
        "look into a configured database: slow queries, indexes, cache hits",
        "Analyze my database performance",
    ),
)
"""What one more tool makes possible, with a message to try."""

_BY_AGENT: Final = (
    (
        "optimizations",
        "compute options with their savings, risk and effort, and whether they meet your goals and limits",
        "Cut our spend by 30 %, keep quality",
    ),
    (
        "actions",
        "turn options into an ordered plan, and write a router's configuration",
        "Make an action plan to cut cost by 20 %",
    ),
    ("reporting", "write reports with charts, as HTML or PDF", "Report for management, with charts, as PDF"),
    ("corpus_admin", "build knowledge bases and search them", "Create a knowledge base for our runbooks"),
    (
        "synthetic_data",
        "generate workloads, and check them against real ones",
        "Generate 10,000 requests that look like Black Friday",
    ),
)
"""What each specialist makes possible, with a message to try."""

_SUBJECTS: Final = {
    Intent.CORPUS: ("corpus_admin", "Knowledge bases (building one, or searching your documents)"),
    Intent.SYNTHETIC: ("synthetic_data", "Generated workloads"),
    Intent.REPORTING: ("reporting", "Rendered reports (charts, PDF)"),
    Intent.OPTIMIZATION: ("optimizations", "Computed options with savings"),
}


def reply(conversation: Conversation) -> list[Saying]:
    """Return the answer: words only, nothing made up."""
    understanding = understand(conversation.request, conversation.earlier, conversation.now)
    lines = gather(conversation) or _answer(understanding, conversation)
    return [Words("\n".join(lines).strip() + "\n")]


def _answer(understanding: Understanding, conversation: Conversation) -> list[str]:  # noqa: PLR0911 - a case each
    notes = conversation.findings.get("supervisor", {})
    facets = understanding.facets
    if understanding.intent in _SUBJECTS:
        agent, subject = _SUBJECTS[understanding.intent]
        if agent not in _installed(notes):
            return _absent(subject, notes)
    if understanding.intent is Intent.TECHNICAL and Facet.DATABASE in facets and not _has_tool(notes, DATABASE_TOOL):
        return _absent("Looking into databases (slow queries, indexes, cache hits)", notes)
    if Facet.FOREIGN in facets:
        language = foreign_language(conversation.request)
        theirs = [language.answer, ""] if language is not None and language.answer else []
        opening = "I am sorry, the offline model understands English only. Please ask again in English."
        return [*theirs, f"**{opening}**", "", *_offer(notes)]
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


def _installed(notes: JsonObject) -> frozenset[str]:
    return frozenset(text(agent, "agent") for agent in children(notes, "available"))


def _has_tool(notes: JsonObject, tool: str) -> bool:
    return any(tool in names(agent, "tools") for agent in children(notes, "available"))


def _absent(subject: str, notes: JsonObject) -> list[str]:
    return [
        f"**{subject}: that is not available in this installation yet, so I do not pretend to do it.**",
        "",
        *_offer(notes),
    ]


def _offer(notes: JsonObject) -> list[str]:
    """Return what can be done today: by the agents that are there, with messages to try."""
    installed, known = _installed(notes), {name for name, _, _ in _BY_AGENT}
    measures = _has_tool(notes, MEASURES)
    extras = [
        *((ability, message) for tool, ability, message in _BY_TOOL if _has_tool(notes, tool)),
        *((ability, message) for agent, ability, message in _BY_AGENT if agent in installed),
    ]
    others = [
        text(agent, "does")
        for agent in children(notes, "available")
        if text(agent, "agent") not in known and MEASURES not in names(agent, "tools") and child(agent, "does")
    ]
    abilities = [*(_ABILITIES if measures else ()), *(ability for ability, _ in extras), *others]
    messages = [*(TRY if measures else ()), *(message for _, message in extras)]
    lines = ["What I can do for you today:", "", *(f"- {ability}" for ability in abilities)] if abilities else []
    if measures:
        lines += ["", "Upload a usage log (CSV, JSONL, JSON or Parquet), or try the built-in sample:"]
    return [*lines, "", *(f"- “{message}”" for message in messages)] if messages else lines
