"""Whether two means differ by more than chance: Welch's test."""

from dataclasses import dataclass
from math import erfc, sqrt
from typing import Final

MIN_SAMPLE: Final = 30
"""Values that each side needs before chance is judged: from here on means are near enough to normal."""

NORMAL_95: Final = 1.959964
"""The two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Some values: how many, their mean, and their variance (of the sample)."""

    count: int
    mean: float
    variance: float


@dataclass(frozen=True, slots=True)
class Difference:
    """After minus before, with its 95 % interval. `p_value` is None where a side is too small to judge."""

    difference: float
    low: float
    high: float
    p_value: float | None


def compare(before: Sample, after: Sample) -> Difference:
    """Compare two means, two-sided, with the normal approximation. Both samples must have values."""
    difference = after.mean - before.mean
    error = sqrt(before.variance / before.count + after.variance / after.count)
    p_value = None
    if min(before.count, after.count) >= MIN_SAMPLE:
        p_value = erfc(abs(difference) / error / sqrt(2)) if error else float(difference == 0)
    return Difference(difference, difference - NORMAL_95 * error, difference + NORMAL_95 * error, p_value)
