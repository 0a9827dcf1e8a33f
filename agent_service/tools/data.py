"""The data tools: what users' datasets hold, measured. All of them only read."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel

from agent_service.engine.tool import Tool, define_tool
from agent_service.tools.analysis import Workbench
from agent_service.tools.anomalies import AnomalyScanArgs, anomaly_scan
from agent_service.tools.correlation import CorrelateArgs, correlate
from agent_service.tools.cost import CostBreakdownArgs, cost_breakdown
from agent_service.tools.database.analyzer import database_tools
from agent_service.tools.duplicates import DuplicatePromptsArgs, duplicate_prompts
from agent_service.tools.inventory import DescribeDatasetArgs, ListDatasetsArgs, describe_dataset, list_datasets
from agent_service.tools.latency import LatencyAnalysisArgs, latency_analysis
from agent_service.tools.query import QueryDatasetArgs, query_dataset
from agent_service.tools.usage import UsagePatternArgs, UsageSummaryArgs, usage_pattern, usage_summary

NO_DATABASES: Final[Mapping[str, str]] = MappingProxyType({})
"""Where no database may be looked at: the tool is there, and says how to name one."""


def data_tools(bench: Workbench, databases: Mapping[str, str] = NO_DATABASES) -> tuple[Tool[BaseModel], ...]:
    """Return the data tools. `databases` (name → URL) are those that may be looked at."""
    return (
        define_tool(
            "list_datasets",
            "List the datasets that the user has, and say which one would be analysed.",
            ListDatasetsArgs,
            partial(list_datasets, bench),
        ),
        define_tool(
            "describe_dataset",
            "Describe a dataset: its columns, what each was recognised as, and how much of an analysis it allows.",
            DescribeDatasetArgs,
            partial(describe_dataset, bench),
        ),
        define_tool(
            "usage_summary",
            "Summarise usage: requests, tokens, cost, errors, latency, time span and peaks, in total and by model, "
            "feature, user and day.",
            UsageSummaryArgs,
            partial(usage_summary, bench),
        ),
        define_tool(
            "cost_breakdown",
            "Break the cost down by model, feature, user or time, with shares and what could not be priced.",
            CostBreakdownArgs,
            partial(cost_breakdown, bench),
        ),
        define_tool(
            "latency_analysis",
            "Analyse latency: percentiles in total and by group, the slowest requests and hours, and errors.",
            LatencyAnalysisArgs,
            partial(latency_analysis, bench),
        ),
        define_tool(
            "usage_pattern",
            "Show when usage happens: by hour of day and weekday, peaks, gaps and a time series.",
            UsagePatternArgs,
            partial(usage_pattern, bench),
        ),
        define_tool(
            "anomaly_scan",
            "Find the hours or days with unusual requests, tokens, cost, errors or p95 latency, by IQR and z-score.",
            AnomalyScanArgs,
            partial(anomaly_scan, bench),
        ),
        define_tool(
            "correlate",
            "Correlate tokens, latency, cost, failures, hour of day or numeric columns, by Pearson and Spearman.",
            CorrelateArgs,
            partial(correlate, bench),
        ),
        define_tool(
            "duplicate_prompts",
            "Find repeated prompts, exact and normalised, and the requests, tokens and cost that a cache could have "
            "saved.",
            DuplicatePromptsArgs,
            partial(duplicate_prompts, bench),
        ),
        define_tool(
            "query_dataset",
            "Run one SQL SELECT (DuckDB) over a dataset; the table is called data.",
            QueryDatasetArgs,
            partial(query_dataset, bench),
        ),
        *database_tools(databases),
    )
