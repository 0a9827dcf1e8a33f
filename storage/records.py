"""The values that storage takes and gives. All times are timezone-aware UTC; all ids are UUIDv7 strings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Generic, TypeVar

import msgspec

T = TypeVar("T")


class RunStatus(StrEnum):
    """The states of a run. The first three are open, the others final."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING_APPROVAL = "waiting_approval"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        """True while the run can still emit events."""
        return self in {RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING_APPROVAL}


class MessageRole(StrEnum):
    """Who wrote a message."""

    USER = "user"
    ASSISTANT = "assistant"


class ThreadConflict(StrEnum):
    """What acceptance does when the thread has an open run."""

    ENQUEUE = "enqueue"
    REJECT = "reject"
    INTERRUPT = "interrupt"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class ThreadRecord:
    """A conversation of one user."""

    thread_id: str
    user_id: str
    title: str
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """A message of a thread. `superseded_by_run_id` is set when a ROLLBACK replaced the message's run."""

    message_id: str
    thread_id: str
    run_id: str
    user_id: str
    role: MessageRole
    content: str
    create_time: datetime
    superseded_by_run_id: str | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as the runs table holds it.

    `position` counts the thread's runs from 1 in the order of acceptance. `request` is opaque to storage.
    `epoch` grows with every claim and fences its holder's writes. `attempt` starts at 1 and grows when another
    worker takes over. `claims` counts claims since the last checkpoint or graceful release.
    """

    run_id: str
    thread_id: str
    user_id: str
    scopes: tuple[str, ...]
    position: int
    status: RunStatus
    agent: str
    client_message_id: str
    fingerprint: str
    request: bytes
    user_message_id: str
    epoch: int
    attempt: int
    last_seq: int
    claims: int
    cancel_reason: str | None
    superseded_by_run_id: str | None
    worker_id: str | None
    lease_expire_time: datetime | None
    create_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    error_reason: str | None


class StoredEvent(msgspec.Struct, frozen=True, gc=False):
    """One committed event: `data` is the encoded contract event, the same bytes for every reader for ever."""

    run_id: str
    seq: int
    data: bytes
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class NewRun:
    """What acceptance saves in one transaction: thread (when new), user message, run (queued), first events.

    `started` is event 1. `queued` is event 2 and is saved when `must_wait` is set or the thread has an open run.
    An empty `client_message_id` is no idempotency key.
    """

    run_id: str
    thread_id: str
    new_thread_title: str | None
    user_id: str
    scopes: tuple[str, ...]
    agent: str
    client_message_id: str
    fingerprint: str
    request: bytes
    user_message_id: str
    content: str
    create_time: datetime
    started: bytes
    queued: bytes
    must_wait: bool
    conflict: ThreadConflict
    max_open_runs: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The outcome of acceptance. `events` are the saved first events (empty when the run already existed).

    `thread` is the run's thread as it now is; None when the run already existed.
    `interrupted` are the thread's other open runs whose cancellation was requested in the same transaction.
    """

    run: RunRecord
    already_existed: bool
    thread_created: bool = False
    thread: ThreadRecord | None = None
    events: Sequence[StoredEvent] = ()
    interrupted: Sequence[RunRecord] = ()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Opaque state of a run's worker, valid as of event `seq`. Only the newest of a run is kept."""

    seq: int
    version: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a run: saved in the same transaction as its terminal event."""

    status: RunStatus
    end_time: datetime
    message: MessageRecord | None = None
    error_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Append:
    """Events of one run, written by the holder of `epoch`; the first has seq `after_seq + 1`, without gaps."""

    run_id: str
    epoch: int
    after_seq: int
    events: Sequence[StoredEvent]
    checkpoint: Checkpoint | None = None
    ending: Ending | None = None


class AppendOutcome(StrEnum):
    """What became of one `Append`."""

    APPENDED = "appended"
    FENCED = "fenced"


@dataclass(frozen=True, slots=True)
class Resolution:
    """How questions of a waiting run were answered, by whoever read it at `epoch` and `after_seq`.

    `events` follow `after_seq` without gaps and answer exactly `approval_ids`. `goes_on`: nothing else is open.
    `lapsed`: it is time that answers, not a person. `edited_args` are opaque to storage, by approval.
    """

    run_id: str
    epoch: int
    after_seq: int
    events: Sequence[StoredEvent]
    approval_ids: tuple[str, ...]
    goes_on: bool
    lapsed: bool = False
    edited_args: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run's log stands."""

    epoch: int
    last_seq: int
    status: RunStatus


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a worker's heartbeat for one run. `held` is false when somebody else has claimed it."""

    run_id: str
    held: bool
    cancel_reason: str | None


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of one user. `run_id` names the run that made it; None for an upload. `sha256` is hexadecimal."""

    file_id: str
    user_id: str
    name: str
    media_type: str
    size_bytes: int
    sha256: str
    create_time: datetime
    run_id: str | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class CorpusRecord:
    """A knowledge base of one user. `documents`, `passages` and `size_bytes` count what it holds."""

    corpus_id: str
    user_id: str
    name: str
    description: str
    create_time: datetime
    update_time: datetime
    documents: int = 0
    passages: int = 0
    size_bytes: int = 0


HEADING_SEPARATOR: Final = " > "
"""Between a heading and the one within it."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document that can be found and quoted by itself.

    `heading` is what it stands under, or empty: the headings from the outermost, with `HEADING_SEPARATOR` between.
    """

    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """A document of a corpus. `source` says where it came from; `passages` and `size_bytes` measure its text."""

    document_id: str
    corpus_id: str
    user_id: str
    title: str
    source: str
    sha256: str
    size_bytes: int
    passages: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document to be saved. Two of a corpus never have the same `sha256`, which is of their whole text."""

    document_id: str
    corpus_id: str
    user_id: str
    title: str
    source: str
    sha256: str
    size_bytes: int
    passages: Sequence[Passage]
    time: datetime


class DocumentChange(StrEnum):
    """What became of a document."""

    ADDED = "added"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class PassageRecord:
    """A passage at its place. `position` counts a document's passages from 1."""

    document_id: str
    title: str
    source: str
    position: int
    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A passage that a search found. `spans` are where its text has a term: start, and end exclusive, in order.

    `score` only compares the hits of one search; higher is better.
    """

    corpus_id: str
    corpus_name: str
    passage: PassageRecord
    score: float
    spans: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found, best first. `terms` are the stems that were looked for.

    `found` counts the passages with at least one of them, up to those that were compared; `as_beginnings` says that no
    passage had one as a word, so that longer words were taken that begin with it.
    """

    terms: Sequence[str]
    hits: Sequence[SearchHit]
    found: int
    as_beginnings: bool


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing. An empty `next_page_token` says that there is no more."""

    items: Sequence[T]
    next_page_token: str = ""


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """A plan of actions of one user, made in one thread.

    `document` is opaque to storage. `version` starts at 1 and grows with every change.
    """

    plan_id: str
    user_id: str
    thread_id: str
    version: int
    document: bytes
    create_time: datetime
    update_time: datetime
