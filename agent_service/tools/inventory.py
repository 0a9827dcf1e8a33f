"""The tools list_datasets and describe_dataset: which data there is, and how far it goes."""

from pydantic import BaseModel, ConfigDict, Field

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolContext, ToolOutput
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
from agent_service.tools.datasets import Dataset, dataset_of, list_files, resolve, sample
from agent_service.tools.facts import Facts, load
from agent_service.tools.measures import clip, counted, time_span, whole
from agent_service.tools.roles import Role
from agent_service.tools.sandbox import Session
from agent_service.tools.sandbox_child.sql import identifier

SHOWN_COLUMNS = 40
SHOWN_OTHER_FILES = 10
EXACT_DISTINCT_ROWS = 10_000
"""Up to here different values are counted exactly; in larger files they are estimated."""


class ListDatasetsArgs(BaseModel):
    """Arguments of list_datasets."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=20, ge=1, le=50, description="How many to list, newest first.")


class DescribeDatasetArgs(DatasetArgs):
    """Arguments of describe_dataset."""


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
        "generated": dataset.generated,
    }


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
