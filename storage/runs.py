"""The runs table in a database: claims, leases, cancellation and look-ups. Acceptance has its own module."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import ColumnElement, and_, exists, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.acceptance import Acceptance
from storage.claiming import Claiming, unheld
from storage.database import Database
from storage.errors import RecordNotFoundError
from storage.paging import SortKey, cut_page, read_token
from storage.records import Accepted, Beat, NewRun, Page, Resolution, RunRecord, RunStatus
from storage.rows import run_record, select_runs
from storage.schema import approvals, from_microseconds, runs, to_microseconds
from storage.waiting import NotOpenError, Waiting, check_resolution, status_when_cancelled


class SqlRuns:
    """Implements `storage.interfaces.Runs`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.dialect
        self._acceptance = Acceptance(database)
        self._claiming = Claiming(database)
        self._waiting = Waiting(database)

    async def accept(self, new: NewRun) -> Accepted:
        return await self._database.transact(lambda: self._acceptance.accept(new), may_wait=True)

    async def claim(self, worker_id: str, *, lease_ms: int, limit: int) -> Sequence[RunRecord]:
        return await self._database.transact(lambda: self._claiming.claim(worker_id, lease_ms, limit))

    async def claim_run(self, user_id: str, run_id: str, worker_id: str, *, lease_ms: int) -> RunRecord | None:
        claim = (
            update(runs)
            .where(_is(user_id, run_id), runs.c.end_time.is_(None), unheld(self._dialect))
            .values(
                epoch=runs.c.epoch + 1,
                worker_id=worker_id,
                lease_expire_time=self._dialect.after(lease_ms),
            )
        )

        async def work(connection: AsyncConnection) -> RunRecord | None:
            claimed = (await connection.execute(claim)).rowcount
            run = await _get(connection, user_id, run_id)
            return run if claimed else None

        return await self._database.write(work)

    async def beat(self, worker_id: str, epochs: Mapping[str, int], *, lease_ms: int) -> Sequence[Beat]:
        if not epochs:
            return ()
        held = (
            select(runs.c.id, runs.c.cancel_reason)
            .where(tuple_(runs.c.id, runs.c.epoch).in_(epochs.items()))
            .where(runs.c.worker_id == worker_id, runs.c.end_time.is_(None))
            # The order of ids is the order in which an append locks them too.
            .order_by(runs.c.id)
            .with_for_update(key_share=True)
        )

        async def work(connection: AsyncConnection) -> dict[str, str | None]:
            reasons = {row.id: row.cancel_reason for row in await connection.execute(held)}
            if reasons:
                renewal = update(runs).where(runs.c.id.in_(reasons))
                await connection.execute(renewal.values(lease_expire_time=self._dialect.after(lease_ms)))
            return reasons

        reasons = await self._database.write(work)
        return [Beat(run_id, run_id in reasons, reasons.get(run_id)) for run_id in epochs]

    async def release(self, run_id: str, epoch: int) -> bool:
        handing_over = (
            update(runs)
            .where(runs.c.id == run_id, runs.c.epoch == epoch, runs.c.end_time.is_(None))
            .values(worker_id=None, lease_expire_time=None, claims=0)
        )
        result = await self._database.write(lambda connection: connection.execute(handing_over))
        return result.rowcount == 1

    async def release_all(self) -> int:
        taking_away = (
            update(runs)
            .where(runs.c.end_time.is_(None), runs.c.worker_id.is_not(None))
            .values(worker_id=None, lease_expire_time=None)
        )
        result = await self._database.write(lambda connection: connection.execute(taking_away))
        return result.rowcount

    async def wait(self, run_id: str, epoch: int, approval_ids: Collection[str], *, wait_ms: int) -> bool:
        return await self._database.transact(lambda: self._waiting.wait(run_id, epoch, approval_ids, wait_ms))

    async def resolve(self, user_id: str, resolution: Resolution) -> bool:
        check_resolution(resolution)
        try:
            return await self._database.transact(lambda: self._waiting.resolve(user_id, resolution))
        except NotOpenError:
            return False

    async def lapsed(self, *, limit: int) -> Sequence[RunRecord]:
        is_over = exists().where(approvals.c.run_id == runs.c.id, approvals.c.expire_time <= self._dialect.now())
        query = (
            select_runs()
            .where(runs.c.end_time.is_(None), runs.c.status == RunStatus.WAITING_APPROVAL, is_over)
            .order_by(runs.c.create_time, runs.c.id)
            .limit(limit)
        )
        return [run_record(row) for row in await self._database.read(lambda connection: connection.execute(query))]

    async def edited_args(self, user_id: str, run_id: str) -> Mapping[str, bytes]:
        edited = and_(approvals.c.run_id == runs.c.id, approvals.c.edited_args.is_not(None))
        query = (
            select(approvals.c.approval_id, approvals.c.edited_args)
            .select_from(runs.outerjoin(approvals, edited))
            .where(_is(user_id, run_id))
        )
        rows = (await self._database.read(lambda connection: connection.execute(query))).all()
        if not rows:
            raise RecordNotFoundError("run", run_id)
        return {row.approval_id: row.edited_args for row in rows if row.approval_id is not None}

    async def request_cancel(self, user_id: str, run_id: str, reason: str) -> RunRecord:
        request = (
            update(runs)
            .where(_is(user_id, run_id), runs.c.end_time.is_(None))
            .values(cancel_reason=func.coalesce(runs.c.cancel_reason, reason), status=status_when_cancelled())
        )

        async def work(connection: AsyncConnection) -> RunRecord:
            await connection.execute(request)
            return await _get(connection, user_id, run_id)

        return await self._database.write(work)

    async def get(self, user_id: str, run_id: str) -> RunRecord:
        return await self._database.read(lambda connection: _get(connection, user_id, run_id))

    async def find_by_client_message(self, user_id: str, client_message_id: str) -> RunRecord:
        query = select_runs().where(runs.c.user_id == user_id, runs.c.client_message_id == client_message_id)
        row = (await self._database.read(lambda connection: connection.execute(query))).one_or_none()
        if row is None:
            raise RecordNotFoundError("run", client_message_id)
        return run_record(row)

    async def list(
        self,
        user_id: str,
        *,
        thread_id: str | None = None,
        statuses: Collection[RunStatus] = (),
        page_size: int,
        page_token: str = "",
    ) -> Page[RunRecord]:
        listing = ("runs", user_id, thread_id or "", ",".join(sorted(statuses)))
        query = select_runs().where(runs.c.user_id == user_id)
        if thread_id is not None:
            query = query.where(runs.c.thread_id == thread_id)
        if statuses:
            query = query.where(runs.c.status.in_(statuses))
        if after := read_token(page_token, *listing):
            moment, last_id = after
            query = query.where(tuple_(runs.c.create_time, runs.c.id) < (from_microseconds(moment), last_id))
        query = query.order_by(runs.c.create_time.desc(), runs.c.id.desc()).limit(page_size + 1)
        rows = await self._database.read(lambda connection: connection.execute(query))
        return cut_page([run_record(row) for row in rows], page_size, _sort_key, *listing)

    async def count_queued(self) -> int:
        query = select(func.count()).where(runs.c.end_time.is_(None), runs.c.status == RunStatus.QUEUED)
        return (await self._database.read(lambda connection: connection.execute(query))).scalar_one()


def _sort_key(run: RunRecord) -> SortKey:
    return to_microseconds(run.create_time), run.run_id


def _is(user_id: str, run_id: str) -> ColumnElement[bool]:
    return and_(runs.c.id == run_id, runs.c.user_id == user_id)


async def _get(connection: AsyncConnection, user_id: str, run_id: str) -> RunRecord:
    row = (await connection.execute(select_runs().where(_is(user_id, run_id)))).one_or_none()
    if row is None:
        raise RecordNotFoundError("run", run_id)
    return run_record(row)
