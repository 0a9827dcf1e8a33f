"""Looks at a SQLite database: its schema, sizes and plans, through a connection that can only read."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolError
from agent_service.tools.database.findings import (
    DEAD_SHARE,
    HEAVY_SHARE,
    LARGE_ROWS,
    Finding,
    Inspection,
    Unseen,
    ranked,
    unindexed,
)
from agent_service.tools.database.statements import looked_up, without_literals
from agent_service.tools.database.targets import Target

TIMEOUT_S: Final = 5.0
"""Of one inspection."""

BUSY_TIMEOUT_S: Final = 1.0
"""How long to wait for a database that somebody is writing to."""

CHECK_STEPS: Final = 10_000
"""Steps of SQLite's machine between two looks at the clock."""

MAX_TABLES: Final = 200
MIN_FREE_PAGES: Final = 256
"""Of a file, from which on its free pages are worth a word."""

CHECKED: Final = ("missing indexes on foreign keys", "redundant indexes", "planner statistics", "free pages", "sizes")
PLANNED: Final = "plans of the given statements"

_ALLOWED: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)


@dataclass
class _Table:
    """`indexes`: each by its columns. `rows` is the highest row number: as many or fewer rows are there.

    None: its rows have no numbers, and to count them is to read them all.
    """

    name: str
    rows: int | None
    indexes: dict[str, tuple[str, ...]]

    @property
    def is_large(self) -> bool:
        """Tell whether it may hold as many rows as make reading them all slow, as far as that is known."""
        return (self.rows or 0) >= LARGE_ROWS


@dataclass
class _Notes:
    findings: list[Finding] = field(default_factory=list)
    unseen: list[Unseen] = field(default_factory=list)


async def inspect_sqlite(target: Target, queries: Sequence[str]) -> Inspection:
    """Look at the database; the plans of `queries` are asked for, they are not run. Raises `ToolError`."""
    path = Path(target.address)
    if not await asyncio.to_thread(path.is_file):
        raise ToolError(f"The database {target.name} has no file. Check its entry in APEX_ANALYZER_TARGETS.")
    stop = threading.Event()
    try:
        return await asyncio.to_thread(_inspect, path, queries, stop)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname == "SQLITE_INTERRUPT":
            text = f"The database {target.name} took longer than {TIMEOUT_S:g} s to look at. Try again when it is idle."
        else:
            text = f"The database {target.name} cannot be read now: it is locked, or not accessible. Try again."
        raise ToolError(text) from None
    except sqlite3.DatabaseError:
        raise ToolError(f"The file of the database {target.name} is no SQLite database, or damaged.") from None
    finally:
        stop.set()  # a call that is cancelled does not leave its thread at work


def _inspect(path: Path, queries: Sequence[str], stop: threading.Event) -> Inspection:
    end = time.monotonic() + TIMEOUT_S
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection:
        connection.set_progress_handler(lambda: stop.is_set() or time.monotonic() > end, CHECK_STEPS)
        connection.execute("PRAGMA query_only = ON")
        notes = _Notes()
        tables = _tables(connection)
        sizes = _sizes(connection, notes)
        _foreign_keys(connection, tables, notes)
        _redundant(tables, notes)
        _statistics(connection, tables, notes)
        overview = _file(connection, notes)
        _plans(connection, tables, queries, notes)
    shown = [_table_part(table, sizes) for table in tables]
    if not queries:
        why = "SQLite keeps no record of what was asked: slow statements and reads of whole tables cannot be seen."
        notes.unseen.append(Unseen("statement history", why, "Give some statements: their plans are looked at."))
    unused = "SQLite does not count how often an index is used, so unused ones cannot be told."
    notes.unseen.append(
        Unseen("use of indexes", unused, "Give the statements that matter: their plans name the indexes that they use.")
    )
    return Inspection(
        version=f"SQLite {sqlite3.sqlite_version}",
        overview={**overview, "tables": len(tables)},
        checked=(*CHECKED, PLANNED) if queries else CHECKED,
        findings=ranked(notes.findings),
        unseen=notes.unseen,
        tables=sorted(shown, key=lambda part: (-int(str(part["size_bytes"] or 0)), str(part["name"]))),
    )


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _tables(connection: sqlite3.Connection) -> list[_Table]:
    found: list[_Table] = []
    rows = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
        "ORDER BY name LIMIT ?",
        (MAX_TABLES,),
    ).fetchall()
    for (name,) in rows:
        indexes: dict[str, tuple[str, ...]] = {}
        for _, index, _, _, partial, *_ in connection.execute(f"PRAGMA index_list({_name(name)})").fetchall():
            columns = connection.execute(f"PRAGMA index_info({_name(index)})").fetchall()
            if not partial and all(column[2] is not None for column in columns):
                indexes[index] = tuple(str(column[2]) for column in columns)
        found.append(_Table(name, _rows(connection, name), indexes))
    return found


def _rows(connection: sqlite3.Connection, table: str) -> int | None:
    try:
        ((highest,),) = connection.execute(f"SELECT max(rowid) FROM {_name(table)}").fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname == "SQLITE_INTERRUPT":
            raise
        return None  # a table WITHOUT ROWID, or a virtual one
    return int(highest or 0)


def _sizes(connection: sqlite3.Connection, notes: _Notes) -> dict[str, int]:
    """Return the bytes of tables and indexes, where SQLite was built to tell."""
    try:
        rows = connection.execute("SELECT name, pgsize FROM dbstat WHERE aggregate = TRUE").fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname == "SQLITE_INTERRUPT":
            raise
        why = "This SQLite cannot tell how large each table is."
        notes.unseen.append(Unseen("sizes of tables", why, "Use a build with SQLITE_ENABLE_DBSTAT_VTAB."))
        return {}
    return {str(name): int(size) for name, size in rows}


def _foreign_keys(connection: sqlite3.Connection, tables: Sequence[_Table], notes: _Notes) -> None:
    for table in tables:
        keys: dict[int, list[str]] = {}
        targets: dict[int, str] = {}
        for number, _, other, column, *_ in connection.execute(f"PRAGMA foreign_key_list({_name(table.name)})"):
            keys.setdefault(int(number), []).append(str(column))
            targets[int(number)] = str(other)
        primary = _primary(connection, table.name)
        for number, columns in keys.items():
            covers = [*table.indexes.values(), primary]
            if any(set(columns) <= set(index[: len(columns)]) for index in covers):
                continue
            listed = ", ".join(columns)
            notes.findings.append(
                Finding(
                    "missing_index",
                    "medium" if table.is_large else "low",
                    f"{table.name}.{listed}",
                    f"The foreign key of {table.name} to {targets[number]} has no index: every deletion in "
                    f"{targets[number]} reads the whole table.",
                    f"CREATE INDEX {table.name}_{'_'.join(columns)} ON {table.name} ({listed});",
                    {"table": table.name, "columns": [*columns], "rows_at_most": table.rows},
                )
            )


def _primary(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    rows = connection.execute(f"PRAGMA table_info({_name(table)})").fetchall()
    return tuple(str(row[1]) for row in sorted(rows, key=lambda row: int(row[5])) if row[5])


def _redundant(tables: Sequence[_Table], notes: _Notes) -> None:
    """Find indexes whose columns another one begins with."""
    for table in tables:
        for name, columns in table.indexes.items():
            longer = [
                other
                for other, wider in table.indexes.items()
                if other != name and wider[: len(columns)] == columns and (len(wider), other) > (len(columns), name)
            ]
            if longer and not name.startswith("sqlite_autoindex"):
                notes.findings.append(
                    Finding(
                        "redundant_index",
                        "low",
                        name,
                        f"The index {name} of {table.name} holds what the beginning of {longer[0]} holds.",
                        f"DROP INDEX {name}; unless it makes values unique.",
                        {"table": table.name, "columns": [*columns], "covered_by": longer[0]},
                    )
                )


def _statistics(connection: sqlite3.Connection, tables: Sequence[_Table], notes: _Notes) -> None:
    large = [table.name for table in tables if table.is_large and table.indexes]
    known = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_stat1'").fetchone()[0]
    if large and not known:
        notes.findings.append(
            Finding(
                "no_statistics",
                "low",
                ", ".join(large[:5]),
                "ANALYZE was never run, so the planner guesses which index is best.",
                "PRAGMA optimize; now and then, for example when a connection closes.",
                {"tables": [*large[:5]]},
            )
        )


def _file(connection: sqlite3.Connection, notes: _Notes) -> dict[str, int | float | str | None]:
    values = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "page_size", "freelist_count", "journal_mode")
    }
    pages, size, free = (int(values[name]) for name in ("page_count", "page_size", "freelist_count"))
    share = free / pages if pages else 0.0
    if free >= MIN_FREE_PAGES and share >= DEAD_SHARE:
        notes.findings.append(
            Finding(
                "bloat",
                "medium" if share >= HEAVY_SHARE else "low",
                "the file",
                f"{free:,} of {pages:,} pages are free ({share:.0%}): {free * size:,} bytes that new rows will fill.",
                "VACUUM; once, if the file shall become smaller.",
                {"free_pages": free, "pages": pages, "share": round(share, 4)},
            )
        )
    return {
        "size_bytes": pages * size,
        "free_share": round(share, 4),
        "journal_mode": str(values["journal_mode"]),
        "cache_hit_share": None,
        "statistics_since": None,
    }


def _plans(connection: sqlite3.Connection, tables: Sequence[_Table], queries: Sequence[str], notes: _Notes) -> None:
    """Ask for the plan of each statement. Nothing but a SELECT gets through the authorizer, and a plan runs nothing."""
    rows = {table.name.lower(): table.rows or 0 for table in tables}
    leading = {
        table.name.lower(): frozenset(index[0].lower() for index in table.indexes.values() if index) for table in tables
    }
    primary = {table.name.lower(): _primary(connection, table.name)[:1] for table in tables}
    leading = {name: found | {column.lower() for column in primary[name]} for name, found in leading.items()}
    for sql in queries:
        connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY)
        try:
            steps = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()]
        except (sqlite3.Error, sqlite3.Warning):
            steps = []
        finally:
            connection.set_authorizer(None)
        if not steps:
            why = f"SQLite gives no plan for {without_literals(sql)!r}."
            how = "Give one SELECT over its tables, with values in place of parameters."
            notes.unseen.append(Unseen("a plan", why, how))
            continue
        notes.findings += _scans(steps, rows, sql)
        notes.findings += [
            found
            for found in unindexed(looked_up(sql, "sqlite"), rows, leading)
            if found.place not in {one.place for one in notes.findings}
        ]


def _scans(steps: Sequence[str], rows: dict[str, int], sql: str) -> list[Finding]:
    found: list[Finding] = []
    for step in steps:
        words = step.split()
        if len(words) < 2 or words[0] != "SCAN" or " USING " in step:  # noqa: PLR2004 - the verb and the table
            continue
        # A plan names a table by its alias, where it has one.
        table = next((name for name in rows if name == words[1].lower()), "")
        table = table or next((name for name, _ in looked_up(sql, "sqlite")), "")
        if rows.get(table, 0) >= LARGE_ROWS:
            found.append(
                Finding(
                    "sequential_scan",
                    "medium",
                    table,
                    f"{without_literals(sql)} reads the whole table {table} (up to {rows[table]:,} rows).",
                    "Index what it filters or joins by.",
                    {"rows_at_most": rows[table], "plan": step[:200]},
                )
            )
    return found


def _table_part(table: _Table, sizes: dict[str, int]) -> JsonObject:
    size = sum(sizes.get(name, 0) for name in (table.name, *table.indexes)) if sizes else None
    return {"name": table.name, "rows_at_most": table.rows, "size_bytes": size, "indexes": len(table.indexes)}
