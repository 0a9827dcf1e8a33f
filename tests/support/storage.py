"""Values for tests of storage, and of what stands on it."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from uuid_utils import uuid7

from storage.interfaces import Storage, Upload
from storage.records import (
    Append,
    Ending,
    FileRecord,
    MessageRecord,
    MessageRole,
    NewRun,
    PlanRecord,
    RunRecord,
    RunStatus,
    StoredEvent,
    ThreadConflict,
)

T = TypeVar("T")

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LEASE_MS = 60_000
#: A lease that has ended as soon as it is given.
NO_LEASE_MS = 0


def new_id() -> str:
    """Return a new UUIDv7."""
    return str(uuid7())


def at(seconds: float) -> datetime:
    """Return the time so many seconds after `START`."""
    return START + timedelta(seconds=seconds)


class ManualClock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self._now = START

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


def a_run(user_id: str = "ada", *, thread_id: str = "", key: str = "", at_s: float = 0) -> NewRun:
    """Return a run to be accepted: of a new thread unless `thread_id` names one. Vary it with `replace`."""
    return NewRun(
        run_id=new_id(),
        thread_id=thread_id or new_id(),
        new_thread_title=None if thread_id else "A thread",
        user_id=user_id,
        scopes=("chat", "databases:read"),
        agent="",
        client_message_id=key,
        fingerprint="print",
        request=b"\x00request\xff",
        user_message_id=new_id(),
        content="How much?",
        create_time=at(at_s),
        started=b"started",
        queued=b"queued",
        must_wait=False,
        conflict=ThreadConflict.ENQUEUE,
        max_open_runs=100,
    )


def a_plan(thread_id: str, user_id: str = "ada", *, at_s: float = 0, document: bytes = b"plan") -> PlanRecord:
    """Return a plan to be saved, of a thread that there is."""
    return PlanRecord(new_id(), user_id, thread_id, 1, document, at(at_s), at(at_s))


async def accepted(storage: Storage, new: NewRun) -> RunRecord:
    """Accept the run and return it."""
    return (await storage.runs.accept(new)).run


async def working(storage: Storage, new: NewRun, worker_id: str = "w1") -> RunRecord:
    """Accept the run, claim it alone for the worker, and return it."""
    await storage.runs.accept(new)
    run = await storage.runs.claim_run(new.user_id, new.run_id, worker_id, lease_ms=LEASE_MS)
    assert run is not None
    return run


def events(run: RunRecord | NewRun, after_seq: int, *data: bytes) -> tuple[StoredEvent, ...]:
    """Return events of the run that follow `after_seq`."""
    return tuple(StoredEvent(run.run_id, seq, one) for seq, one in enumerate(data, after_seq + 1))


def an_append(run: RunRecord, *data: bytes) -> Append:
    """Return an append to the run as the record shows it."""
    return Append(run.run_id, run.epoch, run.last_seq, events(run, run.last_seq, *data))


def an_ending(run: RunRecord, *, at_s: float = 100, answer: str | None = "Much.") -> Append:
    """Return the append that ends the run well, with an assistant message unless `answer` is None."""
    message = answer if answer is None else an_answer(run, answer, at_s=at_s)
    last = StoredEvent(run.run_id, run.last_seq + 1, b"completed", terminal=True)
    ending = Ending(RunStatus.COMPLETED, at(at_s), message)
    return replace(an_append(run), events=(last,), ending=ending)


def an_answer(run: RunRecord, content: str, *, at_s: float = 100) -> MessageRecord:
    """Return the assistant message of a run."""
    return MessageRecord(new_id(), run.thread_id, run.run_id, run.user_id, MessageRole.ASSISTANT, content, at(at_s))


async def save_file(storage: Storage, content: bytes, user_id: str = "ada", *, at_s: float = 0) -> FileRecord:
    """Upload a file in one go."""
    async with an_upload(storage, user_id) as upload:
        await upload.write(content)
        return await upload.commit(at(at_s))


def an_upload(storage: Storage, user_id: str = "ada", *, max_bytes: int = 1 << 20) -> Upload:
    """Return an upload of a CSV file."""
    return storage.files.upload(user_id, new_id(), "usage.csv", "text/csv", max_bytes=max_bytes)


def in_own_loop(work: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run a coroutine in a thread of its own: for fixtures that are not asynchronous."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(lambda: asyncio.run(work())).result()
