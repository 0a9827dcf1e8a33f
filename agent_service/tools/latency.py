"""The tool latency_analysis: how fast, for whom, and what fails."""

from pydantic import Field

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.analysis import (
    MAX_TOP,
    Dimension,
    FilteredArgs,
    Workbench,
    bounded,
    dataset_part,
    filter_part,
    mapping_part,
    missing_part,
    notes_part,
    other_part,
    unused_part,
)
from agent_service.tools.facts import Facts
from agent_service.tools.measures import (
    DIMENSIONS,
    PERCENTILES,
    Totals,
    clip,
    counted,
    groups,
    moment,
    number,
    rounded,
    totals,
    whole,
)
from agent_service.tools.roles import Role

SLOWEST = 5
MIN_MEASURED_PER_HOUR = 5
SHOWN_STATUSES = 10


class LatencyAnalysisArgs(FilteredArgs):
    """Arguments of latency_analysis."""

    group_by: list[Dimension] = Field(default=["model"], max_length=1, description="One dimension to compare, or none.")
    top: int = Field(default=10, ge=1, le=MAX_TOP, description="Groups; the rest is measured as other.")


async def latency_analysis(bench: Workbench, context: ToolContext, args: LatencyAnalysisArgs) -> ToolOutput:
    """Analyse latency."""
    async with bench.load(context, args) as (opened, facts):
        group_by = [d for d in args.group_by if DIMENSIONS[d][0] in facts.readings]
        measured = Role.LATENCY in facts.readings
        found = await totals(facts, source="f", pace=True)
        fixed: JsonObject = {
            "dataset": dataset_part(opened.chosen, facts.rows),
            "filter": filter_part(args, facts),
            "mapping": mapping_part(facts),
            "unused_columns": unused_part(facts),
            "notes": notes_part(facts),
            "group_by": group_by,
            "unit": "ms",
            "percentile_definition": PERCENTILES,
            "overall": _part(found) if found.latency else None,
            "slowest": await _slowest(facts) if measured else [],
            "slowest_hours": await _slowest_hours(facts) if measured else [],
            "errors": await _errors(facts, found),
            "missing": missing_part(
                facts.missing(Role.LATENCY, Role.STATUS, *(DIMENSIONS[dimension][0] for dimension in args.group_by))
            ),
        }

        async def make(top: int) -> JsonObject:
            if not measured or not group_by:
                return {**fixed, "groups": [], "other": None}
            order = "quantile_cont(latency, 0.95)"
            parts = await groups(facts, group_by, source="f", order=order, top=top, pace=True)
            return {
                **fixed,
                "groups": [_group_part(group) for group in parts.shown],
                "other": other_part(parts, _group_part),
            }

        result = await bounded(args.top, make)
    if found.latency is None:
        return ToolOutput(f"{opened.session.name} has no latency to analyse", result)
    text = f"p50 {found.latency.p50:,.0f} ms, p95 {found.latency.p95:,.0f} ms, p99 {found.latency.p99:,.0f} ms"
    return ToolOutput(f"{text} over {counted(found.latency.measured, 'request')} in {opened.session.name}", result)


def _part(found: Totals) -> dict[str, JsonValue]:
    latency = found.latency
    return {
        "requests": found.requests,
        "measured": latency.measured if latency else 0,
        "mean": latency.mean if latency else None,
        "min": latency.minimum if latency else None,
        "p50": latency.p50 if latency else None,
        "p90": latency.p90 if latency else None,
        "p95": latency.p95 if latency else None,
        "p99": latency.p99 if latency else None,
        "max": latency.maximum if latency else None,
        "ms_per_output_token_p50": latency.per_output_token_p50 if latency else None,
    }


def _group_part(found: Totals) -> JsonObject:
    return {"name": found.name, **_part(found), "errors": found.errors, "error_rate": found.error_rate}


async def _slowest(facts: Facts) -> list[JsonValue]:
    rows = await facts.session.run(
        "SELECT epoch_us(ts), model, feature, status, latency, input_tokens, output_tokens FROM f "
        f"WHERE latency IS NOT NULL ORDER BY latency DESC, ts LIMIT {SLOWEST}"
    )
    return [
        {
            "time": moment(row[0]),
            "model": None if row[1] is None else clip(str(row[1])),
            "feature": None if row[2] is None else clip(str(row[2])),
            "status": None if row[3] is None else clip(str(row[3])),
            "latency_ms": rounded(number(row[4])),
            "input_tokens": whole(row[5]),
            "output_tokens": whole(row[6]),
        }
        for row in rows.rows
    ]


async def _slowest_hours(facts: Facts) -> list[JsonValue]:
    if Role.TIMESTAMP not in facts.readings:
        return []
    rows = await facts.session.run(
        "SELECT epoch_us(date_trunc('hour', ts)::TIMESTAMP) AS start, count(*) AS measured, "
        "quantile_cont(latency, 0.95) AS p95 FROM f WHERE latency IS NOT NULL AND ts IS NOT NULL GROUP BY start "
        f"HAVING measured >= {MIN_MEASURED_PER_HOUR} ORDER BY p95 DESC, start LIMIT {SLOWEST}"
    )
    return [{"start": moment(row[0]), "measured": whole(row[1]), "p95": rounded(number(row[2]))} for row in rows.rows]


async def _errors(facts: Facts, found: Totals) -> JsonObject | None:
    if found.errors is None:
        return None
    rows = (
        await facts.session.run(
            "SELECT coalesce(status, '(none)') AS name, count(*) FROM f WHERE failed GROUP BY name ORDER BY 2 DESC, 1"
        )
    ).rows
    return {
        "requests": found.errors,
        "rate": found.error_rate,
        "by_status": [{"name": clip(str(row[0])), "requests": whole(row[1])} for row in rows[:SHOWN_STATUSES]],
        "statuses_not_shown": max(0, len(rows) - SHOWN_STATUSES),
    }
