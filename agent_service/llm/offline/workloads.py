"""A workload to be made, as a message describes it: how many rows over how many days, like what, from which seed."""

import re
from dataclasses import dataclass
from typing import Final

from agent_service.llm.offline.numbers import NUMBER, number

_THINGS: Final = (
    r"(?:requests?|rows?|records?|lines?|calls?|entries|events?|samples?|messages?|prompts?|conversations?|"
    r"interactions?|transactions?|completions?|chats?)"
)
_JOINING: Final = (
    r"(?:on|in|of|by|per|and|or|at|to|for|with|from|over|is|are|do|does|more|less|x|times|percent|days?|weeks?|months?|"
    r"hours?|minutes?|years?|models?|features?|dollars?|usd)\b"
)
"""Words that part a number from a noun that it does not count."""

_ROWS: Final = (
    re.compile(
        rf"(?<!top )(?<!last )(?<!first )(?<!past )(?P<count>{NUMBER}) (?:of )?"
        rf"(?:(?!{_JOINING})[a-z-]+ ){{0,3}}?{_THINGS}\b"
        r"(?! ?(?:/|per (?:min|sec|day|hour)|an? (?:minute|second|day|hour)))"
    ),
    re.compile(rf"\b{_THINGS}(?: count)?(?: ?[:=]| of) ?(?P<count>{NUMBER})"),
    re.compile(
        r"\b(?:generat\w+|synthesi[sz]e|make(?: it| them)?|create|produce|simulate|fake|mock|another|only|now|just)"
        rf" (?P<count>{NUMBER})"
        r"(?= (?:that|like|in|over|for|of|with|using|from|instead|more|synthetic|fake)\b|[^\w $%]|$)"
    ),
)
_BARE: Final = re.compile(
    rf"^\W*(?:(?:and|now|ok|with|make (?:it|that)|rather|better|try) )*(?P<count>{NUMBER})(?: instead)?\W*$"
)
"""Only a number: how many rows, where a workload is being talked about."""

_UNITS: Final = {"day": 1, "week": 7, "month": 30, "quarter": 90, "year": 365}
_COUNT_OF_DAYS: Final = (
    re.compile(
        rf"(?<!last )(?<!past )(?<!previous )(?<!next )(?P<count>{NUMBER}) ?-?(?P<unit>day|week|month|year)s?\b(?! ago)"
    ),
    re.compile(
        r"\b(?:(?:over|for|across|spanning|covering|during|lasting) (?:an?|one|the course of an?) (?:whole |full )?"
        r"(?P<unit>day|week|month|quarter|year)\b|an? (?:whole |full )?(?P<worth>day|week|month|quarter|year)"
        r"(?:'s worth|s worth| worth)? (?:of|worth)\b)"
    ),
)
_SEED: Final = re.compile(r"\bseed(?:ed)?(?: number| value)?(?: ?[:=#]| of| is| with|)? ?(?P<seed>\d{1,9})\b")

_SHOPS: Final = (
    r"\b(?:e-?commerce|(?:online |web ?)?(?:shop|store|retail\w*)s?|shopping|shoppers?|marketplace|checkout|"
    r"black friday|cyber monday|singles'? day|prime day|christmas sales?|holiday (?:sales?|season|rush))\b"
)
_PRESETS: Final = (
    ("ecommerce", re.compile(_SHOPS)),
    ("financial", re.compile(r"\b(?:financ\w+|fintech|bank\w*|trading|traders?|payments?|insur\w+|brokers?)\b")),
    ("healthcare", re.compile(r"\b(?:health ?care|hospitals?|clinic\w*|medical|medicine|patients?|doctors?|health)\b")),
    ("gaming", re.compile(r"\b(?:gaming|games?|gamers?|players?|e-?sports?)\b")),
    ("research", re.compile(r"\b(?:research\w*|academi\w+|universit\w+|scien\w+|laborator\w+|labs?)\b")),
)
"""Presets, and what people call the worlds that they come from."""

_MAKES: Final = re.compile(
    r"\b(?:generat\w+|synth\w+|simulat\w+|fake|mock\w*|dummy|made.up|make up|invent\w*|creat\w+|produc\w+|fabricat\w+|"
    r"artificial\w*|test data|sample data|look\w* like|preset|load test|stress test|workload|"
    r"(?:\d|k|thousand|million) (?:rows|records|lines) of)\b"
)
_OF_DATA: Final = re.compile(
    r"\b(?:requests?|rows?|records?|calls?|lines?|data|dataset|traffic|workloads?|trace|logs?|usage|samples?|preset|load)\b"
)

MIN_ROWS_IN_WORDS: Final = 10
"""Rows: "one conversation" is no wish for a single one; "ten rows" and "5 rows" are meant."""


@dataclass(frozen=True, slots=True)
class Workload:
    """`rows`, `days` and `seed` are None and `preset` is empty where the message does not say."""

    rows: int | None = None
    days: int | None = None
    seed: int | None = None
    preset: str = ""


def find_workload(text: str, *, goes_on: bool = False) -> Workload:
    """Return the workload that a normalised message describes; `goes_on` where one is already being talked about."""
    makes = goes_on or (_MAKES.search(text) is not None and _OF_DATA.search(text) is not None)
    seed = _SEED.search(text)
    return Workload(
        rows=_rows(text, goes_on=goes_on),
        days=_days(text) if makes else None,
        seed=int(seed["seed"]) if seed else None,
        preset=next((name for name, words in _PRESETS if words.search(text)), "") if makes else "",
    )


def _rows(text: str, *, goes_on: bool) -> int | None:
    for pattern in (*_ROWS, *((_BARE,) if goes_on else ())):
        match = pattern.search(text)
        if match:
            count = round(number(match["count"]))
            return count if count >= MIN_ROWS_IN_WORDS or (count > 0 and match["count"][0].isdigit()) else None
    return None


def _days(text: str) -> int | None:
    counted, named = (pattern.search(text) for pattern in _COUNT_OF_DAYS)
    if counted:
        return max(1, round(number(counted["count"]) * _UNITS[counted["unit"]]))
    return _UNITS[named["unit"] or named["worth"]] if named else None
