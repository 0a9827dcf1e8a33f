"""What the in-memory storage holds, and the look-ups that its parts share."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from storage.errors import RecordNotFoundError
from storage.records import (
    Checkpoint,
    CorpusRecord,
    DocumentRecord,
    FileRecord,
    MessageRecord,
    MessageRole,
    Passage,
    PlanRecord,
    RunRecord,
    StoredEvent,
    ThreadRecord,
)


class MemoryState:
    """The tables, as dictionaries by id. A message's `superseded_by_run_id` is always its run's, as in the database."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.threads: dict[str, ThreadRecord] = {}
        self.runs: dict[str, RunRecord] = {}
        self.messages: dict[str, MessageRecord] = {}
        self.events: dict[str, list[StoredEvent]] = {}
        self.checkpoints: dict[str, Checkpoint] = {}
        #: By run and approval: until when it may be decided, None once it is; and what a person gave as arguments.
        self.approvals: dict[tuple[str, str], datetime | None] = {}
        self.edited_args: dict[tuple[str, str], bytes] = {}
        self.files: dict[str, FileRecord] = {}
        #: By user and plan.
        self.plans: dict[tuple[str, str], PlanRecord] = {}
        #: By user and SHA-256.
        self.contents: dict[tuple[str, str], bytes] = {}
        self.corpora: dict[str, CorpusRecord] = {}
        #: By corpus: how often it has changed.
        self.revisions: dict[str, int] = {}
        self.documents: dict[str, DocumentRecord] = {}
        #: By document, in order.
        self.passages: dict[str, tuple[Passage, ...]] = {}

    def thread(self, user_id: str, thread_id: str) -> ThreadRecord:
        """Return the user's thread. Raises `RecordNotFoundError`."""
        thread = self.threads.get(thread_id)
        if thread is None or thread.user_id != user_id:
            raise RecordNotFoundError("thread", thread_id)
        return thread

    def run(self, user_id: str, run_id: str) -> RunRecord:
        """Return the user's run. Raises `RecordNotFoundError`."""
        run = self.runs.get(run_id)
        if run is None or run.user_id != user_id:
            raise RecordNotFoundError("run", run_id)
        return run

    def forget_approvals(self, run_id: str) -> None:
        """Remove what is known of a run's questions."""
        self.approvals = {key: time for key, time in self.approvals.items() if key[0] != run_id}
        self.edited_args = {key: args for key, args in self.edited_args.items() if key[0] != run_id}

    def touch(self, thread_id: str, moment: datetime) -> None:
        """Set the thread's update time."""
        self.threads[thread_id] = replace(self.threads[thread_id], update_time=moment)

    def add_message(self, message: MessageRecord) -> None:
        """Save a message."""
        self.messages[message.message_id] = replace(message, superseded_by_run_id=None)

    def runs_of(self, thread_id: str) -> list[RunRecord]:
        """Return the thread's runs in the order of acceptance."""
        return sorted((run for run in self.runs.values() if run.thread_id == thread_id), key=lambda run: run.position)

    def visible_messages(self, thread_id: str) -> list[tuple[int, MessageRecord]]:
        """Return the thread's messages with their runs' positions: by run, user first; no superseded ones."""
        placed = [
            (self.runs[message.run_id].position, message)
            for message in self.messages.values()
            if message.thread_id == thread_id and self.runs[message.run_id].superseded_by_run_id is None
        ]
        return sorted(placed, key=lambda item: (item[0], item[1].role is not MessageRole.USER))
