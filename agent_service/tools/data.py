"""The data tools: what users' datasets hold, measured. All of them only read."""

import json
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field

from agent_service.engine.events import Effect, JsonObject, JsonValue
from agent_service.engine.ports import Clock
from agent_service.engine.tool import Tool, ToolContext, ToolOutput
from agent_service.tools.analysis import (
    DatasetArgs,
    Workbench,
    dataset_part,
    mapping_part,
    missing_part,
    notes_part,
    sufficiency_part,
    time_text,
)
from agent_service.tools.columns import recognise
from agent_service.tools.cost import CostBreakdownArgs, cost_breakdown
from agent_service.tools.datasets import Dataset, dataset_of, list_files, resolve, sample
from agent_service.tools.facts import COLUMNS, Facts, load
from agent_service.tools.latency import LatencyAnalysisArgs, latency_analysis
from agent_service.tools.measures import clip, counted, time_span, whole
from agent_service.tools.reading import Reading
from agent_service.tools.roles import Role
from agent_service.tools.sandbox import Sandbox, Session
from agent_service.tools.sandbox_child.sql import identifier
from agent_service.tools.usage import UsagePatternArgs, UsageSummaryArgs, usage_pattern, usage_summary
from storage.interfaces import Files

TIMEOUT_MS = 20_000
"""Of one call of a data tool, with its wait for a free child of the sandbox."""

STATEMENT_TIMEOUT_MS = 10_000
MAX_QUERY_ROWS = 200
MAX_QUERY_BYTES = 24 * 1024
MAX_SQL_CHARACTERS = 10_000
SHOWN_COLUMNS = 40
SHOWN_OTHER_FILES = 10
EXACT_DISTINCT_ROWS = 10_000

ArgsT = TypeVar("ArgsT", bound=BaseModel)


class ListDatasetsArgs(BaseModel):
    """Arguments of list_datasets."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=20, ge=1, le=50, description="How many to list, newest first.")


class DescribeDatasetArgs(DatasetArgs):
    """Arguments of describe_dataset."""


class QueryDatasetArgs(DatasetArgs):
    """Arguments of query_dataset."""

    sql: str = Field(
        min_length=1,
        max_length=MAX_SQL_CHARACTERS,
        description="One SELECT in DuckDB's SQL over the table data, which has the file's columns and, beside them, "
        "the recognised ones: timestamp (UTC), input_tokens, output_tokens, cached_tokens, model, latency (ms), cost "
        "(USD), status, feature, user, prompt.",
    )
    max_rows: int = Field(default=50, ge=1, le=MAX_QUERY_ROWS, description="At most so many rows come back.")


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


# --- list_datasets ---------------------------------------------------------------------------------------------------


async def list_datasets(bench: Workbench, context: ToolContext, args: ListDatasetsArgs) -> ToolOutput:
    """List datasets."""
    own = [dataset_of(record) for record in await list_files(bench.files, context.user_id)]
    usable = [dataset for dataset in own if dataset.format]
    foreign = [dataset for dataset in own if not dataset.format]
    chosen = await resolve(bench.files, context, "")
    listed = usable or [sample()]
    result: JsonObject = {
        "dataset": dataset_part(chosen, None),
        "datasets": [_entry(dataset) for dataset in listed[: args.limit]],
        "total": len(listed),
        "not_shown": max(0, len(listed) - args.limit),
        "other_files": [
            {
                "file_id": dataset.dataset_id,
                "name": clip(dataset.name),
                "why": "not a dataset by its name: CSV, JSONL, JSON and Parquet are, also gzipped",
            }
            for dataset in foreign[:SHOWN_OTHER_FILES]
        ],
        "other_files_total": len(foreign),
        "missing": [],
    }
    count = f"{len(usable)} dataset{'s' * (len(usable) != 1)}" if usable else "No dataset of your own, only the sample"
    whether = ", if it can be read" if chosen.by_default else ""
    return ToolOutput(f"{count}; {clip(chosen.dataset.name)} would be analysed: {chosen.because}{whether}", result)


def _entry(dataset: Dataset) -> JsonObject:
    return {
        "dataset_id": dataset.dataset_id,
        "name": clip(dataset.name, 128),
        "format": dataset.format,
        "size_bytes": dataset.size_bytes,
        "create_time": time_text(dataset.create_time),
        "builtin_sample": dataset.builtin_sample,
    }


# --- describe_dataset ------------------------------------------------------------------------------------------------


async def describe_dataset(bench: Workbench, context: ToolContext, args: DescribeDatasetArgs) -> ToolOutput:
    """Describe a dataset."""

    async def read(session: Session) -> Facts:
        return await load(session, args.columns)

    async with bench.open(context, args.dataset_id, read, exact_types=True) as (opened, facts):
        found = facts.sufficiency
        form = opened.session.format
        result: JsonObject = {
            "dataset": dataset_part(opened.chosen, facts.rows),
            "format": {"kind": form.kind, "compression": form.compression, "delimiter": form.delimiter},
            "columns": await _columns_part(facts),
            "columns_total": len(opened.session.columns),
            "columns_not_shown": max(0, len(opened.session.columns) - SHOWN_COLUMNS),
            "mapping": mapping_part(facts),
            "sufficiency": sufficiency_part(found),
            "time": await time_span(facts),
            "duplicate_rows": await _duplicates(opened.session),
            "notes": notes_part(facts),
            "missing": missing_part(facts.missing(*(role for role in Role if role in found.missing))),
        }
    recognised = ", ".join(role.value for role in found.present) or "no column"
    level = f"{found.level} for an analysis ({found.score:.0%})"
    return ToolOutput(f"{opened.session.name}: {counted(facts.rows, 'row')}; recognised {recognised}; {level}", result)


async def _columns_part(facts: Facts) -> list[JsonValue]:
    shown = facts.session.columns[:SHOWN_COLUMNS]
    distinct = "count(DISTINCT {})" if facts.rows <= EXACT_DISTINCT_ROWS else "approx_count_distinct({})"
    select = ", ".join(
        f"count(*) - count({identifier(column.name)}), {distinct.format(identifier(column.name))}" for column in shown
    )
    (row,) = (await facts.session.run(f"SELECT {select} FROM raw")).rows
    roles = {reading.column: (role, reading) for role, reading in facts.readings.items()}
    parts: list[JsonValue] = []
    for index, column in enumerate(shown):
        role, reading = roles.get(column.name, (None, None))
        parts.append(
            {
                "name": clip(column.name),
                "type": clip(column.type, 40),
                "role": role.value if role else None,
                "confidence": reading.confidence if reading else None,
                "reason": clip(reading.reason, 200) if reading else "",
                "nulls": whole(row[2 * index]),
                "distinct": whole(row[2 * index + 1]),
                "examples": [clip(example, 40) for example in facts.profiles[index].examples],
            }
        )
    return parts


async def _duplicates(session: Session) -> int | None:
    ((count,),) = (
        await session.run("SELECT (SELECT count(*) FROM raw) - (SELECT count(*) FROM (SELECT DISTINCT * FROM raw))")
    ).rows
    return whole(count)


# --- query_dataset ---------------------------------------------------------------------------------------------------


async def query_dataset(bench: Workbench, context: ToolContext, args: QueryDatasetArgs) -> ToolOutput:
    """Run a query."""

    async def read(session: Session) -> list[str]:
        readings, _ = await recognise(session, args.columns)
        return await _make_data(session, readings)

    async with bench.open(context, args.dataset_id, read, exact_types=True) as (opened, names):
        rows = await opened.session.select(
            args.sql, max_rows=args.max_rows, max_bytes=MAX_QUERY_BYTES, timeout_ms=STATEMENT_TIMEOUT_MS
        )
        ((count,),) = (await opened.session.run("SELECT count(*) FROM raw")).rows
    cuts = {
        "rows": f"only the first {args.max_rows} rows are returned",
        "bytes": f"only the rows that fit into {MAX_QUERY_BYTES // 1024} KiB are returned",
    }
    cut = [cuts[rows.more]] if rows.more else []
    if rows.cut_cells:
        cut.append(f"{rows.cut_cells} long texts were shortened")
    shown = _shown_names(names)
    result: JsonObject = {
        "dataset": dataset_part(opened.chosen, whole(count)),
        "sql": clip(args.sql, 1_000),
        "columns": [
            {"name": clip(name), "type": clip(kind, 40)}
            for name, kind in zip(rows.columns[:SHOWN_COLUMNS], rows.types[:SHOWN_COLUMNS], strict=True)
        ],
        "rows": [list(row[:SHOWN_COLUMNS]) for row in rows.rows],
        "row_count": len(rows.rows),
        "more_rows": bool(rows.more),
        "cut_because": "; ".join(cut),
        "columns_not_shown": max(0, len(rows.columns) - SHOWN_COLUMNS),
        "data_columns": shown,
        "data_columns_not_shown": len(names) - len(shown),
        "missing": [],
    }
    more = ", more were left out" if rows.more else ""
    return ToolOutput(f"{counted(len(rows.rows), 'row')}{more} from {opened.session.name}", result)


def _shown_names(names: list[str]) -> list[str]:
    shown = [clip(name) for name in names[:SHOWN_COLUMNS]]
    while len(json.dumps(shown)) > 2_000:  # noqa: PLR2004 - the rows need the room
        shown.pop()
    return shown


async def _make_data(session: Session, readings: dict[Role, Reading]) -> list[str]:
    """Make the view `data`: the file's columns and, beside them, the canonical ones, which win equal names."""
    canonical = {role.value: reading.expression for role, reading in readings.items()}
    raw = [column.name for column in session.columns if column.name.casefold() not in canonical]
    select = [identifier(name) for name in raw]
    select += [f"{expression} AS {identifier(name)}" for name, expression in canonical.items()]
    await session.run(f"CREATE VIEW data AS SELECT {', '.join(select)} FROM raw")
    return raw + [name for name in canonical if name in {*(role.value for role in COLUMNS), Role.PROMPT.value}]
