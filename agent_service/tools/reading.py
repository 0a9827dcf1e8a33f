"""How the values of a recognised column are read: SQL over the view `raw`.

A value that cannot be read becomes NULL and is counted by whoever uses the expression; none is guessed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent_service.tools.roles import TITLES, Role, name_score
from agent_service.tools.sandbox_child.sql import identifier, sql_text

FITS = 0.95
MAX_TOKENS_PER_REQUEST = 1_000_000_000
MAX_COST_PER_REQUEST_USD = 1_000_000
MAX_LATENCY_MS = 7 * 24 * 3_600_000

# Epoch numbers between 2001-09-09 and 2096-10-02, by unit: lower bound and how many make a second.
EPOCHS = (("s", 1), ("ms", 1_000), ("us", 1_000_000), ("ns", 1_000_000_000))
EPOCH_FIRST, EPOCH_LAST = 1_000_000_000, 4_000_000_000

NUMERIC = frozenset(
    (
        *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL"),
        *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
    )
)
ERROR_WORDS = (
    r"error|(^|[^a-z])err([^a-z]|$)|fail|time_?out|timed|exception|denied|refus|reject|abort|limit|throttl|invalid|unavail|forbidden|overload"
    r"|cancel|^(4|5)[0-9][0-9]$"
)
# What says that nothing went wrong although an error word is in it.
NO_ERROR = r"(no|non|none|without|0)[^a-z0-9]*(err|errors?|fail|failures?|exceptions?)"

# Words in a column's name, or signs in its values, that say that its money is not US dollars.
FOREIGN_MONEY = frozenset(
    (
        *(
            "eur",
            "euro",
            "euros",
            "gbp",
            "pounds",
            "chf",
            "jpy",
            "yen",
            "cny",
            "rmb",
            "inr",
            "cad",
            "aud",
            "brl",
            "krw",
        ),
        *("sek", "nok", "dkk", "pln"),
    )
)
FOREIGN_SIGNS = frozenset("€£¥₹")
CENTS = frozenset({"cent", "cents"})


@dataclass(frozen=True, slots=True)
class Profile:
    """What the first rows hold. Counts are of values that are not null.

    `comma_numbers` have one comma and nothing else beside digits; `grouped` have commas exactly where thousands are set
    apart.
    """

    name: str
    type: str
    values: int
    distinct: int
    numbers: int
    whole: int
    comma_numbers: int
    grouped: int
    money: int
    times: int
    minimum: float | None
    maximum: float | None
    median: float | None
    models: int
    examples: tuple[str, ...]

    @property
    def is_text(self) -> bool:
        """True for a column that was not typed by its file."""
        return self.type == "VARCHAR"


@dataclass(frozen=True, slots=True)
class Reading:
    """A recognised column. `expression` reads it from `raw` as the canonical type; unreadable values become NULL."""

    role: Role
    column: str
    confidence: float
    reason: str
    expression: str
    error_expression: str = ""
    note: str = ""


def read_as(  # noqa: PLR0911 - one return per kind of column
    role: Role, p: Profile, formats: Mapping[str, tuple[str, str]]
) -> Reading | None:
    """Return how this column is read in this role; None when its content does not fit."""
    score = name_score(role, p.name)
    said = f"the name is a usual one for {TITLES[role]}" if score else f"the content looks like {TITLES[role]}"
    confidence = round(min(0.95, score) if score else 0.6, 2)
    if not p.values and role is not Role.STATUS:
        return Reading(role, p.name, 0.5, f"{said}; the first rows are empty", _empty(role, p))
    match role:
        case Role.TIMESTAMP:
            return _read_time(p, confidence, said, formats)
        case Role.INPUT_TOKENS | Role.OUTPUT_TOKENS | Role.CACHED_TOKENS:
            if p.whole < FITS * p.values:
                return None
            return Reading(role, p.name, confidence, f"{said} and its values are whole numbers", _whole(p))
        case Role.LATENCY:
            return _read_latency(p, confidence, said)
        case Role.COST:
            return _read_cost(p, confidence, said)
        case Role.STATUS:
            return _read_status(p, confidence, said)
        case Role.MODEL | Role.FEATURE | Role.USER | Role.PROMPT:
            if role is not Role.USER and role is not Role.PROMPT and p.numbers >= FITS * p.values:
                return None
            return Reading(role, p.name, confidence, f"{said} and its values are texts", f"nullif({_text(p)}, '')")


def _text(p: Profile) -> str:
    return f"trim({identifier(p.name)})" if p.is_text else f"CAST({identifier(p.name)} AS VARCHAR)"


def _number(p: Profile, kind: str) -> str:
    if p.type.split("(")[0] in NUMERIC:
        return f"TRY_CAST({identifier(p.name)} AS {kind})"
    text = _text(p)
    if p.numbers < FITS * p.values:
        if p.comma_numbers + p.numbers >= FITS * p.values and p.comma_numbers and not _sets_thousands_apart(p):
            text = f"replace({text}, ',', '.')"
        elif p.money >= FITS * p.values:
            text = f"regexp_replace({text}, '[$€, ]', '', 'g')"
    return f"TRY_CAST({text} AS {kind})"


def _sets_thousands_apart(p: Profile) -> bool:
    """Return whether the commas are those of `1,234`: a decimal comma would also stand elsewhere."""
    return 0 < p.comma_numbers <= p.grouped and p.money >= FITS * p.values


def _comma_note(p: Profile) -> str:
    return f"{p.name}: commas are read as setting thousands apart" if _sets_thousands_apart(p) else ""


def _words(name: str) -> set[str]:
    """Return the words of a column's name."""
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).casefold()))


def _readable_number(p: Profile) -> bool:
    return max(p.numbers, p.money, p.comma_numbers + p.numbers if p.comma_numbers else 0) >= FITS * p.values


def _whole(p: Profile) -> str:
    number = _number(p, "DOUBLE")
    fits = f"{number} BETWEEN 0 AND {MAX_TOKENS_PER_REQUEST} AND {number} = floor({number})"
    return f"CASE WHEN {fits} THEN CAST({number} AS BIGINT) END"


def _empty(role: Role, p: Profile) -> str:
    if role is Role.TIMESTAMP:
        return f"TRY_CAST({_text(p)} AS TIMESTAMPTZ) AT TIME ZONE 'UTC'"
    if role in {Role.INPUT_TOKENS, Role.OUTPUT_TOKENS, Role.CACHED_TOKENS}:
        return _whole(p)
    if role is Role.LATENCY:
        return f"TRY_CAST({_text(p)} AS DOUBLE)"
    if role is Role.COST:
        return f"TRY_CAST({_text(p)} AS DECIMAL(22,15))"
    return f"nullif({_text(p)}, '')"


def _read_time(p: Profile, confidence: float, said: str, formats: Mapping[str, tuple[str, str]]) -> Reading | None:
    role, name = Role.TIMESTAMP, identifier(p.name)
    if p.type in {"TIMESTAMP", "DATE", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"}:
        return Reading(role, p.name, confidence, f"{said} and its values are times", f"CAST({name} AS TIMESTAMP)")
    if p.name in formats:
        form, note = formats[p.name]
        parsed = f"try_strptime({_text(p)}, {sql_text(form)})"
        parsed = f"{parsed} AT TIME ZONE 'UTC'" if "%z" in form else parsed
        return Reading(role, p.name, confidence, f"{said} and its values are times written {form}", parsed, note=note)
    if p.numbers >= FITS * p.values and p.median is not None and p.minimum is not None and p.maximum is not None:
        for unit, per_second in EPOCHS:
            if EPOCH_FIRST * per_second <= p.median <= EPOCH_LAST * per_second:
                microseconds = f"{_number(p, 'DECIMAL(38,9)')} * 1000000 / {per_second}"
                low, high = EPOCH_FIRST * 1_000_000, EPOCH_LAST * 1_000_000
                fits = f"{microseconds} BETWEEN {low} AND {high}"
                made = f"CASE WHEN {fits} THEN make_timestamp(CAST(floor({microseconds}) AS BIGINT)) END"
                return Reading(role, p.name, confidence, f"{said} and its values are epoch times in {unit}", made)
        return None
    if p.times >= FITS * p.values:
        parsed = f"TRY_CAST({_text(p)} AS TIMESTAMPTZ) AT TIME ZONE 'UTC'"
        return Reading(
            role, p.name, confidence, f"{said} and its values are times (UTC where no zone is given)", parsed
        )
    return None


def _read_latency(p: Profile, confidence: float, said: str) -> Reading | None:
    if not _readable_number(p) or (p.minimum is not None and p.minimum < 0 and p.numbers == p.values):
        return None
    words = _words(p.name)
    factor, unit, how = 1.0, "milliseconds", "by its name"
    if words & {"s", "sec", "secs", "second", "seconds"}:
        factor, unit = 1000.0, "seconds"
    elif words & {"us", "microseconds", "micros"}:
        factor, unit = 0.001, "microseconds"
    elif words & {"ns", "nanoseconds", "nanos"}:
        factor, unit = 0.000001, "nanoseconds"
    elif not words & {"ms", "millis", "milliseconds"} and not p.name.casefold().endswith("ms"):
        confidence, how = min(confidence, 0.7), "by the size of its values"
        if p.median is not None and p.median < 30 and p.whole < p.numbers:  # noqa: PLR2004 - nobody answers in 30 ms
            factor, unit = 1000.0, "seconds"
    number = f"{_number(p, 'DOUBLE')} * {factor!r}"
    read = f"CASE WHEN {number} BETWEEN 0 AND {MAX_LATENCY_MS} THEN {number} END"
    return Reading(Role.LATENCY, p.name, confidence, f"{said}; read as {unit} {how}", read, note=_comma_note(p))


def _read_cost(p: Profile, confidence: float, said: str) -> Reading | None:
    words = _words(p.name)
    foreign = words & FOREIGN_MONEY or any(FOREIGN_SIGNS & set(example) for example in p.examples)
    if foreign or not _readable_number(p):
        return None
    number, unit = _number(p, "DECIMAL(22,15)"), "US dollars"
    if words & CENTS:
        number, unit = f"{_number(p, 'DECIMAL(20,13)')} * CAST(0.01 AS DECIMAL(2,2))", "US cents"
    read = f"CASE WHEN {number} BETWEEN 0 AND {MAX_COST_PER_REQUEST_USD} THEN {number} END"
    return Reading(Role.COST, p.name, confidence, f"{said}; read as {unit}", read, note=_comma_note(p))


def _read_status(p: Profile, confidence: float, said: str) -> Reading | None:
    text = f"nullif({_text(p)}, '')"
    name = re.sub(r"[^a-z]", "", p.name.casefold())
    quiet = "('false', '0', 'none', 'no', 'ok', 'success')"
    if "error" in name:
        failed = f"({text} IS NOT NULL AND lower({text}) NOT IN {quiet})"
        return Reading(
            Role.STATUS,
            p.name,
            confidence,
            f"{said}; a value means an error",
            f"coalesce({text}, 'ok')",
            f"coalesce({failed}, false)",
        )
    if "success" in name:
        failed = f"lower({text}) IN ('false', '0', 'no', 'f')"
        return Reading(Role.STATUS, p.name, confidence, f"{said}; false means an error", text, failed)
    if p.distinct > 0.5 * p.values and p.distinct > 100:  # noqa: PLR2004 - a free text is no status
        return None
    failed = (
        f"(regexp_matches(lower({text}), {sql_text(ERROR_WORDS)}) "
        f"AND NOT regexp_full_match(lower({text}), {sql_text(NO_ERROR)}))"
    )
    reason = f"{said}; codes from 400 on and words such as error, failed, timeout count as errors"
    return Reading(Role.STATUS, p.name, confidence, reason, text, failed)
