"""What an inspection of a database says: findings, what it could not see, and the limits of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from agent_service.engine.events import JsonObject

LARGE_ROWS: Final = 10_000
"""Rows of a table, from which on reading all of it is worth a word."""

MIN_SCANS: Final = 10
"""Reads of a whole table that are no accident: building an index is one, too."""

MANY_ROWS_READ: Final = 1_000_000
"""Rows read by whole-table reads that make a finding of medium weight; ten times as many make it heavy."""

MIN_DEAD_ROWS: Final = 1_000
DEAD_SHARE: Final = 0.2
"""Of a table's rows that are dead, from which on it is called bloated; from `HEAVY_SHARE` on heavily."""
HEAVY_SHARE: Final = 0.5

SLOW_MS: Final = 100.0
"""Mean time of a statement that is called slow."""

RUNNING_S: Final = 1.0
"""How long a statement is at work, from which on it is called slow although it has not ended."""

MIN_INDEX_BYTES: Final = 64 * 1024
"""Smaller unused indexes cost too little to be told of."""

MIN_BLOCKS: Final = 1_000
"""Blocks asked for, below which the share found in memory says nothing."""

GOOD_HIT_SHARE: Final = 0.9
"""Of the blocks asked for that should be found in memory."""

Severity: TypeAlias = Literal["high", "medium", "low"]
SEVERITIES: Final[tuple[Severity, ...]] = ("high", "medium", "low")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that costs time or room. `place` is a table, an index or a statement without its literals."""

    kind: str
    severity: Severity
    place: str
    detail: str
    suggestion: str
    evidence: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unseen:
    """What the inspection could not see, why that matters, and how to make it visible."""

    what: str
    why_it_matters: str
    how_to_supply: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """The result of looking at one database. Sizes are bytes; `overview` holds counts and shares."""

    version: str
    overview: JsonObject
    checked: Sequence[str]
    findings: Sequence[Finding]
    unseen: Sequence[Unseen]
    tables: Sequence[JsonObject]


def by_rows_read(rows_read: int) -> Severity:
    """Return the weight of so many rows read by whole-table reads."""
    return "high" if rows_read >= 10 * MANY_ROWS_READ else "medium" if rows_read >= MANY_ROWS_READ else "low"


def ranked(findings: Sequence[Finding]) -> list[Finding]:
    """Return the heaviest first; equal ones stay in their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def unindexed(
    wanted: Sequence[tuple[str, str]], rows: Mapping[str, int], leading: Mapping[str, frozenset[str]]
) -> list[Finding]:
    """Return the columns that statements look up in large tables without an index that begins with them.

    Args:
        wanted: table and column, in lower case, as the statements name them.
        rows: table → its rows, for the tables that are there.
        leading: table → the first columns of its indexes.
    """
    return [
        Finding(
            "missing_index",
            "high" if rows[table] >= 10 * LARGE_ROWS else "medium",
            f"{table}.{column}",
            f"Statements look rows of {table} up by {column}, and no index begins with it.",
            f"CREATE INDEX ON {table} ({column}); try it on a copy first, and measure.",
            {"table": table, "columns": [column], "rows": rows[table]},
        )
        for table, column in dict.fromkeys(wanted)
        if rows.get(table, 0) >= LARGE_ROWS and column not in leading.get(table, frozenset())
    ]
