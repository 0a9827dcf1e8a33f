"""Acceptance: a message becomes a run, in one transaction."""

from collections.abc import Sequence

from sqlalchemy import BindParameter, bindparam, func, insert, select, update

from storage.database import Database
from storage.errors import IdempotencyMismatchError, RecordNotFoundError, ThreadBusyError, TooManyOpenRunsError
from storage.prepared import Transaction
from storage.records import (
    Accepted,
    MessageRecord,
    MessageRole,
    NewRun,
    RunRecord,
    RunStatus,
    StoredEvent,
    ThreadConflict,
    ThreadRecord,
)
from storage.rows import message_row, run_record, select_runs, thread_record
from storage.schema import messages, run_requests, runs, threads
from storage.waiting import status_when_cancelled

#: The cancel reason of a run that gives way to a newer message.
INTERRUPTED = "A newer message of the same thread took its place."


class Acceptance:
    """The transaction, with its statements prepared."""

    def __init__(self, database: Database) -> None:
        user_id: BindParameter[str] = bindparam("user_id")
        thread_id: BindParameter[str] = bindparam("thread_id")
        self._dialect = database.dialect
        self._find = database.prepare(
            select_runs().where(runs.c.user_id == user_id, runs.c.client_message_id == bindparam("client_message_id"))
        )
        self._count_open = database.prepare(
            select(func.count().label("open")).where(runs.c.user_id == user_id, runs.c.end_time.is_(None))
        )
        self._insert_thread = database.prepare(insert(threads))
        self._enter_thread = database.prepare(
            update(threads)
            .where(threads.c.id == thread_id, threads.c.user_id == user_id)
            .values(update_time=bindparam("update_time"))
            .returning(*threads.c)
        )
        self._open_in_thread = database.prepare(
            select(runs.c.id, runs.c.position)
            .where(runs.c.user_id == user_id, runs.c.thread_id == thread_id, runs.c.end_time.is_(None))
            .order_by(runs.c.id)  # the order in which everybody locks runs
            .with_for_update(key_share=True)
        )
        reason = func.coalesce(runs.c.cancel_reason, INTERRUPTED)
        successor = func.coalesce(runs.c.superseded_by_run_id, bindparam("successor"))
        giving_way = update(runs).where(runs.c.id == bindparam("run_id"))
        ending = giving_way.values(cancel_reason=reason, status=status_when_cancelled())
        self._interrupt = database.prepare(ending)
        self._roll_back = database.prepare(ending.values(superseded_by_run_id=successor))
        self._get = database.prepare(select_runs().where(runs.c.id == bindparam("run_id")))
        self._last_position = database.prepare(
            select(func.coalesce(func.max(runs.c.position), 0).label("last")).where(runs.c.thread_id == thread_id)
        )
        self._insert_run = database.prepare(insert(runs).values({name: bindparam(name) for name in _RUN_COLUMNS}))
        self._insert_request = database.prepare(insert(run_requests))
        self._insert_message = database.prepare(insert(messages))

    def accept(self, new: NewRun) -> Transaction[Accepted]:
        """Do what `storage.interfaces.Runs.accept` says."""
        # One acceptance of a user at a time: so racing calls with one key meet the same run, and the cap is exact.
        yield from self._dialect.serialising("accept", new.user_id)
        if new.client_message_id:
            found = yield self._find(user_id=new.user_id, client_message_id=new.client_message_id)
            if found:
                existing = run_record(found[0])
                check_fingerprint(existing, new)
                return Accepted(existing, already_existed=True)
        thread, open_in_thread = yield from self._enter(new)
        yield from self._check_cap(new)
        interrupted = yield from self._treat_conflict(new, open_in_thread)
        events = first_events(new, thread_is_busy=bool(open_in_thread))
        run = yield from self._insert(new, events)
        yield from self._dialect.insert_events(events)
        return Accepted(
            run,
            already_existed=False,
            thread_created=new.new_thread_title is not None,
            thread=thread,
            events=events,
            interrupted=interrupted,
        )

    def _enter(self, new: NewRun) -> Transaction[tuple[ThreadRecord, Sequence[str]]]:
        """Lock the thread, or make it, and return it with the ids of its open runs, which are locked too."""
        if (thread := new_thread(new)) is not None:
            yield self._insert_thread(
                id=thread.thread_id,
                user_id=thread.user_id,
                title=thread.title,
                create_time=thread.create_time,
                update_time=thread.update_time,
            )
            return thread, ()
        entered = yield self._enter_thread(user_id=new.user_id, thread_id=new.thread_id, update_time=new.create_time)
        if not entered:
            raise RecordNotFoundError("thread", new.thread_id)
        open_runs = yield self._open_in_thread(user_id=new.user_id, thread_id=new.thread_id)
        in_order = sorted(open_runs, key=lambda row: row.position)
        return thread_record(entered[0]), [row.id for row in in_order]

    def _check_cap(self, new: NewRun) -> Transaction[None]:
        counted = yield self._count_open(user_id=new.user_id)
        if counted[0].open >= new.max_open_runs:
            raise TooManyOpenRunsError(f"the user already has {new.max_open_runs} open runs")

    def _treat_conflict(self, new: NewRun, open_in_thread: Sequence[str]) -> Transaction[Sequence[RunRecord]]:
        """Return the thread's open runs that give way, in their order."""
        if not open_in_thread or new.conflict is ThreadConflict.ENQUEUE:
            return ()
        if new.conflict is ThreadConflict.REJECT:
            raise ThreadBusyError(f"thread {new.thread_id} has an open run")
        giving_way: list[RunRecord] = []
        for run_id in open_in_thread:
            if new.conflict is ThreadConflict.ROLLBACK:
                yield self._roll_back(run_id=run_id, successor=new.run_id)
            else:
                yield self._interrupt(run_id=run_id)
            rows = yield self._get(run_id=run_id)
            giving_way.append(run_record(rows[0]))
        return giving_way

    def _insert(self, new: NewRun, events: Sequence[StoredEvent]) -> Transaction[RunRecord]:
        position = 1
        if new.new_thread_title is None:
            rows = yield self._last_position(thread_id=new.thread_id)
            position += rows[0].last
        run = new_run_record(new, position=position, last_seq=len(events))
        yield self._insert_run(
            id=run.run_id,
            thread_id=run.thread_id,
            user_id=run.user_id,
            scopes=list(run.scopes),
            position=run.position,
            status=run.status,
            agent=run.agent,
            client_message_id=run.client_message_id or None,
            fingerprint=run.fingerprint,
            user_message_id=run.user_message_id,
            epoch=run.epoch,
            attempt=run.attempt,
            last_seq=run.last_seq,
            claims=run.claims,
            create_time=run.create_time,
        )
        yield self._insert_request(run_id=run.run_id, request=run.request)
        yield self._insert_message(**message_row(user_message(new)))
        return run


#: What a new run has; the other columns are NULL.
_RUN_COLUMNS = (
    "id",
    "thread_id",
    "user_id",
    "scopes",
    "position",
    "status",
    "agent",
    "client_message_id",
    "fingerprint",
    "user_message_id",
    "epoch",
    "attempt",
    "last_seq",
    "claims",
    "create_time",
)


def new_thread(new: NewRun) -> ThreadRecord | None:
    """Return the thread that acceptance makes, None where the run enters one that exists."""
    if new.new_thread_title is None:
        return None
    return ThreadRecord(new.thread_id, new.user_id, new.new_thread_title, new.create_time, new.create_time)


def first_events(new: NewRun, *, thread_is_busy: bool) -> Sequence[StoredEvent]:
    """Return the events that acceptance saves."""
    started = StoredEvent(new.run_id, 1, new.started)
    if new.must_wait or thread_is_busy:
        return started, StoredEvent(new.run_id, 2, new.queued)
    return (started,)


def new_run_record(new: NewRun, *, position: int, last_seq: int) -> RunRecord:
    """Return the run as acceptance saves it."""
    return RunRecord(
        run_id=new.run_id,
        thread_id=new.thread_id,
        user_id=new.user_id,
        scopes=new.scopes,
        position=position,
        status=RunStatus.QUEUED,
        agent=new.agent,
        client_message_id=new.client_message_id,
        fingerprint=new.fingerprint,
        request=new.request,
        user_message_id=new.user_message_id,
        epoch=0,
        attempt=1,
        last_seq=last_seq,
        claims=0,
        cancel_reason=None,
        superseded_by_run_id=None,
        worker_id=None,
        lease_expire_time=None,
        create_time=new.create_time,
        start_time=None,
        end_time=None,
        error_reason=None,
    )


def user_message(new: NewRun) -> MessageRecord:
    """Return the message that the run answers."""
    return MessageRecord(
        message_id=new.user_message_id,
        thread_id=new.thread_id,
        run_id=new.run_id,
        user_id=new.user_id,
        role=MessageRole.USER,
        content=new.content,
        create_time=new.create_time,
    )


def check_fingerprint(existing: RunRecord, new: NewRun) -> None:
    """Raise `IdempotencyMismatchError` unless the new run asks for what the existing one was asked for."""
    if existing.fingerprint != new.fingerprint:
        raise IdempotencyMismatchError(
            f"client_message_id {new.client_message_id!r} belongs to a message with other content, thread or agent"
        )
