"""A circuit opens after three failures within a minute, and one caller finds out when it may close."""

from datetime import UTC, datetime

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent_service.engine.circuits import MAX_FAILURES, WINDOW_MS, Circuits


class Watchless:
    """Implements `Clock`: moves when told to."""

    def __init__(self) -> None:
        self.ms = 1_000

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.ms / 1000, UTC)

    def monotonic_ms(self) -> int:
        return self.ms


def opened(clock: Watchless) -> Circuits:
    circuits = Circuits(clock)
    for _ in range(MAX_FAILURES):
        assert circuits.allows("data")
        circuits.failed("data")
    return circuits


def test_it_opens_at_the_third_failure_and_is_probed_by_one_after_a_minute() -> None:
    clock = Watchless()
    circuits = opened(clock)
    assert not circuits.allows("data")
    assert circuits.allows("reporting")
    clock.ms += WINDOW_MS - 1
    assert not circuits.allows("data")
    clock.ms += 1
    assert [circuits.allows("data") for _ in range(3)] == [True, False, False]
    circuits.succeeded("data")
    assert circuits.allows("data")
    circuits.failed("data")
    assert circuits.allows("data")


def test_a_probe_that_fails_keeps_it_open_for_another_minute() -> None:
    clock = Watchless()
    circuits = opened(clock)
    clock.ms += WINDOW_MS
    assert circuits.allows("data")
    circuits.failed("data")
    clock.ms += WINDOW_MS - 1
    assert not circuits.allows("data")
    clock.ms += 1
    assert circuits.allows("data")


def test_a_probe_without_an_outcome_leaves_it_to_the_next() -> None:
    clock = Watchless()
    circuits = opened(clock)
    clock.ms += WINDOW_MS
    assert circuits.allows("data")
    circuits.left("data")
    assert circuits.allows("data")
    circuits.left("unknown")


def test_failures_that_are_further_apart_do_not_open_it() -> None:
    clock = Watchless()
    circuits = Circuits(clock)
    for _ in range(10):
        circuits.failed("data")
        clock.ms += WINDOW_MS // 2
        assert circuits.allows("data")
    circuits.failed("data")
    clock.ms += WINDOW_MS // 2 - 1
    circuits.failed("data")
    assert not circuits.allows("data")


class OneCircuit(RuleBasedStateMachine):
    """A second account of a circuit, by the whole list of its failures since it was last known to work."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Watchless()
        self.circuits = Circuits(self.clock)
        self.failures: list[int] = []
        self.opened: int | None = None

    @rule(ms=st.sampled_from([1, 20_000, 30_000, 60_000]))
    def time_passes(self, ms: int) -> None:
        self.clock.ms += ms

    @rule(ends=st.sampled_from(["well", "badly", "not"]))
    def somebody_tries(self, ends: str) -> None:
        rests = self.opened is not None and self.clock.ms - self.opened < 60_000
        assert self.circuits.allows("x") is not rests
        if rests:
            return
        probe = self.opened is not None
        if ends == "well":
            self.circuits.succeeded("x")
            self.failures, self.opened = [], None
        elif ends == "badly":
            self.circuits.failed("x")
            self.failures.append(self.clock.ms)
            within = [at for at in self.failures if self.clock.ms - at < 60_000]
            if probe or len(within) >= 3:
                self.opened = self.clock.ms
        else:
            self.circuits.left("x")

    @invariant()
    def others_are_never_affected(self) -> None:
        assert self.circuits.allows("y")


TestOneCircuit = OneCircuit.TestCase
