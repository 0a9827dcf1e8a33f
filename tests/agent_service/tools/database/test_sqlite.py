"""A SQLite database with planted faults, and what SQLite cannot tell."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolError
from agent_service.tools.database import sqlite
from agent_service.tools.database.analyzer import DatabaseAnalyzerArgs, database_analyzer
from agent_service.tools.database.findings import LARGE_ROWS
from agent_service.tools.database.targets import targets
from tests.support.datasets import context, items, part

PLANTED = f"""
    PRAGMA journal_mode = WAL;
    CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE "order's" (id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customers (id), day INTEGER,
                            shop INTEGER REFERENCES customers (id), note TEXT);
    CREATE INDEX by_day ON "order's" (day);
    CREATE INDEX by_day_and_shop ON "order's" (day, shop);
    CREATE INDEX by_shop ON "order's" (shop);
    CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER, day INTEGER);
    CREATE INDEX orders_by_day ON orders (day);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {LARGE_ROWS})
    INSERT INTO orders SELECT i, i % 100, i % 7 FROM n;
    CREATE TABLE gone (x BLOB);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
    INSERT INTO gone SELECT zeroblob(4000) FROM n;
    DELETE FROM gone;
"""  # noqa: S608 - numbers of our own


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "shop #1?.db"
    with closing(sqlite3.connect(made, isolation_level=None)) as connection:
        connection.executescript(PLANTED)
    return made


async def look(path: Path, *queries: str) -> JsonObject:
    known = targets({"shop": f"sqlite:///{str(path).replace('#', '%23').replace('?', '%3F')}"})
    return (await database_analyzer(known, context(), DatabaseAnalyzerArgs(queries=list(queries)))).result


def places(found: JsonObject, kind: str) -> list[str]:
    return [str(entry["place"]) for entry in items(found, "findings") if entry["kind"] == kind]


async def test_planted_faults_are_found(path: Path) -> None:
    found = await look(path)
    assert places(found, "missing_index") == ["order's.customer"]
    assert places(found, "redundant_index") == ["by_day"]
    assert places(found, "bloat") == ["the file"]
    assert places(found, "no_statistics") == ["orders"]
    assert part(found, "overview", "journal_mode") == "wal"
    orders = next(table for table in items(found, "tables") if table["name"] == "orders")
    assert orders["rows_at_most"] == LARGE_ROWS
    assert int(str(orders["size_bytes"])) > LARGE_ROWS


async def test_rows_without_numbers_are_not_said_to_be_none(tmp_path: Path) -> None:
    made = tmp_path / "shop.db"
    with closing(sqlite3.connect(made, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE days (day TEXT PRIMARY KEY) WITHOUT ROWID")
        connection.execute("INSERT INTO days VALUES ('2026-11-01'), ('2026-11-02')")
    found = await look(made)
    assert [(table["name"], table["rows_at_most"]) for table in items(found, "tables")] == [("days", None)]


async def test_what_sqlite_cannot_tell_is_said(path: Path) -> None:
    unseen = [str(entry["column"]) for entry in items(await look(path), "missing")]
    assert unseen == ["statement history", "use of indexes"]


async def test_plans_of_given_statements_show_scans_and_missing_indexes(path: Path) -> None:
    found = await look(path, "SELECT id FROM orders o WHERE o.customer = 42", "SELECT id FROM orders WHERE day = 1")
    assert places(found, "sequential_scan") == ["orders"]
    assert "orders.customer" in places(found, "missing_index")
    assert "orders.day" not in places(found, "missing_index")
    assert "42" not in json.dumps([entry["detail"] for entry in items(found, "findings")])


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA journal_mode = DELETE",
        "ATTACH '{folder}/made.db' AS made",
        "DELETE FROM orders",
        "SELECT 1; DROP TABLE orders",
        "SELECT load_extension('x')",
        "SELECT id FROM orders WHERE day = ?",
        "SELEC 1",
        "VACUUM INTO '{folder}/made.db'",
    ],
)
async def test_only_a_select_is_planned(path: Path, sql: str) -> None:
    found = await look(path, sql.format(folder=path.parent))
    assert "a plan" in [entry["column"] for entry in items(found, "missing")] or "load_extension" in sql
    assert not (path.parent / "made.db").exists()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (LARGE_ROWS,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_it_takes_no_longer_than_its_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "TIMEOUT_S", 0.0)
    monkeypatch.setattr(sqlite, "CHECK_STEPS", 1)
    with pytest.raises(ToolError, match="took longer than 0 s"):
        await look(path)


async def test_a_file_that_is_none_is_said_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(ToolError, match="no SQLite database") as damaged:
        await look(tmp_path / "text.db")
    with pytest.raises(ToolError, match="has no file") as absent:
        await look(tmp_path / "absent.db")
    assert not (tmp_path / "absent.db").exists()
    for failed in (damaged, absent):
        assert str(tmp_path) not in str(failed.value)


async def test_a_database_that_stands_in_order_has_no_findings(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "fine.db", isolation_level=None)) as connection:
        connection.executescript("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);")
    found = await look(tmp_path / "fine.db")
    assert part(found, "findings_total") == 0
