"""One attempt at a claimed run: fold its log, do the work, see to it that it ends, or leave it to the next worker."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

import structlog
from pydantic import BaseModel

from agent_service.engine.approval_gate import ApprovalGate
from agent_service.engine.approvals import decode_args
from agent_service.engine.broadcast import Broadcast
from agent_service.engine.dispatcher import Dispatcher
from agent_service.engine.emitter import CHECKPOINT_VERSION, RunEmitter
from agent_service.engine.errors import ApexError, ErrorReason, FencedError, HandoverError, WaitingError
from agent_service.engine.events import ApprovalDecision, FinalResponse, JsonObject
from agent_service.engine.folding import fold
from agent_service.engine.history import read_history
from agent_service.engine.journal import Journal
from agent_service.engine.limits import ToolLimits
from agent_service.engine.ports import Clock, EventCodec, Ids
from agent_service.engine.run import RunState
from agent_service.engine.tool import Tool
from agent_service.engine.work import Work
from storage.errors import StorageError, StorageUnavailableError
from storage.interfaces import Storage
from storage.records import MessageRecord, MessageRole, RunRecord

MAX_CLAIMS: Final = 3
"""Claims in a row without a new checkpoint; the next one ends the run with WORKER_LOST."""

APPROVAL_TIMEOUT_MS: Final = 3_600_000
"""How long a person has to decide, unless the deployment says less: one hour."""

_LOGGER_NAME: Final = "apex.attempt"


class RunSupervisor(Protocol):
    """What an attempt asks of the supervisor."""

    async def run(self, work: Work) -> FinalResponse:
        """Do the work; emit everything between acceptance and the final response, and return that."""
        ...


class Stop(Enum):
    """Why a run's task was told to stop."""

    CANCEL = auto()
    FENCED = auto()
    HANDOVER = auto()


@dataclass(slots=True)
class Job:
    """A run at work in this process: `task` works on it.

    `before` is the task of an earlier attempt in this process that has lost its lease, but has not ended yet.
    """

    run: RunRecord
    before: asyncio.Task[None] | None = None
    task: asyncio.Task[None] | None = None
    emitter: RunEmitter | None = None
    stop: Stop | None = None
    reason: str = ""
    started: bool = False
    ending: bool = False
    handover: bool = False

    def speak_through(self, emitter: RunEmitter) -> None:
        """Set what the attempt emits with."""
        self.emitter = emitter
        if self.handover:
            emitter.request_handover()

    def request_handover(self) -> None:
        """Leave the run to another worker at its next safe point."""
        self.handover = True
        if self.emitter is not None:
            self.emitter.request_handover()

    def interrupt(self, stop: Stop, reason: str = "") -> None:
        """Stop the task, once; never while it writes the run's end."""
        if self.stop is not None or self.ending:
            return
        self.stop, self.reason = stop, reason
        # A task that is cancelled before its first step never takes one: nobody would write the run's end.
        if self.started and self.task is not None:
            self.task.cancel()


@dataclass(frozen=True, slots=True)
class Attempts:
    """Works on claimed runs. `run_timeout_ms` bounds all attempts together; `max_history` the earlier messages.

    A question to a person lapses after `approval_timeout_ms`; the wait for the answer is no part of the run's time.
    """

    storage: Storage
    journal: Journal
    broadcast: Broadcast
    supervisor: RunSupervisor
    tools: Mapping[str, Tool[BaseModel]]
    limits: ToolLimits
    codec: EventCodec
    clock: Clock
    ids: Ids
    run_timeout_ms: int
    max_history: int
    approval_timeout_ms: int = APPROVAL_TIMEOUT_MS

    async def work(self, job: Job) -> None:
        """Work on a claimed run until it has ended, or until it is another worker's turn.

        Raises `FencedError` when it already is, `StorageUnavailableError` when the database stays away.
        """
        job.started = True
        try:
            await self._attempt(job)
        except asyncio.CancelledError:
            if job.stop is None:
                raise
            _take_cancellation()
            await self._stopped(job)
        except WaitingError:
            job.ending = True
            await self._wait(job)
        except HandoverError:
            job.ending = True
            await self.storage.runs.release(job.run.run_id, job.run.epoch)

    async def _wait(self, job: Job) -> None:
        """Leave a run that waits for a person: everything committed, no worker, no lease."""
        if job.emitter is None:
            raise RuntimeError("a run that has not begun waits for nobody")
        await job.emitter.flush()
        questions = [approval.requested for approval in job.emitter.state.open_approvals]
        left = max(question.expire_time for question in questions) - self.clock.now()
        wait_ms = max(0, round(left.total_seconds() * 1000))
        ids = [question.approval_id for question in questions]
        await self.storage.runs.wait(job.run.run_id, job.run.epoch, ids, wait_ms=wait_ms)

    async def _attempt(self, job: Job) -> None:
        if job.stop is not None:
            raise asyncio.CancelledError
        if job.before is not None:
            await asyncio.wait({job.before})
        emitter = await self.open(job.run)
        job.speak_through(emitter)
        await self._run(job, emitter)

    async def open(self, run: RunRecord) -> RunEmitter:
        """Read a claimed run's log and return what speaks for it. Raises `FencedError` when somebody else goes on."""
        try:
            beginning = self.broadcast.beginning(run.user_id, run.run_id)
            state = await fold(self.storage.events, self.codec, run, beginning)
        except (StorageError, FencedError):
            raise
        except Exception:
            if run.claims <= MAX_CLAIMS:
                raise
            # Nobody could read it: the run must end all the same.
            structlog.get_logger(_LOGGER_NAME).exception("log_unreadable", run_id=run.run_id)
            state = RunState.unread(run.run_id, run.thread_id, run.last_seq)
            state.attempt = run.attempt
        writer = self.journal.open_run(run)
        return RunEmitter(state, writer, self.codec, self.clock, state.begin_time or self.clock.now())

    async def _run(self, job: Job, emitter: RunEmitter) -> None:
        run = job.run
        if run.cancel_reason is not None:
            job.ending = True
            await emitter.cancel(run.cancel_reason)
            return
        try:
            final = await self._answer(run, emitter)
            if not _is_cancelled():
                job.ending = True
                await emitter.complete(final, self._message(run, final))
                return
        except (FencedError, HandoverError, StorageUnavailableError):
            raise
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is, the run must end
            if not _is_cancelled():
                await self._fail(job, emitter, error)
                return
        # Told to stop: the supervisor may have let that through, or made another error or even a result of it.
        raise asyncio.CancelledError

    async def _fail(self, job: Job, emitter: RunEmitter, error: BaseException) -> None:
        """End the run with an error that the user hears of. What was not foreseen goes to the log, not to the user."""
        job.ending = True
        error_id = self.ids.new()
        log = structlog.get_logger(_LOGGER_NAME).bind(run_id=job.run.run_id, error_id=error_id)
        if isinstance(error, ApexError):
            log.info("run_error", reason=error.reason)
        else:
            log.error("run_failed", exc_info=error)
            text = f"Something went wrong on our side (error {error_id}). Try again."
            error = ApexError(ErrorReason.INTERNAL, text)
        await emitter.fail(error, error_id)

    async def _stopped(self, job: Job) -> None:
        """End or leave a run whose task was told to stop."""
        job.ending = True
        if job.stop is Stop.HANDOVER:
            if job.emitter is not None:
                await job.emitter.flush()
            await self.storage.runs.release(job.run.run_id, job.run.epoch)
        elif job.stop is Stop.CANCEL:
            emitter = job.emitter or await self.open(job.run)
            await emitter.cancel(job.reason)

    async def _answer(self, run: RunRecord, emitter: RunEmitter) -> FinalResponse:
        if run.claims > MAX_CLAIMS:
            text = f"The workers of this run were lost {MAX_CLAIMS} times in a row. Send the message again."
            raise ApexError(ErrorReason.WORKER_LOST, text)
        work = await self._prepare(run, emitter)
        timeout_ms = min(work.command.settings.timeout_ms or self.run_timeout_ms, self.run_timeout_ms)
        # Over all attempts: a run that is taken over again and again ends in time, too.
        left_ms = timeout_ms - emitter.execution_time_ms(self.clock.now())
        if left_ms <= 0:
            raise _took_too_long(timeout_ms)
        deadline = asyncio.timeout(left_ms / 1000)
        try:
            async with deadline:
                return await self.supervisor.run(work)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise _took_too_long(timeout_ms) from None

    async def _prepare(self, run: RunRecord, emitter: RunEmitter) -> Work:
        """Gather what the supervisor needs; tell the log when this takes the run over from another worker."""
        emitter.resume()
        command = self.codec.decode_command(run.request)
        dispatcher = Dispatcher(
            run=run,
            command=command,
            emitter=emitter,
            gate=ApprovalGate(
                emitter,
                command.settings,
                self.clock,
                timeout_ms=self.approval_timeout_ms,
                edited_args=await self._edited_args(run, emitter.state),
            ),
            tools=self.tools,
            limits=self.limits,
            files=self.storage.files,
            clock=self.clock,
            ids=self.ids,
        )
        return Work(
            run=run,
            command=command,
            history=await read_history(self.storage, self.codec, run, limit=self.max_history),
            emitter=emitter,
            dispatcher=dispatcher,
            checkpoint=await self._checkpoint(run, emitter.state),
            message_id=emitter.state.message_id or self.ids.new(),
        )

    async def _checkpoint(self, run: RunRecord, state: RunState) -> bytes | None:
        if state.begin_time is None:
            return None  # nobody has worked on it yet
        checkpoint = await self.storage.events.checkpoint(run.run_id)
        usable = checkpoint is not None and checkpoint.version == CHECKPOINT_VERSION
        return checkpoint.data if checkpoint is not None and usable else None

    async def _edited_args(self, run: RunRecord, state: RunState) -> Mapping[str, JsonObject]:
        resolved = [approval.resolved for approval in state.approvals.values()]
        if not any(answer and answer.decision is ApprovalDecision.EDITED for answer in resolved):
            return {}
        edited = await self.storage.runs.edited_args(run.user_id, run.run_id)
        return {approval_id: decode_args(data) for approval_id, data in edited.items()}

    def _message(self, run: RunRecord, final: FinalResponse) -> MessageRecord:
        return MessageRecord(
            message_id=final.message_id,
            thread_id=run.thread_id,
            run_id=run.run_id,
            user_id=run.user_id,
            role=MessageRole.ASSISTANT,
            content=final.content,
            create_time=self.clock.now(),
        )


def _is_cancelled() -> bool:
    """Tell whether somebody wants this task to stop, which not every `CancelledError` means."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _take_cancellation() -> None:
    """Take the cancellation as done, so that the run's end can be written."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


def _took_too_long(timeout_ms: int) -> ApexError:
    return ApexError(
        ErrorReason.DEADLINE_EXCEEDED,
        f"The run took longer than {timeout_ms / 1000:g} s and was stopped.",
        recovery_suggestions=("Ask for less at once.", "Try again."),
    )
