"""Which of some values are unusual: beyond the quartiles' fences, or many standard deviations from the mean."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MIN_VALUES: Final = 12
"""With fewer values hardly anything can be called unusual: of 10 none can be 3 standard deviations from their mean."""

Z_LIMIT: Final = 3.0
"""Standard deviations from the mean, from which on a value is unusual."""

IQR_LIMIT: Final = 1.5
"""Interquartile ranges beyond the quartiles, from which on a value is unusual (Tukey's fences)."""

IQR: Final = "iqr"
Z_SCORE: Final = "z_score"


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is usual. `stdev` is that of a sample; quartiles interpolate linearly between the closest ranks."""

    count: int
    mean: float
    stdev: float
    q1: float
    median: float
    q3: float

    @property
    def fences(self) -> tuple[float, float]:
        """The range within which the quartiles expect a value."""
        reach = IQR_LIMIT * (self.q3 - self.q1)
        return self.q1 - reach, self.q3 + reach

    @property
    def band(self) -> tuple[float, float]:
        """The range within which mean and standard deviation expect a value."""
        reach = Z_LIMIT * self.stdev
        return self.mean - reach, self.mean + reach

    def z_score(self, value: float) -> float:
        """Return how many standard deviations the value is from the mean; 0 where all values are the same."""
        return (value - self.mean) / self.stdev if self.stdev else 0.0

    def methods(self, value: float) -> tuple[str, ...]:
        """Return the methods by which the value is unusual.

        Where more than half of the values are the same the quartiles tell nothing, and are not asked.
        """
        low, high = self.fences
        found = (IQR,) if high > low and not low <= value <= high else ()
        return (*found, Z_SCORE) if abs(self.z_score(value)) >= Z_LIMIT else found

    def expected(self, value: float) -> tuple[float, float]:
        """Return the range that an unusual value is out of: the fences where they say so, else the band."""
        return self.fences if IQR in self.methods(value) else self.band


def baseline(values: Sequence[float]) -> Baseline | None:
    """Return what is usual among these values; None where there are too few of them."""
    if len(values) < MIN_VALUES:
        return None
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return Baseline(len(values), statistics.fmean(values), statistics.stdev(values), q1, median, q3)
