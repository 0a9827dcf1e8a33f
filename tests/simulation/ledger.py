"""The judge of every write: a second account of what was committed, kept beside the database, and what must hold in it.

It sees each operation at the moment at which it takes effect, whoever asked for it, and keeps what is deleted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from agent_service.engine.attempt import MAX_CLAIMS
from storage.memory_state import MemoryState
from storage.records import Accepted, Append, AppendOutcome, Ending, NewRun, RunRecord, RunStatus, ThreadConflict
from tests.simulation.loop import Machine
from tests.simulation.verdict import Verdict

UNKNOWN: Final = "a run that nobody accepted"


@dataclass(slots=True)
class Account:
    """What is known of one run. `holder` is who claimed it last, `by_queue` tells whether as a worker does."""

    run: RunRecord
    content: str
    conflict: ThreadConflict
    events: list[bytes]
    accept_time: datetime
    #: When each event was committed.
    times: list[datetime] = field(default_factory=list)
    epoch: int = 0
    holder: Machine | None = None
    by_queue: bool = False
    claim_time: datetime | None = None
    ending: Ending | None = None
    end_epoch: int = -1
    is_deleted: bool = False
    handed_over: bool = False
    cancel_asked: bool = False

    @property
    def is_open(self) -> bool:
        """True while the run is there and has not ended."""
        return self.ending is None and not self.is_deleted


@dataclass(slots=True)
class Ledger:
    """All runs, and when each machine was last in trouble that may cost it its leases."""

    state: MemoryState
    verdict: Verdict
    accounts: dict[str, Account] = field(default_factory=dict)
    troubles: dict[Machine, datetime] = field(default_factory=dict)
    draining: dict[Machine, None] = field(default_factory=dict)
    deletions: dict[str, datetime] = field(default_factory=dict)

    def trouble(self, machine: Machine) -> None:
        """Note that this machine may lose what it holds, through no fault of its own."""
        self.troubles[machine] = self.state.now()

    def of_thread(self, thread_id: str) -> list[Account]:
        """Return the runs of a thread in the order of acceptance."""
        return [account for account in self.accounts.values() if account.run.thread_id == thread_id]

    def open_accounts(self) -> list[Account]:
        """Return the runs that have not ended."""
        return [account for account in self.accounts.values() if account.is_open]

    def in_trouble_since(self, machine: Machine, moment: datetime) -> bool:
        """Tell whether anything happened to this machine at that moment or later."""
        trouble = self.troubles.get(machine)
        return machine.is_held or (trouble is not None and trouble >= moment)

    def held_for_nothing(self, machine: Machine) -> list[str]:
        """Return the runs that a machine, which has stopped, took from the queue and could have handed over."""
        return [
            run_id
            for run_id, account in self.accounts.items()
            if account.is_open
            and account.by_queue
            and account.holder is machine
            and not account.handed_over
            and account.claim_time is not None
            and not self.in_trouble_since(machine, account.claim_time)
        ]

    def accepted(self, new: NewRun, accepted: Accepted) -> None:
        """A message was saved, or found."""
        run, require = accepted.run, self.verdict.require
        if accepted.already_existed:
            known = self.accounts.get(run.run_id)
            require(known is not None and not known.is_deleted, f"a repeated message found {UNKNOWN}: {run.run_id}")
            return
        if new.client_message_id:
            same = [
                other.run.run_id
                for other in self.accounts.values()
                if (other.run.user_id, other.run.client_message_id) == (new.user_id, new.client_message_id)
                and not other.is_deleted
            ]
            require(not same, f"one run per user and key: {run.run_id} and {same} have {new.client_message_id}")
        before = [account for account in self.of_thread(run.thread_id) if account.is_open]
        require(new.conflict is not ThreadConflict.REJECT or not before, f"{run.run_id}: REJECT in a busy thread")
        first = [event.data for event in accepted.events]
        now = self.state.now()
        times = [now] * len(first)
        self.accounts[run.run_id] = Account(run, new.content, new.conflict, first, now, times)
        seqs = [event.seq for event in accepted.events]
        require(seqs == list(range(1, run.last_seq + 1)) and bool(seqs), f"{run.run_id} began with events {seqs}")
        gives_way = new.conflict in {ThreadConflict.INTERRUPT, ThreadConflict.ROLLBACK}
        for account in before:
            row = self.state.runs[account.run.run_id]
            account.cancel_asked = row.cancel_reason is not None
            require(not gives_way or account.cancel_asked, f"{row.run_id} was not told to give way")
            superseded = new.conflict is not ThreadConflict.ROLLBACK or row.superseded_by_run_id is not None
            require(superseded, f"{row.run_id} was rolled back, and is not superseded")

    def claimed(self, run: RunRecord, before: RunRecord, machine: Machine, *, by_queue: bool) -> None:
        """A worker took a run, from the queue or to end it."""
        account, require = self.accounts[run.run_id], self.verdict.require
        now = self.state.now()
        held = before.lease_expire_time is not None and before.lease_expire_time > now
        require(not held, f"{run.run_id} was claimed by {machine} while {account.holder} holds it")
        require(account.is_open, f"{run.run_id} was claimed after its end")
        require(run.epoch == account.epoch + 1, f"{run.run_id}: a claim makes epoch {account.epoch} to {run.epoch}")
        if by_queue:
            earlier = self.of_thread(run.thread_id)
            waiting = [one.run.run_id for one in earlier if one.is_open and one.run.position < run.position]
            require(not waiting, f"{run.run_id} was claimed before the run before it ended: {waiting}")
            if before.status is RunStatus.RUNNING and account.by_queue and not account.handed_over:
                self._check_cause(account)
        account.epoch, account.holder, account.by_queue = run.epoch, machine, by_queue
        account.claim_time, account.handed_over = now, False

    def _check_cause(self, account: Account) -> None:
        """Nobody loses a run who works as he should."""
        assert account.holder is not None
        assert account.claim_time is not None
        caused = account.holder.is_dead or self.in_trouble_since(account.holder, account.claim_time)
        self.verdict.require(caused, f"{account.run.run_id} was taken from {account.holder}, which was well")

    def begun(self, run: RunRecord) -> None:
        """An agent begins to work on a claimed run."""
        text = f"{run.run_id} was lost {run.claims} times in a row, and is worked on again"
        self.verdict.require(run.claims <= MAX_CLAIMS, text)

    def left(self, run_id: str, attempt: int, machine: Machine | None) -> None:
        """A worker leaves a run because it was told that somebody else has it."""
        account, row = self.accounts[run_id], self.state.runs.get(run_id)
        still = account.is_open and account.holder is machine and row is not None and row.attempt == attempt
        self.verdict.require(not still, f"{machine} leaves {run_id} to others, and holds it")

    def released(self, run_id: str, machine: Machine) -> None:
        """A worker handed a run over."""
        account = self.accounts[run_id]
        self.verdict.require(account.holder is machine, f"{run_id} was released by {machine}, not {account.holder}")
        self.verdict.require(machine in self.draining, f"{run_id} was released by {machine}, which is not stopping")
        row = self.state.runs[run_id]
        free = (row.worker_id, row.lease_expire_time, row.claims) == (None, None, 0)
        self.verdict.require(free, f"{run_id} was released, and is still held by {row.worker_id}")
        account.handed_over = True

    def cancel_requested(self, run_id: str) -> None:
        """Somebody asked a run to end."""
        account = self.accounts[run_id]
        account.cancel_asked = account.cancel_asked or account.is_open

    def appended(self, appends: Sequence[Append], outcomes: Sequence[AppendOutcome], machine: Machine) -> None:
        """Events were committed, or refused."""
        self.verdict.require(len(outcomes) == len(appends), "one outcome per append")
        for append, outcome in zip(appends, outcomes, strict=True):
            account = self.accounts.get(append.run_id)
            if account is None:
                self.verdict.fail(f"{append.run_id} is {UNKNOWN}")
            elif outcome is AppendOutcome.FENCED:
                self._check_refusal(account, append, machine)
            else:
                self._write(account, append, machine)

    def _check_refusal(self, account: Account, append: Append, machine: Machine) -> None:
        own_end = account.ending is not None and account.end_epoch == append.epoch
        rightly = account.is_deleted or append.epoch != account.epoch or (account.ending is not None and not own_end)
        self.verdict.require(rightly, f"{machine} holds {append.run_id}, and was refused")

    def _write(self, account: Account, append: Append, machine: Machine) -> None:
        run_id, require = append.run_id, self.verdict.require
        require(account.is_open, f"{run_id} was written to by {machine} after its end")
        stale = f"{machine} wrote to {run_id} under epoch {append.epoch}, which is {account.epoch} by now"
        require(append.epoch == account.epoch, stale)
        require(account.holder is machine, f"{machine} wrote to {run_id}, which {account.holder} has claimed")
        require(
            append.after_seq == len(account.events), f"{run_id}: seq {append.after_seq} after {len(account.events)}"
        )
        terminal = [event.seq for event in append.events if event.terminal]
        ends = [append.events[-1].seq] if append.ending and append.events else []
        require(terminal == ends, f"{run_id}: terminal events {terminal}, and an ending with {ends}")
        account.events += [event.data for event in append.events]
        account.times += [self.state.now()] * len(append.events)
        if append.ending is None:
            require(account.by_queue, f"{machine} claimed {run_id} only to end it, and goes on with it")
            return
        account.ending, account.end_epoch = append.ending, append.epoch
        self._check_row(append.run_id, append.ending)
        cancelled = append.ending.status is RunStatus.CANCELLED
        require(account.by_queue or cancelled, f"{run_id} was claimed to be cancelled, and is {append.ending.status}")
        require(not cancelled or account.cancel_asked, f"{run_id} was cancelled, and nobody asked for it")

    def _check_row(self, run_id: str, ending: Ending) -> None:
        row, require = self.state.runs[run_id], self.verdict.require
        told = (ending.status, ending.end_time, ending.error_reason, None, None)
        saved = (row.status, row.end_time, row.error_reason, row.worker_id, row.lease_expire_time)
        require(saved == told, f"{run_id} ended as {told}, and its row says {saved}")
        completed = ending.status is RunStatus.COMPLETED
        require(completed == (ending.message is not None), f"{run_id} is {ending.status} with {ending.message}")
        failed = ending.status is RunStatus.FAILED
        require(failed == (ending.error_reason is not None), f"{run_id} is {ending.status} with {ending.error_reason}")
        if ending.message is not None:
            require(ending.message.message_id in self.state.messages, f"the answer of {run_id} was not saved")

    def deletion_asked(self, thread_id: str) -> None:
        """A user wants a thread to go: what it holds now has to end first."""
        self.deletions.setdefault(thread_id, self.state.now())

    def deleted(self, thread_id: str) -> None:
        """A thread went, with all that is in it."""
        for account in self.of_thread(thread_id):
            if account.is_open and account.accept_time < self.deletions[thread_id]:
                self.verdict.fail(f"{account.run.run_id} was deleted before its watchers saw its end")
            account.is_deleted = True
