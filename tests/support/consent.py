"""A person's consent, given beforehand: for tests of what comes after it."""

from datetime import timedelta

from agent_service.engine.approvals import approval_id_of
from agent_service.engine.events import ApprovalDecision, ApprovalRequested, ApprovalResolved
from agent_service.engine.ports import ToolCall, ToolOutcome
from agent_service.engine.work import Work


async def call_with_consent(work: Work, agent_name: str, step_id: str, call: ToolCall) -> ToolOutcome:
    """Run a call that a person has agreed to, unless the log already says so."""
    tool_call_id = f"{step_id}.{call.call_id}"
    approval_id = approval_id_of(work.run.run_id, tool_call_id, call.tool_name, call.args)
    if approval_id not in work.emitter.state.approvals:
        expires = work.run.create_time + timedelta(hours=1)
        request = ApprovalRequested(approval_id, call.tool_name, call.args, "It may do harm.", expires)
        await work.emitter.emit(agent_name, request)
    if work.emitter.state.approvals[approval_id].resolved is None:
        await work.emitter.emit(agent_name, ApprovalResolved(approval_id, ApprovalDecision.APPROVED, work.run.user_id))
    return await work.dispatcher.call(agent_name, step_id, call, frozenset({call.tool_name}))
