"""Workers that lose a run or the database: they write nothing more, and the run goes on elsewhere."""

import asyncio

from structlog.typing import EventDict

from agent_service.engine.errors import FencedError
from agent_service.engine.events import (
    AgentProgress,
    FinalResponse,
    ProgressStage,
)
from agent_service.engine.work import Work
from storage.interfaces import Storage
from storage.memory import MemoryStorage
from storage.records import RunStatus
from tests.support.claims import beats, end_elsewhere, take_away, with_claim_under_way
from tests.support.faulty_log import Fault
from tests.support.gates import Gate, settle
from tests.support.storage import ManualClock
from tests.support.waiting import eventually
from tests.support.workshop import ANN, LEASE_MS, Workshop, answer, held, think


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

    async with Workshop(memory, slots=2, beat_interval_ms=LEASE_MS) as shop:
        shop.supervisor.scripts |= {"hello": script, "hi": held(gate)}
        run = await shop.accept("hello")
        await gate.reached()
        # The lease ran out, and the next claim of this very worker finds the run.
        record = await shop.now(run)
        assert await memory.runs.release(run.run_id, record.epoch)
        shop.worker.wake()
        await gate.reached(2)
        # Both slots are taken now: the old attempt, on its way out, has not taken the new one's place with it.
        other = await shop.accept("hi")
        await gate.reached(3)
        assert shop.worker.is_busy
        gate.open()
        told = await shop.told(run)
        assert at_once == [1, 1]
        assert sorted(set(told.attempts)) == [1, 2]
        await shop.told(other)


async def test_a_worker_that_lost_its_run_before_it_read_the_log_leaves_it(
    storage: Storage, logs: list[EventDict]
) -> None:
    async with (
        Workshop(storage, slots=0) as elsewhere,
        Workshop(storage, alone=False, worker_id="here", beat_interval_ms=LEASE_MS) as shop,
    ):
        # Accepted here, the log's beginning would be at hand, and nothing would be read.
        run = await with_claim_under_way(shop, "hello", accepted_by=elsewhere)
        await end_elsewhere(shop, run)
        shop.storage.returns["claim"].open()
        await eventually(lambda: "run_fenced" in [line["event"] for line in logs], what="the run is left")
        assert shop.supervisor.begun == []
        assert [line for line in logs if line["log_level"] == "error"] == []


async def test_a_cancellation_that_comes_too_late_leaves_the_run(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage, slots=1) as shop:
        shop.supervisor.scripts["hi"] = held(gate)
        await shop.accept("hi")
        await gate.reached()
        run = await shop.accept("hello")
        back = shop.storage.returns["claim_run"]
        back.close()
        cancelling = asyncio.create_task(shop.runs.cancel(ANN, run_id=run.run_id))
        await back.reached()
        await end_elsewhere(shop, run)
        back.open()
        assert (await cancelling).status is RunStatus.CANCELLED
        assert len((await shop.so_far(run)).events) == run.last_seq + 1


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
    async with Workshop(storage, slots=1, lease_ms=300) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await shop.accept("hello")
        await gate.reached()
        shop.storage.cut |= {"events", "runs", "threads"}
        gate.open()
        await eventually(lambda: not shop.worker.is_busy, what="the run is left")
        shop.storage.cut.clear()
        told = await shop.told(run)
        assert told.of(FinalResponse)
        assert told.attempts[-1] > 1


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
