"""What is said first where an answer is not, or not all, of what was asked for."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

from agent_service.engine.intents import Intent
from agent_service.llm.offline import sections
from agent_service.llm.offline.conversation import Conversation, children, text
from agent_service.llm.offline.facts import Facts
from agent_service.llm.offline.understanding import Facet, Understanding

_COLUMNS: Final = MappingProxyType({"day": "timestamp", "hour": "timestamp", "weekday": "timestamp"})
"""Dimensions whose column has another name."""


def absent_columns(understanding: Understanding, facts: Facts) -> list[str]:
    """Return that there is nothing to break down by, where that is all that was asked for."""
    asked, lacking = _asked_and_lacking(understanding, facts)
    entries = {text(entry, "column"): entry for entry in facts.missing()}
    if not lacking or len(lacking) < len(asked):
        return []
    where = sections.dataset_name(facts.dataset)
    lines = [f"**There is no {' and no '.join(lacking)} column in {where}.**"]
    for name in lacking:
        lines += ["", f"{text(entries[name], 'why_it_matters')} {text(entries[name], 'how_to_supply')}"]
    hint = f"If a column under another name holds it, say which: “use column team as {lacking[0].replace('_', ' ')}”."
    lines += ["", hint, "", *sections.note(facts.dataset)]
    usage = facts.of("usage_summary")
    return [*lines, *(["As a whole: " + sections.headline(usage).replace("**", ""), ""] if usage is not None else [])]


def not_there_yet(understanding: Understanding, facts: Facts, conversation: Conversation) -> list[str]:
    """Say first what was asked for and cannot be done, and what is told in its place."""
    where, lines = sections.dataset_name(facts.dataset), []
    if Facet.SEVERAL in understanding.facets:
        other = next((name for name in understanding.entities.files if name.lower() not in where.lower()), "")
        then = f"“Analyze {other}”" if other else "“Analyze” and its name"
        lines += [f"**One dataset is analysed at a time: this is {where}.** For another one send {then}.", ""]
    _, lacking = _asked_and_lacking(understanding, facts)
    if lacking:
        lines += [f"**There is no {' and no '.join(lacking)} column in {where}.** What can be told without:", ""]
    scaled = any(goal.change_percent for goal in understanding.entities.goals)
    priced = understanding.intent is Intent.PRICING and bool(facts.what_ifs) and not scaled
    if _asks_for_forecast(understanding) and not priced and not _forecasts(conversation):
        lines += [
            (
                "**Forecasts and what-ifs, other than the price of the same traffic with another model, are not "
                f"available here yet: nothing below is a forecast, only what {where} measures.**"
            ),
            "",
        ]
    return lines


def _asks_for_forecast(understanding: Understanding) -> bool:
    """True when the future itself is asked for, rather than a way to spend less in it."""
    facets = understanding.facets
    return Facet.FORECAST in facets and (understanding.intent is not Intent.OPTIMIZATION or Facet.CAPACITY in facets)


def _forecasts(conversation: Conversation) -> bool:
    """True when another agent, which works on what is measured here, can look ahead."""
    agents = children(conversation.findings.get("supervisor"), "available")
    return any(text(agent, "agent") == "optimizations" for agent in agents)


def note(understanding: Understanding, facts: Facts, before: Sequence[str]) -> list[str]:
    """Return why it is this dataset where that may surprise, unless it has been said."""
    said = sections.note(facts.dataset)
    return [] if before and Facet.SEVERAL in understanding.facets else said


def _asked_and_lacking(understanding: Understanding, facts: Facts) -> tuple[list[str], list[str]]:
    """Return the columns that a breakdown was asked for by, and those of them that the data does not have."""
    entities = understanding.entities
    if entities.sql:
        return [], []
    asked = list(dict.fromkeys(_COLUMNS.get(name, name) for name in entities.group_by))
    lacks = {text(entry, "column") for entry in facts.missing()} - ({"model"} if entities.assume_model else set())
    return asked, [name for name in asked if name in lacks]
