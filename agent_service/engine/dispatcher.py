"""The one way to run a tool: checks, events, limits, time; and after a crash, what the log already knows."""

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
import structlog
from pydantic import BaseModel, ValidationError

from agent_service.engine.approval_gate import ApprovalGate, CheckedCall, RefusedError
from agent_service.engine.artifacts import CallArtifacts
from agent_service.engine.commands import RunCommand
from agent_service.engine.emitter import RunEmitter
from agent_service.engine.errors import FencedError, HandoverError, WaitingError
from agent_service.engine.events import (
    AgentProgress,
    AgentThinking,
    ApprovalDecision,
    ApprovalResolved,
    Effect,
    JsonObject,
    ProgressStage,
    ToolCompleted,
    ToolExecuting,
    ToolStatus,
    Usage,
)
from agent_service.engine.limits import ToolLimits
from agent_service.engine.ports import Clock, Ids, ToolCall, ToolOutcome
from agent_service.engine.redaction import redact
from agent_service.engine.run import ToolCallState
from agent_service.engine.tool import Tool, ToolContext, ToolError, ToolOutput, ToolRecord
from storage.interfaces import Files
from storage.records import RunRecord

MAX_RESULT_BYTES: Final = 32 * 1024
"""A result that is larger as JSON becomes an artifact; arguments that are larger are not shown."""

MAX_LARGE_RESULT_BYTES: Final = 16 * 1024 * 1024
"""A result that is larger than this as JSON is refused."""

MAX_TEXT_CHARACTERS: Final = 2_000
"""Of a summary or an error in an event."""

MAX_NOTE_CHARACTERS: Final = 1_000
"""Of how a summary or an error tells the arguments that a person gave."""

MAX_ID_CHARACTERS: Final = 64
"""Of a tool call's id in an event."""

LEFT_OPEN: Final = "The step ended while this ran: it is not known whether it took effect. It was not repeated."
"""How an unsafe call ends that was cut off together with its step."""

CANCEL_GRACE_MS: Final = 300
"""A tool that is told to stop has this long before it is left behind."""


_LOGGER_NAME: Final = "apex.dispatcher"


class _NoResultError(Exception):
    """The call ends with this status and text in place of a result."""

    def __init__(self, status: ToolStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(kw_only=True, slots=True, eq=False)
class Dispatcher:
    """Runs the tool calls of one run, each after the `gate`."""

    run: RunRecord
    command: RunCommand
    emitter: RunEmitter
    gate: ApprovalGate
    tools: Mapping[str, Tool[BaseModel]]
    limits: ToolLimits
    files: Files
    clock: Clock
    ids: Ids
    _taken_ids: set[str] = field(default_factory=set, init=False)
    _repeatable_ids: list[str] = field(default_factory=list, init=False)
    _at_work: int = field(default=0, init=False)
    _one_left: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def call(self, agent_name: str, step_id: str, call: ToolCall, permitted: frozenset[str]) -> ToolOutcome:
        """Run a call and return what the model is told. `permitted` are the names that the agent may use.

        The id in the events is `{step_id}.{call_id}`. A call that the log shows as completed returns its outcome; one
        that it shows as begun (a safe one) runs again under its id, without a second `tool_executing`. Raises
        `WaitingError` where a person must decide first, when the calls beside it have ended.
        """
        try:
            with self._counted():
                return await self._call(agent_name, step_id, call, permitted)
        except WaitingError:
            while self._at_work:
                self._one_left.clear()
                await self._one_left.wait()
            raise

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1
            self._one_left.set()

    async def _call(self, agent_name: str, step_id: str, call: ToolCall, permitted: frozenset[str]) -> ToolOutcome:
        tool_call_id = self._take_id(f"{step_id}.{call.call_id}", call)
        known = self.emitter.state.tools.get(tool_call_id)
        if known is not None and known.completed is not None:
            return _outcome(known.completed)
        given, checked = call.args, self._check(agent_name, call, permitted)
        if isinstance(checked, CheckedCall):
            has_begun = known is not None
            try:
                args = await self.gate.decided(agent_name, tool_call_id, call, checked, has_begun=has_begun)
            except RefusedError as error:
                return ToolOutcome(ToolStatus.DENIED, "", None, str(error))
            except ToolError as error:
                checked = _NoResultError(ToolStatus.ERROR, str(error))
            else:
                if args is not given:
                    call = replace(call, args=args)
                    checked = self._check(agent_name, call, permitted)
        if known is None:
            await self._announce(agent_name, tool_call_id, call, self.tools.get(call.tool_name))
        started_ms = self.clock.monotonic_ms()
        completed = await self._carried_out(agent_name, tool_call_id, call.tool_name, checked)
        if call.args is not given:
            completed = _as_edited(completed, call.args)
        completed = replace(completed, execution_time_ms=self.clock.monotonic_ms() - started_ms)
        self.emitter.add_usage(Usage(tool_calls=1))
        await self.emitter.emit(agent_name, completed)
        return _outcome(completed)

    def _take_id(self, wanted: str, call: ToolCall) -> str:
        """Return the id of this call, which no other call of this attempt has: some providers repeat theirs.

        An id from before a crash, a person's decision, or the step's new beginning is taken again for the same tool and
        arguments only.
        """
        shown, count = _shown(call.args), 1
        again = [tool_call_id for tool_call_id in self._repeatable_ids if self._is_same(tool_call_id, call, shown)]
        tool_call_id = _bounded_id(wanted)
        if again and tool_call_id not in again:
            tool_call_id = again[0]
        while tool_call_id in self._taken_ids or not self._is_same(tool_call_id, call, shown):
            count += 1
            tool_call_id = _bounded_id(f"{wanted}~{count}")
        self._taken_ids.add(tool_call_id)
        if tool_call_id in again:
            self._repeatable_ids.remove(tool_call_id)
        return tool_call_id

    def _is_same(self, tool_call_id: str, call: ToolCall, shown: JsonObject) -> bool:
        """Return whether this id is free, or stands for a call of the same tool with the same arguments."""
        known = self.emitter.state.tools.get(tool_call_id)
        same = known is None or (known.executing.tool_name, known.executing.tool_args) == (call.tool_name, shown)
        # A person may have changed the arguments that it ran with.
        return same or self.gate.question(tool_call_id, call) is not None

    async def restart(self, agent_name: str, *, afresh: bool) -> None:
        """Let an agent's step begin again, from its saved state or `afresh`, without any call being made twice.

        A call that is repeated gets the outcome that it had: by its id, and in a step that begins afresh by its tool
        and arguments. An unsafe call that is still open ends as OUTCOME_UNKNOWN.
        """
        await self._end_calls(agent_name, frozenset({Effect.UNSAFE}))
        # What a person was only asked about is not asked about again.
        self._taken_ids &= self.emitter.state.tools.keys()
        for tool_call_id, call in self.emitter.state.tools.items():
            if call.agent_name != agent_name:
                continue
            if afresh and not _may_stand(call):
                self._taken_ids.add(tool_call_id)
                continue
            self._taken_ids.discard(tool_call_id)
            if afresh and tool_call_id not in self._repeatable_ids:
                self._repeatable_ids.append(tool_call_id)

    async def close(self, agent_name: str) -> None:
        """End the calls of an agent that nobody waits for any more, and take back what it asked a person."""
        await self._end_calls(agent_name, frozenset(Effect))
        for approval in self.emitter.state.open_approvals:
            if approval.agent_name == agent_name:
                taken_back = ApprovalResolved(approval.requested.approval_id, ApprovalDecision.CANCELLED)
                await self.emitter.emit(agent_name, taken_back)

    async def _end_calls(self, agent_name: str, effects: frozenset[Effect]) -> None:
        for call in self.emitter.state.open_tools:
            executing = call.executing
            if call.agent_name == agent_name and executing.effect in effects:
                unsafe = executing.effect is Effect.UNSAFE
                status = ToolStatus.OUTCOME_UNKNOWN if unsafe else ToolStatus.CANCELLED
                completed = ToolCompleted(
                    executing.tool_call_id,
                    executing.tool_name,
                    status,
                    error=LEFT_OPEN if unsafe else "The step ended before this did.",
                )
                await self.emitter.emit(agent_name, completed)

    async def _announce(self, agent_name: str, tool_call_id: str, call: ToolCall, tool: Tool[BaseModel] | None) -> None:
        if not self.emitter.state.has_thought:
            # The contract promises a thought before the first tool, also where a model says nothing by itself.
            await self.emitter.emit(agent_name, AgentThinking(f"I use {call.tool_name} for this."))
        executing = ToolExecuting(
            tool_call_id=tool_call_id,
            tool_name=call.tool_name,
            description=tool.description.split(". ")[0].rstrip(".") if tool else "An unknown tool",
            tool_args=_shown(call.args),
            effect=tool.effect if tool else Effect.READ_ONLY,
        )
        await self.emitter.commit(agent_name, executing)

    def _check(self, agent_name: str, call: ToolCall, permitted: frozenset[str]) -> CheckedCall | _NoResultError:
        """Return the call with its arguments checked, or why it may not run. Asks nobody, and counts nothing."""
        tool = self.tools.get(call.tool_name)
        if tool is None or call.tool_name not in permitted:
            available = ", ".join(sorted(permitted)) or "no tools"
            text = f"{agent_name} has no tool {call.tool_name!r}. It has: {available}."
            return _NoResultError(ToolStatus.DENIED, text)
        missing = tool.scopes - set(self.run.scopes)
        if missing:
            return _NoResultError(ToolStatus.DENIED, f"{tool.name} needs the scope {', '.join(sorted(missing))}.")
        try:
            return CheckedCall(tool, tool.args.model_validate(call.args))
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
            return _NoResultError(ToolStatus.ERROR, f"The arguments do not fit {tool.name}: {problems}")
        except Exception as error:  # noqa: BLE001 - a tool's defect ends the call, not the run
            return _NoResultError(ToolStatus.ERROR, self._defect(tool.name, error))

    async def _carried_out(
        self, agent_name: str, tool_call_id: str, tool_name: str, checked: CheckedCall | _NoResultError
    ) -> ToolCompleted:
        """Run what passed the checks; return how it ended."""
        try:
            return await self._run_checked(agent_name, tool_call_id, checked)
        except _NoResultError as error:
            status, text = error.status, str(error)
        except ToolError as error:
            status, text = ToolStatus.ERROR, str(error)
        except (FencedError, HandoverError):
            raise
        except Exception as error:  # noqa: BLE001 - a tool's defect ends the call, not the run
            status, text = ToolStatus.ERROR, self._defect(tool_name, error)
        return ToolCompleted(tool_call_id, tool_name, status, error=text[:MAX_TEXT_CHARACTERS])

    async def _run_checked(
        self, agent_name: str, tool_call_id: str, checked: CheckedCall | _NoResultError
    ) -> ToolCompleted:
        """Run within the user's limits. Raises `_NoResultError`, and whatever the tool raises."""
        if isinstance(checked, _NoResultError):
            raise checked
        if not await self.limits.permits(self.run.user_id):
            raise _NoResultError(ToolStatus.DENIED, "Too many tool calls within a minute. Try again in a minute.")
        context = self._context(agent_name, tool_call_id)
        async with self.limits.slot(self.run.user_id):
            output = await self._run_tool(checked.tool, context, checked.args)
            return await self._succeeded(agent_name, tool_call_id, checked.tool, output)

    def _defect(self, tool_name: str, error: Exception) -> str:
        """Log what nobody foresaw, and return what people are told of it."""
        error_id = self.ids.new()
        log = structlog.get_logger(_LOGGER_NAME)
        log.error("tool_failed", tool=tool_name, run_id=self.run.run_id, error_id=error_id, exc_info=error)
        return f"{tool_name} failed unexpectedly (error {error_id})."

    def _context(self, agent_name: str, tool_call_id: str) -> ToolContext:
        async def progress(message: str, fraction: float = 0.0) -> None:
            if self.emitter.state.tools[tool_call_id].completed is not None:
                # A tool that was left behind: nobody waits for it any more, and its call has had its end.
                raise ToolError("This call has ended.")
            body = AgentProgress(ProgressStage.TOOL, message, fraction=fraction, tool_call_id=tool_call_id)
            await self.emitter.emit(agent_name, body)

        return ToolContext(
            user_id=self.run.user_id,
            scopes=frozenset(self.run.scopes),
            run_id=self.run.run_id,
            thread_id=self.run.thread_id,
            tool_call_id=tool_call_id,
            message=self.command.content,
            references=self.command.references,
            progress=progress,
            artifacts=self._artifacts(agent_name, tool_call_id),
            records=self.records,
        )

    async def _run_tool(self, tool: Tool[BaseModel], context: ToolContext, args: BaseModel) -> ToolOutput:
        """Run within the tool's time. One that does not stop when told is left behind, so that the run can end."""
        task = asyncio.ensure_future(tool.run(context, args))
        try:
            await asyncio.wait({task}, timeout=tool.timeout_ms / 1000)
            if not task.done():
                text = f"{tool.name} took longer than {tool.timeout_ms} ms and was stopped."
                raise _NoResultError(ToolStatus.TIMEOUT, text)
            if task.cancelled():
                # Its own doing: seen as a cancellation of the run, it would stop it.
                raise _NoResultError(ToolStatus.ERROR, f"{tool.name} gave up.")
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=CANCEL_GRACE_MS / 1000)
                if not task.done():
                    structlog.get_logger(_LOGGER_NAME).error("tool_left_behind", tool=tool.name, run_id=self.run.run_id)
                task.add_done_callback(_retrieve)

    async def _succeeded(
        self, agent_name: str, tool_call_id: str, tool: Tool[BaseModel], output: ToolOutput
    ) -> ToolCompleted:
        completed = ToolCompleted(
            tool_call_id, tool.name, ToolStatus.SUCCESS, result_summary=output.summary[:MAX_TEXT_CHARACTERS]
        )
        data = msgspec.json.encode(output.result)
        if len(data) <= MAX_RESULT_BYTES:
            return replace(completed, result=output.result)
        if len(data) > MAX_LARGE_RESULT_BYTES:
            raise ToolError(f"The result is larger than {MAX_LARGE_RESULT_BYTES} bytes. Ask for less.")
        artifact_id = await self._artifacts(agent_name, tool_call_id).save(
            f"{tool.name}.json", "application/json", data, description=f"The full result of {tool.name}"
        )
        return replace(completed, artifact_id=artifact_id)

    def _artifacts(self, agent_name: str, tool_call_id: str) -> CallArtifacts:
        return CallArtifacts(
            run=self.run,
            emitter=self.emitter,
            files=self.files,
            clock=self.clock,
            agent_name=agent_name,
            tool_call_id=tool_call_id,
        )

    def records(self) -> list[ToolRecord]:
        """Return the calls of this run that ended well, in the order in which they began."""
        return [
            ToolRecord(
                tool_call_id=call.executing.tool_call_id,
                agent_name=call.agent_name,
                tool_name=call.executing.tool_name,
                args=call.executing.tool_args,
                summary=call.completed.result_summary,
                result=call.completed.result,
                artifact_id=call.completed.artifact_id,
            )
            for call in self.emitter.state.tools.values()
            if call.completed is not None and call.completed.status is ToolStatus.SUCCESS
        ]


def _may_stand(call: ToolCallState) -> bool:
    """Return whether the outcome of a call, if there is one, is one to go on with when the call is made again."""
    if call.completed is None or call.executing.effect is Effect.UNSAFE:
        return True
    return call.completed.status is ToolStatus.SUCCESS


def _bounded_id(tool_call_id: str) -> str:
    """Return the id, or a digest of it when a provider's own id makes it too long."""
    if len(tool_call_id) <= MAX_ID_CHARACTERS:
        return tool_call_id
    return hashlib.sha256(tool_call_id.encode()).hexdigest()


def _shown(args: JsonObject) -> JsonObject:
    """Return what of the arguments stands in the event: no secrets, and not more than fits.

    Others that do not fit stand there as something else: by this a call is known again.
    """
    data = msgspec.json.encode(args, order="deterministic")
    if len(data) <= MAX_RESULT_BYTES:
        return redact(args)
    return {"omitted": f"{len(data)} bytes of arguments, SHA-256 {hashlib.sha256(data).hexdigest()}"}


def _as_edited(completed: ToolCompleted, args: JsonObject) -> ToolCompleted:
    """Say that the call ran with other arguments than the model gave."""
    note = f"A person changed the arguments to {msgspec.json.encode(_shown(args)).decode()}."[:MAX_NOTE_CHARACTERS]
    if completed.status is ToolStatus.SUCCESS:
        return replace(completed, result_summary=f"{note} {completed.result_summary}"[:MAX_TEXT_CHARACTERS])
    return replace(completed, error=f"{note} {completed.error}"[:MAX_TEXT_CHARACTERS])


def _outcome(completed: ToolCompleted) -> ToolOutcome:
    summary = completed.result_summary
    if completed.artifact_id:
        summary = f"{summary} The result is too large to show; it was saved as artifact {completed.artifact_id}."
    return ToolOutcome(completed.status, summary, completed.result, completed.error)


def _retrieve(task: asyncio.Future[ToolOutput]) -> None:
    """Take the error of a task that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
