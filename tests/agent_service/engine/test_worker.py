"""The worker: who works when, and how runs are stopped and handed over."""

import asyncio

import pytest
from pydantic import BaseModel

from agent_service.engine.errors import FencedError
from agent_service.engine.events import (
    AgentCompleted,
    AgentProgress,
    CompletionStatus,
    FinalResponse,
    JsonObject,
    ProgressStage,
    ToolCompleted,
    ToolExecuting,
)
from agent_service.engine.tool import Tool, ToolContext
from agent_service.engine.work import Work
from storage.errors import StorageUnavailableError
from storage.interfaces import Storage
from storage.memory import MemoryStorage
from storage.records import RunRecord, RunStatus
from tests.support.faulty_log import Fault
from tests.support.gates import Gate, is_stuck, settle
from tests.support.storage import ManualClock
from tests.support.waiting import eventually
from tests.support.workshop import ANN, BOB, LEASE_MS, Script, Workshop, a_tool, answer, call_tool, say, think


def held(gate: Gate) -> Script:
    """Return a script that answers when the gate lets it."""

    async def script(work: Work) -> FinalResponse:
        await think(work)
        await gate.passage()
        return await answer(work)

    return script


def looking(gate: Gate, ran: list[str]) -> Script:
    """Return a script that calls one tool, waits at the gate, calls another, and answers."""

    async def script(work: Work) -> FinalResponse:
        await think(work)
        await call_tool(work, "one", "a")
        await gate.passage()
        await call_tool(work, "two", "b")
        ran.append("answered")
        return await answer(work)

    return script


def noting(name: str, ran: list[str]) -> Tool[BaseModel]:
    """Return a tool that notes that it ran."""

    async def run(_: ToolContext) -> JsonObject:
        ran.append(name)
        return {}

    return a_tool(name, run)


async def beats(shop: Workshop, count: int) -> None:
    """Wait while the worker beats so many times more: as long as it works on something."""
    gate = shop.storage.gates["beat"]
    await gate.reached(gate.arrivals + count)


async def stop_claiming(shop: Workshop) -> None:
    """Hold the worker up before its next claim."""
    gate = shop.storage.gates["claim"]
    gate.close()
    await gate.reached(gate.arrivals + 1)


async def with_claim_under_way(shop: Workshop, content: str) -> RunRecord:
    """Accept a run and hold its claim up on the way back: the run is claimed, and the worker does not know it yet."""
    await stop_claiming(shop)
    run = await shop.accept(content)
    back = shop.storage.returns["claim"]
    back.close()
    shop.storage.gates["claim"].open()
    await back.reached(back.arrivals + 1)
    assert (await shop.now(run)).status is RunStatus.RUNNING
    return run


async def take_away(shop: Workshop, run: RunRecord) -> None:
    """Let a worker of another process have the run."""
    await stop_claiming(shop)
    record = await shop.now(run)
    assert await shop.inner.runs.release(run.run_id, record.epoch)
    taken = await shop.inner.runs.claim("other", lease_ms=LEASE_MS, limit=1)
    assert [(one.run_id, one.epoch) for one in taken] == [(run.run_id, record.epoch + 1)]


# ---- Who works when ----


async def test_no_more_runs_than_slots_are_at_work(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage, slots=2) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        runs = [await shop.accept("hello") for _ in range(5)]
        await gate.reached(2)
        assert shop.worker.is_busy
        await beats(shop, 3)
        assert gate.arrivals == 2
        gate.open()
        for run in runs:
            await shop.told(run)
        assert shop.supervisor.most_at_work == 2


async def test_a_run_that_must_wait_says_so(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage, slots=1) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        first = await shop.accept("hello")
        await gate.reached()
        waiting = [await shop.accept("hi"), await shop.accept("hi")]
        gate.open()
        assert not (await shop.told(first)).of(AgentProgress)
        positions = [(await shop.told(run)).of(AgentProgress)[0] for run in waiting]
        assert [(body.stage, body.queue_position) for body in positions] == [
            (ProgressStage.QUEUED, 1),
            (ProgressStage.QUEUED, 2),
        ]


async def test_the_runs_of_a_thread_work_one_after_the_other(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage, slots=3) as shop:
        shop.supervisor.scripts["first"] = held(gate)
        first = await shop.accept("first")
        second = await shop.accept("second", thread_id=first.thread_id)
        third = await shop.accept("third", thread_id=first.thread_id)
        await shop.told(await shop.accept("elsewhere"))
        assert shop.supervisor.begun == ["first", "elsewhere"]
        gate.open()
        for run in (first, second, third):
            await shop.told(run)
        assert shop.supervisor.begun == ["first", "elsewhere", "second", "third"]


async def test_a_user_with_many_runs_does_not_keep_others_waiting(storage: Storage) -> None:
    gates = {f"ann {number}": Gate(is_open=False) for number in range(5)}
    async with Workshop(storage, slots=2) as shop:
        shop.supervisor.scripts |= {content: held(gate) for content, gate in gates.items()}
        runs = [await shop.accept(content) for content in gates]
        await gates["ann 0"].reached()
        await gates["ann 1"].reached()
        late = await shop.accept("bob", BOB)
        gates["ann 0"].open()
        await shop.told(late)
        assert shop.supervisor.begun[:3] == ["ann 0", "ann 1", "bob"]
        for gate in gates.values():
            gate.open()
        for run in runs:
            await shop.told(run)


async def test_a_run_that_ends_makes_room_at_once(memory: MemoryStorage) -> None:
    async with Workshop(memory, slots=1) as shop:
        shop.storage.gates["claim"].close()
        runs = [await shop.accept("hello") for _ in range(20)]
        shop.storage.gates["claim"].open()
        async with asyncio.timeout(20 * 0.02):  # with a pause of one poll between them it would take longer
            for run in runs:
                await shop.told(run)


# ---- Cancelling ----


async def test_a_queued_run_is_cancelled_at_once(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage, slots=1) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        first, queued = await shop.accept("hello"), await shop.accept("hi")
        await gate.reached()
        record = await shop.runs.cancel(ANN, run_id=queued.run_id, reason="Never mind.")
        assert (record.status, record.cancel_reason) == (RunStatus.CANCELLED, "Never mind.")
        assert (await shop.told(queued)).of(AgentCompleted)[0].message == "Never mind."
        assert shop.supervisor.begun == ["hello"]
        gate.open()
        await shop.told(first)


async def test_a_running_run_is_cancelled(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await shop.accept("hello")
        await gate.reached()
        await shop.runs.cancel(ANN, run_id=run.run_id)
        completed = (await shop.told(run)).of(AgentCompleted)[0]
        assert (completed.status, completed.message) == (CompletionStatus.CANCELLED, "Stopped by the user.")
        messages = (await shop.threads.list_messages(ANN, run.thread_id, page_size=10, page_token="")).items
        assert [message.content for message in messages] == ["hello"]


async def test_twice_is_as_good_as_once_and_the_first_reason_stays(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await shop.accept("hello", key="key")
        await gate.reached()
        await asyncio.gather(
            shop.runs.cancel(ANN, run_id=run.run_id, reason="First."),
            shop.runs.cancel(ANN, run_id=run.run_id, reason="Second."),
            shop.runs.cancel(ANN, client_message_id="key", reason="Third."),
        )
        assert (await shop.told(run)).of(AgentCompleted)[0].message == "First."
        late = await shop.runs.cancel(ANN, run_id=run.run_id, reason="Fourth.")
        assert (late.status, late.cancel_reason) == (RunStatus.CANCELLED, "First.")


async def test_a_finished_run_stays_as_it_is(storage: Storage) -> None:
    async with Workshop(storage) as shop:
        run = await shop.accept("hello")
        told = await shop.told(run)
        record = await shop.runs.cancel(ANN, run_id=run.run_id)
        assert (record.status, record.cancel_reason) == (RunStatus.COMPLETED, None)
        assert len((await shop.told(run)).events) == len(told.events)


async def test_a_run_is_cancelled_by_the_key_of_its_message(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await shop.accept("hello", key="key")
        record = await shop.runs.cancel(ANN, client_message_id="key")
        assert record.run_id == run.run_id
        assert (await shop.told(run)).of(AgentCompleted)[0].status is CompletionStatus.CANCELLED


async def test_a_cancellation_while_the_run_is_being_claimed_is_not_lost(memory: MemoryStorage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await with_claim_under_way(shop, "hello")
        cancelling = asyncio.create_task(shop.runs.cancel(ANN, run_id=run.run_id))
        assert await is_stuck(cancelling)
        shop.storage.returns["claim"].open()
        await cancelling
        assert (await shop.told(run)).of(AgentCompleted)[0].status is CompletionStatus.CANCELLED


async def test_a_cancellation_while_the_log_is_being_read_is_not_lost(memory: MemoryStorage) -> None:
    async with Workshop(memory) as shop:
        shop.storage.log.reads.close()
        run = await shop.accept("hello")
        await shop.storage.log.reads.reached()
        await shop.runs.cancel(ANN, run_id=run.run_id)
        shop.storage.log.reads.open()
        assert (await shop.told(run)).of(AgentCompleted)[0].status is CompletionStatus.CANCELLED
        assert not shop.supervisor.begun


async def test_a_worker_of_another_process_learns_of_a_cancellation_with_its_next_beat(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage) as here:
        here.supervisor.scripts["hello"] = held(gate)
        run = await here.accept("hello")
        await gate.reached()
        async with Workshop(storage, alone=False, worker_id="other", slots=0) as there:
            await there.runs.cancel(ANN, run_id=run.run_id, reason="From afar.")
            told = await there.told(run)
            assert told.of(AgentCompleted)[0].message == "From afar."
            assert set(told.attempts) == {1}


# ---- Handing over ----


async def test_a_draining_worker_claims_nothing_more(memory: MemoryStorage) -> None:
    async with Workshop(memory) as shop:
        await shop.worker.drain(grace_ms=0)
        run = await shop.accept("hello")
        await settle()
        assert (await shop.now(run)).status is RunStatus.QUEUED


async def test_a_short_run_ends_within_the_grace(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await shop.accept("hello")
        await gate.reached()
        stopping = asyncio.create_task(shop.stop(grace_ms=10_000))
        assert await is_stuck(stopping)
        gate.open()
        await stopping
        assert (await shop.now(run)).status is RunStatus.COMPLETED


async def test_a_run_is_handed_over_at_a_safe_point(storage: Storage) -> None:
    gate, ran = Gate(is_open=False), list[str]()
    tools = [noting("one", ran), noting("two", ran)]
    async with Workshop(storage, tools=tools) as shop:
        shop.supervisor.scripts["hello"] = looking(gate, ran)
        run = await shop.accept("hello")
        await gate.reached()
        stopping = asyncio.create_task(shop.stop(grace_ms=10_000))
        await is_stuck(stopping)
        gate.open()
        await stopping
        left = await shop.now(run)
        assert (left.status, left.worker_id, left.claims) == (RunStatus.RUNNING, None, 0)
        assert (await shop.so_far(run)).kinds()[-1] == "ToolCompleted"
    async with Workshop(storage, tools=tools) as heir:
        heir.supervisor.scripts["hello"] = looking(gate, ran)
        told = await heir.told(run)
        assert ran == ["one", "two", "answered"]
        assert [body.tool_name for body in told.of(ToolExecuting)] == ["one", "two"]
        assert sorted(set(told.attempts)) == [1, 2]
        assert [body.stage for body in told.of(AgentProgress)] == [ProgressStage.RESUMED]


async def test_a_run_that_reaches_no_safe_point_is_stopped_after_the_grace(storage: Storage) -> None:
    gate, ran = Gate(is_open=False), list[str]()

    async def stuck(_: ToolContext) -> JsonObject:
        ran.append("look")
        await gate.passage()
        return {}

    async def script(work: Work) -> FinalResponse:
        await say(work, "Perhaps")
        await think(work)
        await call_tool(work, "look")
        return await answer(work)

    async with Workshop(storage, tools=[a_tool("look", stuck)]) as shop:
        shop.supervisor.scripts["hello"] = script
        run = await shop.accept("hello")
        await gate.reached()
        await shop.stop(grace_ms=0)
        left = await shop.now(run)
        assert (left.status, left.worker_id, left.claims) == (RunStatus.RUNNING, None, 0)
    gate.open()
    async with Workshop(storage, tools=[a_tool("look", stuck)]) as heir:

        async def rest(work: Work) -> FinalResponse:
            await call_tool(work, "look")
            return await answer(work)

        heir.supervisor.scripts["hello"] = rest
        told = await heir.told(run)
        assert ran == ["look", "look"]
        assert len(told.of(ToolExecuting)) == len(told.of(ToolCompleted)) == 1
        assert told.of(FinalResponse)[0].content == "You said hello."


async def test_nothing_is_emitted_once_a_run_is_handed_over(memory: MemoryStorage) -> None:
    gate, emitted = Gate(is_open=False), asyncio.Event()

    async def script(work: Work) -> FinalResponse:
        await think(work)
        await gate.passage()
        for _ in range(3):
            # A supervisor that does not understand what it is told.
            try:
                await work.emitter.emit("data", AgentProgress(ProgressStage.STEP, "On."))
            except Exception:  # noqa: BLE001, S112 - that is the point
                continue
        emitted.set()
        await work.emitter.emit("data", AgentProgress(ProgressStage.STEP, "On and on."))
        raise AssertionError("unreachable")

    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = script
        run = await shop.accept("hello")
        await gate.reached()
        stopping = asyncio.create_task(shop.stop(grace_ms=10_000))
        await is_stuck(stopping)
        gate.open()
        await stopping
        assert emitted.is_set()
        assert (await shop.so_far(run)).kinds() == ["AgentStarted", "AgentThinking", "AgentProgress"]


async def test_a_run_whose_claim_is_under_way_when_the_worker_drains_is_handed_over(memory: MemoryStorage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await with_claim_under_way(shop, "hello")
        stopping = asyncio.create_task(shop.stop(grace_ms=0))
        assert await is_stuck(stopping)
        shop.storage.returns["claim"].open()
        await stopping
        left = await shop.now(run)
        assert (left.status, left.worker_id) == (RunStatus.RUNNING, None)


async def test_a_run_that_is_opening_when_the_worker_drains_is_handed_over_at_its_safe_point(
    memory: MemoryStorage,
) -> None:
    async def script(work: Work) -> FinalResponse:
        await think(work)
        await work.emitter.emit("data", AgentProgress(ProgressStage.STEP, "On."))
        raise AssertionError("the run was not handed over")

    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = script
        shop.storage.log.reads.close()
        run = await shop.accept("hello")
        await shop.storage.log.reads.reached()
        stopping = asyncio.create_task(shop.stop(grace_ms=10_000))
        await is_stuck(stopping)
        shop.storage.log.reads.open()
        await stopping
        left = await shop.now(run)
        assert (left.status, left.worker_id) == (RunStatus.RUNNING, None)


async def test_a_cancellation_during_the_handover_is_kept_for_the_next_worker(memory: MemoryStorage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await shop.accept("hello")
        await gate.reached()
        shop.storage.gates["release"].close()
        stopping = asyncio.create_task(shop.stop(grace_ms=0))
        await shop.storage.gates["release"].reached()
        await shop.runs.cancel(ANN, run_id=run.run_id)
        shop.storage.gates["release"].open()
        await stopping
        assert (await shop.now(run)).worker_id is None
    async with Workshop(memory) as heir:
        assert (await heir.told(run)).of(AgentCompleted)[0].status is CompletionStatus.CANCELLED


# ---- Losing a run, and losing the database ----


async def test_a_worker_that_lost_its_run_writes_nothing_more(storage: Storage) -> None:
    gate, outcome = Gate(is_open=False), asyncio.Queue[Exception]()

    async def script(work: Work) -> FinalResponse:
        await think(work)
        await gate.passage()
        try:
            await work.emitter.commit("data", AgentProgress(ProgressStage.STEP, "From the grave."))
        except Exception as error:
            outcome.put_nowait(error)
            raise
        return await answer(work)

    async with Workshop(storage, beat_interval_ms=LEASE_MS) as shop:
        shop.supervisor.scripts["hello"] = script
        run = await shop.accept("hello")
        await gate.reached()
        await take_away(shop, run)
        before = len((await shop.so_far(run)).events)
        gate.open()
        assert isinstance(await outcome.get(), FencedError)
        await eventually(lambda: not shop.supervisor.at_work, what="the fenced run is left")
        assert len((await shop.so_far(run)).events) == before
        assert (await shop.now(run)).status is RunStatus.RUNNING


async def test_a_worker_that_lost_its_run_learns_it_from_its_beat(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await shop.accept("hello")
        await gate.reached()
        await take_away(shop, run)
        before = len((await shop.so_far(run)).events)
        await eventually(lambda: not shop.supervisor.at_work, what="the fenced run is left")
        assert len((await shop.so_far(run)).events) == before


async def test_a_run_that_this_process_lost_and_took_again_begins_where_the_old_attempt_stops(
    memory: MemoryStorage,
) -> None:
    gate, at_once = Gate(is_open=False), list[int]()

    async def script(work: Work) -> FinalResponse:
        at_once.append(len(shop.supervisor.at_work))
        try:
            await think(work)
            await gate.passage()
        finally:
            await settle()
        return await answer(work)

    async with Workshop(memory, beat_interval_ms=LEASE_MS) as shop:
        shop.supervisor.scripts["hello"] = script
        run = await shop.accept("hello")
        await gate.reached()
        # The lease ran out, and the next claim of this very worker finds the run.
        record = await shop.now(run)
        assert await memory.runs.release(run.run_id, record.epoch)
        shop.worker.wake()
        await gate.reached(2)
        gate.open()
        told = await shop.told(run)
        assert at_once == [1, 1]
        assert sorted(set(told.attempts)) == [1, 2]
        await shop.told(await shop.accept("hi"))


async def test_a_short_absence_of_the_database_is_not_noticed(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await shop.accept("hello")
        await gate.reached()
        shop.storage.log.faults.extend([Fault.AWAY, Fault.LOST_AFTER_COMMIT, Fault.LOST_BEFORE_COMMIT])
        gate.open()
        told = await shop.told(run)
        assert set(told.attempts) == {1}
        assert (await shop.now(run)).status is RunStatus.COMPLETED


async def test_after_a_long_absence_of_the_database_every_run_is_taken_up_again(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage, lease_ms=150) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await shop.accept("hello")
        await gate.reached()
        shop.storage.cut |= {"events", "runs", "threads"}
        gate.open()
        await eventually(lambda: not shop.supervisor.at_work, what="the run is left")
        with pytest.raises(StorageUnavailableError):
            await shop.storage.runs.get("ann", run.run_id)
        shop.storage.cut.clear()
        told = await shop.told(run)
        assert told.of(FinalResponse)
        assert sorted(set(told.attempts)) == [1, 2]


async def test_a_lease_is_kept_by_beats_alone() -> None:
    gate, clock = Gate(is_open=False), ManualClock()
    storage = MemoryStorage(clock.now)
    async with Workshop(storage) as shop, Workshop(storage, alone=False, worker_id="other") as other:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await shop.accept("hello")
        await gate.reached()
        epoch = (await shop.now(run)).epoch
        for _ in range(4):
            clock.advance(0.7 * LEASE_MS / 1000)
            await beats(shop, 2)
            other.worker.wake()
            await settle()
            assert (await shop.now(run)).epoch == epoch
        gate.open()
        assert set((await shop.told(run)).attempts) == {1}


async def test_a_silent_worker_loses_its_runs_to_another(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage, lease_ms=150, beat_interval_ms=LEASE_MS) as silent:
        silent.supervisor.scripts["hello"] = held(gate)
        run = await silent.accept("hello")
        await gate.reached()
        silent.storage.cut.add("runs")
        async with Workshop(storage, alone=False, worker_id="other") as other:
            told = await other.told(run)
            assert sorted(set(told.attempts)) == [1, 2]
