"""The worker: who works when, and how runs are cancelled."""

import asyncio

from structlog.typing import EventDict

from agent_service.engine.events import (
    AgentCompleted,
    AgentProgress,
    CompletionStatus,
    ProgressStage,
)
from storage.interfaces import Storage
from storage.memory import MemoryStorage
from storage.records import RunStatus
from tests.support.claims import beats, stop_claiming, with_claim_under_way
from tests.support.gates import Gate, is_stuck, settle
from tests.support.waiting import eventually
from tests.support.workshop import ANN, BOB, LEASE_MS, Workshop, held

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


async def test_a_worker_that_has_work_claims_only_what_fits_beside_it(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage, slots=3) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        runs = [await shop.accept("hello")]
        await gate.reached()
        await stop_claiming(shop)
        runs += [await shop.accept("hello") for _ in range(4)]
        shop.storage.gates["claim"].open()
        await gate.reached(3)
        await beats(shop, 3)
        assert gate.arrivals == 3
        gate.open()
        for run in runs:
            await shop.told(run)


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
    async with Workshop(memory, slots=1, poll_interval_ms=LEASE_MS) as shop:
        for run in [await shop.accept("hello") for _ in range(5)]:
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


async def test_a_cancellation_while_the_answer_is_being_committed_comes_too_late(
    memory: MemoryStorage, logs: list[EventDict]
) -> None:
    gate = Gate(is_open=False)
    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await shop.accept("hello")
        await gate.reached()
        await settle()
        appends = shop.storage.log.appends
        appends.close()
        gate.open()
        await appends.reached(appends.arrivals + 1)
        await eventually(lambda: not shop.supervisor.at_work, what="the supervisor has answered")
        cancelled = await shop.runs.cancel(ANN, run_id=run.run_id)
        assert cancelled.status is RunStatus.RUNNING
        appends.open()
        assert (await shop.told(run)).of(AgentCompleted)[0].status is CompletionStatus.SUCCESS
    assert not [entry for entry in logs if entry["event"] == "run_abandoned"]


async def test_a_cancellation_while_the_log_is_being_read_is_not_lost(memory: MemoryStorage) -> None:
    async with Workshop(memory, slots=0) as before:
        run = await before.accept("hello")
    async with Workshop(memory) as shop:
        shop.storage.log.reads.close()
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
