"""The reporting agent's tools, as the registry takes them."""

from functools import partial

from pydantic import BaseModel

from agent_service.engine.events import Effect
from agent_service.engine.ports import Clock
from agent_service.engine.tool import Tool, define_tool
from agent_service.tools.reporting.create_report import CreateReportArgs, create_report
from agent_service.tools.reporting.render_chart import RenderChartArgs, render_chart
from agent_service.tools.reporting.rendering import Renderer


def reporting_tools(clock: Clock) -> tuple[Tool[BaseModel], ...]:
    """Return the tools. `clock` dates the reports."""
    renderer = Renderer()
    return (
        define_tool(
            "render_chart",
            "Draw a chart (SVG) of what an earlier call of this run measured. The data comes from the cited call only.",
            RenderChartArgs,
            partial(render_chart, renderer),
            effect=Effect.IDEMPOTENT,
        ),
        define_tool(
            "create_report",
            "Make a report (Markdown, HTML, and PDF if asked for) from earlier calls of this run. Tables come from the "
            "cited results; numbers in the text are checked against them.",
            CreateReportArgs,
            partial(create_report, renderer, clock),
            effect=Effect.IDEMPOTENT,
        ),
    )
