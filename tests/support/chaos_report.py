"""What the rounds of a test run amount to, in a few lines at its end.

A test notes its round as a property of its report, which also finds its way from a parallel worker.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Final

import msgspec

from tests.support.crash_rounds import Outcome

PROPERTY: Final = "chaos_round"


class RoundNote(msgspec.Struct, frozen=True):
    """One round. `recoveries_s`: for each kill, how long each kept client waited for the first new event."""

    stage: str
    kills: tuple[tuple[str, str], ...]
    runs: int
    events: int
    compared: int
    recoveries_s: tuple[tuple[float, ...], ...]


def note_round(record: Callable[[str, object], None], stage: str, outcome: Outcome, *kills: tuple[str, str]) -> None:
    """Note a round: `record` is pytest's `record_property`; `kills` are those besides the planned ones."""
    note = RoundNote(
        stage,
        (*((death.plan.place, str(death.side)) for death in outcome.deaths), *kills),
        len(outcome.history.runs),
        outcome.events,
        outcome.compared,
        tuple(map(tuple, outcome.recoveries_s)),
    )
    record(PROPERTY, msgspec.json.encode(note).decode())


def read_notes(properties: Iterable[tuple[str, object]]) -> list[RoundNote]:
    """Return the rounds among the properties of a report."""
    return [msgspec.json.decode(str(value), type=RoundNote) for name, value in properties if name == PROPERTY]


def summary(notes: Sequence[RoundNote]) -> list[str]:
    """Return the lines about all rounds, one paragraph for each kind of stage."""
    lines: list[str] = []
    for stage in sorted({note.stage for note in notes}):
        lines += _paragraph(stage, [note for note in notes if note.stage == stage])
    return lines


def _paragraph(stage: str, notes: Sequence[RoundNote]) -> list[str]:
    runs, events = sum(note.runs for note in notes), sum(note.events for note in notes)
    compared = sum(note.compared for note in notes)
    kills = Counter(kill for note in notes for kill in note.kills)
    done = f"{len(notes)} rounds, {kills.total()} kills, {runs} runs"
    lines = [f"{stage}: {done}, {events} events in the log, {compared} seen events checked"]
    waits = [wait for note in notes for wait in note.recoveries_s if wait]
    if waits:
        first, last = [min(wait) for wait in waits], [max(wait) for wait in waits]
        lines.append(
            "  from a kill to the first new event: "
            f"median {median(first):.2f} s, worst {max(first):.2f} s; "
            f"for the last kept client: median {median(last):.2f} s, worst {max(last):.2f} s"
        )
    places: dict[str, list[str]] = {}
    for (place, side), count in sorted(kills.items()):
        places.setdefault(place, []).append(f"{side} {count}")
    if places:
        lines.append("  kills: " + "; ".join(f"{place} ({', '.join(sides)})" for place, sides in places.items()))
    return lines
