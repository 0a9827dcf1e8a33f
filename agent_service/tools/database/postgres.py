"""Looks at a PostgreSQL database: its statistics views, in one read-only transaction with a time limit."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolError
from agent_service.tools.database.findings import (
    DEAD_SHARE,
    GOOD_HIT_SHARE,
    HEAVY_SHARE,
    LARGE_ROWS,
    MIN_BLOCKS,
    MIN_DEAD_ROWS,
    MIN_INDEX_BYTES,
    MIN_SCANS,
    RUNNING_S,
    SLOW_MS,
    Finding,
    Inspection,
    Unseen,
    by_rows_read,
    ranked,
    unindexed,
)
from agent_service.tools.database.statements import looked_up, without_literals
from agent_service.tools.database.targets import Target

if TYPE_CHECKING:
    from asyncpg import Connection

CONNECT_TIMEOUT_S: Final = 5.0
STATEMENT_TIMEOUT_MS: Final = 3_000
LOCK_TIMEOUT_MS: Final = 500
"""How long a statement waits for a table that somebody alters."""

MAX_TABLES: Final = 200
MAX_STATEMENTS: Final = 20
"""Slowest statements that are looked at."""

HIDDEN_TEXT: Final = "<insufficient privilege>"
"""What the server shows of other users' statements."""

Row: TypeAlias = Mapping[str, object]

CHECKED: Final = (
    "slow statements",
    "reads of whole tables",
    "missing indexes",
    "unused indexes",
    "share of blocks found in memory",
    "dead rows",
)

_OVERVIEW: Final = """
    SELECT current_setting('server_version') AS version, pg_database_size(current_database()) AS bytes,
           d.blks_hit, d.blks_read, d.numbackends AS connections, d.deadlocks, d.temp_files, d.temp_bytes,
           to_char(d.stats_reset AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS since
    FROM pg_stat_database d WHERE d.datname = current_database()"""

_TABLES: Final = f"""
    SELECT CASE s.schemaname WHEN 'public' THEN '' ELSE s.schemaname || '.' END || s.relname AS name, s.relname,
           s.seq_scan, s.seq_tup_read, coalesce(s.idx_scan, 0) AS idx_scan, s.n_live_tup, s.n_dead_tup,
           greatest(s.n_live_tup, c.reltuples::bigint, 0) AS rows, pg_total_relation_size(s.relid) AS bytes,
           greatest(s.last_vacuum, s.last_autovacuum) IS NULL AS never_vacuumed
    FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
    ORDER BY s.seq_tup_read DESC NULLS LAST, s.n_live_tup DESC, name LIMIT {MAX_TABLES}"""

_LEADING: Final = """
    SELECT c.relname, a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    JOIN pg_stat_user_tables s ON s.relid = i.indrelid
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indisvalid AND i.indpred IS NULL"""

_UNUSED: Final = f"""
    SELECT s.indexrelname AS name, s.relname, pg_relation_size(s.indexrelid) AS bytes
    FROM pg_stat_user_indexes s JOIN pg_index i ON i.indexrelid = s.indexrelid
    WHERE s.idx_scan = 0 AND NOT i.indisunique AND i.indisvalid
      AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = s.indexrelid)
      AND pg_relation_size(s.indexrelid) >= {MIN_INDEX_BYTES}
    ORDER BY bytes DESC, name LIMIT {MAX_TABLES}"""

_FOREIGN_KEYS: Final = f"""
    SELECT t.relname, k.conname, f.relname AS target,
           (SELECT array_agg(a.attname::text ORDER BY n.place) FROM unnest(k.conkey) WITH ORDINALITY n(number, place)
            JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = n.number) AS columns,
           greatest(t.reltuples::bigint, s.n_live_tup, 0) AS rows
    FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid JOIN pg_class f ON f.oid = k.confrelid
    JOIN pg_stat_user_tables s ON s.relid = t.oid
    WHERE k.contype = 'f' AND NOT EXISTS (
        SELECT 1 FROM pg_index i WHERE i.indrelid = k.conrelid AND i.indisvalid AND i.indpred IS NULL
          AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey)
    ORDER BY rows DESC, k.conname LIMIT {MAX_TABLES}"""

_RUNNING: Final = f"""
    SELECT query, extract(epoch FROM clock_timestamp() - query_start)::float8 AS seconds, wait_event_type AS waits_for
    FROM pg_stat_activity
    WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()
      AND backend_type = 'client backend' AND clock_timestamp() - query_start >= interval '{RUNNING_S} s'
    ORDER BY seconds DESC LIMIT {MAX_STATEMENTS}"""

_EXTENSION: Final = """
    SELECT quote_ident(n.nspname) AS schema FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_stat_statements'"""


@dataclass
class _Notes:
    """What has been found so far."""

    findings: list[Finding] = field(default_factory=list)
    unseen: list[Unseen] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


async def inspect_postgres(target: Target, queries: Sequence[str]) -> Inspection:
    """Look at the database; `queries` are statements of its users, which are read, not run. Raises `ToolError`."""
    import asyncpg

    try:
        connection = await asyncpg.connect(
            target.address,
            timeout=CONNECT_TIMEOUT_S,
            statement_cache_size=0,  # a pooler in between may not keep prepared statements
            server_settings={
                "application_name": "apex-analyzer",
                "default_transaction_read_only": "on",
                "statement_timeout": str(STATEMENT_TIMEOUT_MS),
                "lock_timeout": str(LOCK_TIMEOUT_MS),
            },
        )
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
        raise ToolError(f"The database {target.name} does not let the configured account in. {_CHECK}") from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError):
        raise ToolError(f"The database {target.name} cannot be reached. {_CHECK}") from None
    try:
        async with connection.transaction(readonly=True):
            return await _inspect(connection, queries)
    except asyncpg.QueryCanceledError:
        limit = f"{STATEMENT_TIMEOUT_MS / 1000:g} s"
        text = f"The database {target.name} took longer than {limit} to tell its statistics. Try again when it is idle."
        raise ToolError(text) from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        text = f"The statistics of the database {target.name} could not be read. {_CHECK}"
        raise ToolError(text) from None
    finally:
        connection.terminate()


_CHECK: Final = "Check its entry in APEX_ANALYZER_TARGETS, and that the account may connect (pg_monitor is best)."


async def _inspect(connection: "Connection", queries: Sequence[str]) -> Inspection:
    notes = _Notes(texts=list(queries))
    overview: Row = await connection.fetchrow(_OVERVIEW)
    tables: Sequence[Row] = await connection.fetch(_TABLES)
    await _slow_statements(connection, notes)
    await _running(connection, notes)
    _scans(tables, notes)
    await _missing_indexes(connection, tables, notes)
    await _unused_indexes(connection, notes)
    hits = _cache(overview, notes)
    _bloat(tables, notes)
    return Inspection(
        version=f"PostgreSQL {str(overview['version']).split()[0]}",
        overview={
            "size_bytes": _int(overview["bytes"]),
            "tables": len(tables),
            "connections": _int(overview["connections"]),
            "cache_hit_share": hits,
            "deadlocks": _int(overview["deadlocks"]),
            "temporary_bytes": _int(overview["temp_bytes"]),
            "statistics_since": None if overview["since"] is None else str(overview["since"]),
        },
        checked=CHECKED,
        findings=ranked(notes.findings),
        unseen=notes.unseen,
        tables=[_table_part(row) for row in sorted(tables, key=lambda row: -_int(row["bytes"]))],
    )


def _int(value: object) -> int:
    return 0 if value is None else int(str(value))


def _table_part(row: Row) -> JsonObject:
    return {
        "name": str(row["name"]),
        "rows": _int(row["rows"]),
        "size_bytes": _int(row["bytes"]),
        "sequential_scans": _int(row["seq_scan"]),
        "rows_read_sequentially": _int(row["seq_tup_read"]),
        "index_scans": _int(row["idx_scan"]),
        "dead_rows": _int(row["n_dead_tup"]),
    }


async def _slow_statements(connection: "Connection", notes: _Notes) -> None:
    """Read pg_stat_statements where it is there; else say what cannot be seen without it."""
    import asyncpg

    why = "Without pg_stat_statements only statements that are running this moment are seen, not those that have ended."
    how = (
        "Add pg_stat_statements to shared_preload_libraries, restart the server, and run CREATE EXTENSION "
        "pg_stat_statements in this database."
    )
    schema = await connection.fetchval(_EXTENSION)
    rows: Sequence[Row] | None = None
    if schema is not None:
        try:
            async with connection.transaction():
                rows = await connection.fetch(
                    f"SELECT s.query, s.calls, s.mean_exec_time AS mean, s.max_exec_time AS most, "
                    f"s.total_exec_time AS total, s.rows FROM {schema}.pg_stat_statements s "
                    "JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = current_database() "
                    f"ORDER BY s.total_exec_time DESC LIMIT {MAX_STATEMENTS}"
                )
        except (asyncpg.ObjectNotInPrerequisiteStateError, asyncpg.UndefinedColumnError):
            rows = None
        except asyncpg.InsufficientPrivilegeError:
            how = "Grant the account the role pg_read_all_stats."
    if rows is None:
        notes.unseen.append(Unseen("statement history", why, how))
        return
    if any(row["query"] == HIDDEN_TEXT for row in rows):
        hidden = "The server hides other accounts' statements, so they cannot be named."
        notes.unseen.append(Unseen("statement texts", hidden, "Grant the account the role pg_read_all_stats."))
    for row in rows:
        mean, calls, total = (float(str(row[name])) for name in ("mean", "calls", "total"))
        notes.texts.append(str(row["query"]))
        if mean >= SLOW_MS:
            notes.findings.append(
                Finding(
                    "slow_query",
                    "high" if mean >= 10 * SLOW_MS else "medium",
                    without_literals(str(row["query"])),
                    f"{calls:,.0f} calls took {mean:,.0f} ms each on average, {total / 1000:,.1f} s in all.",
                    "Look at its plan with EXPLAIN (ANALYZE, BUFFERS).",
                    {"calls": int(calls), "mean_ms": round(mean, 3), "total_ms": round(total, 3)},
                )
            )


async def _running(connection: "Connection", notes: _Notes) -> None:
    rows: Sequence[Row] = await connection.fetch(_RUNNING)
    for row in rows:
        seconds, waits = float(str(row["seconds"])), str(row["waits_for"] or "")
        notes.texts.append(str(row["query"]))
        waiting = f", waiting for {waits}" if waits else ""
        notes.findings.append(
            Finding(
                "slow_query",
                "high" if seconds >= 10 * RUNNING_S else "medium",
                without_literals(str(row["query"])),
                f"It has been running for {seconds:,.1f} s{waiting}.",
                "Look at its plan with EXPLAIN, and at what it waits for.",
                {"running_s": round(seconds, 1), "waits_for": waits or None},
            )
        )


def _scans(tables: Sequence[Row], notes: _Notes) -> None:
    for row in tables:
        rows, scans, read = _int(row["rows"]), _int(row["seq_scan"]), _int(row["seq_tup_read"])
        if rows < LARGE_ROWS or scans < MIN_SCANS or read < rows:
            continue
        name, by_index = str(row["name"]), _int(row["idx_scan"])
        notes.findings.append(
            Finding(
                "sequential_scan",
                by_rows_read(read),
                name,
                f"{name} with {rows:,} rows was read as a whole {scans:,} times ({read:,} rows), by index {by_index:,} "
                "times.",
                "Find the statements that read it, and index what they filter or join by.",
                {"rows": rows, "sequential_scans": scans, "rows_read": read, "index_scans": by_index},
            )
        )


async def _missing_indexes(connection: "Connection", tables: Sequence[Row], notes: _Notes) -> None:
    keys: Sequence[Row] = await connection.fetch(_FOREIGN_KEYS)
    for row in keys:
        table, found, rows = str(row["relname"]), row["columns"], _int(row["rows"])
        columns = [str(column) for column in found] if isinstance(found, list) else []
        listed = ", ".join(columns)
        notes.findings.append(
            Finding(
                "missing_index",
                "medium" if rows >= LARGE_ROWS else "low",
                f"{table}.{listed}",
                f"The foreign key {row['conname']} of {table} ({rows:,} rows) has no index: every deletion in "
                f"{row['target']} reads the whole table.",
                f"CREATE INDEX CONCURRENTLY ON {table} ({listed});",
                {"table": table, "columns": columns, "rows": rows},
            )
        )
    leading: dict[str, set[str]] = {}
    for row in await connection.fetch(_LEADING):
        leading.setdefault(str(row["relname"]).lower(), set()).add(str(row["attname"]).lower())
    known = {table: frozenset(columns) for table, columns in leading.items()}
    rows_of = {str(row["relname"]).lower(): _int(row["rows"]) for row in tables}
    wanted = await asyncio.to_thread(lambda: [pair for text in notes.texts for pair in looked_up(text, "postgres")])
    told = {finding.place for finding in notes.findings}
    notes.findings += [found for found in unindexed(wanted, rows_of, known) if found.place not in told]


async def _unused_indexes(connection: "Connection", notes: _Notes) -> None:
    rows: Sequence[Row] = await connection.fetch(_UNUSED)
    for row in rows:
        name, table, size = str(row["name"]), str(row["relname"]), _int(row["bytes"])
        notes.findings.append(
            Finding(
                "unused_index",
                "low",
                name,
                f"The index {name} of {table} ({size:,} bytes) was never used since the statistics began; every write "
                "keeps it up to date.",
                f"If replicas and monthly jobs do not need it either: DROP INDEX CONCURRENTLY {name};",
                {"table": table, "size_bytes": size},
            )
        )


def _cache(overview: Row, notes: _Notes) -> float | None:
    hit, read = _int(overview["blks_hit"]), _int(overview["blks_read"])
    if hit + read < MIN_BLOCKS:
        why = f"Only {hit + read:,} blocks were asked for since the statistics began: too few for a share."
        notes.unseen.append(Unseen("cache hits", why, "Ask again when the database has been in use for a while."))
        return None
    share = round(hit / (hit + read), 4)
    if share < GOOD_HIT_SHARE:
        notes.findings.append(
            Finding(
                "cache_hits",
                "medium",
                "shared buffers",
                f"{share:.1%} of {hit + read:,} blocks were found in memory; {GOOD_HIT_SHARE:.0%} is usual.",
                "Give shared_buffers more memory, or read less: see the tables that are read as a whole.",
                {"share": share, "blocks_hit": hit, "blocks_read": read},
            )
        )
    return share


def _bloat(tables: Sequence[Row], notes: _Notes) -> None:
    for row in tables:
        alive, dead = _int(row["n_live_tup"]), _int(row["n_dead_tup"])
        share = dead / (alive + dead) if alive + dead else 0.0
        if dead < MIN_DEAD_ROWS or share < DEAD_SHARE:
            continue
        name, never = str(row["name"]), row["never_vacuumed"] is True
        vacuumed = " and it was never vacuumed" if never else ""
        notes.findings.append(
            Finding(
                "bloat",
                "high" if share >= HEAVY_SHARE else "medium",
                name,
                f"{dead:,} of the rows in {name} are dead ({share:.0%}){vacuumed}.",
                f"VACUUM {name}; and let autovacuum come earlier (autovacuum_vacuum_scale_factor).",
                {"dead_rows": dead, "live_rows": alive, "share": round(share, 4)},
            )
        )
