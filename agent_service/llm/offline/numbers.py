"""Numbers as people write them: 10,000; 50k; 1.5 million; five thousand; half a million; a third."""

import re
from typing import Final

_ONES: Final = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "half a": 0.5, "half": 0.5,
}  # fmt: skip
_SCALES: Final = {"hundred": 1e2, "k": 1e3, "thousand": 1e3, "m": 1e6, "mn": 1e6, "million": 1e6}

_DIGITS: Final = r"\d{1,3}(?:[,.'_ ]\d{3})+(?![\d%])|\d+(?:\.\d+)?"
_SCALE: Final = r"(?:k|m|mn|hundred|thousand|million)\b"
_WORD: Final = "|".join(sorted((word for word in _ONES if word not in {"a", "an", "half"}), key=len, reverse=True))

NUMBER: Final = rf"(?<![\w.,$-])(?:(?:{_DIGITS})(?: ?{_SCALE})?|(?:{_WORD}|an?)(?: {_SCALE})+|(?:{_WORD})\b)(?![\d%])"
"""A count, in digits or words; without groups. `number` reads it."""

_PARTS: Final = re.compile(rf"(?P<digits>{_DIGITS})|(?P<word>half a|[a-z]+)")

FRACTIONS: Final = {"half": 1 / 2, "third": 1 / 3, "quarter": 1 / 4, "fifth": 1 / 5, "two thirds": 2 / 3}
"""Parts of a whole that are said in a word."""


def number(said: str) -> float:
    """Return the value of what `NUMBER` matches. A dot before exactly three digits parts thousands: 10.000 rows."""
    value = 1.0
    for part in _PARTS.finditer(said):
        if part["digits"]:
            value = _digits(part["digits"])
        elif part["word"] in _SCALES:
            value *= _SCALES[part["word"]]
        else:
            value = float(_ONES.get(part["word"], 1))
    return value


def _digits(said: str) -> float:
    return float(re.sub(r"[^\d]", "", said)) if re.fullmatch(r"\d{1,3}(?:[,.'_ ]\d{3})+", said) else float(said)
