"""A report as Markdown: tables and charts of cited results, checked text, what is missing, and the sources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import msgspec

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolRecord
from agent_service.tools.citations import child, objects, options_of, text
from agent_service.tools.markdown import plain
from agent_service.tools.reporting.tables import dataset_of, reference, tables

SectionName: TypeAlias = Literal["overview", "data", "optimizations", "actions", "metrics"]

SECTIONS: Final[Mapping[SectionName, str]] = MappingProxyType(
    {
        "overview": "Executive summary",
        "data": "Data",
        "metrics": "Metrics",
        "optimizations": "Optimizations",
        "actions": "Actions",
    }
)
"""Titles, in the order of the report."""

MAX_ARGUMENT_CHARACTERS: Final = 600
"""Of a call's arguments in the list of sources."""

_METRICS: Final = frozenset(
    {"latency_analysis", "usage_pattern", "anomaly_scan", "correlate", "duplicate_prompts", "evaluate_change"}
)
"""Tools whose results measure how things run, rather than what is used and paid."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart in a report: the file that it is, and the number of the source whose data it shows."""

    name: str
    title: str
    description: str
    source: int
    section: SectionName


@dataclass(frozen=True, slots=True)
class Report:
    """What a report is made of. `texts` are checked Markdown by section; `records` are the sources, from 1."""

    title: str
    records: tuple[ToolRecord, ...]
    drawings: tuple[Drawing, ...]
    texts: Mapping[SectionName, str]
    made: datetime

    @property
    def missing(self) -> list[JsonObject]:
        """What the cited results say is missing, each column once."""
        found: dict[str, JsonObject] = {}
        for record in self.records:
            for entry in objects(record.result, "missing"):
                found.setdefault(text(entry, "column") or text(entry, "what"), entry)
        return list(found.values())

    @property
    def level(self) -> Literal["full", "partial"]:
        """Partial: something is missing that would have been measured."""
        return "partial" if self.missing else "full"

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets that the results are about."""
        return list(dict.fromkeys(name for record in self.records if (name := dataset_of(record))))


def section_of(record: ToolRecord) -> SectionName:
    """Return where a result belongs."""
    if record.agent_name == "actions" or record.tool_name in {"create_action_plan", "track_action", "export_policy"}:
        return "actions"
    if options_of(record) or record.agent_name == "optimizations":
        return "optimizations"
    return "metrics" if record.tool_name in _METRICS else "data"


def as_markdown(report: Report) -> str:
    """Return the report."""
    about = ", ".join(report.datasets) or "what the cited calls hold"
    made = f"A {report.level} report on {plain(about)}, made on {report.made:%Y-%m-%d %H:%M} UTC."
    lines = [f"# {plain(report.title)}", "", f"{made} Each number leads to the call that it comes from.", ""]
    for name, title in SECTIONS.items():
        body = _section(report, name)
        if body:
            lines += [f"## {title}", "", *body]
    lines += [*_missing(report), "## Sources", ""]
    for number, record in enumerate(report.records, start=1):
        lines += _source(number, record)
    return "\n".join(lines).rstrip() + "\n"


def _section(report: Report, name: SectionName) -> list[str]:
    lines = [report.texts[name], ""] if report.texts.get(name) else []
    for drawing in report.drawings:
        if drawing.section == name:
            lines += [
                f"![{plain(drawing.title)}: {plain(drawing.description)}]({drawing.name})",
                "",
                f"*{plain(drawing.title)}* {reference(drawing.source)}",
                "",
            ]
    if name == "overview":
        return lines
    for number, record in enumerate(report.records, start=1):
        if section_of(record) == name:
            lines += tables(record, number)
    return lines


def _missing(report: Report) -> list[str]:
    if not report.missing:
        return []
    lines = [
        f"- **{plain(text(entry, 'column') or text(entry, 'what'))}**: {plain(text(entry, 'why_it_matters'))} "
        f"{plain(text(entry, 'how_to_supply'))}".rstrip()
        for entry in report.missing
    ]
    return ["## What is missing", "", *lines, ""]


def _source(number: int, record: ToolRecord) -> list[str]:
    args = msgspec.json.encode(record.args).decode()
    shown = args if len(args) <= MAX_ARGUMENT_CHARACTERS else f"{args[:MAX_ARGUMENT_CHARACTERS]}…"
    dataset = f", dataset {plain(dataset_of(record))}" if dataset_of(record) else ""
    call = f"Tool {plain(record.tool_name)}, call {plain(record.tool_call_id)}{dataset}. {plain(record.summary)}"
    return [f"### Source {number}", "", call, "", f"Arguments: {plain(shown)}", ""]


def has_data(records: Sequence[ToolRecord]) -> bool:
    """Tell whether any of the calls measured something that a report could rest on."""
    return any(_measured(child(record.result, "totals")) or _is_substance(record) for record in records)


def _measured(totals: JsonValue) -> bool:
    return isinstance(totals, Mapping) and bool(totals.get("requests"))


def _is_substance(record: ToolRecord) -> bool:
    return record.tool_name not in {"list_datasets", "describe_dataset", "usage_summary", "render_chart"} and bool(
        record.result
    )
