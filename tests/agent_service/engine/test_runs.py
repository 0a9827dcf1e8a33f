"""Acceptance: what becomes a run, and what becomes of the runs before it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent_service.engine.broadcast import ThreadChangeKind
from agent_service.engine.commands import Reference, RunCommand, RunSettings
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.events import AgentCompleted, AgentProgress, AgentStarted, CompletionStatus, ProgressStage
from agent_service.engine.runs import MAX_OPEN_RUNS, MAX_TITLE_CHARACTERS
from storage.interfaces import Storage
from storage.memory import MemoryStorage
from storage.records import RunStatus, ThreadConflict
from tests.support.corpora import a_corpus
from tests.support.gates import Gate, is_stuck, settle
from tests.support.workshop import ANN, BOB, LEASE_MS, Workshop, held, user

KEY = "0197f000-0000-7000-8000-000000000001"


def reason(caught: pytest.ExceptionInfo[ApexError]) -> ErrorReason:
    return caught.value.reason


def field(caught: pytest.ExceptionInfo[ApexError]) -> str:
    assert caught.value.reason is ErrorReason.INVALID_ARGUMENT
    return caught.value.violations[0].field


# ---- One message, one run ----


async def test_acceptance_is_the_first_event(storage: Storage) -> None:
    async with Workshop(storage, slots=0) as shop:
        run = await shop.accept("hello")
        started, queued = (await shop.so_far(run)).events
        assert started.body == AgentStarted("supervisor", "Message received.", run.user_message_id)
        assert isinstance(queued.body, AgentProgress)
        assert queued.body.stage is ProgressStage.QUEUED


async def test_racing_calls_with_one_key_meet_one_run(storage: Storage) -> None:
    command = RunCommand("hello", client_message_id=KEY)
    async with Workshop(storage) as shop:
        accepted = await asyncio.gather(*(shop.runs.accept(ANN, command) for _ in range(10)))
        assert len({one.run.run_id for one in accepted}) == 1
        assert sorted(one.already_existed for one in accepted) == [False] + [True] * 9
        assert sum(len(one.events) for one in accepted) == 1
        await shop.told(accepted[0].run)
        assert shop.supervisor.begun == ["hello"]


async def test_a_key_finds_its_run_at_any_time(storage: Storage) -> None:
    async with Workshop(storage) as shop:
        run = await shop.accept("hello", key=KEY)
        await shop.told(run)
        again = await shop.accept("hello", key=KEY)
        assert (again.run_id, again.status) == (run.run_id, RunStatus.COMPLETED)
        in_its_thread = await shop.accept("hello", key=KEY, thread_id=run.thread_id)
        assert in_its_thread.run_id == run.run_id
        assert shop.supervisor.begun == ["hello"]


async def test_a_repeated_message_is_announced_to_nobody(storage: Storage) -> None:
    async with Workshop(storage) as shop:
        await shop.told(await shop.accept("hello", key=KEY))
        with shop.broadcast.thread_changes(ANN.user_id) as changes:
            await shop.accept("hello", key=KEY)
            hearing = asyncio.create_task(changes.__anext__())
            assert await is_stuck(hearing)
            hearing.cancel()


async def test_a_key_belongs_to_its_user(storage: Storage) -> None:
    async with Workshop(storage) as shop:
        anns, bobs = await shop.accept("hello", key=KEY), await shop.accept("hello", BOB, key=KEY)
        assert anns.run_id != bobs.run_id


async def test_an_empty_key_is_none(storage: Storage) -> None:
    async with Workshop(storage) as shop:
        one, two = await shop.accept("hello"), await shop.accept("hello")
        assert one.run_id != two.run_id
        with pytest.raises(ApexError) as caught:
            await shop.runs.cancel(ANN)
        assert field(caught) == "run_id"


async def test_a_key_with_other_content_agent_or_thread_is_refused(storage: Storage) -> None:
    async with Workshop(storage) as shop:
        run = await shop.accept("hello", key=KEY)
        elsewhere = await shop.accept("hi")
        with pytest.raises(ApexError) as caught:
            await shop.accept("goodbye", key=KEY)
        assert field(caught) == "client_message_id"
        with pytest.raises(ApexError) as caught:
            await shop.runs.accept(ANN, RunCommand("hello", client_message_id=KEY, agent="data"))
        assert field(caught) == "client_message_id"
        with pytest.raises(ApexError) as caught:
            await shop.accept("hello", key=KEY, thread_id=elsewhere.thread_id)
        assert field(caught) == "thread_id"
        assert len((await shop.runs.list(ANN, thread_id=None, statuses=(), page_size=9, page_token="")).items) == 2
        assert (await shop.told(run)).of(AgentCompleted)


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        (RunCommand("hello", agent="nobody"), "agent"),
        (RunCommand("hel\x00lo"), "content"),
        (RunCommand("hello", references=(Reference(message_id=KEY),)), "references[0]"),
        (RunCommand("hello", settings=RunSettings(model="nobody's")), "settings.model"),
    ],
)
async def test_what_is_wrong_is_named(memory: MemoryStorage, command: RunCommand, wrong: str) -> None:
    async with Workshop(memory) as shop:
        with pytest.raises(ApexError) as caught:
            await shop.runs.accept(ANN, command)
        assert field(caught) == wrong
        assert not await shop.runs.open_runs(ANN)


async def test_a_knowledge_base_is_referred_to_by_its_owner_alone(memory: MemoryStorage) -> None:
    mine = await memory.corpora.create(a_corpus(ANN.user_id), max_corpora=1)
    theirs = await memory.corpora.create(a_corpus("somebody"), max_corpora=1)
    async with Workshop(memory, slots=0) as shop:
        await shop.runs.accept(ANN, RunCommand("hello", references=(Reference(corpus_id=mine.corpus_id),)))
        with pytest.raises(ApexError) as caught:
            await shop.runs.accept(ANN, RunCommand("hello", references=(Reference(corpus_id=theirs.corpus_id),)))
        assert caught.value.reason is ErrorReason.NOT_FOUND
        assert str(caught.value) == "There is no such knowledge base."


async def test_a_budget_needs_a_price(memory: MemoryStorage) -> None:
    budget, none = (RunCommand("hello", settings=RunSettings(budget_usd=usd)) for usd in (0.0, None))
    async with Workshop(memory, slots=0, models={"offline": False, "other": True}) as shop:
        with pytest.raises(ApexError) as caught:
            await shop.runs.accept(ANN, budget)
        assert field(caught) == "settings.budget_usd"
        await shop.runs.accept(ANN, none)
    async with Workshop(memory, slots=0, models={"offline": True, "other": False}) as shop:
        await shop.runs.accept(ANN, budget)


async def test_what_belongs_to_somebody_else_is_not_found(storage: Storage) -> None:
    async with Workshop(storage) as shop:
        run = await shop.accept("hello", key=KEY)
        for call in (
            shop.runs.get(BOB, run.run_id),
            shop.runs.cancel(BOB, run_id=run.run_id),
            shop.runs.cancel(BOB, client_message_id=KEY),
            shop.runs.cancel(ANN, run_id=KEY),
            shop.accept("hi", BOB, thread_id=run.thread_id),
            shop.runs.accept(ANN, RunCommand("hi", references=(Reference(file_id=KEY),))),
        ):
            with pytest.raises(ApexError) as caught:
                await call
            assert reason(caught) is ErrorReason.NOT_FOUND
        await shop.told(run)


async def test_a_user_may_have_so_many_open_runs_and_no_more(storage: Storage) -> None:
    async with Workshop(storage, slots=0) as shop:
        runs = [await shop.accept(f"hello {number}") for number in range(MAX_OPEN_RUNS)]
        with pytest.raises(ApexError) as caught:
            await shop.accept("one more")
        assert (reason(caught), caught.value.retry_after_ms) == (ErrorReason.TOO_MANY_RUNS, 5000)
        assert {run.run_id for run in await shop.runs.open_runs(ANN)} == {run.run_id for run in runs}
        await shop.accept("hello", BOB)
        await shop.runs.cancel(ANN, run_id=runs[0].run_id)
        await shop.accept("one more")


async def test_a_service_that_stops_accepts_nothing(memory: MemoryStorage) -> None:
    async with Workshop(memory) as shop:
        shop.runs.drain()
        with pytest.raises(ApexError) as caught:
            await shop.accept("hello")
        assert (reason(caught), caught.value.retry_after_ms) == (ErrorReason.DRAINING, 1000)
        assert not await shop.runs.open_runs(ANN)


async def test_a_database_that_is_away_says_so(memory: MemoryStorage) -> None:
    async with Workshop(memory) as shop:
        shop.storage.cut.add("runs")
        with pytest.raises(ApexError) as caught:
            await shop.accept("hello")
        assert reason(caught) is ErrorReason.STORAGE_UNAVAILABLE


async def test_an_acceptance_whose_answer_is_lost_has_happened(memory: MemoryStorage) -> None:
    async with Workshop(memory) as shop:
        shop.storage.unanswered.add("accept")
        run = await shop.accept("hello")
        shop.storage.unanswered.clear()
        assert (await shop.told(run)).of(AgentCompleted)[0].status is CompletionStatus.SUCCESS
        assert shop.supervisor.begun == ["hello"]


async def test_a_repeated_message_finds_its_run_when_its_file_is_gone(memory: MemoryStorage) -> None:
    async with Workshop(memory) as shop:
        async with memory.files.upload("ann", KEY, "usage.csv", "text/csv", max_bytes=10) as upload:
            await upload.write(b"a,b")
            await upload.commit(datetime.now(UTC))
        command = RunCommand("hello", client_message_id=KEY, references=(Reference(file_id=KEY),))
        first = await shop.runs.accept(ANN, command)
        await memory.files.delete("ann", KEY)
        again = await shop.runs.accept(ANN, command)
        assert (again.run.run_id, again.already_existed) == (first.run.run_id, True)
        with pytest.raises(ApexError) as caught:
            await shop.runs.accept(ANN, replace(command, client_message_id=""))
        assert reason(caught) is ErrorReason.NOT_FOUND


async def test_a_run_is_accepted_even_if_nobody_can_be_told(memory: MemoryStorage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await shop.accept("hello")
        await gate.reached()
        shop.storage.cut.add("threads")
        second = await shop.accept("hi", thread_id=run.thread_id, conflict=ThreadConflict.INTERRUPT)
        shop.storage.cut.clear()
        # The worker finds the cancellation by itself.
        assert (await shop.told(run)).of(AgentCompleted)[0].status is CompletionStatus.CANCELLED
        assert (await shop.told(second)).of(AgentCompleted)[0].status is CompletionStatus.SUCCESS


async def test_scopes_are_those_of_the_caller(storage: Storage) -> None:
    async with Workshop(storage, slots=0) as shop:
        run = await shop.accept("hello", user("ann", "databases:read", "admin"))
        assert (await shop.now(run)).scopes == ("admin", "databases:read")


# ---- Threads ----


@pytest.mark.parametrize(
    ("content", "title"),
    [
        ("  What does\n\nit cost?  ", "What does it cost?"),
        ("x" * MAX_TITLE_CHARACTERS, "x" * MAX_TITLE_CHARACTERS),
        ("x" * (MAX_TITLE_CHARACTERS + 1), "x" * (MAX_TITLE_CHARACTERS - 1) + "…"),
    ],
)
async def test_a_new_thread_is_named_after_its_message_and_announced(
    memory: MemoryStorage, content: str, title: str
) -> None:
    async with Workshop(memory, slots=0) as shop:
        with shop.broadcast.thread_changes("ann") as changes:
            run = await shop.accept(content)
            await shop.accept("again", thread_id=run.thread_id)
            created, updated = await anext(changes), await anext(changes)
        assert (created.kind, created.thread.title) == (ThreadChangeKind.CREATED, title)
        assert (updated.kind, updated.thread.thread_id) == (ThreadChangeKind.UPDATED, run.thread_id)


async def test_a_message_to_a_busy_thread_waits_its_turn(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        first = await shop.accept("hello")
        await gate.reached()
        second = await shop.accept("hi", thread_id=first.thread_id)
        assert [body.stage for body in (await shop.so_far(second)).of(AgentProgress)] == [ProgressStage.QUEUED]
        gate.open()
        for run in (first, second):
            assert (await shop.told(run)).of(AgentCompleted)[0].status is CompletionStatus.SUCCESS


async def test_reject_saves_nothing(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        first = await shop.accept("hello")
        await gate.reached()
        with pytest.raises(ApexError) as caught:
            await shop.accept("hi", thread_id=first.thread_id, conflict=ThreadConflict.REJECT)
        assert reason(caught) is ErrorReason.RUN_CONFLICT
        messages = (await shop.threads.list_messages(ANN, first.thread_id, page_size=9, page_token="")).items
        assert [message.content for message in messages] == ["hello"]
        gate.open()
        await shop.told(first)
        await shop.told(await shop.accept("hi", thread_id=first.thread_id, conflict=ThreadConflict.REJECT))


@pytest.mark.parametrize("policy", [ThreadConflict.INTERRUPT, ThreadConflict.ROLLBACK])
async def test_a_message_can_take_the_place_of_all_before_it(storage: Storage, policy: ThreadConflict) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage, beat_interval_ms=LEASE_MS) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        running = await shop.accept("hello")
        await gate.reached()
        queued = await shop.accept("hi", thread_id=running.thread_id)
        last = await shop.accept("hey", thread_id=running.thread_id, conflict=policy)
        for run in (running, queued):
            assert (await shop.told(run)).of(AgentCompleted)[0].status is CompletionStatus.CANCELLED
        assert (await shop.told(last)).of(AgentCompleted)[0].status is CompletionStatus.SUCCESS
        assert shop.supervisor.begun == ["hello", "hey"]
        messages = (await shop.threads.list_messages(ANN, last.thread_id, page_size=9, page_token="")).items
        kept = ["hello", "hi"] if policy is ThreadConflict.INTERRUPT else []
        assert [message.content for message in messages] == [*kept, "hey", "You said hey."]
        superseded = None if policy is ThreadConflict.INTERRUPT else last.run_id
        assert (await shop.now(running)).superseded_by_run_id == superseded


async def test_a_finished_run_is_not_touched_by_a_rollback(storage: Storage) -> None:
    async with Workshop(storage) as shop:
        first = await shop.accept("hello")
        await shop.told(first)
        second = await shop.accept("hi", thread_id=first.thread_id, conflict=ThreadConflict.ROLLBACK)
        await shop.told(second)
        assert (await shop.now(first)).status is RunStatus.COMPLETED
        assert (await shop.now(first)).superseded_by_run_id is None


async def test_deleting_a_thread_ends_its_runs_before_the_eyes_of_their_watchers(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        running = await shop.accept("hello")
        await gate.reached()
        queued = await shop.accept("hi", thread_id=running.thread_id)
        watching = [asyncio.create_task(shop.told(run)) for run in (running, queued)]
        await settle()
        with shop.broadcast.thread_changes("ann") as changes:
            await shop.threads.delete(ANN, running.thread_id)
            deleted = await anext(changes)
        assert (deleted.kind, deleted.thread.thread_id) == (ThreadChangeKind.DELETED, running.thread_id)
        for told in await asyncio.gather(*watching):
            completed = told.of(AgentCompleted)[0]
            assert (completed.status, completed.message) == (CompletionStatus.CANCELLED, "The thread was deleted.")
        for call in (shop.runs.get(ANN, running.run_id), shop.threads.get(ANN, running.thread_id)):
            with pytest.raises(ApexError) as caught:
                await call
            assert reason(caught) is ErrorReason.NOT_FOUND


async def test_a_deletion_that_fails_leaves_no_watch_behind(memory: MemoryStorage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await shop.accept("hello")
        await gate.reached()
        shop.storage.failing.add("request_cancel")
        with pytest.raises(ApexError) as caught:
            await shop.threads.delete(ANN, run.thread_id)
        assert reason(caught) is ErrorReason.STORAGE_UNAVAILABLE
        assert shop.broadcast.open_watches == 0
        shop.storage.failing.clear()
        await shop.threads.delete(ANN, run.thread_id)


async def test_a_thread_is_created_renamed_listed_and_deleted(storage: Storage) -> None:
    async with Workshop(storage, slots=0) as shop:
        with shop.broadcast.thread_changes("ann") as changes:
            thread = await shop.threads.create(ANN, "One")
            renamed = await shop.threads.rename(ANN, thread.thread_id, "Two")
            await shop.threads.delete(ANN, thread.thread_id)
            kinds = [(await anext(changes)).kind for _ in range(3)]
        assert kinds == [ThreadChangeKind.CREATED, ThreadChangeKind.UPDATED, ThreadChangeKind.DELETED]
        assert renamed.title == "Two"
        listed = await shop.threads.list(ANN, query="", page_size=9, page_token="")
        assert not listed.items
        with pytest.raises(ApexError) as caught:
            await shop.threads.list(ANN, query="", page_size=9, page_token="nonsense")
        assert field(caught) == "page_token"
        with pytest.raises(ApexError) as caught:
            await shop.threads.delete(ANN, thread.thread_id)
        assert reason(caught) is ErrorReason.NOT_FOUND
