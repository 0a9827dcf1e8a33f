"""Messages that a person could send next, as they would write them: only what the agents that are there can answer."""

from typing import Final

from agent_service.engine.intents import Intent
from agent_service.llm.offline.conversation import Conversation, children, text
from agent_service.llm.offline.understanding import Facet, Understanding

MAX_SUGGESTIONS: Final = 3

FIRST_STEPS: Final = ("Analyze my AI costs", "When is our traffic highest?", "What columns does my data have?")
"""For whoever has not asked for anything that is measured."""

EXAMPLES: Final = (
    ("data", "Analyze my AI costs"),
    ("optimizations", "Cut our spend by 30 %, keep quality"),
    ("actions", "Make an action plan to cut cost by 20 %"),
    ("reporting", "Report for management, with charts, as PDF"),
    ("corpus_admin", "Create a knowledge base for our runbooks"),
    ("synthetic_data", "Generate 10,000 requests that look like Black Friday"),
)
"""A message for each specialist."""


def suggestions(understanding: Understanding, conversation: Conversation, missing: frozenset[str] | None) -> list[str]:
    """Return up to three messages; `missing` are the columns that the data lacks, None where nobody looked at it."""
    installed = _installed(conversation)
    own = [message for agent, message in _of_intent(understanding) if agent in installed]
    if missing is None:
        return [*own, *(step for step in FIRST_STEPS if step not in own)][:MAX_SUGGESTIONS]
    measured = _of_data(understanding, missing)
    room = MAX_SUGGESTIONS - 1 if measured else MAX_SUGGESTIONS
    kept = measured[: MAX_SUGGESTIONS - len(own[:room])]
    return [*own[:room], *kept] if understanding.intent in _LED_BY_SPECIALISTS else [*kept, *own[:room]]


_LED_BY_SPECIALISTS: Final = frozenset({Intent.OPTIMIZATION, Intent.REPORTING, Intent.CORPUS, Intent.SYNTHETIC})


def after_failure(understanding: Understanding, conversation: Conversation) -> list[str]:
    """Return messages that do not meet the same failure: what there is, and the newest other dataset."""
    listed = [exchange.result for exchange in conversation.exchanges if exchange.tool_name == "list_datasets"]
    datasets = children(listed[-1], "datasets") if listed else []
    named = {name.casefold() for name in understanding.entities.datasets}
    failed = "" if named else text(listed[-1], "dataset", "name") if listed else ""
    own = [text(entry, "name") for entry in datasets]
    others = [name for name in own if name.casefold() not in named and name != failed]
    return ["Which datasets do I have?", *(f"Analyze {name}" for name in others[:1])]


def _installed(conversation: Conversation) -> frozenset[str]:
    return frozenset(text(agent, "agent") for agent in children(conversation.findings.get("supervisor"), "available"))


def _of_intent(understanding: Understanding) -> list[tuple[str, str]]:  # noqa: PLR0911 - one return for each intent
    """Return agents, and messages for them that go on from a request of this kind."""
    facets = understanding.facets
    match understanding.intent:
        case Intent.CORPUS if Facet.SEARCH in facets:
            return [
                ("corpus_admin", "List my knowledge bases"),
                ("corpus_admin", "What do our docs say about timeouts?"),
            ]
        case Intent.CORPUS:
            return [
                ("corpus_admin", "What do our docs say about retries?"),
                ("corpus_admin", "List my knowledge bases"),
            ]
        case Intent.SYNTHETIC:
            return [
                ("synthetic_data", "Make it 20,000 rows"),
                ("data", "Analyze my AI costs"),
            ]
        case Intent.OPTIMIZATION if Facet.PLAN in facets or Facet.TRACK in facets:
            return [("actions", "Export the routing policy"), ("reporting", "Put it in a PDF report")]
        case Intent.OPTIMIZATION:
            return [("actions", "Make an action plan"), ("reporting", "Put it in a PDF report")]
        case Intent.REPORTING:
            return [("optimizations", "Cut our spend by 30 %, keep quality"), ("actions", "Make an action plan")]
        case Intent.TECHNICAL if Facet.DATABASE in facets:
            return [("data", "Which indexes does our database not use?")]
        case Intent.TECHNICAL:
            return [("optimizations", "Will +50 % traffic fit our limits of 500 RPM and 200k TPM?")]
        case Intent.GENERAL:
            return [
                example for example in EXAMPLES if example[0] in {"optimizations", "corpus_admin", "synthetic_data"}
            ][: 0 if facets & {Facet.FILES, Facet.COLUMNS} else MAX_SUGGESTIONS - 1]
        case _:
            return [("optimizations", "Cut our spend by 30 %, keep quality")]


def _of_data(understanding: Understanding, missing: frozenset[str]) -> list[str]:
    """Return what this data can answer."""
    intent, entities = understanding.intent, understanding.entities
    ideas = []
    breaks_down = intent in {Intent.COST_ANALYSIS, Intent.BENCHMARKING}
    if intent in {Intent.GENERAL, Intent.TECHNICAL} and "model" not in missing:
        ideas.append("Analyze my AI costs")
    if "model" in missing and not entities.assume_model:
        ideas.append("Analyze my AI costs, assume gpt-4o")
    if breaks_down and "feature" not in missing and "feature" not in entities.group_by:
        ideas.append("And by feature?")
    if breaks_down and "model" not in missing and "model" not in entities.group_by:
        ideas.append("And by model?")
    if "latency" not in missing and intent is not Intent.BENCHMARKING:
        ideas.append("Compare the latency of our models")
    if intent is not Intent.PRICING:
        ideas.append("What would gpt-4o-mini cost for this traffic?")
    if "timestamp" not in missing and intent is not Intent.TECHNICAL:
        ideas.append("When is our traffic highest?")
    return ideas[:MAX_SUGGESTIONS]
