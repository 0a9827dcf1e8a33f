"""The data tools: what users' datasets hold, measured. All of them only read."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel

from agent_service.engine.events import Effect
from agent_service.engine.ports import Clock
from agent_service.engine.tool import Tool, ToolContext, ToolOutput
from agent_service.tools.analysis import Workbench
from agent_service.tools.cost import CostBreakdownArgs, cost_breakdown
from agent_service.tools.inventory import DescribeDatasetArgs, ListDatasetsArgs, describe_dataset, list_datasets
from agent_service.tools.latency import LatencyAnalysisArgs, latency_analysis
from agent_service.tools.query import QueryDatasetArgs, query_dataset
from agent_service.tools.sandbox import Sandbox
from agent_service.tools.usage import UsagePatternArgs, UsageSummaryArgs, usage_pattern, usage_summary
from storage.interfaces import Files

TIMEOUT_MS = 20_000
"""Of one call of a data tool, with its wait for a free child of the sandbox."""

ArgsT = TypeVar("ArgsT", bound=BaseModel)


def data_tools(files: Files, sandbox: Sandbox, clock: Clock) -> tuple[Tool[BaseModel], ...]:
    """Return the data tools. `clock` dates the prices of requests without a time."""
    bench = Workbench(files, sandbox, clock)
    return (
        _tool(
            bench,
            list_datasets,
            ListDatasetsArgs,
            "list_datasets",
            "List the datasets that the user has, and say which one would be analysed.",
        ),
        _tool(
            bench,
            describe_dataset,
            DescribeDatasetArgs,
            "describe_dataset",
            "Describe a dataset: its columns, what each was recognised as, and how much of an analysis it allows.",
        ),
        _tool(
            bench,
            usage_summary,
            UsageSummaryArgs,
            "usage_summary",
            "Summarise usage: requests, tokens, cost, errors, latency, time span and peaks, in total and by model, "
            "feature, user and day.",
        ),
        _tool(
            bench,
            cost_breakdown,
            CostBreakdownArgs,
            "cost_breakdown",
            "Break the cost down by model, feature, user or time, with shares and what could not be priced.",
        ),
        _tool(
            bench,
            latency_analysis,
            LatencyAnalysisArgs,
            "latency_analysis",
            "Analyse latency: percentiles in total and by group, the slowest requests and hours, and errors.",
        ),
        _tool(
            bench,
            usage_pattern,
            UsagePatternArgs,
            "usage_pattern",
            "Show when usage happens: by hour of day and weekday, peaks, gaps and a time series.",
        ),
        _tool(
            bench,
            query_dataset,
            QueryDatasetArgs,
            "query_dataset",
            "Run one SQL SELECT (DuckDB) over a dataset; the table is called data.",
        ),
    )


def _tool(
    bench: Workbench,
    work: Callable[[Workbench, ToolContext, ArgsT], Awaitable[ToolOutput]],
    args: type[ArgsT],
    name: str,
    description: str,
) -> Tool[BaseModel]:
    async def run(context: ToolContext, given: BaseModel) -> ToolOutput:
        own = given if isinstance(given, args) else args.model_validate(given.model_dump())
        return await work(bench, context, own)

    return Tool(name, description, args, Effect.READ_ONLY, TIMEOUT_MS, run)
