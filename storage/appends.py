"""What makes an `Append` well formed, whatever the storage."""

from collections.abc import Sequence

from storage.records import Append


def check_appends(appends: Sequence[Append]) -> None:
    """Raise `ValueError` for appends that no log may hold: these are defects of the caller."""
    if len({append.run_id for append in appends}) != len(appends):
        raise ValueError("one call holds at most one append per run")
    for append in appends:
        for seq, event in enumerate(append.events, append.after_seq + 1):
            if event.seq != seq or event.run_id != append.run_id:
                raise ValueError(
                    f"event {event.seq} of run {event.run_id} stands where {seq} of {append.run_id} belongs"
                )
        if any(event.terminal for event in append.events[:-1]):
            raise ValueError(f"run {append.run_id} goes on after its terminal event")
        if append.ending and append.ending.status.is_open:
            raise ValueError(f"run {append.run_id} cannot end as {append.ending.status}")
