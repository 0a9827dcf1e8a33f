"""The tools over a large log: how long an analysis takes, and how much memory its process needs.

Beside each stands the floor: DuckDB alone, in this process, which reads the same file and computes the heart of the
same answer in one statement, without looking at what its columns are, pricing anything or keeping within limits. The
tools are measured where they run in production: in a child process of a sandbox with its own limits. A first,
unmeasured call starts the child; what a start costs on top is a figure of its own.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

from agent_service.engine.clock import SystemClock
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.analysis import Workbench
from agent_service.tools.data import data_tools
from agent_service.tools.optimization.tools import optimization_tools
from agent_service.tools.sandbox import Sandbox, SandboxLimits
from benchmarks.figures import spread
from storage.memory_files import MemoryFiles
from storage.memory_state import MemoryState

ROUTE: Final = {"models": ["gpt-4o"], "target": "gpt-4o-mini"}

TOOLS: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "usage_summary": {},
        "anomaly_scan": {},
        "latency_analysis": {},
        "correlate": {},
        "simulate_routing": {"rules": [ROUTE]},
    }
)
"""What is measured, with its arguments."""

FLOORS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "usage_summary": "SELECT model, count(*), sum(input_tokens), sum(output_tokens), count_if(status <> 'ok'), "
        "quantile_cont(latency_ms, [0.5, 0.95, 0.99]) FROM '{log}' GROUP BY ROLLUP (model)",
        "anomaly_scan": "SELECT time_bucket(INTERVAL 1 hour, timestamp::TIMESTAMP), count(*), sum(input_tokens), "
        "sum(output_tokens), quantile_cont(latency_ms, 0.95), count_if(status <> 'ok') FROM '{log}' GROUP BY 1",
        "latency_analysis": "SELECT model, avg(latency_ms), quantile_cont(latency_ms, [0.5, 0.9, 0.95, 0.99]) "
        "FROM '{log}' GROUP BY ROLLUP (model)",
        "correlate": "SELECT corr(input_tokens, latency_ms), corr(output_tokens, latency_ms), "
        "corr(input_tokens, output_tokens) FROM '{log}'",
        "simulate_routing": "SELECT model, feature, count(*), sum(input_tokens * 2.5 + output_tokens * 10), "
        "sum(CASE WHEN model = 'gpt-4o' THEN input_tokens * 0.15 + output_tokens * 0.6 ELSE 0 END) "
        "FROM '{log}' GROUP BY ALL",
    }
)
FORMATS: Final = ("csv", "parquet")
AIM_S: Final = 2.0
"""For usage_summary, anomaly_scan and simulate_routing over a million rows, on two idle cores."""
AIM_MIB: Final = 1024
"""For the process that analyses them."""

USER: Final = "bench"
LABEL_WIDTH: Final = 28
CELL_WIDTH: Final = 30

_LOG: Final = """
    SELECT strftime(TIMESTAMP '2026-01-01' + to_microseconds((i * 2592000000000) // {rows} + h % 1000000),
                    '%Y-%m-%dT%H:%M:%S.%fZ') AS timestamp,
           ['gpt-4o', 'gpt-4o-mini', 'claude-sonnet-4-5'][1 + h % 3] AS model,
           ['chat', 'search', 'summary', 'code'][1 + h // 3 % 4] AS feature, 'user-' || (h // 13 % 5000) AS user_id,
           200 + h // 17 % 2000 AS input_tokens, 20 + h // 19 % 600 AS output_tokens,
           300 + h // 23 % 10000 / 5.0 AS latency_ms, CASE WHEN h // 29 % 100 = 0 THEN 'error' ELSE 'ok' END AS status
    FROM (SELECT i, (hash(i) // 2)::BIGINT AS h FROM range({rows}) t(i))"""
"""A month of requests. Made of the hashes of their numbers, so that it is the same everywhere."""


@dataclass(frozen=True, slots=True)
class Timing:
    """`seconds` are those of each measured call, `floor_s` those of each run of the floor's statement.

    `peak_mib` is what the child ever needed up to then.
    """

    tool: str
    format: str
    seconds: tuple[float, ...]
    floor_s: tuple[float, ...]
    peak_mib: float


@dataclass(frozen=True, slots=True)
class ToolFigures:
    """What was measured; `cold_s` is a child's start together with its first call."""

    rows: int
    cold_s: float
    timings: Sequence[Timing]


def make_log(path: Path, rows: int) -> None:
    """Write a log of so many requests; the ending of `path` says in which format."""
    import duckdb

    with duckdb.connect(":memory:") as connection:
        connection.execute(f"COPY ({_LOG.format(rows=rows)}) TO '{path}' (FORMAT {path.suffix[1:]})")


def floor(tool: str, path: Path, calls: int) -> tuple[float, ...]:
    """Return the seconds of each run of the tool's floor over a log."""
    import duckdb

    found = []
    for _ in range(calls):
        begin = time.monotonic()
        with duckdb.connect(":memory:") as connection:
            connection.execute(FLOORS[tool].format(log=path)).fetchall()
        found.append(time.monotonic() - begin)
    return tuple(found)


def measure(rows: int, calls: int) -> ToolFigures:
    """Run every tool over a log of so many rows in each format, `calls` times each."""
    return asyncio.run(_measure(rows, calls))


def table(found: ToolFigures) -> str:
    """Return the medians, in seconds, and how many times the floor's they are."""
    lines = [f"Tools over {found.rows:,} rows, medians (range) in s, x: times DuckDB alone", ""]
    lines.append("".ljust(LABEL_WIDTH) + "".join(name.rjust(CELL_WIDTH) for name in FORMATS) + "peak, MiB".rjust(12))
    for tool in TOOLS:
        timings = [timing for timing in found.timings if timing.tool == tool]
        texts = [_cell(timing).rjust(CELL_WIDTH) for timing in timings]
        peak = max(timing.peak_mib for timing in timings)
        lines.append(tool.ljust(LABEL_WIDTH) + "".join(texts) + f"{peak:.0f}".rjust(12))
    return "\n".join([*lines, f"a cold start with its first call: {found.cold_s:.2f} s", ""])


def _cell(timing: Timing) -> str:
    found, floor = spread(timing.seconds), spread(timing.floor_s)
    return f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f}) {found.median / floor.median:.1f}x"


async def _measure(rows: int, calls: int) -> ToolFigures:
    files = MemoryFiles(MemoryState(lambda: datetime.now(UTC)))
    sandbox = Sandbox(SandboxLimits(max_children=1))
    bench = Workbench(files, sandbox, SystemClock())
    tools = {tool.name: tool for tool in (*data_tools(bench), *optimization_tools(bench))}

    async def call(tool: str, dataset: str) -> tuple[float, ToolOutput]:
        begin = time.monotonic()
        args = {"dataset_id": dataset, **TOOLS[tool]}
        output = await tools[tool].run(_context(), tools[tool].args.model_validate(args))
        return time.monotonic() - begin, output

    timings: list[Timing] = []
    folder = tempfile.mkdtemp()
    try:
        for kind in FORMATS:
            await _upload(files, kind, rows, Path(folder))
        cold, _ = await call("usage_summary", f"log.{FORMATS[-1]}")
        for tool in TOOLS:
            for kind in FORMATS:
                seconds = tuple([(await call(tool, f"log.{kind}"))[0] for _ in range(calls)])
                beneath = await asyncio.to_thread(floor, tool, Path(folder) / f"log.{kind}", calls)
                timings.append(Timing(tool, kind, seconds, beneath, _peak_mib(sandbox.pids[0])))
    finally:
        await sandbox.close()
        files.remove_copies()
        shutil.rmtree(folder)
    return ToolFigures(rows, cold, timings)


async def _upload(files: MemoryFiles, kind: str, rows: int, folder: Path) -> None:
    path = folder / f"log.{kind}"
    await asyncio.to_thread(make_log, path, rows)
    async with files.upload(USER, f"upload-{kind}", path.name, "", max_bytes=1 << 30) as upload:
        await upload.write(await asyncio.to_thread(path.read_bytes))
        await upload.commit(datetime.now(UTC))


def _peak_mib(pid: int) -> float:
    """Return the most memory that the process ever had, in MiB; 0 where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


class _NoArtifacts:
    """Implements `tool.Artifacts`: these tools make none."""

    async def save(self, name: str, media_type: str, content: object, *, description: str = "") -> str:
        raise NotImplementedError


async def _quiet(message: str, fraction: float = 0.0) -> None:
    """Implements `ToolProgress`."""


def _context() -> ToolContext:
    return ToolContext(USER, frozenset(), "run", "thread", "call", "", (), _quiet, _NoArtifacts(), tuple)
