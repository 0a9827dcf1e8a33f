"""Runs as a newer service writes them, put into the storage of this one."""

from collections.abc import Sequence
from datetime import UTC, datetime

from generated.apex.agent.v1 import agent_pb2 as pb
from storage.interfaces import Storage
from storage.records import Append, AppendOutcome, Ending, RunRecord, RunStatus, StoredEvent
from tests.support.newer_contract import NEW_VALUE_NUMBER, NewerContract, set_field
from tests.support.storage import new_id

NEWER = NewerContract()
ANSWER = "Forty-two."


def envelope(run: RunRecord, seq: int, body: pb.AgentEvent) -> pb.AgentEvent:
    """Return an event of the run."""
    event = pb.AgentEvent(run_id=run.run_id, thread_id=run.thread_id, seq=seq, attempt=1, agent_name="data")
    event.emit_time.FromDatetime(run.create_time)
    event.MergeFrom(body)
    return event


def thought(run: RunRecord, seq: int) -> bytes:
    """Return an event that this version knows, with fields that it does not know."""
    return NEWER.event(envelope(run, seq, pb.AgentEvent(agent_thinking=pb.AgentThinking(thought="Hm.", step=1))))


def future_event(run: RunRecord, seq: int) -> bytes:
    """Return an event of a kind that this version does not know."""
    return NEWER.future_event(envelope(run, seq, pb.AgentEvent()))


def future_value(run: RunRecord, seq: int) -> bytes:
    """Return an event that this version knows, with a value that it does not know."""
    body = pb.AgentEvent(agent_progress=pb.AgentProgress(message="On.", step=1))
    event = NEWER.new("AgentEvent", NEWER.event(envelope(run, seq, body)))
    set_field(event, "agent_progress.stage", NEW_VALUE_NUMBER)
    return event.SerializeToString(deterministic=True)


def ending(run: RunRecord, seq: int) -> list[bytes]:
    """Return the last three events of a run that ends well."""
    message_id = new_id()
    bodies = [
        pb.AgentEvent(partial_result=pb.PartialResult(message_id=message_id, text=ANSWER)),
        pb.AgentEvent(
            final_response=pb.FinalResponse(message_id=message_id, content=ANSWER, source=pb.ANSWER_SOURCE_COMPUTED)
        ),
        pb.AgentEvent(
            agent_completed=pb.AgentCompleted(agent_id="a", status=pb.COMPLETION_STATUS_SUCCESS, usage=pb.Usage())
        ),
    ]
    return [NEWER.event(envelope(run, seq + place, body)) for place, body in enumerate(bodies)]


async def append(storage: Storage, run: RunRecord, data: Sequence[bytes], *, ends: bool = False) -> None:
    """Commit events as the holder of the run's claim; the last one ends it if `ends`."""
    first = run.last_seq + 1
    events = [
        StoredEvent(run.run_id, seq, one, terminal=ends and seq == run.last_seq + len(data))
        for seq, one in enumerate(data, first)
    ]
    end = Ending(RunStatus.COMPLETED, datetime.now(UTC)) if ends else None
    outcome = await storage.events.append([Append(run.run_id, run.epoch, run.last_seq, events, ending=end)])
    assert outcome == [AppendOutcome.APPENDED]


async def log_of(storage: Storage, run: RunRecord) -> Sequence[bytes]:
    """Return the run's log, byte for byte."""
    stored = await storage.events.read(run.user_id, run.run_id, 0, max_events=1_000, max_bytes=1 << 24)
    return [event.data for event in stored]
