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

_COLUMNS: Final = 8
"""Of what is said of each append; see `_row`."""

_HELD_ROW: Final = row_of("ids")
_COUNT_ROW: Final = row_of("changed")
_TOUCH_THREAD: Final = "UPDATE threads SET update_time = ? WHERE id = (SELECT thread_id FROM runs WHERE id = ?)"
_SAVE_CHECKPOINT: Final = """
INSERT INTO checkpoints (run_id, seq, version, data) VALUES (?, ?, ?, ?)
ON CONFLICT (run_id) DO UPDATE SET seq = excluded.seq, version = excluded.version, data = excluded.data
"""
_INSERT_MESSAGE: Final = """
INSERT INTO messages (id, thread_id, run_id, user_id, role, content, create_time) VALUES (?, ?, ?, ?, ?, ?, ?)
"""


class SomeFencedError(Exception):
    """An append's fence does not hold. Nothing was written."""


def append(appends: Sequence[Append]) -> Transaction[frozenset[str]]:
    """Write every append whose fence holds; return the ids of their runs.

    Raises `SomeFencedError`, with nothing written, where one does not: `append_held` finds out which.
    """
    for chosen, statement in ((_going_on(appends), _advance), (_ending(appends), _end)):
        if chosen:
            counted = yield Query(statement(_padded(len(chosen))), _given(chosen), _COUNT_ROW, is_counted=True)
            if counted[0].changed != len(chosen):
                raise SomeFencedError
    yield from _write(appends)
    return frozenset(append.run_id for append in appends)


def append_held(appends: Sequence[Append]) -> Transaction[frozenset[str]]:
    """Do the same where some may be fenced."""
    rows = yield Query(_held(_padded(len(appends))), _given(appends), _HELD_ROW)
    held_ids = frozenset(json.loads(rows[0].ids))
    held = [append for append in appends if append.run_id in held_ids]
    return (yield from append(held)) if held else frozenset()


def _going_on(appends: Sequence[Append]) -> list[Append]:
    return [append for append in appends if append.ending is None]


def _ending(appends: Sequence[Append]) -> list[Append]:
    return [append for append in appends if append.ending is not None]


def _write(appends: Sequence[Append]) -> Transaction[None]:
    yield from insert_events([event for append in appends for event in append.events])
    for append in appends:
        if append.checkpoint is not None:
            yield _save(append.run_id, append.checkpoint)
        if append.ending is not None:
            yield from _finish(append.run_id, append.ending)


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


def _padded(rows: int) -> int:
    """Return the next power of two, which rows of NULL fill up: few statements, all of them kept ready."""
    return 1 << (rows - 1).bit_length()


@cache
def _source(rows: int) -> str:
    places = ", ".join([f"({', '.join('?' * _COLUMNS)})"] * rows)
    names = "id, epoch, after_seq, last_seq, has_checkpoint, status, end_time, error_reason"
    # SQLite calls the columns of VALUES so.
    columns = ", ".join(f"column{place} AS {name}" for place, name in enumerate(names.split(", "), 1))
    return f"(SELECT {columns} FROM (VALUES {places})) AS given"  # noqa: S608 - only question marks


_FENCE: Final = """
runs.id = given.id AND runs.epoch = given.epoch AND runs.last_seq = given.after_seq AND runs.end_time IS NULL
"""


@cache
def _held(rows: int) -> str:
    return f"SELECT json_group_array(runs.id) AS ids FROM {_source(rows)} CROSS JOIN runs ON {_FENCE}"  # noqa: S608 - likewise


@cache
def _advance(rows: int) -> str:
    return f"""
    UPDATE runs
    SET last_seq = given.last_seq, claims = CASE WHEN given.has_checkpoint THEN 0 ELSE claims END
    FROM {_source(rows)} WHERE {_FENCE}
    """  # noqa: S608 - likewise


@cache
def _end(rows: int) -> str:
    # Apart from the other: with these columns every row's place in the indexes is looked at again.
    return f"""
    UPDATE runs
    SET last_seq = given.last_seq, claims = CASE WHEN given.has_checkpoint THEN 0 ELSE claims END,
        status = given.status, end_time = given.end_time, error_reason = given.error_reason,
        worker_id = NULL, lease_expire_time = NULL
    FROM {_source(rows)} WHERE {_FENCE}
    """  # noqa: S608 - likewise


@cache
def _insert(rows: int) -> str:
    places = ", ".join(["(?, ?, ?, ?)"] * rows)
    return f"INSERT INTO run_events (run_id, seq, terminal, data) VALUES {places}"  # noqa: S608 - only question marks


def _given(appends: Sequence[Append]) -> list[object]:
    cells = [cell for append in appends for cell in _row(append)]
    return cells + [None] * (_COLUMNS * _padded(len(appends)) - len(cells))


def _row(append: Append) -> tuple[object, ...]:
    return (
        append.run_id,
        append.epoch,
        append.after_seq,
        append.after_seq + len(append.events),
        append.checkpoint is not None,
        *_ending_cells(append.ending),
    )


def _ending_cells(ending: Ending | None) -> tuple[object, ...]:
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
