"""A dataset made ready for measuring: the table `facts` with canonical columns, and what could not be read.

The view `f` has every canonical column (NULL where the dataset has none) for the rows that the filter lets through:
ts TIMESTAMP (UTC), input_tokens, output_tokens, cached_tokens BIGINT, model, status, feature, customer VARCHAR,
latency DOUBLE (ms), given HUGEINT (recorded cost in `UNITS_PER_USD`), failed BOOLEAN, prompt UBIGINT (a hash: equal
prompts have equal numbers, and the text itself is not kept).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeAlias

from agent_service.engine.tool import ToolError
from agent_service.tools.columns import recognise
from agent_service.tools.reading import Profile, Reading
from agent_service.tools.roles import Missing, Role, Sufficiency, missing, name_score, sufficiency
from agent_service.tools.sandbox import SandboxError, Session
from agent_service.tools.sandbox_child.sql import identifier, sql_text

UNITS_PER_USD = 10**15
MAX_UNREADABLE = 0.05
MAX_EXACT_INT = 2**53 - 1

COLUMNS: Mapping[Role, tuple[str, str]] = {
    Role.TIMESTAMP: ("ts", "TIMESTAMP"),
    Role.INPUT_TOKENS: ("input_tokens", "BIGINT"),
    Role.OUTPUT_TOKENS: ("output_tokens", "BIGINT"),
    Role.CACHED_TOKENS: ("cached_tokens", "BIGINT"),
    Role.MODEL: ("model", "VARCHAR"),
    Role.LATENCY: ("latency", "DOUBLE"),
    Role.COST: ("given", "HUGEINT"),
    Role.STATUS: ("status", "VARCHAR"),
    Role.FEATURE: ("feature", "VARCHAR"),
    Role.USER: ("customer", "VARCHAR"),
    Role.PROMPT: ("prompt", "UBIGINT"),
}

Extra: TypeAlias = Callable[[Mapping[Role, Reading], Sequence[Profile]], Mapping[str, str]]
"""What one analysis needs beside the canonical columns: from readings and profiles to name → SQL over `raw`."""


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Which rows count. `start` is inclusive, `end` exclusive, both UTC; names match without regard to case."""

    start: datetime | None = None
    end: datetime | None = None
    models: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What was loaded. `unusable` says of roles whose column is there why it cannot be used."""

    session: Session
    readings: Mapping[Role, Reading]
    profiles: Sequence[Profile]
    rows: int
    matched: int
    unusable: Mapping[Role, str]
    notes: tuple[str, ...]

    @property
    def sufficiency(self) -> Sufficiency:
        """How much of an analysis these columns allow."""
        return sufficiency(tuple(self.readings))

    def missing(self, *wanted: Role) -> list[Missing]:
        """Return those of the wanted roles that cannot be used, with what to do."""
        return [missing(role, self.unusable.get(role, "")) for role in wanted if role not in self.readings]


async def load(
    session: Session, corrections: Mapping[str, str], row_filter: RowFilter | None = None, extra: Extra | None = None
) -> Facts:
    """Recognise the columns and read every row. Raises `ToolError` when there is nothing to measure.

    The columns of `extra` are there beside the canonical ones.
    """
    readings, profiles = await recognise(session, corrections)
    more = extra(readings, profiles) if extra is not None else {}
    facts = await read_all(session, readings, profiles, more)
    return await _filtered(facts, row_filter or RowFilter(), tuple(more))


async def read_all(
    session: Session, readings: Mapping[Role, Reading], profiles: Sequence[Profile], more: Mapping[str, str]
) -> Facts:
    """Make the table `facts` and count what could not be read: a little is noted, more makes a column unusable."""
    read = {role: reading for role, reading in readings.items() if role in COLUMNS}
    select = ["true AS here", *(f"{sql} AS {name}" for name, sql in more.items())]
    counts = ["count(*)"]
    for role, reading in read.items():
        column = COLUMNS[role][0]
        select.append(f"{_stored(role, reading)} AS {column}")
        select.append(f"({identifier(reading.column)} IS NOT NULL AND {reading.expression} IS NULL) AS bad_{column}")
        counts += [f"count({column})", f"count_if(bad_{column})"]
        if role is Role.STATUS:
            select.append(f"{reading.error_expression} AS failed")
    await session.run(f"CREATE TABLE facts AS SELECT {', '.join(select)} FROM raw")
    (row,) = (await session.run(f"SELECT {', '.join(counts)} FROM facts")).rows
    rows, *pairs = (int(str(value or 0)) for value in row)
    if not rows:
        raise SandboxError("file", f"{session.name} has column names but no rows: there is nothing to analyse.")
    usable = dict(readings)
    unusable: dict[Role, str] = {}
    notes = [reading.note for reading in readings.values() if reading.note]
    if not session.format.header:
        notes.append("the file has no line of column names; they were made up")
    for index, (role, reading) in enumerate(read.items()):
        good, bad = pairs[2 * index : 2 * index + 2]
        text = f"{bad:,} of {good + bad:,} values of the column {reading.column!r} cannot be read"
        text += f", such as {await _example(session, reading)!r}" if bad else ""
        if not good and not bad:
            unusable[role] = f"The column {reading.column!r} is there, but it is empty."
        elif bad > MAX_UNREADABLE * (good + bad):
            unusable[role] = f"{text}, so it is not used."[:1].upper() + f"{text}, so it is not used."[1:]
        elif bad:
            notes.append(f"{text}; they are left out")
        if role in unusable:
            del usable[role]
    unusable |= {role: text for role, text in _misfits(profiles, usable).items() if role not in unusable}
    return Facts(session, usable, profiles, rows, rows, unusable, tuple(notes))


def _misfits(profiles: Sequence[Profile], usable: Mapping[Role, Reading]) -> dict[Role, str]:
    """Say of columns that have a role's name but other content that they were not taken for it."""
    taken = {reading.column for reading in usable.values()}
    found: dict[Role, str] = {}
    for role in Role:
        if role not in usable:
            named = [p for p in profiles if p.name not in taken and name_score(role, p.name) > 0]
            if named:
                shown = ", ".join(named[0].examples) or "nothing"
                found[role] = f"The column {named[0].name!r} has a fitting name, but holds {shown}, so it is not used."
    return found


def _stored(role: Role, reading: Reading) -> str:
    if role is Role.COST:
        return f"CAST({reading.expression} * CAST({UNITS_PER_USD} AS DECIMAL(16,0)) AS HUGEINT)"
    if role is Role.PROMPT:
        return f"CASE WHEN {reading.expression} IS NOT NULL THEN hash({reading.expression}) END"
    return reading.expression


async def _example(session: Session, reading: Reading) -> str:
    column = identifier(reading.column)
    rows = await session.run(
        f"SELECT left(CAST({column} AS VARCHAR), 40) FROM raw "
        f"WHERE {column} IS NOT NULL AND {reading.expression} IS NULL LIMIT 1"
    )
    return str(rows.rows[0][0]) if rows.rows else ""


async def _filtered(facts: Facts, row_filter: RowFilter, more: Sequence[str]) -> Facts:
    columns = [
        name if role in facts.readings else f"CAST(NULL AS {kind}) AS {name}" for role, (name, kind) in COLUMNS.items()
    ]
    columns += more
    columns.append("failed" if Role.STATUS in facts.readings else "CAST(NULL AS BOOLEAN) AS failed")
    conditions = _conditions(facts, row_filter)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    await facts.session.run(f"CREATE VIEW f AS SELECT {', '.join(columns)} FROM facts {where}")
    if not conditions:
        return facts
    ((matched,),) = (await facts.session.run("SELECT count(*) FROM f")).rows
    if not matched:
        raise ToolError(await _nothing_matches(facts, row_filter))
    return replace(facts, matched=int(str(matched)))


def _conditions(facts: Facts, row_filter: RowFilter) -> list[str]:
    conditions: list[str] = []
    for sign, moment in ((">=", row_filter.start), ("<", row_filter.end)):
        if moment is not None:
            _require(facts, Role.TIMESTAMP, "a time range")
            utc = moment.astimezone(UTC) if moment.tzinfo else moment
            conditions.append(f"ts {sign} TIMESTAMP {sql_text(utc.strftime('%Y-%m-%d %H:%M:%S.%f'))}")
    for role, names in ((Role.MODEL, row_filter.models), (Role.FEATURE, row_filter.features)):
        if names:
            _require(facts, role, f"the {role} {names[0]!r}")
            wanted = ", ".join(f"lower({sql_text(name.strip())})" for name in names)
            conditions.append(f"lower({COLUMNS[role][0]}) IN ({wanted})")
    return conditions


def _require(facts: Facts, role: Role, what: str) -> None:
    if role not in facts.readings:
        gap = missing(role, facts.unusable.get(role, ""))
        raise ToolError(
            f"{facts.session.name} cannot be limited to {what}: it has no column for it. {gap.how_to_supply}"
        )


async def _nothing_matches(facts: Facts, row_filter: RowFilter) -> str:
    hints: list[str] = []
    for role, asked in ((Role.MODEL, row_filter.models), (Role.FEATURE, row_filter.features)):
        if asked:
            column = COLUMNS[role][0]
            found = await facts.session.run(
                f"SELECT {column} FROM facts WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 10"
            )
            hints.append(f"its most frequent {role}s are {', '.join(str(row[0]) for row in found.rows)}")
    if row_filter.start or row_filter.end:
        ((first, last),) = (await facts.session.run("SELECT min(ts), max(ts) FROM facts")).rows
        hints.append(f"it reaches from {first} to {last} UTC")
    return f"No row of {facts.session.name} matches the filter: {'; '.join(hints)}."
