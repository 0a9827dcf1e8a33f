"""How alike two workloads are: each marginal and each correlation, with a limit that says what counts as alike."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from agent_service.tools.synthetic.profile import LEVELS, Profile, Segment

KeyT = TypeVar("KeyT", str, int)

MAX_KS: Final = 0.1
"""The largest distance of two cumulative distributions (Kolmogorov and Smirnov) that counts as alike, from 0 to 1."""

MAX_TOTAL_VARIATION: Final = 0.1
"""The largest share that would have to move to make two sets of shares equal, from 0 to 1."""

MAX_CORRELATION_GAP: Final = 0.15
"""The largest difference of two rank correlations."""

MAX_RATE_GAP: Final = 0.02
"""The largest difference of two error rates."""

_PAIRS: Final = ("input and output tokens", "input tokens and latency", "output tokens and latency")


@dataclass(frozen=True, slots=True)
class Likeness:
    """One comparison: `value` from 0 (equal) against the `limit`; `measure` says what was computed."""

    what: str
    measure: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """True when they are alike."""
        return self.value <= self.limit


def compare(source: Profile, other: Profile) -> list[Likeness]:
    """Compare everything that both have."""
    checks = [
        Likeness(what, "total variation", total_variation(shares(source), shares(other)), MAX_TOTAL_VARIATION)
        for what, shares in (
            ("models", _shares_by(lambda segment: segment.model)),
            ("features", _shares_by(lambda segment: segment.feature)),
        )
        if set(shares(source)) - {""} and set(shares(other)) - {""}
    ]
    if source.has_time and other.has_time:
        for what, weights in (
            ("hours of the day", (source.hours, other.hours)),
            ("weekdays", (source.weekdays, other.weekdays)),
        ):
            gap = total_variation(*(_normal(dict(enumerate(side))) for side in weights))
            checks.append(Likeness(what, "total variation", gap, MAX_TOTAL_VARIATION))
    for what, values in _MEASURES:
        first, second = _mixture(source, values), _mixture(other, values)
        if first and second:
            checks.append(Likeness(what, "Kolmogorov-Smirnov distance", distance(first, second), MAX_KS))
    for what, left, right in zip(_PAIRS, source.correlation, other.correlation, strict=True):
        if left and right:
            checks.append(Likeness(what, "gap of rank correlations", abs(left - right), MAX_CORRELATION_GAP))
    rates = [_error_rate(profile) for profile in (source, other)]
    if rates[0] is not None and rates[1] is not None:
        checks.append(Likeness("errors", "gap of error rates", abs(rates[0] - rates[1]), MAX_RATE_GAP))
    return checks


_MEASURES: Final[tuple[tuple[str, Callable[[Segment], Sequence[float] | None]], ...]] = (
    ("input tokens", lambda segment: segment.input_tokens),
    ("output tokens", lambda segment: segment.output_tokens),
    ("latency", lambda segment: segment.latency_ms),
)


def _shares_by(key: Callable[[Segment], str]) -> Callable[[Profile], dict[str, float]]:
    def shares(profile: Profile) -> dict[str, float]:
        found: dict[str, float] = {}
        for segment in profile.segments:
            found[key(segment)] = found.get(key(segment), 0.0) + segment.weight
        return _normal(found)

    return shares


def _normal(weights: dict[KeyT, float]) -> dict[KeyT, float]:
    total = sum(weights.values()) or 1.0
    return {name: weight / total for name, weight in weights.items()}


def total_variation(left: dict[KeyT, float], right: dict[KeyT, float]) -> float:
    """Return half the sum of the differences of two sets of shares."""
    return sum(abs(left.get(key, 0.0) - right.get(key, 0.0)) for key in left.keys() | right.keys()) / 2


def _mixture(
    profile: Profile, values: Callable[[Segment], Sequence[float] | None]
) -> list[tuple[float, Sequence[float]]]:
    """Return weight and quantiles of the segments that have this measure."""
    found = [(segment.weight, values(segment)) for segment in profile.segments]
    total = sum(weight for weight, quantiles in found if quantiles is not None) or 1.0
    return [(weight / total, quantiles) for weight, quantiles in found if quantiles is not None]


def distance(left: Sequence[tuple[float, Sequence[float]]], right: Sequence[tuple[float, Sequence[float]]]) -> float:
    """Return the largest gap of two cumulative distributions, at every value that stands in one of them."""
    points = {value for _, quantiles in [*left, *right] for value in quantiles}
    return max(abs(_cumulative(left, point) - _cumulative(right, point)) for point in points)


def _cumulative(mixture: Sequence[tuple[float, Sequence[float]]], point: float) -> float:
    return sum(weight * level_of(quantiles, point) for weight, quantiles in mixture)


def level_of(quantiles: Sequence[float], point: float) -> float:
    """Return the share of values up to `point`, between the levels in proportion."""
    if point >= quantiles[-1]:
        return 1.0
    if point < quantiles[0]:
        return 0.0
    place = bisect_left(quantiles, point)
    if quantiles[place] == point:
        while place + 1 < len(quantiles) and quantiles[place + 1] == point:
            place += 1
        return LEVELS[place]
    low, high = quantiles[place - 1], quantiles[place]
    return LEVELS[place - 1] + (LEVELS[place] - LEVELS[place - 1]) * (point - low) / (high - low)


def _error_rate(profile: Profile) -> float | None:
    found = [(segment.weight, segment.error_rate) for segment in profile.segments if segment.error_rate is not None]
    total = sum(weight for weight, _ in found)
    return sum(weight * rate for weight, rate in found) / total if total else None
