"""A run's state from its log."""

from collections.abc import Sequence
from typing import Final

from agent_service.engine.errors import FencedError, GrammarError
from agent_service.engine.ports import EventCodec
from agent_service.engine.run import RunState
from storage.interfaces import EventLog
from storage.records import RunRecord, StoredEvent

FOLD_EVENTS: Final = 1_000
"""Events of one page when a run's log is read again."""

FOLD_BYTES: Final = 4 * 1024 * 1024
"""Bytes of one page when a run's log is read again."""


async def fold(log: EventLog, codec: EventCodec, run: RunRecord, beginning: Sequence[StoredEvent] = ()) -> RunState:
    """Return the state of a run as its record shows it. `beginning` are events from seq 1 on that are at hand.

    Raises `FencedError` when the log has grown since the record was read, `GrammarError` for a log that no run can
    have, and what `EventLog.read` raises.
    """
    state = RunState(run.run_id, run.thread_id)
    for stored in beginning if len(beginning) <= run.last_seq else ():
        state.apply(codec.decode(stored.data))
    while state.last_seq < run.last_seq:
        page = await log.read(run.user_id, run.run_id, state.last_seq, max_events=FOLD_EVENTS, max_bytes=FOLD_BYTES)
        if not page:
            raise GrammarError(f"run {run.run_id}: the log ends at {state.last_seq}, the run at {run.last_seq}")
        for stored in page:
            state.apply(codec.decode(stored.data))
    if state.last_seq > run.last_seq:
        # It was written to since, so somebody else has the run.
        raise FencedError(run.run_id)
    state.attempt = run.attempt
    return state
