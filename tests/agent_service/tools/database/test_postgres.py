"""A PostgreSQL database with planted faults: each one is found, and nothing secret is shown."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import asyncpg
import pytest
import pytest_asyncio

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolError
from agent_service.tools.database.analyzer import DatabaseAnalyzerArgs, database_analyzer
from agent_service.tools.database.findings import LARGE_ROWS, MIN_SCANS
from agent_service.tools.database.targets import targets
from tests.support.datasets import context, items, part
from tests.support.postgres import PostgresServer, fresh_database

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

ROWS = LARGE_ROWS + 2_000
SECRET = "hunter2-is-secret"

PLANTED = f"""
    CREATE TABLE customers (id int PRIMARY KEY, name text);
    INSERT INTO customers SELECT i, 'customer ' || i FROM generate_series(1, 100) i;
    CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers, note text, day int);
    INSERT INTO orders SELECT i, 1 + i % 100, repeat('x', 20), i % 7 FROM generate_series(1, {ROWS}) i;
    CREATE INDEX orders_never_used ON orders (note);
    CREATE INDEX orders_by_day ON orders (day, id);
    CREATE TABLE small (id int PRIMARY KEY, tag text);
    INSERT INTO small SELECT i, 'tag' FROM generate_series(1, {LARGE_ROWS - 1}) i;
    CREATE TABLE dying (id int) WITH (autovacuum_enabled = false);
    INSERT INTO dying SELECT generate_series(1, 3000);
"""  # noqa: S608 - numbers of our own


@pytest.fixture(scope="module")
def url(postgres_server: PostgresServer) -> Iterator[str]:
    with fresh_database(postgres_server) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def planted(url: str) -> AsyncIterator[JsonObject]:
    """What the tool finds while a statement with a secret in it is still running."""
    address = url.replace("+asyncpg", "")
    connection = await asyncpg.connect(address)
    await connection.execute(PLANTED)
    # Else what the inserts did is counted after the analysis, and twice.
    await connection.fetch("SELECT pg_stat_force_next_flush()")
    await connection.execute("ANALYZE")
    for _ in range(MIN_SCANS):
        await connection.fetch("SELECT * FROM orders WHERE customer = -1")
        await connection.fetch("SELECT * FROM small WHERE tag = 'none'")
    await connection.execute("SET enable_seqscan = off")
    await connection.fetch("SELECT * FROM orders WHERE day = 3 LIMIT 1")
    await connection.execute("DELETE FROM dying WHERE id <= 2000")
    await connection.fetch("SELECT pg_stat_force_next_flush()")
    await connection.fetch("SELECT 1")
    sleeping = f"SELECT pg_sleep(30), '{SECRET}' FROM customers WHERE name = 'customer 7'"  # noqa: S608 - our own text
    slow = asyncio.create_task(connection.fetch(sleeping))
    try:
        async with asyncio.timeout(20):
            while True:
                args = DatabaseAnalyzerArgs(queries=["SELECT note FROM orders o WHERE o.note = 'a' AND o.customer = 7"])
                found = (await database_analyzer(targets({"shop": url}), context(), args)).result
                if kinds(found, "slow_query"):
                    break
        yield found
    finally:
        slow.cancel()
        with suppress(asyncio.CancelledError):
            await slow
        connection.terminate()


def kinds(found: JsonObject, kind: str) -> list[JsonObject]:
    return [entry for entry in items(found, "findings") if entry["kind"] == kind]


async def test_the_slow_statement_is_found_while_it_runs(planted: JsonObject) -> None:
    (slow,) = kinds(planted, "slow_query")
    assert slow["place"] == "SELECT pg_sleep(?), ? FROM customers WHERE name = ?"
    assert float(str(part(slow, "evidence", "running_s"))) >= 1


async def test_only_the_large_table_that_is_read_as_a_whole_is_named(planted: JsonObject) -> None:
    (scan,) = kinds(planted, "sequential_scan")
    assert scan["place"] == "orders"
    assert part(scan, "evidence", "rows") == ROWS
    scans = part(scan, "evidence", "sequential_scans")
    assert isinstance(scans, int)
    assert scans >= MIN_SCANS
    assert (
        part(scan, "evidence", "rows_read") == scans * ROWS
        or int(str(part(scan, "evidence", "rows_read"))) >= MIN_SCANS * ROWS
    )


async def test_the_missing_index_is_named_once_and_the_one_that_is_there_is_not(planted: JsonObject) -> None:
    (lacking,) = kinds(planted, "missing_index")
    assert lacking["place"] == "orders.customer"
    assert lacking["suggestion"] == "CREATE INDEX CONCURRENTLY ON orders (customer);"


async def test_the_unused_index_is_named_and_the_used_and_the_unique_ones_are_not(planted: JsonObject) -> None:
    assert [entry["place"] for entry in kinds(planted, "unused_index")] == ["orders_never_used"]


async def test_dead_rows_are_counted(planted: JsonObject) -> None:
    (bloat,) = kinds(planted, "bloat")
    assert bloat["place"] == "dying"
    assert part(bloat, "evidence") == {"dead_rows": 2_000, "live_rows": 1_000, "share": 0.6667}


async def test_what_cannot_be_seen_is_said_with_the_way_out(planted: JsonObject) -> None:
    unseen = {str(entry["column"]): entry for entry in items(planted, "missing")}
    assert "pg_stat_statements" in str(unseen["statement history"]["how_to_supply"])


async def test_the_heaviest_finding_comes_first(planted: JsonObject) -> None:
    order = ["high", "medium", "low"]
    found = [order.index(str(entry["severity"])) for entry in items(planted, "findings")]
    assert found == sorted(found)
    assert part(planted, "findings_total") == len(found)


async def test_neither_secrets_nor_the_address_are_shown(planted: JsonObject, url: str) -> None:
    shown = json.dumps(planted)
    assert SECRET not in shown
    assert "customer 7" not in shown
    assert url.rpartition("/")[2] not in shown
    assert "127.0.0.1" not in shown


async def test_the_connection_can_only_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever statement stood in the inspection, the transaction would refuse to write."""
    from agent_service.tools.database import postgres

    for writing in ("INSERT INTO customers VALUES (0, 'x')", "CREATE TABLE made (id int)"):
        monkeypatch.setattr(postgres, "_OVERVIEW", writing)
        with pytest.raises(ToolError, match="could not be read"):
            await database_analyzer(targets({"shop": url}), context(), DatabaseAnalyzerArgs())


async def test_a_statement_that_takes_too_long_is_stopped(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent_service.tools.database import postgres

    monkeypatch.setattr(postgres, "_OVERVIEW", "SELECT pg_sleep(60)")
    monkeypatch.setattr(postgres, "STATEMENT_TIMEOUT_MS", 50)
    with pytest.raises(ToolError, match=r"took longer than 0\.05 s"):
        await database_analyzer(targets({"shop": url}), context(), DatabaseAnalyzerArgs())


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql://ann:topsecret@127.0.0.1:1/nothing", "cannot be reached"),
        ("postgresql://ann:topsecret@127.0.0.1:notaport/nothing", "cannot be reached"),
        ("postgresql://nobody_of_that_name:topsecret@{host}/postgres", "."),
    ],
    ids=["nobody-listens", "no-address", "no-account"],
)
async def test_failures_never_show_the_address(postgres_server: PostgresServer, address: str, words: str) -> None:
    if postgres_server.host.startswith("/") and "{host}" in address:
        pytest.skip("needs a server on an address")
    known = targets({"shop": address.format(host=f"{postgres_server.host}:{postgres_server.port}")})
    with pytest.raises(ToolError, match=words) as failed:
        await database_analyzer(known, context(), DatabaseAnalyzerArgs())
    assert "shop" in str(failed.value)
    assert "topsecret" not in str(failed.value)
    assert "127.0.0.1" not in str(failed.value)
    assert failed.value.__cause__ is None


async def test_with_the_extension_statements_that_have_ended_are_found(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own module has to be loaded at its start; a table with the same columns stands for it here."""
    from agent_service.tools.database import postgres

    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(
        "CREATE SCHEMA planted; CREATE TABLE planted.pg_stat_statements (dbid oid, query text, calls bigint, "
        "mean_exec_time float8, max_exec_time float8, total_exec_time float8, rows bigint); "
        "INSERT INTO planted.pg_stat_statements SELECT oid, q, c, m, m, c * m, c FROM pg_database, (VALUES "
        "('SELECT * FROM orders WHERE id = $1', 1000, 99.9), ('SELECT * FROM orders WHERE note = $1', 10, 1500), "
        "('CREATE ROLE bob PASSWORD ''hunter2''', 1, 100), ('<insufficient privilege>', 1, 5)) v(q, c, m) "
        "WHERE datname = current_database()"
    )
    await connection.close()
    monkeypatch.setattr(postgres, "_EXTENSION", "SELECT 'planted'")
    found = (await database_analyzer(targets({"shop": url}), context(), DatabaseAnalyzerArgs())).result
    slow = {str(entry["place"]): entry for entry in kinds(found, "slow_query")}
    ended = {place: entry["severity"] for place, entry in slow.items() if "mean_ms" in str(entry["evidence"])}
    assert ended == {"SELECT * FROM orders WHERE note = $1": "high", "CREATE ROLE bob PASSWORD ?": "medium"}
    assert [entry["column"] for entry in items(found, "missing") if "statement" in str(entry["column"])] == [
        "statement texts"
    ]


async def test_an_extension_that_is_not_loaded_is_as_good_as_none(url: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute("CREATE EXTENSION pg_stat_statements")
        await connection.fetch("SELECT 1 FROM pg_stat_statements LIMIT 1")
    except asyncpg.ObjectNotInPrerequisiteStateError:
        pass
    except asyncpg.PostgresError:
        pytest.skip("this server does not bring pg_stat_statements")
    else:
        pytest.skip("this server has pg_stat_statements loaded")
    finally:
        await connection.close()
    found = (await database_analyzer(targets({"shop": url}), context(), DatabaseAnalyzerArgs())).result
    assert "statement history" in [entry["column"] for entry in items(found, "missing")]
