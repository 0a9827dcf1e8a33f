"""The tool query_dataset: one SELECT of a user over a dataset."""

import json

from pydantic import Field

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.analysis import DatasetArgs, Workbench, dataset_part
from agent_service.tools.columns import recognise
from agent_service.tools.facts import COLUMNS
from agent_service.tools.measures import clip, counted, whole
from agent_service.tools.reading import Reading
from agent_service.tools.roles import Role
from agent_service.tools.sandbox import Session
from agent_service.tools.sandbox_child.sql import identifier

STATEMENT_TIMEOUT_MS = 10_000
MAX_QUERY_ROWS = 200
MAX_QUERY_BYTES = 24 * 1024
MAX_SQL_CHARACTERS = 10_000
MAX_NAMES_CHARACTERS = 2_000
"""Of the list of columns as JSON: the rows need the room."""

SHOWN_COLUMNS = 40


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
    while len(json.dumps(shown)) > MAX_NAMES_CHARACTERS:
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
