"""What was said before in a thread, and by reference what the answers were made from."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from agent_service.engine.events import PartialResult, ToolCompleted, ToolStatus
from agent_service.engine.ports import EarlierResult, EventCodec, HistoryMessage
from storage.errors import RecordNotFoundError
from storage.interfaces import EventLog, Storage
from storage.records import MessageRole, RunRecord

MAX_REFERRED_RUNS: Final = 3
"""The newest earlier runs whose results are named: what people go on with was said a moment ago."""

MAX_RESULTS: Final = 20
"""Named results of one run, the last ones."""

MAX_SUMMARY_CHARACTERS: Final = 300
"""Of one result's summary."""

_PAGE_EVENTS: Final = 500
_PAGE_BYTES: Final = 1024 * 1024


async def read_history(storage: Storage, codec: EventCodec, run: RunRecord, *, limit: int) -> list[HistoryMessage]:
    """Return at most `limit` messages of the runs before this one in its thread, oldest first."""
    if run.position == 1:
        return []  # nothing comes before a thread's first run
    messages = await storage.threads.history(run.user_id, run.thread_id, before_position=run.position, limit=limit)
    answered = [message.run_id for message in messages if message.role is MessageRole.ASSISTANT]
    results = {
        run_id: await _results_of(storage.events, codec, run.user_id, run_id)
        for run_id in answered[-MAX_REFERRED_RUNS:]
    }
    return [
        HistoryMessage(
            message.role,
            message.content,
            message.run_id,
            results.get(message.run_id, ()) if message.role is MessageRole.ASSISTANT else (),
        )
        for message in messages
    ]


async def _results_of(events: EventLog, codec: EventCodec, user_id: str, run_id: str) -> Sequence[EarlierResult]:
    """Return what a run's tools found before it began to answer: the many pieces of the answer are not decoded."""
    try:
        page = await events.read(user_id, run_id, 0, max_events=_PAGE_EVENTS, max_bytes=_PAGE_BYTES)
    except RecordNotFoundError:
        return ()  # deleted meanwhile, with its thread
    bodies = (codec.decode(stored.data).body for stored in page)
    found = [
        EarlierResult(
            tool_call_id=body.tool_call_id,
            tool_name=body.tool_name,
            summary=body.result_summary[:MAX_SUMMARY_CHARACTERS],
            artifact_id=body.artifact_id,
        )
        for body in takewhile(lambda body: not isinstance(body, PartialResult), bodies)
        if isinstance(body, ToolCompleted) and body.status is ToolStatus.SUCCESS
    ]
    return tuple(found[-MAX_RESULTS:])
