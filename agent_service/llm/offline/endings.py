"""What every answer ends with: what failed, what is missing, what to ask next, and which data it was."""

from typing import Final

from agent_service.engine.intents import Intent
from agent_service.llm.offline import sections
from agent_service.llm.offline.conversation import Conversation, child, children, text
from agent_service.llm.offline.facts import Facts
from agent_service.llm.offline.understanding import Understanding

MAX_IDEAS: Final = 3
"""Of what to ask next."""


def failures(facts: Facts) -> list[str]:
    """Say what did not work, each cause once."""
    if not facts.failed:
        return []
    causes = dict.fromkeys(exchange.error or exchange.summary or exchange.status for exchange in facts.failed)
    return ["### What did not work", "", *(f"- {cause}" for cause in causes), ""]


def missing(facts: Facts) -> list[str]:
    """Say which columns are missing, why it matters, and how to supply them."""
    entries = facts.missing()
    if not entries:
        return []
    lines = [
        f"- **{text(entry, 'column')}**: {text(entry, 'why_it_matters')} {text(entry, 'how_to_supply')}".rstrip()
        for entry in entries
    ]
    return ["### What is missing", "", *lines, ""]


def not_available(conversation: Conversation) -> list[str]:
    """Say what the request would need that this installation does not have."""
    absent = children(conversation.findings.get("supervisor"), "not_available")
    if not absent:
        return []
    lines = [f"- {text(entry, 'does')}" for entry in absent]
    return ["### Not available here yet", "", "So this answer holds measured facts only. It does without:", *lines, ""]


def next_questions(understanding: Understanding, facts: Facts) -> list[str]:
    """Suggest messages that this data can answer."""
    lacks = {text(entry, "column") for entry in facts.missing()}
    entities = understanding.entities
    ideas = []
    if "model" in lacks and not entities.assume_model:
        ideas.append("“assume gpt-4o”: prices the same traffic as that model")
    if understanding.intent is not Intent.PRICING and "model" not in lacks:
        ideas.append("“What would gpt-4o-mini cost for this traffic?”")
    if "feature" not in lacks and "feature" not in entities.group_by:
        ideas.append("“And by feature?”")
    if "timestamp" not in lacks and understanding.intent is not Intent.TECHNICAL:
        ideas.append("“When is our traffic highest?”")
    return ["### What you could ask next", "", *(f"- {idea}" for idea in ideas[:MAX_IDEAS]), ""] if ideas else []


def source(facts: Facts) -> list[str]:
    """Name the dataset, why it was chosen, and that it is the sample where it is."""
    result = facts.dataset
    name, why = text(result, "dataset", "name"), text(result, "dataset", "chosen_because")
    if child(result, "dataset", "builtin_sample") is True:
        because = (
            "None of your newest datasets can be read"
            if sections.note(result)
            else "You have no data of your own here yet"
        )
        return [
            (
                f"*{because}, so this is the built-in sample ({name}), not your usage. "
                "Upload a log (CSV, JSONL, JSON or Parquet) to see yours.*"
            )
        ]
    return [f"*Data: {name}, chosen because {why}.*" if why else f"*Data: {name}.*"] if name else []


def nothing_worked(facts: Facts) -> list[str]:
    """Return an answer without any result: why, and what to do."""
    lines = failures(facts) or ["There is no result to write about."]
    ways = "Upload another file (CSV, JSONL, JSON or Parquet), or name another one of yours in your message."
    if any(exchange.tool_name == "query_dataset" for exchange in facts.failed):
        ways = "A statement is one SELECT over the table data, for example: SELECT model, count(*) FROM data GROUP BY 1"
    return ["**I could not analyse the data.**", "", *lines, "", ways]
