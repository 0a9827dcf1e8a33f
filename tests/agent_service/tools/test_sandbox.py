"""The pool of children: bounded, reused, and none that is late, silent, dead or abandoned does harm."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent_service.tools import sandbox as sandbox_module
from agent_service.tools.sandbox import Sandbox, SandboxError, SandboxLimits
from tests.support.datasets import DataBench, context, table
from tests.support.gates import is_stuck
from tests.support.timing import fastest
from tests.support.waiting import eventually

ENDLESS = "WITH RECURSIVE a AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM a) SELECT max(x) FROM a"
LEFT_MS = 8_000
CHILD = Path(sandbox_module.__file__).with_name("sandbox_child")
SMALL = SandboxLimits(max_children=1, memory_mib=128, grace_ms=500)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "own.csv"
    file.write_bytes(table("model,input_tokens", "gpt-4o,1", "gpt-4o,2"))
    return file


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    made = Sandbox(SMALL)
    yield made
    await made.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def gone(pid: int) -> None:
    await eventually(lambda: not alive(pid), what="the child is gone")


async def count(sandbox: Sandbox, path: Path, name: str = "own.csv") -> object:
    async with sandbox.session(path, name) as session:
        return (await session.run("SELECT count(*) FROM raw")).rows[0][0]


async def test_a_child_is_reused_and_forgets_the_file_before(sandbox: Sandbox, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_bytes(table("a,b", "1,2"))
    assert await count(sandbox, path) == 2
    first = sandbox.pids
    async with sandbox.session(other, "other.csv") as session:
        assert [column.name for column in session.columns] == ["a", "b"]
        with pytest.raises(SandboxError, match="disabled by configuration"):
            await session.run("SELECT * FROM read_csv('FILE')".replace("FILE", str(path)))
    assert sandbox.pids == first


async def test_a_late_statement_is_stopped_and_its_child_lives_on(sandbox: Sandbox, path: Path) -> None:
    async with sandbox.session(path, "own.csv") as session:
        with pytest.raises(SandboxError, match=r"longer than 0.2 s") as late:
            await session.run(ENDLESS, timeout_ms=200)
        assert late.value.kind == "timeout"
        assert (await session.run("SELECT count(*) FROM raw")).rows == [[2]]


async def test_a_child_that_does_not_obey_is_killed_and_replaced(path: Path, sandbox: Sandbox) -> None:
    await sandbox.warm()
    (pid,) = sandbox.pids
    async with sandbox.session(path, "own.csv") as session:
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(SandboxError) as late:
            await session.run("SELECT 1", timeout_ms=100)
        with pytest.raises(SandboxError) as after:
            await session.run("SELECT 2", timeout_ms=100)
    assert after.value.kind == "crash", "its late answer must not pass as one to another question"
    assert late.value.kind == "timeout"
    await gone(pid)
    assert await count(sandbox, path) == 2
    assert pid not in sandbox.pids


async def test_a_crash_in_mid_statement_is_an_error_and_no_more(sandbox: Sandbox, path: Path) -> None:
    await sandbox.warm()
    (pid,) = sandbox.pids

    async with sandbox.session(path, "own.csv") as session:
        task = asyncio.create_task(session.run(ENDLESS))
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(SandboxError) as crashed:
            await task
    assert crashed.value.kind == "crash"
    assert await count(sandbox, path) == 2


async def test_an_idle_child_that_died_is_replaced_unnoticed(sandbox: Sandbox, path: Path) -> None:
    await sandbox.warm()
    (pid,) = sandbox.pids
    os.kill(pid, signal.SIGKILL)
    assert await count(sandbox, path) == 2
    assert pid not in sandbox.pids


async def test_a_child_whose_caller_leaves_while_it_forgets_the_file_is_let_go(sandbox: Sandbox, path: Path) -> None:
    stopped = asyncio.Event()

    async def work() -> None:
        async with sandbox.session(path, "own.csv"):
            os.kill(sandbox.pids[0], signal.SIGSTOP)  # it will never say that it has forgotten the file
            stopped.set()

    task = asyncio.create_task(work())
    await stopped.wait()
    for _ in range(10):  # until it waits for the child
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sandbox.pids == ()
    assert await count(sandbox, path) == 2


async def test_cancelling_frees_the_child_at_once(sandbox: Sandbox, path: Path) -> None:
    async def cancel() -> float:
        started = asyncio.Event()

        async def work() -> None:
            async with sandbox.session(path, "own.csv") as session:
                started.set()
                await session.run(ENDLESS)

        task = asyncio.create_task(work())
        await started.wait()
        (pid,) = sandbox.pids
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone(pid)
        return time.monotonic() - began

    assert await fastest(cancel, enough_s=0.5) < 0.5
    assert await count(sandbox, path) == 2


async def test_memory_is_bounded(sandbox: Sandbox, path: Path) -> None:
    async with sandbox.session(path, "own.csv") as session:
        with pytest.raises(SandboxError, match="128 MiB") as hungry:
            await session.run("SELECT list(range) FROM range(1000000000)")
        assert hungry.value.kind == "memory"
        with pytest.raises(SandboxError):
            await session.run("SELECT length(repeat('x', 4000000000))")
        assert (await session.run("SELECT 1")).rows == [[1]]


async def test_results_of_our_own_are_bounded(sandbox: Sandbox, path: Path) -> None:
    async with sandbox.session(path, "own.csv") as session:
        assert len((await session.run("SELECT * FROM range(10000)")).rows) == 10_000
        with pytest.raises(SandboxError, match="more groups"):
            await session.run("SELECT * FROM range(10001)")


async def test_there_are_never_more_children_than_allowed(path: Path) -> None:
    sandbox = Sandbox(SandboxLimits(max_children=2, memory_mib=128))
    most = 0

    async def work() -> None:
        nonlocal most
        async with sandbox.session(path, "own.csv") as session:
            most = max(most, len(sandbox.pids))
            await session.run("SELECT count(*) FROM raw")

    try:
        await asyncio.gather(*(work() for _ in range(6)))
    finally:
        await sandbox.close()
    assert most == 2
    assert sandbox.pids == ()


async def test_a_call_waits_for_a_free_child_but_not_for_long(path: Path) -> None:
    sandbox = Sandbox(SandboxLimits(max_children=1, memory_mib=128, wait_ms=50))
    try:
        async with sandbox.session(path, "own.csv") as session:
            assert sandbox.is_busy
            with pytest.raises(SandboxError, match=r"none has ended within 0\.05 s: second\.csv") as refused:
                await count(sandbox, path, "second.csv")
            assert refused.value.kind == "busy"
            assert (await session.run("SELECT 1")).rows == [[1]], "who was there first does not notice"
        assert await count(sandbox, path) == 2, "who gave up has left the line"
    finally:
        await sandbox.close()


async def test_who_waits_is_served_in_order(sandbox: Sandbox, path: Path) -> None:
    served: list[int] = []

    async def work(number: int) -> None:
        await count(sandbox, path)
        served.append(number)

    async with sandbox.session(path, "own.csv"):
        waiting = [asyncio.create_task(work(number)) for number in range(3)]
        for task in waiting:
            assert await is_stuck(task)
    await asyncio.gather(*waiting)
    assert served == [0, 1, 2]


def test_after_the_wait_there_is_time_to_work() -> None:
    bench = DataBench(SMALL)
    analyses = [tool.timeout_ms for tool in bench.tools.values()]
    assert SandboxLimits().wait_ms + LEFT_MS <= min(analyses)


async def test_a_person_is_told_what_a_tool_waits_for(path: Path) -> None:
    said: list[str] = []

    async def progress(message: str, fraction: float = 0.0) -> None:
        assert fraction == 0.0
        said.append(message)

    async with DataBench(SMALL) as bench:
        await bench.put("a.csv", table("model,input_tokens", "gpt-4o,1"))
        tool, told = bench.tools["usage_pattern"], replace(context(), progress=progress)
        async with bench.sandbox.session(path, "own.csv"):
            task = asyncio.ensure_future(tool.run(told, tool.args()))
            await eventually(lambda: bool(said), what="the tool says that it waits")
        await task
    assert said == ["Waiting for other analyses to end"]


async def test_closing_ends_busy_children_too(path: Path) -> None:
    sandbox = Sandbox(SMALL)
    async with sandbox.session(path, "own.csv") as session:
        (pid,) = sandbox.pids
        task = asyncio.create_task(session.run(ENDLESS))
        await asyncio.sleep(0)
        await sandbox.close()
        assert not alive(pid)
        with pytest.raises(SandboxError):
            await task
    assert sandbox.pids == ()


async def test_idle_children_end_after_a_while(path: Path) -> None:
    sandbox = Sandbox(SandboxLimits(max_children=1, memory_mib=128, idle_ms=50))
    try:
        assert await count(sandbox, path) == 2
        (pid,) = sandbox.pids
        await gone(pid)
        assert sandbox.pids == ()
    finally:
        await sandbox.close()


async def test_a_child_ends_by_itself_when_its_service_is_gone() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", str(CHILD), "128", "0", stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.close()
    assert await process.wait() == 0


async def test_a_child_loads_nothing_of_the_service() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-X", "importtime", str(CHILD), "128", "0"),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    loaded = {line.rpartition(b"|")[2].strip().decode() for line in told.splitlines()}
    ours = {name for name in loaded if name.partition(".")[0] in {"agent_service", "generated", "storage", "ws_bridge"}}
    assert "agent_service.tools.sandbox_child.server" in ours
    elsewhere = {name for name in ours if not name.startswith("agent_service.tools.sandbox_child")}
    assert elsewhere == {"agent_service", "agent_service.tools"}, "these two hold a docstring only"


async def test_a_cancelled_tool_call_leaves_nothing_behind() -> None:
    async with DataBench(SMALL) as bench:
        await bench.put("a.csv", table("model,input_tokens", "gpt-4o,1"))
        task = asyncio.create_task(bench.call("query_dataset", sql=ENDLESS))
        await eventually(lambda: bool(bench.sandbox.pids), what="a child works")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [row for row in [await bench.result("query_dataset", sql="SELECT 1")] if row["row_count"] == 1]
