"""Which deaths a test run goes through."""

import random
from collections.abc import Sequence
from typing import Final

from storage.records import RunStatus
from tests.support.crash_points import Plan, Point, Side
from tests.support.crash_rounds import CALLS, HURRIES, KEEPS
from tests.support.crashing_service_main import LOOK, NOTE, PAY, Script

MAX_OCCURRENCE: Final = 3
"""Every round has three runs after one another that pass each of these points."""

#: Points that a round may pass only once.
RARE: Final = frozenset(
    {
        (Point.ACCEPT, HURRIES),
        (Point.ACCEPT, CALLS),
        (Point.CANCEL, Script.STOP),
        (Point.CANCEL, Script.STOP_PAYING),
        (Point.ENDING, RunStatus.FAILED),
        (Point.ENDING, RunStatus.CANCELLED),
    }
)

PLACES: Final[Sequence[tuple[Point, str]]] = (
    *((Point.ACCEPT, user) for user in (KEEPS, HURRIES, CALLS)),
    (Point.CLAIM, ""),
    *((Point.TOOL_START, tool) for tool in (LOOK, NOTE, PAY)),
    *((Point.TOOL_END, tool) for tool in (LOOK, NOTE, PAY)),
    (Point.TEXT, ""),
    (Point.CHECKPOINT, ""),
    *((Point.CANCEL, script) for script in (Script.STOP, Script.STOP_PAYING)),
    *((Point.ENDING, str(status)) for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)),
)

PAID: Final = Plan(Point.TOOL_END, Side.BEFORE, PAY)
"""The worst moment: the effect is there, and nobody has written so."""

Deaths = tuple[Plan, ...]
"""The deaths of one round, one after another."""


def once_each() -> Sequence[Deaths]:
    """Return a round for each kind of commit point, before and after, and one for a death during recovery."""
    places = (
        (Point.ACCEPT, HURRIES),
        (Point.CLAIM, ""),
        (Point.TOOL_START, PAY),
        (Point.TOOL_END, PAY),
        (Point.TEXT, ""),
        (Point.CHECKPOINT, ""),
        (Point.ENDING, str(RunStatus.COMPLETED)),
    )
    sides = (Side.BEFORE, Side.AFTER)
    rounds: list[Deaths] = [(Plan(point, side, detail),) for point, detail in places for side in sides]
    stopped = Plan(Point.CANCEL, Side.AFTER, Script.STOP_PAYING)
    return [*rounds, (stopped,), (PAID, Plan(Point.RESUME, Side.INSIDE))]


def every_one(seed: int, *, again: bool = True) -> Sequence[Deaths]:
    """Return a round for each place and each side, at some occurrence; and for each side of a recovery, if `again`."""
    chance = random.Random(seed)
    rounds: list[Deaths] = []
    for point, detail in PLACES:
        most = 1 if (point, detail) in RARE else MAX_OCCURRENCE
        rounds += [(Plan(point, side, detail, chance.randint(1, most)),) for side in Side]
    return [*rounds, *((PAID, Plan(Point.RESUME, side)) for side in Side if again)]


def name(deaths: Deaths) -> str:
    """Return the name of a round."""
    return ", ".join(map(str, deaths))
