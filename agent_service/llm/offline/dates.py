"""Times in a message: dates, months, quarters, "last 7 days", "since …", "between … and …", "the upgrade on …"."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH: Final = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_NUMBERS: Final = {
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "ten": 10,
    "a": 1,
    "couple of": 2,
    "few": 3,
}
_COUNT: Final = r"(?P<count>\d{1,4}|one|two|three|four|five|six|seven|ten|couple of|few)"

_ISO: Final = re.compile(
    r"\b(\d{4}[-/]\d{2}[-/]\d{2})(?:[t ](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?))?(?: ?(?:utc|z)\b)?"
)
_YEAR_MONTH: Final = re.compile(r"\b(?P<year>(?:19|20)\d{2})-(?P<number>0[1-9]|1[0-2])\b(?!-)")
_DAY_MONTH: Final = re.compile(
    rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? {_MONTH}\b\.?,?(?: (?P<year>(?:19|20)\d\d))?"
)
_MONTH_DAY: Final = re.compile(
    rf"\b{_MONTH}\b\.? (?P<day>\d{{1,2}})(?:st|nd|rd|th)?\b(?!\d)(?:,? (?P<year>(?:19|20)\d\d))?"
)
_MONTH_YEAR: Final = re.compile(rf"\b{_MONTH}\b\.?,? (?P<year>(?:19|20)\d\d)\b")
_IN_MONTH: Final = re.compile(rf"\b(?:in|during|of|since|from|until|till|to|before|for|last) {_MONTH}\b(?! i\b)")
_YEAR: Final = re.compile(
    r"\b(?:in|during|of|since|from|until|till|to|before|for|after|and) (?P<year>(?:19|20)\d\d)\b(?![-.:])"
)
_QUARTER: Final = re.compile(r"\bq(?P<quarter>[1-4])(?:[ /-]*(?P<year>(?:19|20)\d\d))?\b")
_LAST_N: Final = re.compile(rf"\b(?:last|past|previous|recent) {_COUNT} (?P<unit>hour|day|week|month)s?\b")
_DATA: Final = r"(?: (?:of|in|from) (?:the|our|my|this|that) (?:logs?|data|dataset|file|trace|traffic|period|usage))"
_WITHIN: Final = re.compile(
    rf"\b(?:(?P<first>first) (?:{_COUNT} )?(?P<unit>hour|day|week)s?\b{_DATA}?"
    rf"|last (?:(?P<last_count>\d{{1,4}}|one|two|three|four|five|six|seven|ten|couple of|few) )?"
    rf"(?P<last_unit>hour|day|week)s?\b{_DATA})(?! of\b)"
)
"""Times that are told from where the data begins or ends."""
_UNREAD: Final = re.compile(
    r"\b(?:(?:(?:in|during|on|at|over) )?(?:the )?(?:first|second|third|fourth|last|final|middle|other) "
    r"(?:\w+ )?(?:hour|day|week|month|quarter|year|half|third|weekend)s?\b(?: of (?:the )?\w+)?"
    r"|(?:in|during|on|at|over|every) (?:the )?"
    r"(?:weekend|morning|afternoon|evening|night|(?:business|office|working) hour)s?\b)"
)
"""Times that nothing here can resolve, unless another rule does."""
_NAMED: Final = re.compile(
    r"\b(?:(?P<day>today|yesterday)|(?P<which>this|last|past|previous) (?P<unit>week|month|quarter|year))\b"
)
_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEKDAY: Final = re.compile(
    r"\b(?:on|since|from|until|till|before|after|of|last|this) "
    r"(?P<weekday>(?:last )?(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday))\b"
)
_AGO: Final = re.compile(rf"\b{_COUNT} (?P<unit>day|week|month)s? ago\b")
_CHANGED: Final = re.compile(
    r"(?:\b(?:upgrad\w+|switch(?:ed|ing)?|switchover|migrat(?:ed|ion|ing)|moved|moving|roll ?out|rolled out|released|"
    r"the (?:new )?release|deployed|the deployment|launched|the launch|went live|go.?live|cut.?over|introduc\w+|"
    r"replaced|turned on|enabled|the (?:\w+ )?change|our (?:\w+ )?change|we changed|changed (?:the|our)|"
    r"new (?:prompt|model|version|router|routing|cache|setup|release))\b[^.?!;]{0,50}?"
    r"|\b(?:before (?:and|or|vs\.?|versus|&|/) ?after|after (?:and|or|vs\.?|versus) before)\b[^.?!;]{0,40}?)"
    r"(?:\b(?:on|in|of|from|at|since|as of|after|before|around|back on|by)|[,(]|^|-) ?(?:the )?$"
)
_CHANGE_FOLLOWS: Final = re.compile(
    r"(?:'s)? (?:\w+ ){0,2}?(?:upgrade|switch|switchover|migration|rollout|release|deployment|launch|change|cutover)\b"
)
_WEIGHED: Final = re.compile(
    r"\b(?:before (?:and|or|vs\.?|versus|&|/) ?after|was it worth|worth it|paid off|pay off|made? a difference|"
    r"(?:did|has) \w+(?: \w+){0,4} help(?:ed)?)\b"
)
_HYPOTHETICAL: Final = re.compile(r"\b(?:would|if (?:we|i|it|they|all|everything))\b")

_SINCE: Final = re.compile(r"\b(?:since|from|starting(?: on| from| at)?|beginning|as of)\s+(?:the\s+)?$")
_AFTER: Final = re.compile(r"\bafter\s+(?:the\s+)?$")
_UNTIL: Final = re.compile(r"\b(?:until|till|up to|through)\s+(?:the\s+)?$")
_BEFORE: Final = re.compile(r"\bbefore\s+(?:the\s+)?$")
_JOINS: Final = re.compile(r"\s*(?:to|and|until|till|through|-|up to)\s*(?:the\s+)?")
_OPENS: Final = re.compile(r"\b(?:from|between)\s+(?:the\s+)?$")

MONTHS_PER_YEAR: Final = 12

CHANGE_REACH: Final = 80
"""Characters before a date in which a word for a change makes it the time of that change."""


@dataclass(frozen=True, slots=True)
class Period:
    """A time range: `start` inclusive, `end` exclusive, UTC; None is open."""

    start: datetime | None = None
    end: datetime | None = None


ALWAYS: Final = Period()
"""No bound at all."""


@dataclass(frozen=True, slots=True)
class _Mention:
    begin: int
    stop: int
    start: datetime
    end: datetime


def find_change(normalised: str, now: datetime) -> datetime | None:
    """Return when something changed, of which the message asks what it did: "was the upgrade on May 10 worth it?"."""
    if _HYPOTHETICAL.search(normalised):
        return None
    mentions = _in_order(normalised, now)
    for mention in mentions:
        before = normalised[max(0, mention.begin - CHANGE_REACH) : mention.begin]
        if _CHANGED.search(before) or _CHANGE_FOLLOWS.match(normalised, mention.stop):
            return mention.start
    return mentions[0].start if len(mentions) == 1 and _WEIGHED.search(normalised) else None


def find_period(normalised: str, now: datetime, *, change: datetime | None = None) -> Period:
    """Return the time range that a normalised message asks about. Years that are not said are the latest possible.

    The time of a change bounds nothing: what was before it is compared with what came after.
    """
    normalised = _WITHIN.sub(lambda match: " " * len(match[0]), normalised)
    mentions = [mention for mention in _in_order(normalised, now) if mention.start != change]
    if not mentions:
        return ALWAYS
    first, before = mentions[0], normalised[: mentions[0].begin]
    if len(mentions) > 1:
        second = mentions[1]
        between = normalised[first.stop : second.begin]
        if _JOINS.fullmatch(between) or (_OPENS.search(before) and _JOINS.search(between)):
            return Period(first.start, second.end)
    return _open_period(before, first) or Period(first.start, max(first.end, first.start + timedelta(minutes=1)))


def within_data(normalised: str, first: datetime, last: datetime) -> Period:
    """Return "the first week", "the last 3 days of the log" of data from `first` to `last`, in whole hours or days."""
    match = _WITHIN.search(normalised)
    if match is None:
        return ALWAYS
    unit, said = match["unit"] or match["last_unit"], match["count"] or match["last_count"] or "one"
    count = int(said) if said.isdigit() else _NUMBERS[said]
    length = count * {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}[unit]
    step = timedelta(hours=1) if unit == "hour" else timedelta(days=1)
    zero = datetime(1, 1, 1, tzinfo=UTC)
    if match["first"]:
        start = first - (first - zero) % step
        return Period(start, start + length)
    end = last - (last - zero) % step + step
    return Period(end - length, end)


def unread_time(normalised: str) -> str:
    """Return the words for a time that are not understood, empty where there are none."""
    match = _UNREAD.search(normalised)
    return match[0].strip() if match else ""


def _in_order(normalised: str, now: datetime) -> list[_Mention]:
    return sorted(_without_overlaps(_mentions(normalised, now)), key=lambda mention: mention.begin)


def _open_period(before: str, mention: _Mention) -> Period | None:
    """Return the period that the words before a mention leave open at one side, if they do."""
    for words, period in (
        (_SINCE, Period(start=mention.start)),
        (_AFTER, Period(start=mention.end)),
        (_UNTIL, Period(end=mention.end)),
        (_BEFORE, Period(end=mention.start)),
    ):
        if words.search(before):
            return period
    return None


def _without_overlaps(mentions: Iterator[_Mention]) -> list[_Mention]:
    """Keep the first of overlapping mentions: the more exact forms come first."""
    kept: list[_Mention] = []
    for mention in mentions:
        if all(mention.stop <= other.begin or mention.begin >= other.stop for other in kept):
            kept.append(mention)
    return kept


def _mentions(text: str, now: datetime) -> Iterator[_Mention]:
    for match in _ISO.finditer(text):
        yield from _iso(match)
    for pattern in (_DAY_MONTH, _MONTH_DAY):
        for match in pattern.finditer(text):
            yield from _day(match, now)
    for match in (*_MONTH_YEAR.finditer(text), *_IN_MONTH.finditer(text)):
        yield _month(match, now)
    for match in _YEAR_MONTH.finditer(text):
        start = datetime(int(match["year"]), int(match["number"]), 1, tzinfo=UTC)
        yield _Mention(match.start(), match.end(), start, _add_months(start, 1))
    for match in _YEAR.finditer(text):
        start = datetime(int(match["year"]), 1, 1, tzinfo=UTC)
        yield _Mention(match.start("year"), match.end(), start, _add_months(start, MONTHS_PER_YEAR))
    for pattern, read in (
        (_QUARTER, _quarter),
        (_LAST_N, _last_n),
        (_NAMED, _named),
        (_WEEKDAY, _weekday),
        (_AGO, _ago),
    ):
        for match in pattern.finditer(text):
            yield read(match, now)


def _iso(match: re.Match[str]) -> Iterator[_Mention]:
    try:
        start = datetime.fromisoformat(f"{match[1].replace('/', '-')}T{match[2] or '00:00'}+00:00")
    except ValueError:
        return
    yield _Mention(match.start(), match.end(), start, start if match[2] else start + timedelta(days=1))


def _day(match: re.Match[str], now: datetime) -> Iterator[_Mention]:
    month = _MONTHS.index(match["month"][:3]) + 1
    try:
        start = datetime(int(match["year"] or now.year), month, int(match["day"]), tzinfo=UTC)
    except ValueError:
        return
    if not match["year"] and start > now:
        start = start.replace(year=now.year - 1)
    yield _Mention(match.start(), match.end(), start, start + timedelta(days=1))


def _month(match: re.Match[str], now: datetime) -> _Mention:
    month = _MONTHS.index(match["month"][:3]) + 1
    said = match.groupdict().get("year")
    year = int(said) if said else now.year if month <= now.month else now.year - 1
    start = datetime(year, month, 1, tzinfo=UTC)
    return _Mention(match.start("month"), match.end(), start, _add_months(start, 1))


def _quarter(match: re.Match[str], now: datetime) -> _Mention:
    month = int(match["quarter"]) * 3 - 2
    said = match["year"]
    year = int(said) if said else now.year if month <= now.month else now.year - 1
    start = datetime(year, month, 1, tzinfo=UTC)
    return _Mention(match.start(), match.end(), start, _add_months(start, 3))


def _last_n(match: re.Match[str], now: datetime) -> _Mention:
    said = match["count"]
    count = int(said) if said.isdigit() else _NUMBERS[said]
    unit = match["unit"]
    if unit == "month":
        start = _add_months(now, -count)
    else:
        start = now - count * {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}[unit]
    return _Mention(match.start(), match.end(), start, now)


def _ago(match: re.Match[str], now: datetime) -> _Mention:
    said = match["count"]
    count = int(said) if said.isdigit() else _NUMBERS[said]
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    days = {"day": timedelta(days=1), "week": timedelta(weeks=1)}
    start = _add_months(midnight, -count) if match["unit"] == "month" else midnight - count * days[match["unit"]]
    return _Mention(match.start(), match.end(), start, start + timedelta(days=1))


def _weekday(match: re.Match[str], now: datetime) -> _Mention:
    """Return the latest such day that has begun, of "last Friday" one that is over."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    name = match["weekday"].removeprefix("last ")
    back = (midnight.weekday() - _WEEKDAYS.index(name[:3])) % 7
    start = midnight - timedelta(days=back or (7 if "last" in match[0] else 0))
    return _Mention(match.start("weekday"), match.end(), start, start + timedelta(days=1))


def _named(match: re.Match[str], now: datetime) -> _Mention:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if match["day"]:
        start = midnight if match["day"] == "today" else midnight - timedelta(days=1)
        return _Mention(match.start(), match.end(), start, start + timedelta(days=1))
    back = 0 if match["which"] == "this" else 1
    if match["unit"] == "week":
        start = midnight - timedelta(days=midnight.weekday() + 7 * back)
        return _Mention(match.start(), match.end(), start, start + timedelta(weeks=1))
    months = {"month": 1, "quarter": 3, "year": MONTHS_PER_YEAR}[match["unit"]]
    first = midnight.replace(month=(midnight.month - 1) // months * months + 1, day=1)
    start = _add_months(first, -months * back)
    return _Mention(match.start(), match.end(), start, _add_months(start, months))


def _add_months(moment: datetime, months: int) -> datetime:
    year, month = divmod(moment.year * MONTHS_PER_YEAR + moment.month - 1 + months, MONTHS_PER_YEAR)
    first = moment.replace(year=year, month=month + 1, day=1)
    days_in_month = ((first + timedelta(days=31)).replace(day=1) - first).days
    return first.replace(day=min(moment.day, days_in_month))
