"""Answers about a database: what slows it down, what to do, and what could not be seen."""

from typing import Final

from agent_service.engine.events import JsonObject
from agent_service.llm.offline.conversation import Exchange, child, children, names, number, text
from agent_service.llm.offline.format import count, counted, percent, table

_KINDS: Final = {
    "slow_query": "slow statement",
    "sequential_scan": "whole table read",
    "missing_index": "missing index",
    "unused_index": "unused index",
    "redundant_index": "redundant index",
    "cache_hits": "cache",
    "bloat": "bloat",
    "no_statistics": "planner statistics",
}

MEBIBYTE: Final = 1024 * 1024


def answer(found: JsonObject) -> list[str]:
    """Return the lines of the answer, the headline first."""
    return [_headline(found), "", *_findings(found), *_overview(found), *_tables(found), *_unseen(found), *_next(found)]


def failed(exchange: Exchange) -> list[str]:
    """Return why the database was not looked at, and what to do."""
    why = exchange.error or exchange.summary or exchange.status
    lines = ["**I could not look at the database.**", "", f"- {why}", ""]
    if exchange.status == "denied":
        lines.append(
            "Your sign-in does not permit it. Ask whoever runs this service for a token with the scope databases:read; "
            "development tokens have it."
        )
    return lines


def _headline(found: JsonObject) -> str:
    name, version = text(found, "target", "name"), text(found, "target", "version")
    heavy, total = number(found, "counts", "high") or 0, number(found, "findings_total") or 0
    if not total:
        return f"**In the database {name} ({version}) nothing stands out, as far as its statistics tell.**"
    first = children(found, "findings")[0]
    weight = f", {count(heavy)} of them heavy" if heavy else ""
    return f"**{counted(total, 'finding')} in the database {name} ({version}){weight}. First: {text(first, 'detail')}**"


def _findings(found: JsonObject) -> list[str]:
    entries = children(found, "findings")
    if not entries:
        return []
    rows = [
        [
            text(entry, "severity"),
            _KINDS.get(text(entry, "kind"), text(entry, "kind")),
            text(entry, "place"),
            text(entry, "detail"),
            text(entry, "suggestion"),
        ]
        for entry in entries
    ]
    lines = ["### Findings", "", *table(["Weight", "Kind", "Where", "What", "What to do"], rows, texts=5), ""]
    left = number(found, "findings_not_shown")
    return [*lines, *([f"… and {count(left)} more.", ""] if left else [])]


def _overview(found: JsonObject) -> list[str]:
    rows = [["Size", _bytes(number(found, "overview", "size_bytes"))]]
    rows.append(["Tables", count(number(found, "overview", "tables"))])
    if number(found, "overview", "cache_hit_share") is not None:
        rows.append(["Blocks found in memory", percent(number(found, "overview", "cache_hit_share"))])
    if number(found, "overview", "connections") is not None:
        rows.append(["Connections", count(number(found, "overview", "connections"))])
    if number(found, "overview", "free_share") is not None:
        rows.append(["Free pages in the file", percent(number(found, "overview", "free_share"))])
    since = text(found, "overview", "statistics_since")
    if since:
        rows.append(["Statistics since", since])
    checked = f"Checked: {', '.join(names(found, 'checked'))}."
    return ["### The database", "", *table(["Measure", "Value"], rows), "", checked, ""]


def _tables(found: JsonObject) -> list[str]:
    entries = children(found, "tables")
    rows = [
        [
            text(entry, "name"),
            _rows(entry),
            _bytes(number(entry, "size_bytes")),
            *([_optional(entry, "sequential_scans"), _optional(entry, "index_scans")] if _counts_scans(found) else []),
        ]
        for entry in entries
    ]
    header = ["Table", "Rows", "Size", *(["Whole reads", "Index reads"] if _counts_scans(found) else [])]
    return ["### Largest tables", "", *table(header, rows), ""] if rows else []


def _counts_scans(found: JsonObject) -> bool:
    return any(child(entry, "sequential_scans") is not None for entry in children(found, "tables"))


def _rows(entry: JsonObject) -> str:
    at_most = number(entry, "rows_at_most")
    return f"up to {count(at_most)}" if at_most is not None else count(number(entry, "rows"))


def _optional(entry: JsonObject, name: str) -> str:
    return count(number(entry, name))


def _bytes(size: float | None) -> str:
    if size is None:
        return "not known"
    return f"{size / MEBIBYTE:,.1f} MiB" if size >= MEBIBYTE else f"{size / 1024:,.0f} KiB"


def _unseen(found: JsonObject) -> list[str]:
    entries = children(found, "missing")
    lines = [
        f"- **{text(entry, 'column')}**: {text(entry, 'why_it_matters')} {text(entry, 'how_to_supply')}".rstrip()
        for entry in entries
    ]
    return ["### What could not be seen", "", *lines, ""] if lines else []


def _next(found: JsonObject) -> list[str]:
    name = text(found, "target", "name")
    others = [other for other in names(found, "targets") if other != name]
    ideas = [f"“Analyze the database {other}”" for other in others[:2]]
    ideas.append("“Analyze my AI costs”: what your AI workloads cost, from your usage log")
    return ["### What you could ask next", "", *(f"- {idea}" for idea in ideas), ""]
