"""What must hold of every run once all is over, read from the database and from the log itself."""

from collections.abc import Sequence

from agent_service.engine.events import (
    AgentCompleted,
    AgentError,
    CompletionStatus,
    Event,
    FinalResponse,
    ToolCompleted,
    ToolStatus,
)
from agent_service.engine.ports import EventCodec
from storage.memory_state import MemoryState
from storage.records import MessageRole, RunRecord, RunStatus
from tests.simulation.ledger import Account, Ledger
from tests.simulation.scripts import Effects
from tests.simulation.verdict import Verdict
from tests.support.grammar import GrammarViolationError, check_run


def check_runs(ledger: Ledger, effects: Effects, codec: EventCodec, verdict: Verdict) -> None:
    """Judge every run that was not deleted, and every call of a tool."""
    state = ledger.state
    for run_id, account in ledger.accounts.items():
        if account.is_deleted:
            verdict.require(run_id not in state.runs and run_id not in state.events, f"{run_id} is deleted, and there")
        else:
            _check_run(state, account, effects, codec, verdict)
    known = {run_id for run_id, account in ledger.accounts.items() if not account.is_deleted}
    verdict.require(set(state.runs) == known, "the database holds runs that nobody accepted")
    keys = [(run.user_id, run.client_message_id) for run in state.runs.values() if run.client_message_id]
    verdict.require(len(keys) == len(set(keys)), "two runs of one user have one key")


def _check_run(state: MemoryState, account: Account, effects: Effects, codec: EventCodec, verdict: Verdict) -> None:
    run_id = account.run.run_id
    row, stored = state.runs[run_id], state.events[run_id]
    verdict.require(
        [event.data for event in stored] == account.events, f"the log of {run_id} is not what was committed"
    )
    verdict.require(row.last_seq == len(stored), f"{run_id} is at {row.last_seq}, its log at {len(stored)}")
    events = [codec.decode(event.data) for event in stored]
    try:
        check_run(events)
    except GrammarViolationError as error:
        verdict.fail(f"{run_id} breaks the grammar: {error}")
        return
    _check_end(state, row, events, verdict)
    _check_tools(row, events, effects, verdict)


def _check_end(state: MemoryState, row: RunRecord, events: Sequence[Event], verdict: Verdict) -> None:
    end = events[-1].body
    told = RunStatus.FAILED if isinstance(end, AgentError) else RunStatus.COMPLETED
    if isinstance(end, AgentCompleted) and end.status is CompletionStatus.CANCELLED:
        told = RunStatus.CANCELLED
    verdict.require(row.status is told, f"{row.run_id} is {row.status}, its log says {told}")
    reason = end.reason if isinstance(end, AgentError) else None
    verdict.require(row.error_reason == reason, f"{row.run_id} failed with {row.error_reason}, its log says {reason}")
    verdict.require(row.attempt >= events[-1].attempt, f"{row.run_id} is at attempt {row.attempt}")
    messages = [message for message in state.messages.values() if message.run_id == row.run_id]
    roles = [message.role for message in messages]
    answers = [message for message in messages if message.role is MessageRole.ASSISTANT]
    verdict.require(roles.count(MessageRole.USER) == 1, f"{row.run_id} has the messages {roles}")
    finals = [event.body for event in events if isinstance(event.body, FinalResponse)]
    shown = [(message.message_id, message.content) for message in answers]
    verdict.require(
        shown == [(final.message_id, final.content) for final in finals],
        f"{row.run_id} was answered with {finals}, and the thread says {shown}",
    )
    visible = {message.message_id for _, message in state.visible_messages(row.thread_id)}
    expected = row.superseded_by_run_id is None
    seen = {message.message_id in visible for message in messages}
    verdict.require(seen == {expected}, f"{row.run_id}: superseded by {row.superseded_by_run_id}, visible: {seen}")


def _check_tools(row: RunRecord, events: Sequence[Event], effects: Effects, verdict: Verdict) -> None:
    for event in events:
        body = event.body
        if isinstance(body, ToolCompleted) and body.tool_name != "break":
            times = effects.done[row.run_id, body.tool_call_id]
            if body.status is ToolStatus.SUCCESS:
                verdict.require(times > 0, f"{row.run_id}: {body.tool_call_id} succeeded without effect")
            if body.tool_name == "pay":
                verdict.require(times <= 1, f"{row.run_id}: the unsafe {body.tool_call_id} took effect {times} times")
