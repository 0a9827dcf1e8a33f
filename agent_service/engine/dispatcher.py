"""The one way to run a tool: checks, events, limits, time; and after a crash, what the log already knows."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import msgspec
import structlog
from pydantic import BaseModel, ValidationError

from agent_service.engine.artifacts import CallArtifacts
from agent_service.engine.commands import RunCommand
from agent_service.engine.emitter import RunEmitter
from agent_service.engine.errors import FencedError, HandoverError
from agent_service.engine.events import (
    AgentProgress,
    AgentThinking,
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

MAX_ID_CHARACTERS: Final = 64
"""Of a tool call's id in an event."""

LEFT_OPEN: Final = "The step ended while this ran: it is not known whether it took effect. It was not repeated."
"""How an unsafe call ends that was cut off together with its step."""

CANCEL_GRACE_MS: Final = 300
"""A tool that is told to stop has this long before it is left behind."""


class _NoResultError(Exception):
    """The call ends with this status and text in place of a result."""

    def __init__(self, status: ToolStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Dispatcher:
    """Runs the tool calls of one run."""

    def __init__(
        self,
        *,
        run: RunRecord,
        command: RunCommand,
        emitter: RunEmitter,
        tools: Mapping[str, Tool[BaseModel]],
        limits: ToolLimits,
        files: Files,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._run = run
        self._command = command
        self._emitter = emitter
        self._tools = tools
        self._limits = limits
        self._files = files
        self._clock = clock
        self._ids = ids
        self._taken_ids: set[str] = set()
        self._repeatable_ids: list[str] = []
        self._logger = structlog.get_logger("apex.dispatcher")

    async def call(self, agent_name: str, step_id: str, call: ToolCall, permitted: frozenset[str]) -> ToolOutcome:
        """Run a call and return what the model is told. `permitted` are the names that the agent may use.

        The id in the events is `{step_id}.{call_id}`. A call that the log shows as completed returns its outcome; one
        that it shows as begun (a safe one) runs again under its id, without a second `tool_executing`.
        """
        tool_call_id = self._take_id(f"{step_id}.{call.call_id}", call)
        tool = self._tools.get(call.tool_name)
        known = self._emitter.state.tools.get(tool_call_id)
        if known is not None and known.completed is not None:
            return _outcome(known.completed)
        if known is None:
            await self._announce(agent_name, tool_call_id, call, tool)
        started_ms = self._clock.monotonic_ms()
        if tool is None or call.tool_name not in permitted:
            available = ", ".join(sorted(permitted)) or "no tools"
            text = f"{agent_name} has no tool {call.tool_name!r}. It has: {available}."
            completed = ToolCompleted(tool_call_id, call.tool_name, ToolStatus.DENIED, error=text)
        else:
            completed = await self._checked(agent_name, tool_call_id, call, tool)
        completed = replace(completed, execution_time_ms=self._clock.monotonic_ms() - started_ms)
        self._emitter.add_usage(Usage(tool_calls=1))
        await self._emitter.emit(agent_name, completed)
        return _outcome(completed)

    def _take_id(self, wanted: str, call: ToolCall) -> str:
        """Return the id of this call, which no other call of this attempt has: some providers repeat theirs.

        An id from before a crash, or from before the step began again, is taken again for the same tool and arguments
        only.
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
        known = self._emitter.state.tools.get(tool_call_id)
        return known is None or (known.executing.tool_name, known.executing.tool_args) == (call.tool_name, shown)

    async def restart(self, agent_name: str, *, afresh: bool) -> None:
        """Let an agent's step begin again, from its saved state or `afresh`, without any call being made twice.

        A call that is repeated gets the outcome that it had: by its id, and in a step that begins afresh by its tool
        and arguments. An unsafe call that is still open ends as OUTCOME_UNKNOWN.
        """
        await self._end_calls(agent_name, frozenset({Effect.UNSAFE}))
        for tool_call_id, call in self._emitter.state.tools.items():
            if call.agent_name != agent_name:
                continue
            if afresh and not _may_stand(call):
                self._taken_ids.add(tool_call_id)
                continue
            self._taken_ids.discard(tool_call_id)
            if afresh and tool_call_id not in self._repeatable_ids:
                self._repeatable_ids.append(tool_call_id)

    async def close(self, agent_name: str) -> None:
        """End the calls of an agent that nobody waits for any more."""
        await self._end_calls(agent_name, frozenset(Effect))

    async def _end_calls(self, agent_name: str, effects: frozenset[Effect]) -> None:
        for call in self._emitter.state.open_tools:
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
                await self._emitter.emit(agent_name, completed)

    async def _announce(self, agent_name: str, tool_call_id: str, call: ToolCall, tool: Tool[BaseModel] | None) -> None:
        if not self._emitter.state.has_thought:
            # The contract promises a thought before the first tool, also where a model says nothing by itself.
            await self._emitter.emit(agent_name, AgentThinking(f"I use {call.tool_name} for this."))
        executing = ToolExecuting(
            tool_call_id=tool_call_id,
            tool_name=call.tool_name,
            description=tool.description.split(". ")[0].rstrip(".") if tool else "An unknown tool",
            tool_args=_shown(call.args),
            effect=tool.effect if tool else Effect.READ_ONLY,
        )
        await self._emitter.commit(agent_name, executing)

    async def _checked(
        self, agent_name: str, tool_call_id: str, call: ToolCall, tool: Tool[BaseModel]
    ) -> ToolCompleted:
        """Check scopes, arguments and the user's limits; run what passes."""
        try:
            args = await self._permitted(tool, call)
            context = self._context(agent_name, tool_call_id)
            async with self._limits.slot(self._run.user_id):
                output = await self._run_tool(tool, context, args)
                return await self._succeeded(agent_name, tool_call_id, tool, output)
        except _NoResultError as error:
            status, text = error.status, str(error)
        except ToolError as error:
            status, text = ToolStatus.ERROR, str(error)
        except (FencedError, HandoverError):
            raise
        except Exception:  # a tool's defect ends the call, not the run
            error_id = self._ids.new()
            self._logger.exception("tool_failed", tool=tool.name, run_id=self._run.run_id, error_id=error_id)
            status, text = ToolStatus.ERROR, f"{tool.name} failed unexpectedly (error {error_id})."
        return ToolCompleted(tool_call_id, tool.name, status, error=text[:MAX_TEXT_CHARACTERS])

    async def _permitted(self, tool: Tool[BaseModel], call: ToolCall) -> BaseModel:
        """Return the validated arguments. Raises `_NoResultError`."""
        missing = tool.scopes - set(self._run.scopes)
        if missing:
            raise _NoResultError(ToolStatus.DENIED, f"{tool.name} needs the scope {', '.join(sorted(missing))}.")
        try:
            args = tool.args.model_validate(call.args)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
            raise _NoResultError(ToolStatus.ERROR, f"The arguments do not fit {tool.name}: {problems}") from None
        if not await self._limits.permits(self._run.user_id):
            raise _NoResultError(ToolStatus.DENIED, "Too many tool calls within a minute. Try again in a minute.")
        return args

    def _context(self, agent_name: str, tool_call_id: str) -> ToolContext:
        async def progress(message: str, fraction: float = 0.0) -> None:
            if self._emitter.state.tools[tool_call_id].completed is not None:
                # A tool that was left behind: nobody waits for it any more, and its call has had its end.
                raise ToolError("This call has ended.")
            body = AgentProgress(ProgressStage.TOOL, message, fraction=fraction, tool_call_id=tool_call_id)
            await self._emitter.emit(agent_name, body)

        return ToolContext(
            user_id=self._run.user_id,
            scopes=frozenset(self._run.scopes),
            run_id=self._run.run_id,
            thread_id=self._run.thread_id,
            tool_call_id=tool_call_id,
            message=self._command.content,
            references=self._command.references,
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
                    self._logger.error("tool_left_behind", tool=tool.name, run_id=self._run.run_id)
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
            run=self._run,
            emitter=self._emitter,
            files=self._files,
            clock=self._clock,
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
            for call in self._emitter.state.tools.values()
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
    """Return what of the arguments stands in the event: no secrets, and not more than fits."""
    size = len(msgspec.json.encode(args))
    return redact(args) if size <= MAX_RESULT_BYTES else {"omitted": f"{size} bytes of arguments"}


def _outcome(completed: ToolCompleted) -> ToolOutcome:
    summary = completed.result_summary
    if completed.artifact_id:
        summary = f"{summary} The result is too large to show; it was saved as artifact {completed.artifact_id}."
    return ToolOutcome(completed.status, summary, completed.result, completed.error)


def _retrieve(task: asyncio.Future[ToolOutput]) -> None:
    """Take the error of a task that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
