"""How much is measured: everything here is a bound in count or in time."""

from dataclasses import dataclass
from typing import Final

from benchmarks.workload import Script


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of one round of one mode. Times in seconds, but for `pause_ms`."""

    alone: int
    waves: int
    wave: int
    window_s: float
    warm_up_s: float
    paced_runs: int
    paced_pieces: int
    pause_ms: int
    idle_sockets: int
    settle_s: float
    replay_events: int
    replays: int
    rounds: int

    @property
    def replayed(self) -> Script:
        """The run that is replayed."""
        return Script(pieces=self.replay_events - Script(pieces=0).events)


RUNS_AT_ONCE: Final = (1, 10, 100)
"""How many runs there are at once while events per second are counted."""

CPU_RUNS: Final = 10
"""With which of them CPU time is counted."""

SHORT: Final = Script(tools=1, pieces=1)
"""The run whose beginning is timed: there is nothing behind it that could be in the way of the next one."""

SOCKETS_PER_USER: Final = 3
"""As many as a user may have."""

FULL: Final = Sizes(
    alone=200,
    waves=8,
    wave=50,
    window_s=3.0,
    warm_up_s=0.7,
    paced_runs=200,
    paced_pieces=400,
    pause_ms=20,
    idle_sockets=2_000,
    settle_s=1.0,
    replay_events=10_000,
    replays=10,
    rounds=3,
)

QUICK: Final = Sizes(
    alone=100,
    waves=4,
    wave=50,
    window_s=1.5,
    warm_up_s=0.5,
    paced_runs=200,
    paced_pieces=250,
    pause_ms=20,
    idle_sockets=500,
    settle_s=1.0,
    replay_events=10_000,
    replays=4,
    rounds=1,
)

TINY: Final = Sizes(
    alone=3,
    waves=1,
    wave=4,
    window_s=0.2,
    warm_up_s=0.05,
    paced_runs=4,
    paced_pieces=100,
    pause_ms=10,
    idle_sockets=10,
    settle_s=0.1,
    replay_events=300,
    replays=2,
    rounds=1,
)
"""For the tests: every figure once, none of them worth a look."""
