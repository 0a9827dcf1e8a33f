"""The runs table in memory."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from storage.acceptance import (
    INTERRUPTED,
    check_fingerprint,
    first_events,
    new_run_record,
    new_thread,
    user_message,
)
from storage.errors import RecordNotFoundError, ThreadBusyError, TooManyOpenRunsError
from storage.memory_state import MemoryState
from storage.paging import SortKey, cut_page, read_token
from storage.records import (
    Accepted,
    Beat,
    NewRun,
    Page,
    Resolution,
    RunRecord,
    RunStatus,
    ThreadConflict,
    ThreadRecord,
)
from storage.schema import to_microseconds
from storage.waiting import check_resolution, status_after


class MemoryRuns:
    """Implements `storage.interfaces.Runs`."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    async def accept(self, new: NewRun) -> Accepted:
        if existing := self._find(new.user_id, new.client_message_id):
            check_fingerprint(existing, new)
            return Accepted(existing, already_existed=True)
        if new.new_thread_title is None:
            self._state.thread(new.user_id, new.thread_id)
        if len(self._open_runs(new.user_id)) >= new.max_open_runs:
            raise TooManyOpenRunsError(f"the user already has {new.max_open_runs} open runs")
        earlier = self._state.runs_of(new.thread_id)
        still_open = [run for run in earlier if run.end_time is None]
        if still_open and new.conflict is ThreadConflict.REJECT:
            raise ThreadBusyError(f"thread {new.thread_id} has an open run")
        interrupted = self._give_way(still_open, new)
        events = first_events(new, thread_is_busy=bool(still_open))
        position = earlier[-1].position + 1 if earlier else 1
        run = new_run_record(new, position=position, last_seq=len(events))
        thread = self._save_thread(new)
        self._state.runs[run.run_id] = run
        self._state.events[run.run_id] = list(events)
        self._state.add_message(user_message(new))
        return Accepted(
            run,
            already_existed=False,
            thread_created=new.new_thread_title is not None,
            thread=thread,
            events=events,
            interrupted=interrupted,
        )

    async def claim(self, worker_id: str, *, lease_ms: int, limit: int) -> Sequence[RunRecord]:
        return [self._claim(run, worker_id, lease_ms) for run in self._ranked_claimable()[:limit]]

    async def claim_run(self, user_id: str, run_id: str, worker_id: str, *, lease_ms: int) -> RunRecord | None:
        run = self._state.run(user_id, run_id)
        if run.end_time or self._is_held(run):
            return None
        return self._save(
            replace(run, epoch=run.epoch + 1, worker_id=worker_id, lease_expire_time=self._after(lease_ms))
        )

    async def beat(self, worker_id: str, epochs: Mapping[str, int], *, lease_ms: int) -> Sequence[Beat]:
        return [self._beat(worker_id, run_id, epoch, lease_ms) for run_id, epoch in epochs.items()]

    async def release(self, run_id: str, epoch: int) -> bool:
        run = self._state.runs.get(run_id)
        if run is None or run.end_time or run.epoch != epoch:
            return False
        self._save(replace(run, worker_id=None, lease_expire_time=None, claims=0))
        return True

    async def release_all(self) -> int:
        held = [run for run in self._state.runs.values() if run.end_time is None and run.worker_id]
        for run in held:
            self._save(replace(run, worker_id=None, lease_expire_time=None))
        return len(held)

    async def wait(self, run_id: str, epoch: int, approval_ids: Collection[str], *, wait_ms: int) -> bool:
        if not await self.release(run_id, epoch):
            return False
        run = self._state.runs[run_id]
        if run.cancel_reason is None:
            self._save(replace(run, status=RunStatus.WAITING_APPROVAL))
        for approval_id in approval_ids:
            self._state.approvals.setdefault((run_id, approval_id), self._after(wait_ms))
        return True

    async def resolve(self, user_id: str, resolution: Resolution) -> bool:
        check_resolution(resolution)
        run = self._state.run(user_id, resolution.run_id)
        questions = [(run.run_id, approval_id) for approval_id in resolution.approval_ids]
        position = run.status, run.epoch, run.last_seq
        if position != (RunStatus.WAITING_APPROVAL, resolution.epoch, resolution.after_seq):
            return False
        if not all(self._is_open(question, lapsed=resolution.lapsed) for question in questions):
            return False
        self._state.approvals.update(dict.fromkeys(questions))
        self._state.edited_args.update({(run.run_id, key): args for key, args in resolution.edited_args.items()})
        self._state.events[run.run_id].extend(resolution.events)
        last_seq = run.last_seq + len(resolution.events)
        self._save(replace(run, epoch=run.epoch + 1, last_seq=last_seq, status=status_after(resolution)))
        return True

    async def lapsed(self, *, limit: int) -> Sequence[RunRecord]:
        now = self._state.now()
        over = {run_id for (run_id, _), time in self._state.approvals.items() if time is not None and time <= now}
        found = [run for run in self._state.runs.values() if run.run_id in over]
        waiting = [run for run in found if run.status is RunStatus.WAITING_APPROVAL]
        return sorted(waiting, key=_sort_key)[:limit]

    async def edited_args(self, user_id: str, run_id: str) -> Mapping[str, bytes]:
        self._state.run(user_id, run_id)
        return {key: args for (of_run, key), args in self._state.edited_args.items() if of_run == run_id}

    async def request_cancel(self, user_id: str, run_id: str, reason: str) -> RunRecord:
        run = self._state.run(user_id, run_id)
        if run.end_time:
            return run
        return self._save(_cancelled(run, reason))

    async def get(self, user_id: str, run_id: str) -> RunRecord:
        return self._state.run(user_id, run_id)

    async def find_by_client_message(self, user_id: str, client_message_id: str) -> RunRecord:
        if run := self._find(user_id, client_message_id):
            return run
        raise RecordNotFoundError("run", client_message_id)

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
        after = read_token(page_token, *listing)
        found = [
            run
            for run in self._state.runs.values()
            if run.user_id == user_id
            and thread_id in {None, run.thread_id}
            and (not statuses or run.status in statuses)
            and (after is None or _sort_key(run) < after)
        ]
        return cut_page(sorted(found, key=_sort_key, reverse=True), page_size, _sort_key, *listing)

    async def count_queued(self) -> int:
        return sum(run.status is RunStatus.QUEUED for run in self._state.runs.values())

    def _is_open(self, question: tuple[str, str], *, lapsed: bool) -> bool:
        expire_time = self._state.approvals.get(question)
        return expire_time is not None and (expire_time <= self._state.now()) is lapsed

    def _find(self, user_id: str, client_message_id: str) -> RunRecord | None:
        if not client_message_id:
            return None
        wanted = (user_id, client_message_id)
        return next((run for run in self._state.runs.values() if (run.user_id, run.client_message_id) == wanted), None)

    def _open_runs(self, user_id: str) -> Sequence[RunRecord]:
        return [run for run in self._state.runs.values() if run.user_id == user_id and run.end_time is None]

    def _give_way(self, still_open: Sequence[RunRecord], new: NewRun) -> Sequence[RunRecord]:
        if new.conflict not in {ThreadConflict.INTERRUPT, ThreadConflict.ROLLBACK}:
            return ()
        successor = new.run_id if new.conflict is ThreadConflict.ROLLBACK else None
        return [
            self._save(
                replace(_cancelled(run, INTERRUPTED), superseded_by_run_id=run.superseded_by_run_id or successor)
            )
            for run in still_open
        ]

    def _save_thread(self, new: NewRun) -> ThreadRecord:
        if (thread := new_thread(new)) is not None:
            self._state.threads[new.thread_id] = thread
        else:
            self._state.touch(new.thread_id, new.create_time)
        return self._state.threads[new.thread_id]

    def _ranked_claimable(self) -> Sequence[RunRecord]:
        heads: dict[str, RunRecord] = {}
        for run in sorted(self._state.runs.values(), key=lambda run: run.position):
            if run.end_time is None:
                heads.setdefault(run.thread_id, run)
        working = Counter(
            run.user_id for run in self._state.runs.values() if run.status is RunStatus.RUNNING and self._is_held(run)
        )
        rounds: Counter[str] = Counter()
        ranked: list[tuple[int, int, RunRecord]] = []
        for run in sorted(heads.values(), key=lambda run: (run.create_time, run.run_id)):
            if run.status in {RunStatus.QUEUED, RunStatus.RUNNING} and not self._is_held(run):
                rounds[run.user_id] += 1
                ranked.append((rounds[run.user_id], working[run.user_id], run))
        ranked.sort(key=lambda item: (item[0], item[1], item[2].create_time, item[2].run_id))
        return [run for _, _, run in ranked]

    def _claim(self, run: RunRecord, worker_id: str, lease_ms: int) -> RunRecord:
        return self._save(
            replace(
                run,
                status=RunStatus.RUNNING,
                epoch=run.epoch + 1,
                claims=run.claims + 1,
                attempt=run.attempt + (run.status is RunStatus.RUNNING),
                worker_id=worker_id,
                lease_expire_time=self._after(lease_ms),
                start_time=run.start_time or self._state.now(),
            )
        )

    def _beat(self, worker_id: str, run_id: str, epoch: int, lease_ms: int) -> Beat:
        run = self._state.runs.get(run_id)
        if run is None or run.end_time or (run.epoch, run.worker_id) != (epoch, worker_id):
            return Beat(run_id, held=False, cancel_reason=None)
        self._save(replace(run, lease_expire_time=self._after(lease_ms)))
        return Beat(run_id, held=True, cancel_reason=run.cancel_reason)

    def _is_held(self, run: RunRecord) -> bool:
        return run.lease_expire_time is not None and run.lease_expire_time > self._state.now()

    def _after(self, lease_ms: int) -> datetime:
        return self._state.now() + timedelta(milliseconds=lease_ms)

    def _save(self, run: RunRecord) -> RunRecord:
        self._state.runs[run.run_id] = run
        return run


def _cancelled(run: RunRecord, reason: str) -> RunRecord:
    waits = run.status is RunStatus.WAITING_APPROVAL
    status = RunStatus.QUEUED if waits else run.status
    return replace(run, status=status, cancel_reason=reason if run.cancel_reason is None else run.cancel_reason)


def _sort_key(run: RunRecord) -> SortKey:
    return to_microseconds(run.create_time), run.run_id
