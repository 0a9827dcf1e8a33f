"""What the engine asks of storage. One behaviour suite holds every implementation against these docstrings.

Every look-up filters by `user_id` in the query itself: what belongs to somebody else is `RecordNotFoundError`.
Cursors are exclusive ("after"). Any method may raise `StorageUnavailableError`. Leases use the database's time.
A caller that is cancelled abandons the answer, not the work: what it began is committed or rolled back as a whole.
Text must not hold U+0000, which PostgreSQL cannot store: the border refuses it.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from storage.records import (
    Accepted,
    Append,
    AppendOutcome,
    Beat,
    Checkpoint,
    CorpusRecord,
    DocumentChange,
    DocumentRecord,
    FileRecord,
    MessageRecord,
    NewDocument,
    NewRun,
    Page,
    PassageRecord,
    PlanRecord,
    Position,
    Resolution,
    RunRecord,
    RunStatus,
    SearchResult,
    StoredEvent,
    ThreadRecord,
)

MAX_CACHED_BYTES: Final = 1024 * 1024
"""Of one value in a `Cache`."""


class EventLog(Protocol):
    """The append-only log of every run. `(run_id, seq)` is unique: a forked log is impossible."""

    async def append(self, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        """Write all appends in one transaction and return one outcome each, in order.

        An append is FENCED, alone and wholly, unless the run's row still has its `epoch` and `last_seq ==
        after_seq` and the run is open. A checkpoint resets the run's `claims`. An ending sets status, end time and
        error reason, clears worker and lease, saves the assistant message and makes the end time the thread's update
        time. An append without events is allowed: it writes only its checkpoint or ending, under the same fence.

        Raises `ValueError`, with nothing written, for two appends of one run in one call, for events that are not
        `after_seq + 1`, `+ 2`, … of that run, and for an ending whose status is open. A COMMIT whose outcome is unknown
        raises `StorageUnavailableError` with `outcome_unknown`.
        """
        ...

    async def read(
        self, user_id: str, run_id: str, after_seq: int, *, max_events: int, max_bytes: int
    ) -> Sequence[StoredEvent]:
        """Return committed events with `seq > after_seq` in order: at least one if there is any, then to both limits.

        There is no gap: a further call with the last event's seq goes on right after it. Raises `RecordNotFoundError`
        for an unknown run.
        """
        ...

    async def positions(self, run_ids: Collection[str], *, final: bool = True) -> Mapping[str, Position]:
        """Return where each run's log stands; unknown runs are absent. For the service itself, never for a user.

        `final`: waits for a transaction that is still at work on one of the runs, so that after a COMMIT of unknown
        outcome the answer is final. Without it: what is committed now; waits for nobody, and nobody waits for it.
        """
        ...

    async def checkpoint(self, run_id: str) -> Checkpoint | None:
        """Return the run's newest checkpoint, None when there is none. For the service itself, never for a user."""
        ...


class Runs(Protocol):
    """The runs table, which is also the queue."""

    async def accept(self, new: NewRun) -> Accepted:
        """Save a new run with its first events in one transaction, or find the one that its key names.

        In this order: the same user and `client_message_id` return the existing run (`already_existed`) or raise
        `IdempotencyMismatchError` when the fingerprint differs, also for racing calls; an existing thread is looked up
        (`RecordNotFoundError`); `TooManyOpenRunsError` when the user has `max_open_runs` open runs already; the
        thread's open runs are treated by `conflict`: ENQUEUE leaves them, REJECT raises `ThreadBusyError`, INTERRUPT
        requests their cancellation as `request_cancel` does, ROLLBACK also sets their `superseded_by_run_id`. In both
        an earlier cancel reason, and an earlier successor, stays. The thread's update time becomes the run's create
        time.
        """
        ...

    async def claim(self, worker_id: str, *, lease_ms: int, limit: int) -> Sequence[RunRecord]:
        """Claim up to `limit` runs for this worker: epoch + 1, claims + 1, status RUNNING, start time on the first.

        Claimable is the first open run (by position) of a thread when it is QUEUED or RUNNING and no worker holds it
        under a live lease; RUNNING ones also get attempt + 1. They are returned in the order in which they were chosen:
        first one of each user, then a second of each, and so on; within such a round users with fewer working runs
        (RUNNING under a live lease) come first, then older runs. So no user gets two runs from one call while another
        user, whose run is claimable, gets none. No two workers get the same run.
        """
        ...

    async def claim_run(self, user_id: str, run_id: str, worker_id: str, *, lease_ms: int) -> RunRecord | None:
        """Claim this open run (epoch + 1, nothing else changes but worker and lease) unless a live worker holds it.

        Returns None when it is held or already ended. Raises `RecordNotFoundError`. Used to end a run that nobody works
        on.
        """
        ...

    async def beat(self, worker_id: str, epochs: Mapping[str, int], *, lease_ms: int) -> Sequence[Beat]:
        """Renew the leases of the runs this worker holds under these epochs; one `Beat` per run, in order.

        A run that has ended or was deleted is no longer held.
        """
        ...

    async def release(self, run_id: str, epoch: int) -> bool:
        """Hand a held run over gracefully: no worker, claimable at once, `claims` back to 0.

        False when fenced, that is when the epoch is another one, or the run has ended or was deleted. Doing it twice is
        fine.
        """
        ...

    async def release_all(self) -> int:
        """Take the worker from every open run, so that it is claimable at once; return how many had one.

        `claims` stays, for this is how a crash is taken up. A waiting run has no worker, and goes on waiting. Only for
        the holder of the data directory's lock.
        """
        ...

    async def wait(self, run_id: str, epoch: int, approval_ids: Collection[str], *, wait_ms: int) -> bool:
        """Let a held run wait for a person: WAITING_APPROVAL, no worker, `claims` back to 0.

        Each of the questions can be answered within `wait_ms`; one that was asked before keeps its time. A run whose
        cancellation is requested does not wait: it is released. False when fenced, as for `release`.
        """
        ...

    async def resolve(self, user_id: str, resolution: Resolution) -> bool:
        """Answer questions of a waiting run in one transaction: epoch + 1, the events, the arguments as edited.

        The run is QUEUED if it `goes_on`, else it still waits. False, with nothing written, unless the run waits at
        this `epoch` and `after_seq`, and each question is open and its time not over (`lapsed`: over): of racing calls
        one gets True. Raises `RecordNotFoundError`, and `ValueError` as `EventLog.append` does.
        """
        ...

    async def lapsed(self, *, limit: int) -> Sequence[RunRecord]:
        """Return up to `limit` waiting runs with a question whose time is over, oldest first. For the service."""
        ...

    async def edited_args(self, user_id: str, run_id: str) -> Mapping[str, bytes]:
        """Return the arguments that people gave in place of a model's, by approval. Raises `RecordNotFoundError`."""
        ...

    async def request_cancel(self, user_id: str, run_id: str, reason: str) -> RunRecord:
        """Set the cancel reason of an open run (the first reason stays) and return the run as it now is.

        A waiting run becomes QUEUED, so that a worker ends it. A run that has ended is returned unchanged. Raises
        `RecordNotFoundError`.
        """
        ...

    async def get(self, user_id: str, run_id: str) -> RunRecord:
        """Return the run. Raises `RecordNotFoundError`."""
        ...

    async def find_by_client_message(self, user_id: str, client_message_id: str) -> RunRecord:
        """Return the run that this key started. Raises `RecordNotFoundError`."""
        ...

    async def list(
        self,
        user_id: str,
        *,
        thread_id: str | None = None,
        statuses: Collection[RunStatus] = (),
        page_size: int,
        page_token: str = "",
    ) -> Page[RunRecord]:
        """List runs, newest first; no statuses means all. Raises `InvalidPageTokenError`.

        A thread that is unknown, or somebody else's, has no runs.
        """
        ...

    async def count_queued(self) -> int:
        """Return how many runs of all users are QUEUED: a hint for the queue position."""
        ...


class Threads(Protocol):
    """Conversations and their messages."""

    async def create(self, thread: ThreadRecord) -> ThreadRecord:
        """Save a new thread and return it."""
        ...

    async def get(self, user_id: str, thread_id: str) -> ThreadRecord:
        """Return the thread. Raises `RecordNotFoundError`."""
        ...

    async def list(self, user_id: str, *, query: str = "", page_size: int, page_token: str = "") -> Page[ThreadRecord]:
        """List threads by update time, newest first.

        `query` matches titles, and messages that are not superseded, as a substring; upper and lower case are equal, on
        PostgreSQL as far as the database's locale knows them. Raises `InvalidPageTokenError`.
        """
        ...

    async def rename(self, user_id: str, thread_id: str, title: str, update_time: datetime) -> ThreadRecord:
        """Set the title. Raises `RecordNotFoundError`."""
        ...

    async def delete(self, user_id: str, thread_id: str) -> None:
        """Remove the thread with its messages, runs, events and checkpoints. Raises `RecordNotFoundError`.

        A worker that still writes to one of its runs is fenced. Files that its runs made stay.
        """
        ...

    async def list_messages(
        self, user_id: str, thread_id: str, *, page_size: int, page_token: str = ""
    ) -> Page[MessageRecord]:
        """List messages that are not superseded, by run, user before assistant, oldest first.

        Raises `RecordNotFoundError`, `InvalidPageTokenError`.
        """
        ...

    async def history(
        self, user_id: str, thread_id: str, *, before_position: int, limit: int
    ) -> Sequence[MessageRecord]:
        """Return the last `limit` messages, oldest first, of runs whose position is lower; superseded ones left out.

        An unknown thread has none.
        """
        ...


class Upload(Protocol):
    """A file on its way in. Leaving the context without `commit` keeps nothing.

    A cancelled `commit` goes on to its end, as every write does: the file is there wholly or not at all.
    """

    async def __aenter__(self) -> Self:
        """Begin."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Throw away what was not committed."""
        ...

    async def write(self, data: bytes) -> None:
        """Take the next bytes, in pieces of any size. Raises `FileTooLargeError` as soon as the limit is passed."""
        ...

    async def commit(self, create_time: datetime) -> FileRecord:
        """Make the file visible, atomically and durably, and return its record. Once, and nothing after it.

        Raises `FileTooLargeError` when `write` has, so that nobody keeps half a file by mistake.
        """
        ...


class Files(Protocol):
    """Files of users. Content is keyed by `(user_id, sha256)`: the same content of one user is kept once."""

    def upload(
        self,
        user_id: str,
        file_id: str,
        name: str,
        media_type: str,
        *,
        max_bytes: int,
        run_id: str | None = None,
        description: str = "",
    ) -> Upload:
        """Return an upload to be used as an async context manager."""
        ...

    async def get(self, user_id: str, file_id: str) -> FileRecord:
        """Return the record. Raises `RecordNotFoundError`."""
        ...

    async def list(self, user_id: str, *, page_size: int, page_token: str = "") -> Page[FileRecord]:
        """List files, newest first. Raises `InvalidPageTokenError`."""
        ...

    async def delete(self, user_id: str, file_id: str) -> None:
        """Remove the file, and its content when no other file of the user has it. Raises `RecordNotFoundError`."""
        ...

    def read(self, user_id: str, file_id: str) -> AsyncIterator[bytes]:
        """Yield the content in order, in pieces of at most 256 KiB.

        Raises `RecordNotFoundError` at the first piece, or at a later one when the file is deleted meanwhile.
        """
        ...

    async def local_path(self, user_id: str, file_id: str) -> Path:
        """Return a path on this machine that holds exactly the content, for reading only, soon.

        With PostgreSQL it is in a cache, where it stays at least an hour after its last use. Raises
        `RecordNotFoundError`.
        """
        ...


class Corpora(Protocol):
    """Knowledge bases: documents cut into passages, searched by their words."""

    async def create(self, corpus: CorpusRecord, *, max_corpora: int) -> CorpusRecord:
        """Save a new corpus, or return the one that the user has under this name, also for racing calls.

        Names are equal without regard to case and the number of spaces. Raises `CorpusLimitError` when the user has
        `max_corpora` already.
        """
        ...

    async def get(self, user_id: str, corpus_id: str) -> CorpusRecord:
        """Return the corpus. Raises `RecordNotFoundError`."""
        ...

    async def list(self, user_id: str) -> Sequence[CorpusRecord]:
        """Return all corpora of the user, by name."""
        ...

    async def delete(self, user_id: str, corpus_id: str) -> None:
        """Remove the corpus with its documents. Raises `RecordNotFoundError`."""
        ...

    async def add_document(
        self, document: NewDocument, *, max_documents: int, max_passages: int
    ) -> tuple[DocumentRecord, DocumentChange]:
        """Save a document (ADDED), or return the one of the corpus that has the same `sha256` (UNCHANGED).

        Raises `RecordNotFoundError` for the corpus, `CorpusLimitError` when it would have more documents or passages
        than these.
        """
        ...

    async def replace_document(
        self, document: NewDocument, *, max_passages: int
    ) -> tuple[DocumentRecord, DocumentChange]:
        """Give the document of this id another title, source and text (UPDATED; UNCHANGED where they are the same).

        Its corpus and create time stay. Raises `RecordNotFoundError`, `DuplicateDocumentError`, `CorpusLimitError`.
        """
        ...

    async def get_document(self, user_id: str, document_id: str) -> DocumentRecord:
        """Return the document. Raises `RecordNotFoundError`."""
        ...

    async def list_documents(
        self, user_id: str, corpus_id: str, *, page_size: int, page_token: str = ""
    ) -> Page[DocumentRecord]:
        """List documents, newest first. Raises `RecordNotFoundError` for the corpus, `InvalidPageTokenError`."""
        ...

    async def delete_document(self, user_id: str, document_id: str, update_time: datetime) -> None:
        """Remove the document; its corpus changed at this time. Raises `RecordNotFoundError`."""
        ...

    def read(self, user_id: str, corpus_id: str) -> AsyncIterator[PassageRecord]:
        """Yield the passages of all documents, oldest document first, each in its order.

        Raises `RecordNotFoundError` at the first one. What changes meanwhile may be seen as it was or as it is.
        """
        ...

    async def search(self, user_id: str, query: str, *, corpus_ids: Collection[str], limit: int) -> SearchResult:
        """Return the `limit` passages that fit the query best, of these corpora, or of all that the user has.

        The query is words, never syntax; English words are equal by their stem. Raises `RecordNotFoundError` for a
        corpus.
        """
        ...

    async def version(self, user_id: str) -> str:
        """Return a short text that changes with every change of the user's corpora, and only then."""
        ...


class ActionPlans(Protocol):
    """Plans of actions. They go with the thread that they were made in."""

    async def create(self, plan: PlanRecord) -> PlanRecord:
        """Save a new plan and return it; a plan of this id that the user has already is returned as it is."""
        ...

    async def get(self, user_id: str, plan_id: str) -> PlanRecord:
        """Return the plan. Raises `RecordNotFoundError`."""
        ...

    async def list(self, user_id: str, *, limit: int) -> Sequence[PlanRecord]:
        """Return the `limit` plans that changed last, the newest first."""
        ...

    async def replace(
        self, user_id: str, plan_id: str, document: bytes, *, version: int, update_time: datetime
    ) -> PlanRecord | None:
        """Save a changed document as `version + 1` and return the plan.

        None, and nothing is saved, when the plan is no longer at `version`. Raises `RecordNotFoundError`.
        """
        ...


class Cache(Protocol):
    """Small values for a while, which anybody may lose at any time: it never raises, it merely does not have them."""

    async def get(self, key: str) -> bytes | None:
        """Return the value, None when there is none, its time is over, or the cache cannot be asked."""
        ...

    async def set(self, key: str, value: bytes, *, ttl_s: int) -> None:
        """Keep a value for at most so many seconds, in place of what the key had.

        A value of more than `MAX_CACHED_BYTES`, or a time of 0, is not kept.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


class Storage(Protocol):
    """All of storage. Close it once, after everything that uses it."""

    @property
    def events(self) -> EventLog:
        """The event log."""
        ...

    @property
    def runs(self) -> Runs:
        """The runs table."""
        ...

    @property
    def threads(self) -> Threads:
        """Threads and messages."""
        ...

    @property
    def files(self) -> Files:
        """Files."""
        ...

    @property
    def corpora(self) -> Corpora:
        """Knowledge bases."""
        ...

    @property
    def plans(self) -> ActionPlans:
        """Plans of actions."""
        ...

    async def ping(self) -> None:
        """Return when the database answers. Raises `StorageUnavailableError`."""
        ...

    async def close(self) -> None:
        """Release connections and locks."""
        ...
