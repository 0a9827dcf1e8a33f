"""The figures: what is measured, in which unit, and the arithmetic that turns rounds into a table."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Round = Mapping[str, float]
"""What one round of one mode has measured: name → value."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over all rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    label: str
    unit: str


@dataclass(frozen=True, slots=True)
class Aim:
    """A limit for a figure's median, or for that of its ratio to the floor; `at_least`: else at most."""

    name: str
    limit: float
    is_ratio: bool = False
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """An aim beside what was measured. `missed_by` is a share of the limit; 0: met."""

    aim: Aim
    measured: float
    missed_by: float


FIGURES: Final = (
    Figure("ack_alone_p50", "ack, alone, p50", "ms"),
    Figure("ack_alone_p99", "ack, alone, p99", "ms"),
    Figure("first_event_alone_p50", "first event, alone, p50", "ms"),
    Figure("first_event_alone_p99", "first event, alone, p99", "ms"),
    Figure("worker_event_alone_p50", "first event of a worker, alone, p50", "ms"),
    Figure("worker_event_alone_p99", "first event of a worker, alone, p99", "ms"),
    Figure("ack_together_p50", "ack, 50 at once, p50", "ms"),
    Figure("ack_together_p99", "ack, 50 at once, p99", "ms"),
    Figure("first_event_together_p50", "first event, 50 at once, p50", "ms"),
    Figure("first_event_together_p99", "first event, 50 at once, p99", "ms"),
    Figure("worker_event_together_p50", "first event of a worker, 50 at once, p50", "ms"),
    Figure("worker_event_together_p99", "first event of a worker, 50 at once, p99", "ms"),
    Figure("events_per_s_1", "events, 1 run at once", "1/s"),
    Figure("events_per_s_10", "events, 10 runs at once", "1/s"),
    Figure("events_per_s_100", "events, 100 runs at once", "1/s"),
    Figure("added_latency_p50", "added latency, paced, p50", "ms"),
    Figure("added_latency_p99", "added latency, paced, p99", "ms"),
    Figure("due_latency_p50", "the same from when a piece was due, p50", "ms"),
    Figure("due_latency_p99", "the same from when a piece was due, p99", "ms"),
    Figure("cpu_service", "CPU per 100,000 events, 10 runs: service", "s"),
    Figure("cpu_bridge", "CPU per 100,000 events, 10 runs: bridge", "s"),
    Figure("cpu_product", "CPU per 100,000 events, 10 runs: both", "s"),
    Figure("cpu_database", "CPU per 100,000 events, 10 runs: database", "s"),
    Figure("cpu_load", "CPU per 100,000 events, 10 runs: load generator", "s"),
    Figure("cpu_paced_service", "CPU per 100,000 events, paced: service", "s"),
    Figure("cpu_paced_bridge", "CPU per 100,000 events, paced: bridge", "s"),
    Figure("cpu_paced_product", "CPU per 100,000 events, paced: both", "s"),
    Figure("cpu_paced_database", "CPU per 100,000 events, paced: database", "s"),
    Figure("idle_service", "memory of an idle socket: service", "KiB"),
    Figure("idle_bridge", "memory of an idle socket: bridge", "KiB"),
    Figure("idle_product", "memory of an idle socket: both", "KiB"),
    Figure("replay_p50", "replay of a long run, p50", "ms"),
    Figure("replay_p95", "replay of a long run, p95", "ms"),
    Figure("replay_peak_service", "peak memory of the replays: service", "KiB"),
    Figure("replay_peak_bridge", "peak memory of the replays: bridge", "KiB"),
    Figure("load_busy", "cores that the load generator used, 10 runs", ""),
    Figure("others_busy", "cores that were used by what is not measured", ""),
)

AIMS: Final = (
    Aim("events_per_s_10", 0.5, is_ratio=True, at_least=True),
    Aim("cpu_product", 2.5, is_ratio=True),
    Aim("first_event_alone_p50", 3, is_ratio=True),
    Aim("first_event_alone_p99", 15),
    Aim("added_latency_p50", 2.5, is_ratio=True),
    Aim("added_latency_p99", 25),
    Aim("idle_product", 32),
    Aim("replay_p95", 1_000),
)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed. NaN for no values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the range. Raises `statistics.StatisticsError` for no values."""
    return Spread(statistics.median(values), min(values), max(values))


def figure(rounds: Sequence[Round], name: str) -> Spread | None:
    """Return a figure over the rounds; None where a round has none."""
    values = [measured[name] for measured in rounds if name in measured]
    return spread(values) if rounds and len(values) == len(rounds) else None


def ratio(rounds: Sequence[Round], floor: Sequence[Round], name: str) -> Spread | None:
    """Return a figure's ratio to the floor's, round by round; None where a round has no floor, or a floor of zero."""
    pairs = [(measured.get(name), beneath.get(name)) for measured, beneath in zip(rounds, floor, strict=False)]
    ratios = [above / beneath for above, beneath in pairs if above is not None and beneath]
    return spread(ratios) if ratios and len(ratios) == len(rounds) else None


def judge(rounds: Sequence[Round], floor: Sequence[Round]) -> Sequence[Verdict]:
    """Return what became of each aim whose figure was measured."""
    verdicts = []
    for aim in AIMS:
        found = ratio(rounds, floor, aim.name) if aim.is_ratio else figure(rounds, aim.name)
        if found is not None:
            short = aim.limit - found.median if aim.at_least else found.median - aim.limit
            verdicts.append(Verdict(aim, found.median, max(0.0, short / aim.limit)))
    return verdicts
