"""The append's statements on SQLite: few, because the writer's thread waits for its turn to run Python after each."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Final

from storage.prepared import Query, Transaction, row_of
from storage.records import Append, Checkpoint, Ending, MessageRecord, StoredEvent
from storage.schema import to_microseconds

MAX_ROWS: Final = 256
"""Rows of one INSERT."""

_GIVEN: Final = """(
  SELECT value ->> 0 AS id, value ->> 1 AS epoch, value ->> 2 AS after_seq, value ->> 3 AS last_seq,
         value ->> 4 AS has_checkpoint, value ->> 5 AS status, value ->> 6 AS end_time, value ->> 7 AS error_reason
  FROM json_each(?)
) AS given"""
_HELD: Final = f"""
SELECT json_group_array(runs.id) AS ids FROM {_GIVEN}
CROSS JOIN runs ON runs.id = given.id
WHERE runs.epoch = given.epoch AND runs.last_seq = given.after_seq AND runs.end_time IS NULL
"""  # noqa: S608 - our own text
_HELD_ROW: Final = row_of("ids")
_ADVANCE: Final = f"""
UPDATE runs
SET last_seq = given.last_seq, claims = CASE WHEN given.has_checkpoint THEN 0 ELSE claims END
FROM {_GIVEN} WHERE runs.id = given.id
"""  # noqa: S608 - likewise
# Apart from the other: with these columns every row's place in the indexes is looked at again.
_END: Final = f"""
UPDATE runs
SET last_seq = given.last_seq, claims = CASE WHEN given.has_checkpoint THEN 0 ELSE claims END,
    status = given.status, end_time = given.end_time, error_reason = given.error_reason,
    worker_id = NULL, lease_expire_time = NULL
FROM {_GIVEN} WHERE runs.id = given.id
"""  # noqa: S608 - likewise
_TOUCH_THREAD: Final = "UPDATE threads SET update_time = ? WHERE id = (SELECT thread_id FROM runs WHERE id = ?)"
_SAVE_CHECKPOINT: Final = """
INSERT INTO checkpoints (run_id, seq, version, data) VALUES (?, ?, ?, ?)
ON CONFLICT (run_id) DO UPDATE SET seq = excluded.seq, version = excluded.version, data = excluded.data
"""
_INSERT_MESSAGE: Final = """
INSERT INTO messages (id, thread_id, run_id, user_id, role, content, create_time) VALUES (?, ?, ?, ?, ?, ?, ?)
"""


def append(appends: Sequence[Append]) -> Transaction[frozenset[str]]:
    """Write every append whose fence holds; return the ids of their runs."""
    rows = yield Query(_HELD, [_given(appends)], _HELD_ROW)
    held_ids = frozenset(json.loads(rows[0].ids))
    held = [append for append in appends if append.run_id in held_ids]
    if going_on := [append for append in held if append.ending is None]:
        yield Query(_ADVANCE, [_given(going_on)])
    if ending := [append for append in held if append.ending is not None]:
        yield Query(_END, [_given(ending)])
    yield from insert_events([event for append in held for event in append.events])
    for append in held:
        if append.checkpoint is not None:
            yield _save(append.run_id, append.checkpoint)
        if append.ending is not None:
            yield from _finish(append.run_id, append.ending)
    return held_ids


def insert_events(events: Sequence[StoredEvent]) -> Transaction[None]:
    """Write events."""
    start = 0
    while start < len(events):
        # Sizes that are powers of two: few statements, all of them kept ready.
        size = min(MAX_ROWS, 1 << (len(events) - start).bit_length() - 1)
        cells = [
            cell
            for event in events[start : start + size]
            for cell in (event.run_id, event.seq, event.terminal, event.data)
        ]
        yield Query(_insert(size), cells)
        start += size


@cache
def _insert(rows: int) -> str:
    places = ", ".join(["(?, ?, ?, ?)"] * rows)
    return f"INSERT INTO run_events (run_id, seq, terminal, data) VALUES {places}"  # noqa: S608 - only question marks


def _given(appends: Sequence[Append]) -> str:
    return json.dumps([_row(append) for append in appends])


def _row(append: Append) -> tuple[object, ...]:
    return (
        append.run_id,
        append.epoch,
        append.after_seq,
        append.after_seq + len(append.events),
        append.checkpoint is not None,
        *_end(append.ending),
    )


def _end(ending: Ending | None) -> tuple[object, ...]:
    if ending is None:
        return None, None, None
    return ending.status, to_microseconds(ending.end_time), ending.error_reason


def _save(run_id: str, checkpoint: Checkpoint) -> Query:
    return Query(_SAVE_CHECKPOINT, (run_id, checkpoint.seq, checkpoint.version, checkpoint.data))


def _finish(run_id: str, ending: Ending) -> Transaction[None]:
    yield Query(_TOUCH_THREAD, (to_microseconds(ending.end_time), run_id))
    if ending.message is not None:
        yield Query(_INSERT_MESSAGE, _message(ending.message))


def _message(message: MessageRecord) -> tuple[object, ...]:
    return (
        message.message_id,
        message.thread_id,
        message.run_id,
        message.user_id,
        message.role,
        message.content,
        to_microseconds(message.create_time),
    )
