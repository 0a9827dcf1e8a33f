"""The gate before a tool call of a working run: asks a person where one must decide, and obeys the decision."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import msgspec
from pydantic import BaseModel

from agent_service.engine.approvals import approval_id_of, reason_to_ask
from agent_service.engine.commands import RunSettings
from agent_service.engine.emitter import RunEmitter
from agent_service.engine.errors import WaitingError
from agent_service.engine.events import AgentThinking, ApprovalDecision, ApprovalRequested, ApprovalResolved, JsonObject
from agent_service.engine.ports import Clock, ToolCall
from agent_service.engine.redaction import redact, unredacted
from agent_service.engine.run import ApprovalState
from agent_service.engine.tool import Tool, ToolError

MAX_QUESTION_BYTES: Final = 32 * 1024
"""Of arguments as JSON that a person is asked about: nobody decides about what cannot be shown."""


@dataclass(frozen=True, slots=True)
class CheckedCall:
    """A call that passed the checks: the tool, and the arguments as it takes them."""

    tool: Tool[BaseModel]
    args: BaseModel


class RefusedError(Exception):
    """A person, or time, has decided against the call. The text is for the model."""


class ApprovalGate:
    """The questions of one attempt. `edited_args` are what people gave in place of arguments, by approval."""

    def __init__(
        self,
        emitter: RunEmitter,
        settings: RunSettings,
        clock: Clock,
        *,
        timeout_ms: int,
        edited_args: Mapping[str, JsonObject],
    ) -> None:
        self._emitter = emitter
        self._settings = settings
        self._clock = clock
        self._timeout_ms = timeout_ms
        self._edited_args = edited_args

    def question(self, tool_call_id: str, call: ToolCall) -> ApprovalState | None:
        """Return the question that was asked about exactly this call, if any."""
        return self._emitter.state.approvals.get(self._approval_id(tool_call_id, call))

    async def decided(
        self,
        agent_name: str,
        tool_call_id: str,
        call: ToolCall,
        checked: CheckedCall,
        *,
        has_begun: bool,
    ) -> JsonObject:
        """Return the arguments to run with: the call's own, or those that a person gave in their place.

        A call that `has_begun` before a crash is not asked about any more.
        Raises `RefusedError`, `ToolError` for arguments that cannot be shown, `WaitingError` until a person decides.
        """
        asked = self.question(tool_call_id, call)
        if asked is None:
            reason = reason_to_ask(checked.tool, checked.args, self._settings)
            if has_begun or not reason:
                return call.args
            await self._ask(agent_name, tool_call_id, call, reason)
        if asked is None or asked.resolved is None:
            raise WaitingError(self._emitter.state.run_id)
        return self._obeyed(asked.resolved, call)

    def _obeyed(self, resolved: ApprovalResolved, call: ToolCall) -> JsonObject:
        match resolved.decision:
            case ApprovalDecision.APPROVED:
                return call.args
            case ApprovalDecision.EDITED:
                return unredacted(self._edited_args[resolved.approval_id], call.args)
            case ApprovalDecision.REJECTED if resolved.comment:
                raise RefusedError(f"A person rejected this call, so it did not run. They said: {resolved.comment}")
            case ApprovalDecision.REJECTED:
                raise RefusedError("A person rejected this call, so it did not run.")
            case ApprovalDecision.EXPIRED | ApprovalDecision.CANCELLED:
                raise RefusedError("Nobody decided about this call in time, so it did not run.")

    async def _ask(self, agent_name: str, tool_call_id: str, call: ToolCall, reason: str) -> None:
        size = len(msgspec.json.encode(call.args))
        if size > MAX_QUESTION_BYTES:
            text = f"A person must decide about this call ({reason}), and cannot be shown {size} bytes of arguments."
            raise ToolError(f"{text} At most {MAX_QUESTION_BYTES} can be shown: ask for less.")
        state = self._emitter.state
        if not state.has_thought:
            # As before a tool: people see why before they are asked.
            await self._emitter.emit(agent_name, AgentThinking(f"I want to use {call.tool_name} for this."))
        # What is asked together lapses together.
        asked = state.open_approvals
        expire_time = asked[0].requested.expire_time if asked else None
        requested = ApprovalRequested(
            approval_id=self._approval_id(tool_call_id, call),
            tool_name=call.tool_name,
            tool_args=redact(call.args),
            reason=reason,
            expire_time=expire_time or self._clock.now() + timedelta(milliseconds=self._timeout_ms),
        )
        await self._emitter.commit(agent_name, requested)

    def _approval_id(self, tool_call_id: str, call: ToolCall) -> str:
        return approval_id_of(self._emitter.state.run_id, tool_call_id, call.tool_name, call.args)
