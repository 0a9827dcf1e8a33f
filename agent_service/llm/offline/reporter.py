"""The offline model as the reporting agent: charts and a report where they are wanted, then the answer, always."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from agent_service.engine.events import JsonValue
from agent_service.engine.intents import Intent
from agent_service.llm.offline import report_words
from agent_service.llm.offline.chosen import OPTIMIZATIONS, combination, options
from agent_service.llm.offline.conversation import (
    Call,
    Conversation,
    Exchange,
    Saying,
    Thought,
    Words,
    child,
    children,
    number,
    text,
)
from agent_service.llm.offline.facts import SUCCESS
from agent_service.llm.offline.understanding import Facet, Understanding, understand

MAX_CHARTS: Final = 6
"""Of a report."""

MAX_ANSWER_CHARTS: Final = 2
"""Beside an answer that is no report."""

MAX_SOURCES: Final = 30
"""Calls that a report cites: the tool takes no more."""

MAX_TITLE_CHARACTERS: Final = 120
"""Of a report's title."""

_REPORT: Final = re.compile(
    r"\b(?:reports?|slides?|deck|presentation|document|write.?up|briefing|one.pager)\b", re.IGNORECASE
)
_NO_SUBSTANCE: Final = frozenset({"list_datasets", "describe_dataset", "price_lookup"})
"""Calls that measure nothing that a report could rest on."""


def can_play(conversation: Conversation) -> bool:
    """True when the tools on offer are those of the reporting agent."""
    return bool(conversation.tools & {"render_chart", "create_report"})


def reply(conversation: Conversation) -> list[Saying]:
    """Return the next turn: charts, then the report, then the answer."""
    understanding = understand(conversation.request, conversation.earlier, conversation.now)
    tried = [exchange.tool_name for exchange in conversation.exchanges]
    wanted = _wants_report(understanding, conversation)
    if not tried and (wanted or not report_words.is_only_tracked(conversation)):
        limit = MAX_CHARTS if wanted else MAX_ANSWER_CHARTS
        charts = list(_charts(conversation, wanted=wanted))[:limit] if "render_chart" in conversation.tools else []
        if charts:
            return [Thought("I draw what the measured data shows."), *charts]
    sources = _sources(conversation)
    if wanted and sources and "create_report" in conversation.tools:
        reports = [exchange for exchange in conversation.exchanges if exchange.tool_name == "create_report"]
        if not reports:
            return [Thought("I put the report together."), _report(understanding, conversation, sources)]
        if len(reports) == 1 and reports[0].status != SUCCESS and "texts" in reports[0].args:
            # Its text held something that no result holds: the tables alone still are a report.
            bare = {name: value for name, value in reports[0].args.items() if name != "texts"}
            return [Thought("I leave the words out and report the tables."), Call("create_report", bare)]
    return [Thought("I write the answer from what was found."), Words(report_words.answer(understanding, conversation))]


def _wants_report(understanding: Understanding, conversation: Conversation) -> bool:
    asked = understanding.intent is Intent.REPORTING or bool(understanding.facets & {Facet.PDF, Facet.CHARTS})
    return asked or bool(_REPORT.search(conversation.request))


def _all_evidence(conversation: Conversation) -> list[Exchange]:
    return [one for exchanges in conversation.evidence.values() for one in exchanges if one.result is not None]


def _sources(conversation: Conversation) -> list[JsonValue]:
    """Return the ids of the calls that a report rests on, each once."""
    ids = [one.tool_call_id for one in _all_evidence(conversation) if one.tool_name not in _NO_SUBSTANCE]
    return list[JsonValue](dict.fromkeys(one for one in ids if one))[:MAX_SOURCES]


def _charts(conversation: Conversation, *, wanted: bool) -> Iterator[Call]:
    """Yield the charts that the evidence supports, the most telling first."""
    seen: set[str] = set()
    evidence = conversation.evidence.get(OPTIMIZATIONS, ())
    together, _ = combination(evidence)
    if together is not None and number(together.data, "cost_after_usd") is not None:
        yield _chart("savings_waterfall", together.tool_call_id, together.id)
    elif every := options(evidence):
        yield _chart("savings_waterfall", every[0].tool_call_id, every[0].id)
    for exchange in _all_evidence(conversation):
        for kind, which in _shows(exchange):
            if f"{kind} {which}" not in seen:
                seen.add(f"{kind} {which}")
                yield _chart(kind, exchange.tool_call_id, which)
    several = [one for one in evidence if len(children(one.result, "options")) > 1 and one.tool_call_id]
    if wanted and several and "saving_usd" in children(several[0].result, "options")[0]:
        yield _chart("savings_by_option", several[0].tool_call_id, "")


def _shows(exchange: Exchange) -> Iterator[tuple[str, str]]:
    """Yield which kinds of chart a result has data for, and of which dimension."""
    result = exchange.result
    match exchange.tool_name:
        case "usage_summary":
            grouped = child(result, "groups")
            for dimension in grouped if isinstance(grouped, Mapping) else ():
                if any(number(group, "cost_usd") is not None for group in children(grouped, dimension)):
                    yield ("cost_over_time", "") if dimension == "day" else ("cost_by_group", dimension)
        case "latency_analysis" if child(result, "overall") is not None:
            yield "latency_percentiles", ""
        case "usage_pattern" if children(result, "hourly"):
            yield "usage_by_hour", ""
            yield "requests_over_time", ""
        case _:
            pass


def _chart(kind: str, tool_call_id: str, which: str) -> Call:
    return Call("render_chart", {"kind": kind, "tool_call_id": tool_call_id, **({"which": which} if which else {})})


def _report(understanding: Understanding, conversation: Conversation, sources: list[JsonValue]) -> Call:
    charts: list[JsonValue] = [
        text(one.result, "chart_id")
        for one in conversation.exchanges
        if one.tool_name == "render_chart" and one.status == SUCCESS
    ]
    subject = (
        "AI cost optimization report" if options(conversation.evidence.get(OPTIMIZATIONS, ())) else "AI usage report"
    )
    args: dict[str, JsonValue] = {"title": subject, "sources": sources, "charts": charts}
    summary = report_words.executive_summary(conversation, plan=False)
    if summary:
        args["texts"] = [{"section": "overview", "text": "\n\n".join(summary)}]
    if Facet.PDF in understanding.facets:
        args["pdf"] = True
    return Call("create_report", args)
