"""How the columns of a dataset were read, and how to correct it: shown where something was not recognised."""

from typing import Final

from agent_service.engine.events import JsonObject
from agent_service.llm.offline.conversation import child, children, names, text
from agent_service.llm.offline.facts import Facts
from agent_service.llm.offline.format import table
from agent_service.llm.offline.understanding import Understanding

MAX_COLUMNS: Final = 30
"""Columns of a description that are shown."""

SHOWN_UNUSED: Final = 12
"""Columns without a meaning that are named."""

WORDS: Final = {"input_tokens": "input tokens", "output_tokens": "output tokens", "cached_tokens": "cached tokens"}
"""How a person writes a column's meaning."""


def mapping(understanding: Understanding, facts: Facts) -> list[str]:
    """Return the table of meanings and columns, where a correction was made, or where one would help.

    It would help when a meaning is missing and the file has columns that nothing was recognised in. A description
    shows every column anyway.
    """
    read = child(facts.dataset, "mapping")
    if not isinstance(read, dict) or not read or facts.of("describe_dataset") is not None:
        return []
    said = dict(understanding.entities.columns)
    lacking = [text(entry, "column") for entry in facts.missing()]
    unused = names(facts.dataset, "unused_columns")
    if not said and not (lacking and unused):
        return []
    rows = [[_words(name), str(column), "as you said" if name in said else ""] for name, column in read.items()]
    rows += [[_words(name), "not recognised", ""] for name in lacking if name not in read]
    lines = ["### How the columns were read", "", *table(["Meaning", "Column", ""], rows, texts=3), ""]
    if unused:
        named = ", ".join(f"`{name.replace('`', '')}`" for name in unused[:SHOWN_UNUSED])
        more = f" and {len(unused) - SHOWN_UNUSED} more" if len(unused) > SHOWN_UNUSED else ""
        lines += [f"Not used: {named}{more}.", ""]
    column, meaning = (unused[0], lacking[0]) if unused and lacking else list(reversed(next(iter(read.items()))))
    example = f"column {column} is {_words(meaning)}"
    return [*lines, f"If one is wrong, tell me, for example “{example}”: it holds for this conversation.", ""]


def _words(name: str) -> str:
    return WORDS.get(name, name)


def columns(described: JsonObject | None) -> list[str]:
    """Return what each column was recognised as, so that it can be corrected."""
    rows = [
        [text(column, "name"), text(column, "type"), text(column, "role") or "not used", text(column, "reason")]
        for column in children(described, "columns")[:MAX_COLUMNS]
    ]
    if not rows:
        return []
    hint = "If one is wrong, tell me, for example “the column took is latency”."
    return ["### Columns", "", *table(["Column", "Type", "Recognised as", "Why"], rows, texts=4), "", hint, ""]
