"""Which column of a dataset means what: recognised by name and by content, with a confidence and the reason."""

import re
from collections.abc import Mapping, Sequence

from agent_service.engine.tool import ToolError
from agent_service.tools.reading import FITS, MAX_TOKENS_PER_REQUEST, Profile, Reading, read_as
from agent_service.tools.roles import TITLES, Role, name_score
from agent_service.tools.sandbox import Cell, RawColumn, Session
from agent_service.tools.sandbox_child.sql import identifier, sql_text

PROFILE_ROWS = 5_000
PROFILE_COLUMNS = 50
EXAMPLE_ROWS = 50

TIME_FORMATS = (
    "%d/%b/%Y:%H:%M:%S %z",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%a, %d %b %Y %H:%M:%S GMT",
    "%d %b %Y %H:%M:%S",
    "%b %d, %Y %H:%M:%S",
    "%Y%m%dT%H%M%SZ",
    "%Y%m%dT%H%M%S",
)
MODEL_FAMILIES = (
    r"^([a-z0-9_.-]+[/:])?(gpt-|o[1345](-|$)|claude|gemini|llama|mi[sx]tral|deepseek|qwen|command-|grok|phi-"
    r"|text-embedding)"
)


async def profile(session: Session) -> tuple[Profile, ...]:
    """Look at the first rows of every column."""
    profiles: list[Profile] = []
    for start in range(0, len(session.columns), PROFILE_COLUMNS):
        columns = session.columns[start : start + PROFILE_COLUMNS]
        # Texts and numbers once per column: twelve measures over them would otherwise be planned twelve times.
        read = ", ".join(
            f"trim(CAST({identifier(column.name)} AS VARCHAR)) AS t{index}, TRY_CAST(t{index} AS DOUBLE) AS d{index}, "
            f"CASE WHEN isfinite(d{index}) THEN d{index} END AS n{index}"
            for index, column in enumerate(columns)
        )
        parts = ", ".join(_profile_sql(index) for index in range(len(columns)))
        sample = f"(SELECT {read} FROM (SELECT * FROM raw LIMIT {PROFILE_ROWS}))"
        (row,) = (await session.run(f"SELECT {parts} FROM {sample}")).rows
        short = ", ".join(f"left(trim(CAST({identifier(column.name)} AS VARCHAR)), 40)" for column in columns)
        first = (await session.run(f"SELECT {short} FROM raw LIMIT {EXAMPLE_ROWS}")).rows
        for index, column in enumerate(columns):
            examples = dict.fromkeys(str(cells[index]) for cells in first if cells[index] is not None)
            profiles.append(_profile(column, row[index], tuple(examples)[:3]))
    return tuple(profiles)


def _profile_sql(index: int) -> str:
    text, number = f"t{index}", f"n{index}"
    whole = f"{number} = floor({number}) AND {number} BETWEEN 0 AND {MAX_TOKENS_PER_REQUEST}"
    fields = {
        "values": f"count({text})",
        "distinct": f"approx_count_distinct({text})",
        "numbers": f"count({number})",
        "whole": f"count_if({whole})",
        "comma_numbers": f"count_if(regexp_full_match({text}, '-?[0-9]+,[0-9]+'))",
        "grouped": f"count_if(regexp_full_match({text}, '-?[1-9][0-9]{{0,2}}(,[0-9]{{3}})+'))",
        "money": f"count_if(regexp_full_match({text}, '[$€]? ?-?[0-9]{{1,3}}(,?[0-9]{{3}})*([.][0-9]+)?'))",
        "times": f"count(TRY_CAST({text} AS TIMESTAMPTZ))",
        "minimum": f"min({number})",
        "maximum": f"max({number})",
        "median": f"quantile_cont({number}, 0.5)",
        "models": f"count_if(regexp_matches(lower({text}), {sql_text(MODEL_FAMILIES)}))",
    }
    packed = ", ".join(f"{sql_text(key)}: {value}" for key, value in fields.items())
    return f"{{{packed}}}"


def _profile(column: RawColumn, cell: Cell, examples: tuple[str, ...]) -> Profile:
    found = cell if isinstance(cell, dict) else {}

    def count(key: str) -> int:
        value = found.get(key)
        return value if isinstance(value, int) else 0

    def number(key: str) -> float | None:
        value = found.get(key)
        return float(value) if isinstance(value, (int, float)) else None

    return Profile(
        name=column.name,
        type=column.type,
        values=count("values"),
        distinct=count("distinct"),
        numbers=count("numbers"),
        whole=count("whole"),
        comma_numbers=count("comma_numbers"),
        grouped=count("grouped"),
        money=count("money"),
        times=count("times"),
        minimum=number("minimum"),
        maximum=number("maximum"),
        median=number("median"),
        models=count("models"),
        examples=examples,
    )


async def recognise(
    session: Session, corrections: Mapping[str, str]
) -> tuple[dict[Role, Reading], tuple[Profile, ...]]:
    """Return which column has which role. `corrections` (role → column, "" for none) come before everything else.

    Raises `ToolError` for a correction that names no role, no column, or one that cannot be read so.
    """
    profiles = await profile(session)
    formats = await _time_formats(session, profiles)
    by_name = {p.name: p for p in profiles}
    readings: dict[Role, Reading] = {}
    settled: set[Role] = set()
    for key, column in corrections.items():
        role = _role(key)
        settled.add(role)
        if column:
            readings[role] = _corrected(role, _column(column, by_name), formats)
    taken = {reading.column for reading in readings.values()}
    ranked = sorted(
        ((score, role, p) for role in Role for p in profiles if (score := _score(role, p, formats)) > 0),
        key=lambda entry: -entry[0],
    )
    for _, role, candidate in ranked:
        if role in settled or role in readings or candidate.name in taken:
            continue
        reading = read_as(role, candidate, formats)
        if reading is not None:
            readings[role] = reading
            taken.add(candidate.name)
    return {role: readings[role] for role in Role if role in readings}, profiles


def _role(key: str) -> Role:
    try:
        return Role(key)
    except ValueError:
        known = ", ".join(Role)
        raise ToolError(f"There is no column meaning {key!r}; known are: {known}.") from None


def _column(name: str, by_name: Mapping[str, Profile]) -> Profile:
    for candidate in (name, *(known for known in by_name if known.casefold() == name.casefold())):
        if candidate in by_name:
            return by_name[candidate]
    shown = ", ".join(list(by_name)[:30])
    raise ToolError(f"The dataset has no column {name!r}; it has: {shown}.")


def _corrected(role: Role, column: Profile, formats: Mapping[str, tuple[str, str]]) -> Reading:
    reading = read_as(role, column, formats)
    if reading is None:
        examples = ", ".join(column.examples) or "no values at all"
        raise ToolError(f"The column {column.name!r} cannot be read as {TITLES[role]}: it holds {examples}.")
    return Reading(role, column.name, 1.0, "you said so", reading.expression, reading.error_expression, reading.note)


def _score(role: Role, p: Profile, formats: Mapping[str, tuple[str, str]]) -> float:
    by_name = name_score(role, p.name)
    if by_name or not p.values:
        return by_name
    # By content alone only what cannot well be anything else; token counts are never guessed.
    if role is Role.TIMESTAMP and (p.times >= FITS * p.values or p.name in formats):
        return 0.4
    if role is Role.MODEL and p.models >= 0.8 * p.values:
        return 0.4
    return 0.0


async def _time_formats(session: Session, profiles: Sequence[Profile]) -> dict[str, tuple[str, str]]:
    """Return the format of columns whose text only an explicit format can read, and a note where two would do."""
    unread = [
        p
        for p in profiles
        if p.is_text
        and p.values
        and max(p.times, p.numbers) < FITS * p.values
        and all(re.search(r"\d.*[/.: ,T-].*\d", example) for example in p.examples)
    ]
    if not unread:
        return {}
    counts = ", ".join(
        f"count(try_strptime(trim({identifier(p.name)}), {sql_text(form)}))" for p in unread for form in TIME_FORMATS
    )
    sample = f"(SELECT * FROM raw LIMIT {PROFILE_ROWS})"
    (row,) = (await session.run(f"SELECT {counts} FROM {sample}")).rows
    found: dict[str, tuple[str, str]] = {}
    for index, p in enumerate(unread):
        hits = [int(str(hit)) for hit in row[index * len(TIME_FORMATS) : (index + 1) * len(TIME_FORMATS)]]
        fitting = [form for form, hit in zip(TIME_FORMATS, hits, strict=True) if hit >= FITS * p.values]
        if fitting:
            form = max(fitting, key=lambda f: hits[TIME_FORMATS.index(f)])
            note = f"{p.name}: day and month cannot be told apart; read as month/day" if len(fitting) > 1 else ""
            found[p.name] = (form, note)
    return found
