"""Claiming: a worker takes runs off the queue, which is the runs table itself, in one transaction."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, ColumnElement, Select, and_, bindparam, case, func, not_, or_, select, update

from storage.database import Database
from storage.dialect import StorageDialect
from storage.prepared import Transaction
from storage.records import RunRecord, RunStatus
from storage.rows import run_record, select_runs
from storage.schema import runs


class Claiming:
    """The transaction, with its statements prepared."""

    def __init__(self, database: Database) -> None:
        dialect = database.dialect
        taking_over = runs.c.status == RunStatus.RUNNING
        self._choose = database.prepare(_choose(dialect))
        self._claim = database.prepare(
            update(runs)
            .where(runs.c.id == bindparam("run_id"))
            .values(
                status=RunStatus.RUNNING,
                epoch=runs.c.epoch + 1,
                claims=runs.c.claims + 1,
                attempt=case((taking_over, runs.c.attempt + 1), else_=runs.c.attempt),
                worker_id=bindparam("worker"),
                lease_expire_time=dialect.after(bindparam("lease_ms", type_=BigInteger)),
                start_time=func.coalesce(runs.c.start_time, dialect.now()),
            )
        )
        self._get = database.prepare(select_runs().where(runs.c.id == bindparam("run_id")))

    def claim(self, worker_id: str, lease_ms: int, limit: int) -> Transaction[Sequence[RunRecord]]:
        """Do what `storage.interfaces.Runs.claim` says."""
        chosen = yield self._choose(limit=limit)
        claimed: list[RunRecord] = []
        for choice in chosen:
            yield self._claim(run_id=choice.id, worker=worker_id, lease_ms=lease_ms)
            rows = yield self._get(run_id=choice.id)
            claimed.append(run_record(rows[0]))
        return claimed


def unheld(dialect: StorageDialect) -> ColumnElement[bool]:
    """Return whether no worker holds the run under a live lease."""
    return or_(runs.c.worker_id.is_(None), runs.c.lease_expire_time <= dialect.now())


def _choose(dialect: StorageDialect) -> Select[tuple[str]]:
    """Return the query for the ids that a claim takes, in order; it locks them and passes over locked ones."""
    running = runs.c.status == RunStatus.RUNNING
    claimable = or_(runs.c.status == RunStatus.QUEUED, running)
    free = unheld(dialect)
    # One pass over the open runs; materialized, because the planner cannot know how few they are.
    candidates = (
        select(
            runs.c.id,
            runs.c.user_id,
            runs.c.epoch,
            runs.c.create_time,
            and_(claimable, free).label("is_free"),
            func.row_number().over(partition_by=runs.c.thread_id, order_by=runs.c.position).label("place"),
            func.count(case((and_(running, not_(free)), 1))).over(partition_by=runs.c.user_id).label("working"),
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
        .where(claimable)
        .order_by(ranked.c.round, ranked.c.working, ranked.c.create_time, ranked.c.id)
        .limit(bindparam("limit"))
        .with_for_update(of=runs, skip_locked=True, key_share=True)
    )
