"""SQL of a user: one SELECT over `data`, and nothing else in the world."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agent_service.engine.tool import ToolError
from agent_service.tools import query
from agent_service.tools.query import MAX_QUERY_ROWS
from agent_service.tools.sandbox import Sandbox, SandboxError, SandboxLimits
from tests.support.datasets import TRACE, DataBench, items, part, table

DATA = table(
    "happened,model,prompt_tokens,took_s", "2025-01-01T00:00:00+01:00,gpt-4o,10,1.5", "2025-01-02,gpt-4o-mini,20,2"
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


def environment(pid: int) -> set[str]:
    found = Path(f"/proc/{pid}/environ")
    if not found.exists():
        pytest.skip("needs /proc")
    return {entry.partition("=")[0] for entry in found.read_text().split("\0")}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[DataBench]:
    async with DataBench() as made:
        await made.put("trace.csv.gz", TRACE.read_bytes())
        await made.put("a.csv", DATA)
        yield made


async def test_canonical_names_stand_beside_those_of_the_file(bench: DataBench) -> None:
    result = await bench.result(
        "query_dataset",
        columns={"latency": "took_s"},
        sql="SELECT happened, timestamp, input_tokens, prompt_tokens, latency, model FROM data ORDER BY timestamp",
    )
    assert part(result, "rows") == [
        ["2024-12-31T23:00:00", "2024-12-31T23:00:00", 10, 10, 1500.0, "gpt-4o"],
        ["2025-01-02T00:00:00", "2025-01-02T00:00:00", 20, 20, 2000.0, "gpt-4o-mini"],
    ]
    assert part(result, "dataset", "rows") == 2


async def test_it_equals_plain_counting(bench: DataBench) -> None:
    result = await bench.result(
        "query_dataset", dataset_id="trace.csv.gz", sql="SELECT count(*) AS n, sum(input_tokens) AS t FROM data;"
    )
    assert part(result, "rows") == [[19_366, 22_361_870]]
    assert [entry["name"] for entry in items(result, "columns")] == ["n", "t"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/proc/self/environ')",
        "SELECT * FROM read_blob('/etc/hostname')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM sniff_csv('/etc/passwd')",
        "SELECT * FROM parquet_metadata('/etc/passwd')",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM pg_catalog.pg_tables",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM raw",
        "SELECT * FROM main.data",
        "SELECT * FROM query('SELECT 1')",
        "SELECT * FROM query_table('raw')",
        "SELECT getenv('HOME')",
        "SELECT current_setting('allowed_paths')",
        "SELECT getvariable('x')",
        "SELECT write_log('x')",
        "SELECT nextval('s')",
        "SELECT pg_sleep(10)",
        "SELECT * FROM data WHERE model IN (SELECT content FROM read_text('/etc/passwd'))",
        "WITH x AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM x",
        "COPY data TO '/tmp/stolen.csv'",
        "COPY (SELECT 1) TO 'stolen.csv'",
        "EXPORT DATABASE '/tmp/stolen'",
        "ATTACH '/tmp/other.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit='100GB'",
        "RESET memory_limit",
        "PRAGMA database_list",
        "CALL pragma_version()",
        "CREATE TABLE t AS SELECT 1",
        "INSERT INTO data VALUES (1)",
        "DROP VIEW data",
        "DESCRIBE data",
        "SHOW TABLES",
        "EXPLAIN ANALYZE SELECT 1",
        "CHECKPOINT",
        "BEGIN",
        "SELECT * FROM read_csv('https://127.0.0.1/x.csv')",
        "SELECT * FROM 'https://127.0.0.1/x.parquet'",
        "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
        "SELECT * FROM read_json('/etc/hostname')",
        "SELECT * FROM sqlite_scan('/tmp/x.db', 't')",
        "SELECT * FROM postgres_scan('host=127.0.0.1', 'public', 't')",
        "SELECT * FROM json_execute_serialized_sql('{}')",
        "SELECT * FROM duckdb_columns()",
        "SELECT * FROM pg_class",
        "SELECT * FROM data, glob('/etc/*')",
        "SELECT * FROM data, LATERAL (SELECT * FROM read_text('/etc/passwd'))",
        "SELECT (SELECT max(content) FROM read_text('/etc/passwd'))",
        "SELECT 1 WHERE EXISTS (FROM read_csv('/etc/passwd'))",
        "SELECT 1 UNION ALL SELECT max(1) FROM glob('/*')",
        "SELECT count(*) FILTER (getenv('HOME') IS NOT NULL) FROM data",
        "SELECT list_transform([1], lambda x: getenv('HOME'))",
        "SELECT * FROM data ORDER BY getenv('HOME')",
        "SELECT sum(1) OVER (ORDER BY getenv('HOME')) FROM data",
        "SELECT * FROM data LIMIT (SELECT count(*) FROM read_text('/etc/passwd'))",
        "CREATE SECRET s (TYPE http)",
        "CREATE MACRO m() AS 1",
        "SET VARIABLE x = 1",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "IMPORT DATABASE '/tmp/stolen'",
        "DETACH memory",
        "USE memory",
        "UPDATE data SET model = 'x'",
        "DELETE FROM data",
        "ALTER VIEW data RENAME TO other",
        "VACUUM",
        "SUMMARIZE data",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP VIEW data",
        "SELECT $1",
        "",
        "   -- nothing",
    ],
)
async def test_everything_else_is_refused(bench: DataBench, sql: str) -> None:
    with pytest.raises(ToolError) as refused:
        await bench.call("query_dataset", sql=sql or ";")
    assert "Traceback" not in str(refused.value)
    assert "memory_files" not in str(refused.value)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{other}')",
        "SELECT * FROM '{other}'",
        "COPY (SELECT 1) TO '{folder}/made.csv'",
        "COPY (SELECT 1) TO '{own}'",
        "CREATE TABLE t AS SELECT * FROM read_text('{other}')",
        "ATTACH '{folder}/made.db'",
        "SET enable_external_access=true",
        "SET allowed_directories=['/']",
        "SET lock_configuration=false",
        "SELECT * FROM read_text('.tmp/x')",
        "COPY (SELECT 1) TO '.tmp/x.csv'",
    ],
)
async def test_the_database_itself_is_locked_whatever_the_statement(bench: DataBench, sql: str, tmp_path: Path) -> None:
    """The check of the statement is for clear words; without it the database, and below it the system, say no."""
    own, other = tmp_path / "own.csv", tmp_path / "other.csv"
    own.write_bytes(DATA)
    other.write_bytes(b"secret,of\nsomebody,else\n")
    async with bench.sandbox.session(own, "own.csv") as session:
        with pytest.raises(SandboxError):
            await session.run(sql.format(own=own, other=other, folder=tmp_path))
    assert own.read_bytes() == DATA
    assert names(tmp_path) == ["other.csv", "own.csv"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT model, count(*) FROM data GROUP BY ALL HAVING count(*) > 0",
        "WITH m AS (SELECT DISTINCT model FROM data) SELECT * FROM m JOIN data USING (model)",
        "SELECT * FROM data QUALIFY row_number() OVER (PARTITION BY model ORDER BY timestamp) = 1",
        "SELECT unnest(list(model)) FROM data",
        "SELECT * FROM range(3)",
        "FROM data",
        "VALUES (1)",
        "SELECT 1 UNION ALL SELECT 2",
        "SELECT strftime(timestamp, '%Y') FROM data -- a remark",
    ],
)
async def test_ordinary_selects_work(bench: DataBench, sql: str) -> None:
    assert items(await bench.result("query_dataset", sql=sql), "columns")


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nothing FROM data", "nothing"),
        ("SELECT now()", "TIMESTAMP"),
        ("SELECT * FROM good", r"Only the table data can be read, not 'good': write FROM data\."),
        ("SELECT CAST('x' AS INTEGER)", "Could not convert"),
    ],
)
async def test_mistakes_are_explained(bench: DataBench, sql: str, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        await bench.call("query_dataset", sql=sql)


@pytest.mark.parametrize(("asked", "expected", "more"), [(199, 199, True), (200, 200, False)])
async def test_rows_are_bounded(bench: DataBench, asked: int, expected: int, more: bool) -> None:  # noqa: FBT001 - a case
    result = await bench.result("query_dataset", sql="SELECT * FROM range(200)", max_rows=asked)
    assert part(result, "row_count") == expected
    assert part(result, "more_rows") is more
    with pytest.raises(ValueError, match="less than or equal to 200"):
        await bench.call("query_dataset", sql="SELECT 1", max_rows=MAX_QUERY_ROWS + 1)


async def test_bytes_are_bounded_and_said(bench: DataBench) -> None:
    wide = await bench.result("query_dataset", sql="SELECT repeat('x', 1000) FROM range(100)", max_rows=100)
    long = await bench.result("query_dataset", sql="SELECT repeat('x', 5000)")
    assert part(wide, "row_count") == 24
    assert "24 KiB" in str(part(wide, "cut_because"))
    assert len(str(part(long, "rows", 0, 0))) == 2_001
    assert part(long, "cut_because") == "1 long texts were shortened"


async def test_a_query_without_end_is_stopped_by_its_time(bench: DataBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "STATEMENT_TIMEOUT_MS", 200)
    endless = "SELECT sum(a.range * b.range) FROM range(10_000_000) a, range(10_000_000) b"
    with pytest.raises(ToolError, match=r"took longer than 0\.2 s and was stopped\. Ask for a smaller part"):
        await bench.call("query_dataset", sql=endless)
    # And the next one is served as if nothing had been.
    assert part(await bench.result("query_dataset", dataset_id="a.csv", sql="SELECT count(*) FROM data"), "rows") == [
        [2]
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT list(i) FROM range(200_000_000) t(i)",
        "SELECT count(*) FROM (SELECT DISTINCT md5(i::VARCHAR) FROM range(50_000_000) t(i))",
    ],
    ids=["list", "distinct"],
)
async def test_a_query_that_wants_too_much_memory_is_stopped(bench: DataBench, sql: str) -> None:
    with pytest.raises(ToolError, match="needs more than the 256 MiB") as stopped:
        await bench.call("query_dataset", sql=sql)
    assert "Traceback" not in str(stopped.value)
    assert part(await bench.result("query_dataset", dataset_id="a.csv", sql="SELECT 1"), "rows") == [[1]]


async def test_numbers_that_json_cannot_carry_come_as_text(bench: DataBench) -> None:
    sql = "SELECT 9007199254740991, 9007199254740992, 1.25, 'nan'::DOUBLE, NULL, TRUE, [1, 2], {'a': 1}"
    result = await bench.result("query_dataset", sql=sql)
    assert part(result, "rows") == [[2**53 - 1, str(2**53), 1.25, "nan", None, True, [1, 2], {"a": 1}]]


async def test_no_environment_reaches_the_child() -> None:
    sandbox = Sandbox(SandboxLimits(max_children=1, memory_mib=256))
    try:
        await sandbox.warm()
        (pid,) = sandbox.pids
        assert environment(pid) <= {"", "LC_CTYPE"}
    finally:
        await sandbox.close()
