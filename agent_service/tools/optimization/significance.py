"""Whether two means differ by more than chance: Welch's test, within strata where there are any."""

from collections.abc import Sequence
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
    return stratified([(before, after)])


def stratified(strata: Sequence[tuple[Sample, Sample]]) -> Difference:
    """Compare before and after within each stratum, weighted by how many values the stratum has after.

    So a change in how often each stratum occurs is not taken for a change of the values. There must be values on both
    sides of each stratum.
    """
    total = sum(after.count for _, after in strata)
    difference, variance = 0.0, 0.0
    for before, after in strata:
        weight = after.count / total
        difference += weight * (after.mean - before.mean)
        variance += weight**2 * (before.variance / before.count + after.variance / after.count)
    error = sqrt(variance)
    p_value = None
    if min(total, sum(before.count for before, _ in strata)) >= MIN_SAMPLE:
        p_value = erfc(abs(difference) / error / sqrt(2)) if error else float(difference == 0)
    return Difference(difference, difference - NORMAL_95 * error, difference + NORMAL_95 * error, p_value)
