"""A run waits for a person, outside of any worker, and goes on when all its questions are answered."""

from collections.abc import Collection

from sqlalchemy import BigInteger, ColumnElement, Update, bindparam, case, exists, insert, select, update

from storage.appends import check_appends
from storage.database import Database
from storage.errors import RecordNotFoundError
from storage.prepared import Transaction
from storage.records import Append, Resolution, RunStatus
from storage.schema import KEY, approvals, runs


class NotOpenError(Exception):
    """A question is answered already, or its time is over, or not over yet. Nothing was written."""


class Waiting:
    """The transactions, with their statements prepared."""

    def __init__(self, database: Database) -> None:
        self._dialect = database.dialect
        now = self._dialect.now()
        run_id, approval_id = bindparam("of_run", type_=KEY), bindparam("of_approval", type_=KEY)
        this_question = (approvals.c.run_id == run_id, approvals.c.approval_id == approval_id)
        of_user = (runs.c.id == run_id, runs.c.user_id == bindparam("user_id"))
        self._leave = database.prepare(
            update(runs)
            .where(runs.c.id == run_id, runs.c.epoch == bindparam("of_epoch"), runs.c.end_time.is_(None))
            .values(
                status=case((runs.c.cancel_reason.is_(None), RunStatus.WAITING_APPROVAL), else_=runs.c.status),
                worker_id=None,
                lease_expire_time=None,
                claims=0,
            )
            .returning(runs.c.id)
        )
        wait_ms = bindparam("wait_ms", type_=BigInteger)
        self._ask = database.prepare(
            insert(approvals).from_select(
                ["run_id", "approval_id", "expire_time"],
                select(run_id, approval_id, self._dialect.after(wait_ms)).where(~exists().where(*this_question)),
            )
        )
        self._advance = database.prepare(
            update(runs)
            .where(
                *of_user,
                runs.c.epoch == bindparam("of_epoch"),
                runs.c.last_seq == bindparam("after_seq"),
                runs.c.status == RunStatus.WAITING_APPROVAL,
            )
            .values(epoch=runs.c.epoch + 1, last_seq=bindparam("new_seq"), status=bindparam("new_status"))
            .returning(runs.c.id)
        )
        self._find = database.prepare(select(runs.c.id).where(*of_user))
        in_time = database.prepare(_answer(*this_question, approvals.c.expire_time > now))
        too_late = database.prepare(_answer(*this_question, approvals.c.expire_time <= now))
        self._answers = {False: in_time, True: too_late}

    def wait(self, run_id: str, epoch: int, approval_ids: Collection[str], wait_ms: int) -> Transaction[bool]:
        """Do what `storage.interfaces.Runs.wait` says."""
        left = yield self._leave(of_run=run_id, of_epoch=epoch)
        if not left:
            return False
        for approval_id in sorted(approval_ids):
            yield self._ask(of_run=run_id, of_approval=approval_id, wait_ms=wait_ms)
        return True

    def resolve(self, user_id: str, resolution: Resolution) -> Transaction[bool]:
        """Do what `storage.interfaces.Runs.resolve` says; raises `NotOpenError` where a question is not open."""
        run_id = resolution.run_id
        advanced = yield self._advance(
            of_run=run_id,
            user_id=user_id,
            of_epoch=resolution.epoch,
            after_seq=resolution.after_seq,
            new_seq=resolution.after_seq + len(resolution.events),
            new_status=status_after(resolution),
        )
        if not advanced:
            found = yield self._find(of_run=run_id, user_id=user_id)
            if not found:
                raise RecordNotFoundError("run", run_id)
            return False
        answer = self._answers[resolution.lapsed]
        for approval_id in resolution.approval_ids:
            edited = resolution.edited_args.get(approval_id)
            answered = yield answer(of_run=run_id, of_approval=approval_id, edited=edited)
            if not answered:
                raise NotOpenError(approval_id)
        yield from self._dialect.insert_events(resolution.events)
        return True


def _answer(*which: ColumnElement[bool]) -> Update:
    return (
        update(approvals)
        .where(*which)
        .values(expire_time=None, edited_args=bindparam("edited"))
        .returning(approvals.c.approval_id)
    )


def status_after(resolution: Resolution) -> RunStatus:
    """Return the state of a run after these answers."""
    return RunStatus.QUEUED if resolution.goes_on else RunStatus.WAITING_APPROVAL


def check_resolution(resolution: Resolution) -> None:
    """Raise `ValueError` for events that do not follow the log."""
    check_appends([Append(resolution.run_id, resolution.epoch, resolution.after_seq, resolution.events)])


def status_when_cancelled() -> ColumnElement[str]:
    """Return the state of an open run whose end is requested: one that waits is queued, so that a worker ends it."""
    return case((runs.c.status == RunStatus.WAITING_APPROVAL, RunStatus.QUEUED), else_=runs.c.status)
