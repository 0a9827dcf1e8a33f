"""Circuit breakers: what failed several times in a row within a minute is left alone for a minute, then probed.

Own, and no library's: `purgatory` counts failures without a window, lets every caller probe at once, and reads the
machine's clock, where ours is handed in. Steps of agents and requests to providers share it.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from agent_service.engine.ports import Clock

MAX_FAILURES: Final = 3
"""Failures within `WINDOW_MS` that open a circuit."""

WINDOW_MS: Final = 60_000
"""How long a failure counts, and how long an open circuit stays open before it is probed."""


@dataclass(slots=True)
class _Circuit:
    failures: deque[int] = field(default_factory=lambda: deque(maxlen=MAX_FAILURES))
    opened_ms: int | None = None
    probe: bool = False


class Circuits:
    """The circuits of one process, by name. Names come from the registry and the settings, so they are few."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}

    def allows(self, name: str) -> bool:
        """Return whether to try. After `WINDOW_MS` an open circuit lets one caller through, to see: it must report."""
        circuit = self._circuits.get(name)
        if circuit is None or circuit.opened_ms is None:
            return True
        if circuit.probe or self._clock.monotonic_ms() - circuit.opened_ms < WINDOW_MS:
            return False
        circuit.probe = True
        return True

    def is_closed(self, name: str) -> bool:
        """Return whether everybody is let through."""
        circuit = self._circuits.get(name)
        return circuit is None or circuit.opened_ms is None

    def rest_ms(self, name: str) -> int:
        """Return in how many milliseconds an open circuit lets somebody through; 0: now, or after a probe."""
        circuit = self._circuits.get(name)
        if circuit is None or circuit.opened_ms is None:
            return 0
        return max(0, circuit.opened_ms + WINDOW_MS - self._clock.monotonic_ms())

    def succeeded(self, name: str) -> None:
        """Close the circuit and forget its failures."""
        self._circuits.pop(name, None)

    def failed(self, name: str) -> None:
        """Count a failure: it opens the circuit when it is one too many within `WINDOW_MS`, or that of a probe."""
        circuit = self._circuits.setdefault(name, _Circuit())
        now_ms = self._clock.monotonic_ms()
        circuit.failures.append(now_ms)
        many = len(circuit.failures) == MAX_FAILURES and now_ms - circuit.failures[0] < WINDOW_MS
        if circuit.probe or many:
            circuit.opened_ms = now_ms
        circuit.probe = False

    def left(self, name: str) -> None:
        """Note that a caller ended without an outcome, so that another one may probe."""
        if circuit := self._circuits.get(name):
            circuit.probe = False
