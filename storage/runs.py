"""The runs table in a database: claims, leases, cancellation and look-ups. Acceptance has its own module."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import ColumnElement, Select, and_, case, func, not_, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.acceptance import accept
from storage.database import Database
from storage.dialect import StorageDialect
from storage.errors import RecordNotFoundError
from storage.paging import SortKey, cut_page, read_token
from storage.records import Accepted, Beat, NewRun, Page, RunRecord, RunStatus
from storage.rows import run_record, select_runs
from storage.schema import from_microseconds, runs, to_microseconds


class SqlRuns:
    """Implements `storage.interfaces.Runs`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.dialect

    async def accept(self, new: NewRun) -> Accepted:
        return await self._database.write(lambda connection: accept(connection, self._dialect, new))

    async def claim(self, worker_id: str, *, lease_ms: int, limit: int) -> Sequence[RunRecord]:
        taking_over = runs.c.status == RunStatus.RUNNING
        values = {
            "status": RunStatus.RUNNING,
            "epoch": runs.c.epoch + 1,
            "claims": runs.c.claims + 1,
            "attempt": case((taking_over, runs.c.attempt + 1), else_=runs.c.attempt),
            "worker_id": worker_id,
            "lease_expire_time": self._dialect.after(lease_ms),
            "start_time": func.coalesce(runs.c.start_time, self._dialect.now()),
        }

        async def work(connection: AsyncConnection) -> Sequence[RunRecord]:
            chosen = (await connection.execute(_choose(self._dialect, limit))).scalars().all()
            if not chosen:
                return ()
            await connection.execute(update(runs).where(runs.c.id.in_(chosen)).values(values))
            rows = await connection.execute(select_runs().where(runs.c.id.in_(chosen)))
            return sorted(map(run_record, rows), key=lambda run: chosen.index(run.run_id))

        return await self._database.write(work)

    async def claim_run(self, user_id: str, run_id: str, worker_id: str, *, lease_ms: int) -> RunRecord | None:
        claim = (
            update(runs)
            .where(_is(user_id, run_id), runs.c.end_time.is_(None), _unheld(self._dialect))
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

    async def request_cancel(self, user_id: str, run_id: str, reason: str) -> RunRecord:
        request = (
            update(runs)
            .where(_is(user_id, run_id), runs.c.end_time.is_(None))
            .values(cancel_reason=func.coalesce(runs.c.cancel_reason, reason))
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


def _unheld(dialect: StorageDialect) -> ColumnElement[bool]:
    """Return whether no worker holds the run under a live lease."""
    return or_(runs.c.worker_id.is_(None), runs.c.lease_expire_time <= dialect.now())


def _choose(dialect: StorageDialect, limit: int) -> Select[tuple[str]]:
    """Return the query for the ids that a claim takes, in order; it locks them and passes over locked ones."""
    claimable = (RunStatus.QUEUED, RunStatus.RUNNING)
    running = runs.c.status == RunStatus.RUNNING
    unheld = _unheld(dialect)
    # One pass over the open runs; materialized, because the planner cannot know how few they are.
    candidates = (
        select(
            runs.c.id,
            runs.c.user_id,
            runs.c.epoch,
            runs.c.create_time,
            and_(runs.c.status.in_(claimable), unheld).label("is_free"),
            func.row_number().over(partition_by=runs.c.thread_id, order_by=runs.c.position).label("place"),
            func.count(case((and_(running, not_(unheld)), 1))).over(partition_by=runs.c.user_id).label("working"),
        )
        .where(runs.c.end_time.is_(None))
        .cte("candidates")
        .prefix_with("MATERIALIZED")
    )
    by_age = (candidates.c.create_time, candidates.c.id)
    ranked = (
        select(
            *candidates.c,
            func.row_number().over(partition_by=candidates.c.user_id, order_by=by_age).label("round"),
        )
        .where(candidates.c.is_free, candidates.c.place == 1)
        .subquery()
    )
    return (
        select(runs.c.id)
        # Whoever claimed the run since the ranking was made has changed its epoch; whoever ended it, its status.
        .join(ranked, and_(ranked.c.id == runs.c.id, ranked.c.epoch == runs.c.epoch))
        .where(runs.c.status.in_(claimable))
        .order_by(ranked.c.round, ranked.c.working, ranked.c.create_time, ranked.c.id)
        .limit(limit)
        .with_for_update(of=runs, skip_locked=True, key_share=True)
    )
