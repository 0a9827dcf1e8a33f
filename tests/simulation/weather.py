"""What a simulation has to live with: how many services, how good their lines are, what happens to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

NEVER_MS: Final = 36_000_000
POLL_MS: Final = 1_000

USERS_DO: Final[Mapping[str, int]] = {
    "send": 18,
    "repeat": 8,
    "watch_some": 12,
    "disconnect": 12,
    "cancel": 10,
    "look": 3,
    "pry": 6,
}


@dataclass(frozen=True, slots=True)
class Weather:
    """`embedded`: one service at a time, which at its start takes up whatever the one before it left."""

    name: str
    services: int
    latency_s: float
    slow_rate: float = 0.0
    fault_rate: float = 0.0
    embedded: bool = False
    poll_interval_ms: int = POLL_MS
    has_fatal_messages: bool = False
    happens: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_calm(self) -> bool:
        """True when nothing fails."""
        return self.poll_interval_ms == NEVER_MS

    @property
    def acts(self) -> Mapping[str, int]:
        """What may happen in a step, and how often."""
        return {**USERS_DO, **self.happens}


def weather_of(chance: Random) -> Weather:
    """Choose the weather.

    In calm weather nothing fails and the broadcast never looks at the log by itself: what it misses is missed for ever.
    """
    latency_s = chance.choice([0.0, 0.001, 0.005, 0.03])
    kinds = [
        Weather("calm", 1, latency_s, embedded=True, poll_interval_ms=NEVER_MS, happens={"drain": 1}),
        Weather("pair", 2, latency_s, happens={"drain": 1, "delete": 3}),
        Weather(
            "embedded",
            1,
            latency_s,
            slow_rate=0.002,
            fault_rate=0.02,
            embedded=True,
            has_fatal_messages=True,
            happens={"crash": 2, "drain": 1, "delete": 3, "hold": 1, "cut": 1},
        ),
        Weather(
            "storm",
            chance.choice([2, 3]),
            latency_s,
            slow_rate=0.01,
            fault_rate=chance.choice([0.01, 0.05]),
            has_fatal_messages=True,
            happens={"crash": 3, "drain": 1, "delete": 3, "hold": 4, "cut": 3},
        ),
    ]
    return chance.choices(kinds, [2, 2, 2, 4])[0]
