"""The figures of the data tools: every tool over every format, over the same rows."""

import hashlib
from pathlib import Path

import duckdb

from benchmarks.tools import FLOORS, FORMATS, TOOLS, make_log, measure, table


def test_every_tool_is_measured_over_every_format() -> None:
    found = measure(rows=2_000, calls=1)
    assert {(timing.tool, timing.format) for timing in found.timings} == {(t, f) for t in TOOLS for f in FORMATS}
    assert all(timing.seconds[0] > 0 for timing in found.timings)
    assert all(timing.floor_s[0] > 0 for timing in found.timings)
    shown = table(found)
    assert "2,000 rows" in shown
    assert all(tool in shown for tool in TOOLS)


def test_every_tool_has_a_floor() -> None:
    assert FLOORS.keys() == TOOLS.keys()


def test_a_log_is_the_same_every_time_and_in_every_format(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "c.parquet"):
        make_log(tmp_path / name, 1_000)
    digests = {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.csv", "b.csv")}
    assert len(digests) == 1
    with duckdb.connect(":memory:") as connection:
        shape = "SELECT count(*), count(DISTINCT model), count(DISTINCT timestamp[:10]) FROM '{}'"
        counted = connection.execute(shape.format(tmp_path / "c.parquet")).fetchall()
        same = "SELECT sum(input_tokens + output_tokens + latency_ms) FROM '{}'"
        sums = {connection.execute(same.format(tmp_path / name)).fetchall()[0][0] for name in ("a.csv", "c.parquet")}
    assert counted == [(1_000, 3, 30)]
    assert len(sums) == 1
