"""The tool render_chart: an SVG of what an earlier call measured."""

from typing import Final

from pydantic import BaseModel, Field

from agent_service.engine.events import JsonValue
from agent_service.engine.tool import ToolContext, ToolError, ToolOutput, ToolRecord
from agent_service.tools.citations import CallId, available, child, cited
from agent_service.tools.reporting import svg
from agent_service.tools.reporting.charts import described, specification
from agent_service.tools.reporting.rendering import Renderer
from agent_service.tools.reporting.series import Kind, Series, series

MEDIA_TYPE: Final = "image/svg+xml"

MAX_SUFFIX_CHARACTERS: Final = 24
"""Of what a chart is of, in its file name; longer ids are left out."""


class RenderChartArgs(BaseModel):
    """Arguments of render_chart."""

    kind: Kind = Field(
        description="cost_over_time: cost_breakdown or usage_summary by day. cost_by_group: cost_breakdown, "
        "usage_summary. latency_percentiles: latency_analysis, usage_summary. requests_over_time, usage_by_hour: "
        "usage_pattern. savings_by_option, savings_waterfall: a call that computed options."
    )
    tool_call_id: str = CallId
    which: str = Field(
        default="",
        max_length=200,
        description="The dimension (model, feature, user, day), or the option of a waterfall; empty: the first one.",
    )


async def render_chart(renderer: Renderer, context: ToolContext, args: RenderChartArgs) -> ToolOutput:
    """Draw the chart and save it."""
    record = cited(context, args.tool_call_id)
    found = charted(context, record, args)
    (drawn,) = await renderer.svgs([specification(args.kind, found)])
    description = described(found)
    name = file_name(args)
    image = svg.described(drawn, found.title, description)
    artifact_id = await context.artifacts.save(name, MEDIA_TYPE, image.encode(), description=found.title)
    points: list[JsonValue] = [
        {"name": point.name, "series": point.series, "value": point.value} for point in found.points
    ]
    return ToolOutput(
        f"{found.title}, as {name}",
        {
            "chart_id": context.tool_call_id,
            "artifact_id": artifact_id,
            "name": name,
            "kind": args.kind,
            "which": args.which,
            "title": found.title,
            "description": description,
            "note": found.note,
            "unit": found.unit,
            "tool_call_id": record.tool_call_id,
            "dataset": child(record.result, "dataset"),
            "points": points,
        },
    )


def charted(context: ToolContext, record: ToolRecord, args: RenderChartArgs) -> Series:
    """Return what the chart shows. Raises `ToolError` naming the calls that would do."""
    found = series(args.kind, record, args.which)
    if found is not None:
        return found
    able = [other for other in context.records() if series(args.kind, other, args.which) is not None]
    do = available(able) if able else "No call of this run has any."
    about = f" of {args.which}" if args.which else ""
    raise ToolError(f"The call {record.tool_call_id} ({record.tool_name}) has no data for {args.kind}{about}. {do}")


def file_name(args: RenderChartArgs) -> str:
    """Return the chart's file name: its kind, and what it is of."""
    return f"{args.kind.replace('_', '-')}{_suffix(args.which)}.svg"


def _suffix(which: str) -> str:
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in which.lower()).strip("-")
    return f"-{kept}" if 0 < len(kept) <= MAX_SUFFIX_CHARACTERS else ""
