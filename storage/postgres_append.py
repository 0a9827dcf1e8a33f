"""The append on PostgreSQL: one statement, which is a transaction by itself, so one round trip for all runs."""

from collections.abc import Sequence
from functools import cache
from typing import Final

from storage.prepared import Query, Transaction, row_of
from storage.records import Append, Checkpoint, Ending, MessageRecord, StoredEvent

# LATERAL: each row is found by its id and locked in the order of the parameters, whatever the statistics say. They are
# ordered by id, so that two writers with runs in common never deadlock. After a wait PostgreSQL tests the conditions
# again on the row's newest version: that is the fence. `num_nulls`: in plainer words the planner sees the index of open
# runs, takes it for tiny, and walks all of it once for each row.
_LOCKED: Final = """
locked AS MATERIALIZED (
  SELECT r.id, r.thread_id, given.last_seq, given.has_checkpoint, given.status, given.end_time, given.error_reason
  FROM unnest($1::text[], $2::int[], $3::int[], $4::int[], $5::bool[], $6::text[], $7::timestamptz[], $8::text[])
    AS given (id, epoch, after_seq, last_seq, has_checkpoint, status, end_time, error_reason)
  CROSS JOIN LATERAL (
    SELECT id, thread_id FROM runs
    WHERE id = given.id AND epoch = given.epoch AND last_seq = given.after_seq AND num_nulls(end_time) = 1 {and_then}
    FOR NO KEY UPDATE
  ) AS r
)"""
_LOCKED_ROW: Final = row_of("id")
# Locks are taken in one order everywhere: threads by id, then runs by id. Counting the locked threads makes PostgreSQL
# lock them before it looks for the first run.
_ENTERED: Final = """
entered AS MATERIALIZED (
  SELECT id FROM threads
  WHERE id IN (
    SELECT r.thread_id FROM unnest($1::text[], $6::text[]) AS given (id, status)
    CROSS JOIN LATERAL (SELECT thread_id FROM runs WHERE id = given.id OFFSET 0) AS r
    WHERE given.status IS NOT NULL
  )
  ORDER BY id FOR NO KEY UPDATE
)"""
_AFTER_ENTERED: Final = "AND (SELECT count(*) FROM entered) >= 0"
_WRITTEN: Final = """
written AS (
  INSERT INTO run_events (run_id, seq, terminal, data)
  SELECT * FROM unnest($9::text[], $10::int[], $11::bool[], $12::bytea[]) AS event (run_id, seq, terminal, data)
  WHERE event.run_id IN (SELECT id FROM locked)
)"""
_ADVANCED: Final = """
advanced AS (
  UPDATE runs SET last_seq = locked.last_seq, claims = CASE WHEN locked.has_checkpoint THEN 0 ELSE claims END
  FROM locked WHERE runs.id = locked.id
)"""
_ENDED: Final = """
ended AS (
  UPDATE runs
  SET last_seq = locked.last_seq,
      claims = CASE WHEN locked.has_checkpoint THEN 0 ELSE claims END,
      status = coalesce(locked.status, runs.status),
      end_time = locked.end_time,
      error_reason = locked.error_reason,
      worker_id = CASE WHEN locked.status IS NULL THEN worker_id END,
      lease_expire_time = CASE WHEN locked.status IS NULL THEN lease_expire_time END
  FROM locked WHERE runs.id = locked.id
)"""
_TOUCHED: Final = """
touched AS (
  UPDATE threads SET update_time = ended.end_time
  FROM (SELECT thread_id, max(end_time) AS end_time FROM locked WHERE status IS NOT NULL GROUP BY thread_id) AS ended
  WHERE threads.id = ended.thread_id
)"""
_ANSWERED: Final = """
answered AS (
  INSERT INTO messages (id, thread_id, run_id, user_id, role, content, create_time)
  SELECT * FROM unnest(
    $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[], $19::timestamptz[]
  ) AS message (id, thread_id, run_id, user_id, role, content, create_time)
  WHERE message.run_id IN (SELECT id FROM locked)
)"""
_SAVED: Final = """
saved AS (
  INSERT INTO checkpoints (run_id, seq, version, data)
  SELECT * FROM unnest(${0}::text[], ${1}::int[], ${2}::int[], ${3}::bytea[]) AS checkpoint (run_id, seq, version, data)
  WHERE checkpoint.run_id IN (SELECT id FROM locked)
  ON CONFLICT (run_id) DO UPDATE SET seq = excluded.seq, version = excluded.version, data = excluded.data
)"""
_FIRST_FREE: Final = 13
_FIRST_FREE_AFTER_MESSAGES: Final = 20


@cache
def _statement(*, has_ending: bool, has_checkpoint: bool) -> str:
    """Return the statement. What it need not do is not in it: PostgreSQL plans all that is."""
    if has_ending:
        parts = [_ENTERED, _LOCKED.format(and_then=_AFTER_ENTERED), _ENDED, _WRITTEN, _TOUCHED, _ANSWERED]
    else:
        parts = [_LOCKED.format(and_then=""), _ADVANCED, _WRITTEN]
    if has_checkpoint:
        first = _FIRST_FREE_AFTER_MESSAGES if has_ending else _FIRST_FREE
        parts.append(_SAVED.format(*range(first, first + 4)))
    return f"WITH {','.join(parts)} SELECT id FROM locked"  # noqa: S608 - our own text


_INSERT_EVENTS: Final = """
INSERT INTO run_events (run_id, seq, terminal, data)
SELECT * FROM unnest($1::text[], $2::int[], $3::bool[], $4::bytea[])
"""


def append(appends: Sequence[Append]) -> Transaction[frozenset[str]]:
    """Write every append whose fence holds; return the ids of their runs."""
    by_id = sorted(appends, key=lambda append: append.run_id)
    endings = [append.ending for append in by_id if append.ending]
    saved = [(append.run_id, append.checkpoint) for append in by_id if append.checkpoint]
    args = [*_runs(by_id), *_events([event for append in by_id for event in append.events])]
    if endings:
        args += _messages([ending.message for ending in endings if ending.message])
    if saved:
        args += _checkpoints(saved)
    statement = _statement(has_ending=bool(endings), has_checkpoint=bool(saved))
    rows = yield Query(statement, args, _LOCKED_ROW, is_alone=True)
    return frozenset(row.id for row in rows)


def insert_events(events: Sequence[StoredEvent]) -> Transaction[None]:
    """Write events."""
    yield Query(_INSERT_EVENTS, _events(events))


def _runs(appends: Sequence[Append]) -> list[list[object]]:
    endings: list[Ending | None] = [append.ending for append in appends]
    return [
        [append.run_id for append in appends],
        [append.epoch for append in appends],
        [append.after_seq for append in appends],
        [append.after_seq + len(append.events) for append in appends],
        [append.checkpoint is not None for append in appends],
        [ending and ending.status for ending in endings],
        [ending and ending.end_time for ending in endings],
        [ending and ending.error_reason for ending in endings],
    ]


def _events(events: Sequence[StoredEvent]) -> list[list[object]]:
    return [
        [event.run_id for event in events],
        [event.seq for event in events],
        [event.terminal for event in events],
        [event.data for event in events],
    ]


def _messages(messages: Sequence[MessageRecord]) -> list[list[object]]:
    return [
        [message.message_id for message in messages],
        [message.thread_id for message in messages],
        [message.run_id for message in messages],
        [message.user_id for message in messages],
        [message.role for message in messages],
        [message.content for message in messages],
        [message.create_time for message in messages],
    ]


def _checkpoints(saved: Sequence[tuple[str, Checkpoint]]) -> list[list[object]]:
    return [
        [run_id for run_id, _ in saved],
        [checkpoint.seq for _, checkpoint in saved],
        [checkpoint.version for _, checkpoint in saved],
        [checkpoint.data for _, checkpoint in saved],
    ]
