"""Acceptance: a message becomes a run, in one transaction."""

from collections.abc import Sequence

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.dialect import StorageDialect
from storage.errors import IdempotencyMismatchError, RecordNotFoundError, ThreadBusyError, TooManyOpenRunsError
from storage.records import (
    Accepted,
    MessageRecord,
    MessageRole,
    NewRun,
    RunRecord,
    RunStatus,
    StoredEvent,
    ThreadConflict,
)
from storage.rows import message_row, run_record, select_runs
from storage.schema import messages, run_requests, runs, threads

#: The cancel reason of a run that gives way to a newer message.
INTERRUPTED = "A newer message of the same thread took its place."


async def accept(connection: AsyncConnection, dialect: StorageDialect, new: NewRun) -> Accepted:
    """Do what `storage.interfaces.Runs.accept` says, within the connection's transaction."""
    # One acceptance of a user at a time: so racing calls with one key meet the same run, and the cap is exact.
    await dialect.serialise(connection, "accept", new.user_id)
    if new.client_message_id and (existing := await _find(connection, new)):
        return Accepted(existing, already_existed=True)
    open_in_thread = await _enter_thread(connection, new)
    await _check_cap(connection, new)
    interrupted = await _treat_conflict(connection, new, open_in_thread)
    events = first_events(new, thread_is_busy=bool(open_in_thread))
    run = await _insert(connection, new, events)
    await dialect.insert_events(connection, events)
    return Accepted(
        run,
        already_existed=False,
        thread_created=new.new_thread_title is not None,
        events=events,
        interrupted=interrupted,
    )


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


async def _find(connection: AsyncConnection, new: NewRun) -> RunRecord | None:
    row = (
        await connection.execute(
            select_runs().where(runs.c.user_id == new.user_id, runs.c.client_message_id == new.client_message_id)
        )
    ).one_or_none()
    if row is None:
        return None
    existing = run_record(row)
    check_fingerprint(existing, new)
    return existing


async def _enter_thread(connection: AsyncConnection, new: NewRun) -> Sequence[str]:
    """Lock the thread, or make it, and return the ids of its open runs, locked too."""
    if new.new_thread_title is not None:
        await connection.execute(
            insert(threads).values(
                id=new.thread_id,
                user_id=new.user_id,
                title=new.new_thread_title,
                create_time=new.create_time,
                update_time=new.create_time,
            )
        )
        return ()
    entering = (
        update(threads)
        .where(threads.c.id == new.thread_id, threads.c.user_id == new.user_id)
        .values(update_time=new.create_time)
    )
    if (await connection.execute(entering)).rowcount == 0:
        raise RecordNotFoundError("thread", new.thread_id)
    open_runs = (
        select(runs.c.id)
        .where(runs.c.user_id == new.user_id, runs.c.thread_id == new.thread_id, runs.c.end_time.is_(None))
        .order_by(runs.c.id)
        .with_for_update(key_share=True)
    )
    return (await connection.execute(open_runs)).scalars().all()


async def _check_cap(connection: AsyncConnection, new: NewRun) -> None:
    query = select(func.count()).where(runs.c.user_id == new.user_id, runs.c.end_time.is_(None))
    if (await connection.execute(query)).scalar_one() >= new.max_open_runs:
        raise TooManyOpenRunsError(f"the user already has {new.max_open_runs} open runs")


async def _treat_conflict(
    connection: AsyncConnection, new: NewRun, open_in_thread: Sequence[str]
) -> Sequence[RunRecord]:
    if not open_in_thread or new.conflict is ThreadConflict.ENQUEUE:
        return ()
    if new.conflict is ThreadConflict.REJECT:
        raise ThreadBusyError(f"thread {new.thread_id} has an open run")
    giving_way = update(runs).where(runs.c.id.in_(open_in_thread))
    giving_way = giving_way.values(cancel_reason=func.coalesce(runs.c.cancel_reason, INTERRUPTED))
    if new.conflict is ThreadConflict.ROLLBACK:
        giving_way = giving_way.values(superseded_by_run_id=func.coalesce(runs.c.superseded_by_run_id, new.run_id))
    await connection.execute(giving_way)
    rows = await connection.execute(select_runs().where(runs.c.id.in_(open_in_thread)).order_by(runs.c.position))
    return [run_record(row) for row in rows]


async def _insert(connection: AsyncConnection, new: NewRun, events: Sequence[StoredEvent]) -> RunRecord:
    last_position = select(func.coalesce(func.max(runs.c.position), 0)).where(runs.c.thread_id == new.thread_id)
    position = (await connection.execute(last_position)).scalar_one() + 1
    run = new_run_record(new, position=position, last_seq=len(events))
    await connection.execute(
        insert(runs).values(
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
    )
    await connection.execute(insert(run_requests).values(run_id=run.run_id, request=run.request))
    await connection.execute(insert(messages).values(message_row(user_message(new))))
    return run
