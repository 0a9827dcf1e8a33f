"""Numbers in a model's text, held against the results that it cites."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agent_service.engine.events import JsonValue

_NUMBER: Final = re.compile(
    r"(?<![\w.,])(?:\$ ?)?(?P<amount>\d[\d,]*(?:\.\d+)?)"
    r"(?P<unit> ?(?:%|percent\b|k\b|K\b|M\b|million\b|ms\b|s\b|seconds?\b|min(?:utes?)?\b|h\b|hours?\b|d\b|days?\b))?"
)
_NAME: Final = re.compile(r"\b(?=[\w.-]*\d)[A-Za-z_]\w*(?:[-.]\w+)*")
_LIST_MARK: Final = re.compile(r"^\s*\d{1,3}[.)](?=\s)", re.MULTILINE)
_DATE: Final = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")
_MOMENT: Final = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:T(\d{2}):(\d{2}))?")

_SCALES: Final[Mapping[str, tuple[float, ...]]] = {
    "": (1.0,),
    "%": (1.0, 100.0),
    "percent": (1.0, 100.0),
    "k": (1.0, 1e-3),
    "K": (1.0, 1e-3),
    "M": (1.0, 1e-6),
    "million": (1.0, 1e-6),
    "ms": (1.0, 1e3),
    "s": (1.0, 1e-3),
    "second": (1.0, 1e-3),
    "min": (1.0, 1 / 60, 1 / 60_000),
    "minute": (1.0, 1 / 60, 1 / 60_000),
    "h": (1.0, 1 / 3_600),
    "hour": (1.0, 1 / 3_600),
    "d": (1.0, 1 / 86_400),
    "day": (1.0, 1 / 86_400),
}
"""What a value in a result may be multiplied by to read in this unit: shares as percent, milliseconds as seconds."""

SMALL: Final = 100
"""Below it a plain number may stand in many results by chance."""

EPSILON: Final = 1e-12
"""Slack for binary fractions, as a share of the value."""


@dataclass(frozen=True, slots=True)
class Said:
    """A number in a text: where it ends, its value without the sign, its decimals, its unit."""

    words: str
    end: int
    value: float
    decimals: int
    unit: str

    @property
    def is_small_count(self) -> bool:
        """True for a plain number such as 10, which may count anything."""
        return not self.unit and not self.decimals and self.value < SMALL and "$" not in self.words


def numbers_in(text: str) -> list[Said]:
    """Return the numbers that a text states. Names such as gpt-4o or p95, dates, and the marks of lists are none."""
    masked = _LIST_MARK.sub(lambda match: " " * len(match[0]), text)
    for pattern in (_DATE, _NAME):
        masked = pattern.sub(lambda match: "x" * len(match[0]), masked)
    return [_said(match) for match in _NUMBER.finditer(masked)]


def dates_in(text: str) -> list[str]:
    """Return the dates that a text names, as `2026-05-10`."""
    return _DATE.findall(text)


def _said(match: re.Match[str]) -> Said:
    amount = match["amount"].rstrip(",")
    unit = (match["unit"] or "").strip()
    unit = unit.rstrip("s") if unit not in {"s", "ms"} else unit
    unit = "min" if unit.startswith("minute") else unit
    _, _, decimals = amount.partition(".")
    return Said(match[0].strip(), match.end(), float(amount.replace(",", "")), len(decimals), unit)


class KnownNumbers:
    """All numbers of one result, and of what was asked for it: values, lengths of lists, and parts of times."""

    def __init__(self, *values: JsonValue) -> None:
        self._values = sorted({abs(found) for value in values for found in _numbers(value)})
        self._dates = {date for value in values for date in _dates(value)}

    def has(self, said: Said) -> bool:
        """Tell whether one of them reads like this when it is rounded to as many decimals."""
        slack = 0.5 * 10.0**-said.decimals
        for scale in _SCALES[said.unit]:
            low, high = (said.value - slack) / scale, (said.value + slack) / scale
            margin = EPSILON * max(abs(high), 1.0)
            if any(low - margin <= value <= high + margin for value in self._values):
                return True
        return False

    def has_date(self, date: str) -> bool:
        """Tell whether a date occurs."""
        return date in self._dates


def numbers_in_words(text: str) -> list[JsonValue]:
    """Return the numbers of a request or a title as values."""
    return [said.value for said in numbers_in(text)] + list[JsonValue](dates_in(text))


def _numbers(value: JsonValue) -> Iterator[float]:
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        yield float(value)
    elif isinstance(value, str):
        match = _MOMENT.match(value)
        if match:
            yield from (float(part) for part in match.groups() if part is not None)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, Sequence):
        yield float(len(value))
        for item in value:
            yield from _numbers(item)


def _dates(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield from dates_in(value[:10])
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _dates(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _dates(item)
