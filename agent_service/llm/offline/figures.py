"""Figures that only optimizations ask for: limits per minute, the shared beginning of prompts, a cut of inputs."""

import re
from typing import Final

_SCALES: Final = {"": 1, "k": 1_000, "thousand": 1_000, "m": 1_000_000, "million": 1_000_000}
_NUMBER: Final = r"(?P<number>\d[\d,]*(?:\.\d+)?)\s?(?P<scale>k|m|thousand|million)?"
_PER_MINUTE: Final = re.compile(
    rf"{_NUMBER} ?(?P<unit>rpm|tpm|(?P<what>requests?|calls?|tokens?) ?(?:per|a|/) ?min(?:ute)?)\b"
)
_SHARED: Final = r"(?:system prompts?|(?:shared|common|fixed) (?:prefix|beginning|part)|prefix|instructions?)"
_INPUTS: Final = r"\b(?:prompts?|inputs?|contexts?|histor(?:y|ies))\b[^.?!,]{0,30}?\b"
_PREFIX: Final = (
    re.compile(rf"\b{_SHARED}\b[^.?!]{{0,30}}?\b{_NUMBER} ?tokens?"),
    re.compile(rf"\b{_NUMBER}[ -]?tokens? (?:long )?{_SHARED}\b"),
)
_TRIM_BY: Final = re.compile(rf"{_INPUTS}by (?P<percent>\d{{1,2}}(?:\.\d+)?) ?(?:%|percent)")
_TRIM_TO: Final = re.compile(rf"{_INPUTS}(?:to|at|under|below) {_NUMBER} ?tokens?")
_TAIL: Final = re.compile(r"\b(?:p95|p99|tail|slowest|worst)\b")


def limits(request: str) -> tuple[int | None, int | None]:
    """Return the limits of requests and of tokens per minute that a message names: `500 RPM`, `200k TPM`."""
    found: dict[str, int] = {}
    for match in _PER_MINUTE.finditer(request.lower()):
        kind = "tokens" if (match["what"] or match["unit"]).startswith("t") else "requests"
        found.setdefault(kind, _whole(match["number"], match["scale"]))
    return found.get("requests"), found.get("tokens")


def prefix_tokens(request: str) -> int | None:
    """Return how many tokens a message says that prompts share at their beginning."""
    found = (pattern.search(request.lower()) for pattern in _PREFIX)
    return next((_whole(match["number"], match["scale"]) for match in found if match), None)


def trim(request: str) -> tuple[float | None, int | None]:
    """Return by how many percent, or to how many tokens, a message says to shorten inputs."""
    by, to = _TRIM_BY.search(request.lower()), _TRIM_TO.search(request.lower())
    if by:
        return float(by["percent"]), None
    return None, _whole(to["number"], to["scale"]) if to else None


def means_tail(request: str) -> bool:
    """Return whether a message is about the slowest requests, not about the usual one."""
    return bool(_TAIL.search(request.lower()))


def _whole(number: str, scale: str | None) -> int:
    return round(float(number.replace(",", "")) * _SCALES[scale or ""])
