"""The tool create_report: cited results become a document that others can read and check."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import BaseModel, Field

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.ports import Clock
from agent_service.engine.tool import ToolContext, ToolError, ToolOutput, ToolRecord
from agent_service.tools.citations import cited, text
from agent_service.tools.reporting import svg
from agent_service.tools.reporting.charts import described, specification
from agent_service.tools.reporting.html import as_html
from agent_service.tools.reporting.narrative import Sources, checked
from agent_service.tools.reporting.render_chart import MEDIA_TYPE, RenderChartArgs, charted, file_name
from agent_service.tools.reporting.rendering import Renderer
from agent_service.tools.reporting.report import Drawing, Report, SectionName, as_markdown, has_data, section_of
from agent_service.tools.reporting.tables import dataset_of

MAX_SOURCES: Final = 30
"""Calls that one report cites."""

MAX_CHARTS: Final = 10
"""Of one report."""

MAX_TEXT_CHARACTERS: Final = 4_000
"""Of the text of one section."""

CallId = Annotated[str, Field(min_length=1, max_length=80)]

NOTHING_MEASURED: Final = (
    "No report was made: nothing that was measured is cited, and a report is not made up. Bring a usage log (CSV, "
    "JSONL, JSON or Parquet) with times, models, token counts and, for more, cost, latency and feature; then measure "
    "it and cite those calls."
)


class SectionText(BaseModel):
    """Words for one section."""

    section: SectionName
    text: str = Field(
        min_length=1,
        max_length=MAX_TEXT_CHARACTERS,
        description="Paragraphs, lists and emphasis in Markdown. Every number must stand in a cited result.",
    )


class CreateReportArgs(BaseModel):
    """Arguments of create_report."""

    title: str = Field(min_length=1, max_length=200)
    sources: list[CallId] = Field(
        min_length=1,
        max_length=MAX_SOURCES,
        description="tool_call_ids of the calls that the report rests on; its tables are made from their results.",
    )
    charts: list[CallId] = Field(
        default=[], max_length=MAX_CHARTS, description="chart_id of the results of render_chart whose charts it shows."
    )
    texts: list[SectionText] = Field(default=[], max_length=5, description="Words for its sections, overview first.")
    pdf: bool = Field(default=False, description="Also as PDF; Markdown and HTML are always made.")


async def create_report(renderer: Renderer, clock: Clock, context: ToolContext, args: CreateReportArgs) -> ToolOutput:
    """Compose the report and save it in its forms."""
    charts = [_chart(context, call_id) for call_id in dict.fromkeys(args.charts)]
    wanted = dict.fromkeys([*args.sources, *(chart.tool_call_id for chart in charts)])
    records = tuple(record for call_id in wanted if (record := cited(context, call_id)).tool_name != "render_chart")
    if not has_data(records):
        raise ToolError(NOTHING_MEASURED)
    sources = Sources.of(records, context.message)
    checked(args.title, sources)
    texts: dict[SectionName, str] = {part.section: checked(part.text, sources) for part in args.texts}
    await context.progress("Sources checked, drawing", 0.3)
    drawings, images = await _drawn(renderer, context, records, charts)
    report = Report(args.title, records, drawings, texts, clock.now())
    markdown = as_markdown(report)
    page = await asyncio.to_thread(as_html, markdown, args.title, images)  # it may be long
    files = [
        await _save(context, "report.md", "text/markdown", markdown.encode(), args.title),
        await _save(context, "report.html", "text/html", page.encode(), args.title),
    ]
    pdf = "not asked for"
    if args.pdf:
        await context.progress("Written, making the PDF", 0.7)
        pdf = await _pdf(renderer, context, page, args.title, files)
    return ToolOutput(_summary(report, files, pdf), _result(report, files, pdf))


def _chart(context: ToolContext, tool_call_id: str) -> RenderChartArgs:
    record = cited(context, tool_call_id)
    if record.tool_name != "render_chart":
        raise ToolError(f"The call {tool_call_id} is one of {record.tool_name}; charts are those of render_chart.")
    return RenderChartArgs.model_validate(
        {name: text(record.result, name) for name in ("kind", "tool_call_id", "which")}
    )


async def _drawn(
    renderer: Renderer, context: ToolContext, records: Sequence[ToolRecord], charts: Sequence[RenderChartArgs]
) -> tuple[tuple[Drawing, ...], dict[str, str]]:
    """Draw the charts anew from what they cite: it is quicker than to look for the files, and it is the same."""
    numbers = {record.tool_call_id: number for number, record in enumerate(records, start=1)}
    found = [charted(context, cited(context, chart.tool_call_id), chart) for chart in charts]
    plain = await renderer.svgs([specification(chart.kind, one) for chart, one in zip(charts, found, strict=True)])
    svgs = [svg.described(image, one.title, described(one)) for image, one in zip(plain, found, strict=True)]
    drawings, images = [], {}
    for place, (chart, one, drawn) in enumerate(zip(charts, found, svgs, strict=True), start=1):
        source = numbers[chart.tool_call_id]
        name = file_name(chart)
        if name in images:
            name = f"{place}-{name}"
            await context.artifacts.save(name, MEDIA_TYPE, drawn.encode(), description=one.title)
        drawings.append(Drawing(name, one.title, described(one), source, section_of(records[source - 1])))
        images[name] = drawn
    return tuple(drawings), images


async def _save(context: ToolContext, name: str, media_type: str, content: bytes, title: str) -> JsonObject:
    artifact_id = await context.artifacts.save(name, media_type, content, description=f"Report: {title}")
    return {"artifact_id": artifact_id, "name": name, "media_type": media_type}


async def _pdf(renderer: Renderer, context: ToolContext, page: str, title: str, files: list[JsonObject]) -> str:
    """Add the PDF to the files; return what became of it. Without one the report is still a report."""
    try:
        document = await renderer.pdf(page)
    except ToolError as error:
        return str(error)
    if document is None:
        return "PDF is not available in this installation: install apex-agents[pdf], or print the HTML."
    files.append(await _save(context, "report.pdf", "application/pdf", document, title))
    return "made"


def _summary(report: Report, files: Sequence[JsonObject], pdf: str) -> str:
    names = ", ".join(str(file["name"]) for file in files)
    rest = "" if pdf in {"made", "not asked for"} else f". {pdf}"
    return f"A {report.level} report from {len(report.records)} sources: {names}{rest}"


def _result(report: Report, files: Sequence[JsonObject], pdf: str) -> JsonObject:
    sources: list[JsonValue] = [
        {
            "number": number,
            "tool_call_id": record.tool_call_id,
            "tool_name": record.tool_name,
            "dataset": dataset_of(record),
        }
        for number, record in enumerate(report.records, start=1)
    ]
    return {
        "title": report.title,
        "level": report.level,
        "files": list(files),
        "pdf": pdf,
        "charts": [drawing.title for drawing in report.drawings],
        "missing": list(report.missing),
        "sources": sources,
    }
