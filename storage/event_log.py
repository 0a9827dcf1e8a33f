"""The event log in a database."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import and_, func, select

from storage.appends import check_appends
from storage.database import Database
from storage.errors import RecordNotFoundError
from storage.records import (
    Append,
    AppendOutcome,
    Checkpoint,
    Position,
    RunStatus,
    StoredEvent,
)
from storage.schema import checkpoints, run_events, runs
from storage.sqlite_append import SomeFencedError


class SqlEventLog:
    """Implements `storage.interfaces.EventLog`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        check_appends(appends)
        if not appends:
            return ()
        dialect = self._database.dialect
        try:
            held = await self._database.transact(lambda: dialect.append(appends))
        except SomeFencedError:
            held = await self._database.transact(lambda: dialect.append_held(appends))
        return [AppendOutcome.APPENDED if append.run_id in held else AppendOutcome.FENCED for append in appends]

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
            # A share lock waits for a transaction whose client has vanished: the server may still be committing it. One
            # that has not come to the run's row yet it cannot see: whoever is fenced after that asks again.
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
