"""The tool database_analyzer: what slows a configured database down."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from agent_service.engine.events import Effect, JsonObject, JsonValue
from agent_service.engine.tool import Tool, ToolContext, ToolOutput, define_tool
from agent_service.tools.analysis import bounded
from agent_service.tools.database.findings import SEVERITIES, Finding, Inspection, Unseen
from agent_service.tools.database.postgres import inspect_postgres
from agent_service.tools.database.sqlite import inspect_sqlite
from agent_service.tools.database.targets import Target, choose, targets
from agent_service.tools.measures import clip, counted

SCOPE: Final = "databases:read"
"""What a token must permit."""

MAX_QUERIES: Final = 5
MAX_QUERY_CHARACTERS: Final = 4_000
MAX_FINDINGS: Final = 40
"""That one result shows, the heaviest first."""

SHOWN_TABLES: Final = 10


class DatabaseAnalyzerArgs(BaseModel):
    """Arguments of database_analyzer."""

    model_config = ConfigDict(extra="forbid")

    target: str = Field(
        default="",
        max_length=100,
        description="Name of a configured database. Empty: the one that the message names, or the only one.",
    )
    queries: list[Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARACTERS)]] = Field(
        default=[],
        max_length=MAX_QUERIES,
        description="Statements that the database's users run, to see which indexes they lack. They are not run.",
    )


def database_tools(addresses: Mapping[str, str]) -> tuple[Tool[BaseModel], ...]:
    """Return the tool over these databases (name → URL). Raises `ValueError` for a kind that is not supported."""
    known = targets(addresses)

    async def run(context: ToolContext, args: DatabaseAnalyzerArgs) -> ToolOutput:
        return await database_analyzer(known, context, args)

    return (
        replace(
            define_tool(
                "database_analyzer",
                "Find what slows a configured PostgreSQL or SQLite database down: slow statements, reads of whole "
                "tables, missing and unused indexes, cache hits, bloat. Reads its statistics only.",
                DatabaseAnalyzerArgs,
                run,
                effect=Effect.READ_ONLY,
                scopes=frozenset({SCOPE}),
            ),
            is_live=True,
        ),
    )


async def database_analyzer(
    known: Mapping[str, Target], context: ToolContext, args: DatabaseAnalyzerArgs
) -> ToolOutput:
    """Look at a database."""
    target = choose(known, args.target, context.message)
    await context.progress(f"Reading the statistics of {target.name}", 0.2)
    inspect = inspect_postgres if target.kind == "postgresql" else inspect_sqlite
    found = await inspect(target, args.queries)
    fixed: JsonObject = {
        "target": {"name": target.name, "kind": target.kind, "version": found.version},
        "targets": sorted(known),
        "overview": found.overview,
        "checked": list(found.checked),
        "counts": {level: sum(one.severity == level for one in found.findings) for level in SEVERITIES},
        "findings_total": len(found.findings),
        "tables": list(found.tables[:SHOWN_TABLES]),
        "tables_not_shown": max(0, len(found.tables) - SHOWN_TABLES),
        "missing": [_unseen_part(one) for one in found.unseen],
    }

    async def make(top: int) -> JsonObject:
        shown: list[JsonValue] = [_finding_part(one) for one in found.findings[:top]]
        return {**fixed, "findings": shown, "findings_not_shown": max(0, len(found.findings) - top)}

    return ToolOutput(_summary(target, found), await bounded(MAX_FINDINGS, make))


def _finding_part(finding: Finding) -> JsonObject:
    return {
        "kind": finding.kind,
        "severity": finding.severity,
        "place": clip(finding.place, 300),
        "detail": clip(finding.detail, 600),
        "suggestion": clip(finding.suggestion, 400),
        "evidence": finding.evidence,
    }


def _unseen_part(unseen: Unseen) -> JsonObject:
    """Return it as other tools return a missing column."""
    return {
        "column": unseen.what,
        "why_it_matters": clip(unseen.why_it_matters, 400),
        "how_to_supply": unseen.how_to_supply,
    }


def _summary(target: Target, found: Inspection) -> str:
    if not found.findings:
        return f"{target.name} ({found.version}): nothing stands out in what its statistics tell"
    first = found.findings[0]
    return (
        f"{target.name} ({found.version}): {counted(len(found.findings), 'finding')}; first: {clip(first.detail, 160)}"
    )
