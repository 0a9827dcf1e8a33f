"""A cited result as Markdown tables: made by us from the result, so that no number passes through a model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolRecord
from agent_service.tools.citations import COMBINED, objects, options_of, text
from agent_service.tools.markdown import cell, plain
from agent_service.tools.reporting.figures import figure, label

MAX_ROWS: Final = 25
"""Of one table; the rest is counted."""

MAX_COLUMNS: Final = 9
"""Of one table; the rest is left out."""

MAX_TABLES: Final = 8
"""Of one result."""

MAX_CELL_CHARACTERS: Final = 200
"""Of one cell; the rest is cut."""

_ELSEWHERE: Final = frozenset(
    {
        *("dataset", "filter", "mapping", "notes", "missing", "sufficiency", "pricing", "percentile_definition"),
        *("group_by", "unit", "timezone", "files", "policy", "points", "description", "sql", "how"),
        *("series", "keys", "plan_id", "version", "next_steps", "dataset_id", "tool_call_id", "artifact_id"),
        *("chart_id", "definition", "this_conversation", "changed", "warnings", "month_basis"),
    }
)
"""What of a result is said elsewhere in the report, or is for programs."""

_AS_OPTIONS: Final = frozenset({*COMBINED, "options", "combinations", "without_change", "goals"})
"""Where results keep options."""

_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "options": (
        *("title", "saving_usd", "saving_percent", "saving_usd_per_month", "quality_risk level", "effort size"),
        *("latency note", "rollback"),
    ),
    "steps": ("order", "id", "what", "owner_role", "effort", "depends_on", "validation", "rollback", "status"),
}
"""The columns of lists that have too many to show, in this order."""


def tables(record: ToolRecord, source: int) -> list[str]:
    """Return the tables of a result as Markdown lines; `source` is its number in the list of sources."""
    lines: list[str] = []
    for title, rows in list(_parts(record))[:MAX_TABLES]:
        lines += [f"**{plain(title)}** {reference(source)}", "", *_table(rows, title), ""]
    return lines


def reference(source: int) -> str:
    """Return the mark that leads to a source."""
    return f"[\\[{source}\\]](#source-{source})"


def _parts(record: ToolRecord) -> Iterator[tuple[str, Sequence[JsonObject]]]:
    """Yield what a result holds as titled lists of rows: its single values first, then its lists."""
    options = options_of(record)
    if options:
        yield "Options", [option.data for option in options]
        yield from (("Goals", goals) for option in options[:1] if (goals := objects(option.data, "constraints")))
    result = {key: value for key, value in (record.result or {}).items() if not options or key not in _AS_OPTIONS}
    singles = [row for key, value in result.items() if key not in _ELSEWHERE for row in _single_rows(key, value)]
    if singles:
        yield "Totals", singles
    for key, value in result.items():
        if key in _ELSEWHERE:
            continue
        rows = objects(result, key)
        if rows:
            yield _title(key, result), rows
        elif isinstance(value, Mapping):
            for inner in value:
                if inner not in _ELSEWHERE and objects(value, inner):
                    yield f"By {inner}" if key == "groups" else label(inner), objects(value, inner)


def _title(key: str, result: JsonObject) -> str:
    by = result.get("group_by")
    if key == "groups" and isinstance(by, list | tuple) and by:
        return f"By {' and '.join(map(str, by))}"
    return label(key)


def _single_rows(key: str, value: JsonValue) -> Iterator[JsonObject]:
    """Yield a value, or the values of an object, as rows of a figure and its value."""
    if isinstance(value, Mapping):
        for inner, found in value.items():
            if inner not in _ELSEWHERE and _is_scalar(found):
                name = label(inner) if key == "totals" else f"{label(key)}: {label(inner).lower()}"
                yield {"figure": name, "value": figure(inner, found, parent=key)}
    elif _is_scalar(value):
        yield {"figure": label(key), "value": figure(key, value)}


def _is_scalar(value: JsonValue) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _table(rows: Sequence[JsonObject], title: str) -> list[str]:
    flat = [_flat(row) for row in rows[:MAX_ROWS]]
    wanted = _COLUMNS.get(title.lower(), ())
    seen = list(dict.fromkeys(key for row in flat for key, shown in row.items() if shown[0]))
    columns = [key for key in wanted if key in seen] or seen[:MAX_COLUMNS]
    right = {key for key in columns if any(row[key][1] for row in flat if key in row)}
    lines = [
        f"| {' | '.join(cell(label(key.replace(' ', '_'))) for key in columns)} |",
        f"| {' | '.join('---:' if key in right else ':---' for key in columns)} |",
        *(f"| {' | '.join(cell(_cut(row.get(key, ('', False))[0])) for key in columns)} |" for row in flat),
    ]
    more = len(rows) - len(flat)
    return [*lines, *(["", f"… and {more:,} more."] if more else [])]


def _flat(row: JsonObject) -> dict[str, tuple[str, bool]]:
    """Return a row's values as text, and whether each is a number; objects in it one level deep."""
    shown: dict[str, tuple[str, bool]] = {}
    for key, value in row.items():
        if key in _ELSEWHERE:
            continue
        if isinstance(value, Mapping):
            for inner, found in value.items():
                if _is_scalar(found):
                    shown[f"{key} {inner}"] = figure(inner, found, parent=key), isinstance(found, int | float)
        elif isinstance(value, list | tuple):
            shown[key] = ", ".join(item for item in value if isinstance(item, str)), False
        elif value is not None:
            shown[key] = figure(key, value), isinstance(value, int | float)
    return shown


def _cut(words: str) -> str:
    return words if len(words) <= MAX_CELL_CHARACTERS else f"{words[: MAX_CELL_CHARACTERS - 1]}…"


def dataset_of(record: ToolRecord) -> str:
    """Return what a result says it is about, empty where it says nothing."""
    name = text(record.result, "dataset", "name")
    sample = record.result is not None and _is_sample(record.result)
    return f"{name} (the built-in sample)" if name and sample else name


def _is_sample(result: JsonObject) -> bool:
    dataset = result.get("dataset")
    return isinstance(dataset, Mapping) and dataset.get("builtin_sample") is True
