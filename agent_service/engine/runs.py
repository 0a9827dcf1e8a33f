"""Runs as callers see them: accept, cancel, decide, look up."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Protocol

import structlog

from agent_service.engine.approvals import Verdict
from agent_service.engine.broadcast import Broadcast, ThreadChange, ThreadChangeKind
from agent_service.engine.commands import RunCommand
from agent_service.engine.context import UserExecutionContext
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.events import AgentProgress, AgentStarted, ApprovalDecision, Body, Event, ProgressStage
from agent_service.engine.ports import Clock, EventCodec, Ids
from agent_service.engine.registry import Registry
from agent_service.engine.run import SUPERVISOR
from agent_service.engine.translation import invalid, translated
from storage.errors import RecordNotFoundError, StorageError, StorageUnavailableError
from storage.interfaces import Storage
from storage.records import Accepted, NewRun, Page, RunRecord, RunStatus

MAX_OPEN_RUNS: Final = 50
"""Open runs of one user, queued ones included."""

MAX_TITLE_CHARACTERS: Final = 80
"""Of a thread's title that is made from its first message."""

OPEN_STATUSES: Final = frozenset(status for status in RunStatus if status.is_open)


class Workforce(Protocol):
    """What acceptance, cancellation and decisions need of the worker of this process."""

    @property
    def is_busy(self) -> bool:
        """True when no slot is free."""
        ...

    def wake(self) -> None:
        """Look for work now."""
        ...

    async def cancel(self, run: RunRecord, reason: str) -> None:
        """End a run whose cancellation is in the database: at once if nobody works on it, else through its worker."""
        ...

    async def decide(
        self, user: UserExecutionContext, run_id: str, approval_id: str, verdict: Verdict
    ) -> ApprovalDecision:
        """Answer a question of a waiting run, and let it go on."""
        ...


class Runs:
    """Acceptance, cancellation, decisions and look-up of runs. Every error is an `ApexError`.

    `models` are those on offer, the default first, and whether their price is known: without it no budget can hold.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        broadcast: Broadcast,
        workforce: Workforce,
        registry: Registry,
        models: Mapping[str, bool],
        codec: EventCodec,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._storage = storage
        self._broadcast = broadcast
        self._workforce = workforce
        self._registry = registry
        self._models = models
        self._codec = codec
        self._clock = clock
        self._ids = ids
        self._draining = False
        self._logger = structlog.get_logger("apex.runs")

    @property
    def is_draining(self) -> bool:
        """True once nothing more is accepted."""
        return self._draining

    def drain(self) -> None:
        """Accept nothing more."""
        self._draining = True

    async def accept(self, user: UserExecutionContext, command: RunCommand) -> Accepted:
        """Save a run with its first events in one transaction, or return the one that its key names."""
        if self._draining:
            raise ApexError(ErrorReason.DRAINING, "This server is about to stop. Send it again.", retry_after_ms=1000)
        with translated():
            return await self._accept(user, command)

    async def _accept(self, user: UserExecutionContext, command: RunCommand) -> Accepted:
        try:
            await self._check(user, command)
        except (ApexError, RecordNotFoundError):
            # A repeated message attaches to its run, also where it would not be accepted anew.
            if not await self._is_known(user, command):
                raise
        accepted = await self._save(await self._new_run(user, command))
        if accepted.already_existed:
            self._check_same_thread(accepted.run, command)
            return accepted
        if accepted.events:
            self._broadcast.begin(user.user_id, accepted.run.run_id, accepted.events)
        self._workforce.wake()
        try:
            await self._announce_thread(user, accepted)
            for run in accepted.interrupted:
                await self._workforce.cancel(run, run.cancel_reason or "Interrupted by a newer message.")
        except StorageError as error:
            # It is accepted, whatever comes now: the workers find the cancellations in the database by themselves.
            self._logger.warning("acceptance_not_announced", run_id=accepted.run.run_id, error=str(error))
        return accepted

    async def _is_known(self, user: UserExecutionContext, command: RunCommand) -> bool:
        if not command.client_message_id:
            return False
        try:
            await self._storage.runs.find_by_client_message(user.user_id, command.client_message_id)
        except RecordNotFoundError:
            return False
        return True

    async def _save(self, new: NewRun) -> Accepted:
        """Save the run. Where the answer to the COMMIT was lost, the run itself says whether it was saved."""
        try:
            return await self._storage.runs.accept(new)
        except StorageUnavailableError as error:
            if not error.outcome_unknown:
                raise
            try:
                run = await self._storage.runs.get(new.user_id, new.run_id)
            except RecordNotFoundError:
                raise error from None
        return Accepted(run, already_existed=False, thread_created=new.new_thread_title is not None)

    async def _check(self, user: UserExecutionContext, command: RunCommand) -> None:
        if command.agent and command.agent not in self._registry.agents:
            names = ", ".join(sorted(self._registry.agents))
            raise invalid("agent", f"There is no agent {command.agent!r}. There are: {names}.")
        if command.settings.model and command.settings.model not in self._models:
            offered = ", ".join(self._models)
            raise invalid("settings.model", f"This service does not offer {command.settings.model!r}, but: {offered}.")
        model = command.settings.model or next(iter(self._models))
        if command.settings.budget_usd is not None and not self._models[model]:
            text = f"Nobody knows what {model!r} costs, or one that may answer in its place, so a budget cannot hold."
            text = f"{text} Leave it out, or choose another model."
            raise invalid("settings.budget_usd", text)
        if "\x00" in command.content:
            raise invalid("content", "The text must not contain NUL characters.")
        for index, reference in enumerate(command.references):
            if reference.file_id:
                await self._storage.files.get(user.user_id, reference.file_id)
            elif reference.corpus_id:
                await self._storage.corpora.get(user.user_id, reference.corpus_id)
            else:
                text = "Only files and knowledge bases can be referred to for now."
                raise invalid(f"references[{index}]", text)

    async def _new_run(self, user: UserExecutionContext, command: RunCommand) -> NewRun:
        now = self._clock.now()
        run_id, user_message_id = self._ids.new(), self._ids.new()
        thread_id = command.thread_id or self._ids.new()
        must_wait = self._workforce.is_busy
        position = 1 + (await self._storage.runs.count_queued() if must_wait else 0)

        def encode(seq: int, body: Body) -> bytes:
            return self._codec.encode(Event(run_id, thread_id, seq, 1, now, SUPERVISOR, body))

        text = f"Waiting for a free place (number {position})." if must_wait else "Waiting for the run before this one."
        return NewRun(
            run_id=run_id,
            thread_id=thread_id,
            new_thread_title=None if command.thread_id else _title(command.content),
            user_id=user.user_id,
            scopes=tuple(sorted(user.scopes)),
            agent=command.agent,
            client_message_id=command.client_message_id,
            fingerprint=hashlib.sha256(f"{command.agent}\n{command.content}".encode()).hexdigest(),
            request=self._codec.encode_command(command),
            user_message_id=user_message_id,
            content=command.content,
            create_time=now,
            started=encode(1, AgentStarted(command.agent or SUPERVISOR, "Message received.", user_message_id)),
            queued=encode(2, AgentProgress(ProgressStage.QUEUED, text, queue_position=position)),
            must_wait=must_wait,
            conflict=command.conflict,
            max_open_runs=MAX_OPEN_RUNS,
        )

    def _check_same_thread(self, run: RunRecord, command: RunCommand) -> None:
        if command.thread_id in {run.thread_id, self._codec.decode_command(run.request).thread_id}:
            return
        raise invalid("thread_id", "This message was already sent in another thread. Use a new client_message_id.")

    async def _announce_thread(self, user: UserExecutionContext, accepted: Accepted) -> None:
        thread = accepted.thread or await self._storage.threads.get(user.user_id, accepted.run.thread_id)
        kind = ThreadChangeKind.CREATED if accepted.thread_created else ThreadChangeKind.UPDATED
        self._broadcast.thread_changed(ThreadChange(kind, thread))

    async def cancel(
        self, user: UserExecutionContext, *, run_id: str = "", client_message_id: str = "", reason: str = ""
    ) -> RunRecord:
        """Ask a run to end and return it. One that has ended is returned as it is; twice is as good as once."""
        with translated():
            if not run_id and not client_message_id:
                raise invalid("run_id", "Name the run, by its run_id or its client_message_id.")
            if not run_id:
                run_id = (await self._storage.runs.find_by_client_message(user.user_id, client_message_id)).run_id
            text = reason or "Stopped by the user."
            run = await self._storage.runs.request_cancel(user.user_id, run_id, text)
            if not run.status.is_open:
                return run
            await self._workforce.cancel(run, run.cancel_reason or text)
            return await self._storage.runs.get(user.user_id, run_id)

    async def decide(
        self, user: UserExecutionContext, run_id: str, approval_id: str, verdict: Verdict
    ) -> ApprovalDecision:
        """Decide about a tool call that waits, as `Approvals.resolve` says; the run then goes on."""
        return await self._workforce.decide(user, run_id, approval_id, verdict)

    async def get(self, user: UserExecutionContext, run_id: str) -> RunRecord:
        """Return a run of the user."""
        with translated():
            return await self._storage.runs.get(user.user_id, run_id)

    async def list(
        self,
        user: UserExecutionContext,
        *,
        thread_id: str | None,
        statuses: Collection[RunStatus],
        page_size: int,
        page_token: str,
    ) -> Page[RunRecord]:
        """List the user's runs, newest first."""
        with translated():
            return await self._storage.runs.list(
                user.user_id, thread_id=thread_id, statuses=statuses, page_size=page_size, page_token=page_token
            )

    async def open_runs(self, user: UserExecutionContext) -> Sequence[RunRecord]:
        """Return all open runs of the user, newest first: at most `MAX_OPEN_RUNS`."""
        page = await self.list(user, thread_id=None, statuses=OPEN_STATUSES, page_size=MAX_OPEN_RUNS, page_token="")
        return page.items


def _title(content: str) -> str:
    line = " ".join(content.split())
    return line if len(line) <= MAX_TITLE_CHARACTERS else line[: MAX_TITLE_CHARACTERS - 1].rstrip() + "…"
