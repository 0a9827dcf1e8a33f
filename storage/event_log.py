"""The event log in a database."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import and_, bindparam, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.appends import check_appends
from storage.database import Database
from storage.errors import RecordNotFoundError
from storage.records import (
    Append,
    AppendOutcome,
    Checkpoint,
    Ending,
    Position,
    RunStatus,
    StoredEvent,
)
from storage.rows import message_row
from storage.schema import checkpoints, messages, run_events, runs, threads


class SqlEventLog:
    """Implements `storage.interfaces.EventLog`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        check_appends(appends)
        if not appends:
            return ()

        async def work(connection: AsyncConnection) -> set[str]:
            # Locks are taken in one order everywhere: threads by id, then runs by id.
            await _lock_threads(connection, [append.run_id for append in appends if append.ending])
            advanced = await self._database.dialect.advance(connection, appends)
            held = [append for append in appends if append.run_id in advanced]
            if events := [event for append in held for event in append.events]:
                await self._database.dialect.insert_events(connection, events)
            if saved := [(append.run_id, append.checkpoint) for append in held if append.checkpoint]:
                await _save_checkpoints(connection, saved)
            if ended := [(append.run_id, append.ending) for append in held if append.ending]:
                await _end_runs(connection, ended)
            return advanced

        advanced = await self._database.write(work)
        return [AppendOutcome.APPENDED if append.run_id in advanced else AppendOutcome.FENCED for append in appends]

    async def read(
        self, user_id: str, run_id: str, after_seq: int, *, max_events: int, max_bytes: int
    ) -> Sequence[StoredEvent]:
        # The log has no gaps, so counting events is counting seqs, and the first event, which is always returned, is
        # `after_seq + 1`. Sizes are added up without fetching the data.
        window = run_events.alias()
        sizes = (
            select(window.c.seq, func.sum(func.length(window.c.data)).over(order_by=window.c.seq).label("total"))
            .where(window.c.run_id == run_id, window.c.seq.between(after_seq + 1, after_seq + max_events))
            .subquery()
        )
        fitting = select(func.max(sizes.c.seq)).where(sizes.c.total <= max_bytes).scalar_subquery()
        wanted = and_(
            run_events.c.run_id == runs.c.id,
            run_events.c.seq > after_seq,
            run_events.c.seq <= func.coalesce(fitting, after_seq + 1),
        )
        query = (
            select(run_events.c.seq, run_events.c.data, run_events.c.terminal)
            .select_from(runs.outerjoin(run_events, wanted))
            .where(runs.c.id == run_id, runs.c.user_id == user_id)
            .order_by(run_events.c.seq)
        )
        rows = (await self._database.read(lambda connection: connection.execute(query))).all()
        if not rows:
            raise RecordNotFoundError("run", run_id)
        return [StoredEvent(run_id, row.seq, row.data, row.terminal) for row in rows if row.seq is not None]

    async def positions(self, run_ids: Collection[str], *, final: bool = True) -> Mapping[str, Position]:
        query = (
            select(runs.c.id, runs.c.epoch, runs.c.last_seq, runs.c.status)
            .where(runs.c.id.in_(run_ids))
            .order_by(runs.c.id)
        )
        if final:
            # A share lock waits for a transaction whose client has vanished: the server may still be committing it.
            locked = query.with_for_update(read=True)
            rows = await self._database.write(lambda connection: connection.execute(locked))
        else:
            rows = await self._database.read(lambda connection: connection.execute(query))
        return {row.id: Position(row.epoch, row.last_seq, RunStatus(row.status)) for row in rows}

    async def checkpoint(self, run_id: str) -> Checkpoint | None:
        query = select(checkpoints.c.seq, checkpoints.c.version, checkpoints.c.data).where(
            checkpoints.c.run_id == run_id
        )
        row = (await self._database.read(lambda connection: connection.execute(query))).one_or_none()
        return None if row is None else Checkpoint(row.seq, row.version, row.data)


async def _lock_threads(connection: AsyncConnection, run_ids: Sequence[str]) -> None:
    if run_ids:
        of_runs = select(runs.c.thread_id).where(runs.c.id.in_(run_ids))
        query = select(threads.c.id).where(threads.c.id.in_(of_runs)).order_by(threads.c.id)
        await connection.execute(query.with_for_update(key_share=True))


async def _save_checkpoints(connection: AsyncConnection, saved: Sequence[tuple[str, Checkpoint]]) -> None:
    make_insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = make_insert(checkpoints)
    new = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[checkpoints.c.run_id], set_={"seq": new.seq, "version": new.version, "data": new.data}
        ),
        [
            {"run_id": run_id, "seq": checkpoint.seq, "version": checkpoint.version, "data": checkpoint.data}
            for run_id, checkpoint in saved
        ],
    )


async def _end_runs(connection: AsyncConnection, ended: Sequence[tuple[str, Ending]]) -> None:
    await connection.execute(
        update(runs)
        .where(runs.c.id == bindparam("ended_id"))
        .values(
            status=bindparam("final_status"),
            end_time=bindparam("ended_at"),
            error_reason=bindparam("reason"),
            worker_id=None,
            lease_expire_time=None,
        ),
        [
            {
                "ended_id": run_id,
                "final_status": ending.status,
                "ended_at": ending.end_time,
                "reason": ending.error_reason,
            }
            for run_id, ending in ended
        ],
    )
    thread_of_run = select(runs.c.thread_id).where(runs.c.id == bindparam("ended_id")).scalar_subquery()
    await connection.execute(
        update(threads).where(threads.c.id == thread_of_run).values(update_time=bindparam("ended_at")),
        [{"ended_id": run_id, "ended_at": ending.end_time} for run_id, ending in ended],
    )
    if rows := [message_row(ending.message) for _, ending in ended if ending.message]:
        await connection.execute(insert(messages), rows)
