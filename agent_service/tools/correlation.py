"""The tool correlate: which measures of a request rise and fall together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

from pydantic import Field

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolContext, ToolError, ToolOutput
from agent_service.tools.analysis import (
    PricedArgs,
    Workbench,
    dataset_part,
    filter_part,
    mapping_part,
    missing_part,
    notes_part,
    unused_part,
)
from agent_service.tools.facts import Facts
from agent_service.tools.measures import clip, counted, number, rounded, whole
from agent_service.tools.pricing import price
from agent_service.tools.reading import Profile, Reading
from agent_service.tools.roles import Missing, Role
from agent_service.tools.sandbox_child.sql import identifier

MEASURES: Final[Mapping[str, tuple[Role, str]]] = {
    "input_tokens": (Role.INPUT_TOKENS, "input_tokens"),
    "output_tokens": (Role.OUTPUT_TOKENS, "output_tokens"),
    "cached_tokens": (Role.CACHED_TOKENS, "cached_tokens"),
    "latency_ms": (Role.LATENCY, "latency"),
    "cost_usd": (Role.COST, "cost"),
    "failed": (Role.STATUS, "CAST(failed AS INTEGER)"),
    "hour": (Role.TIMESTAMP, "hour(ts)"),
}
"""Name → the column that it needs and its SQL. `failed` is 0 or 1, `hour` the hour of the day, UTC."""

MAX_COLUMNS: Final = 8
"""Numeric columns of the file's own that one call looks at, beside the measures."""

MIN_PAIRS: Final = 10
"""Rows that have both values, below which nothing is computed."""

CRITICAL_Z: Final = 1.96
"""Of the normal distribution, two-sided at 5 %."""

STRENGTHS: Final = ((0.5, "strong"), (0.3, "moderate"), (0.1, "weak"), (0.0, "none"))
"""Cohen's conventions for the size of a coefficient."""

MAX_FRACTIONAL_SHARE: Final = 0.95
"""Of a column's values that must be numbers, for it to be one of numbers."""


class CorrelateArgs(PricedArgs):
    """Arguments of correlate."""

    measures: list[str] = Field(
        default=[],
        max_length=MAX_COLUMNS,
        description=f"Which to compare, of {', '.join(MEASURES)} and the file's own numeric columns. "
        "Empty: all measures that the dataset has.",
    )


@dataclass(frozen=True, slots=True)
class Measure:
    """One column of numbers, over the rows that have a value."""

    name: str
    sql: str
    rows: int
    mean: float
    stdev: float

    @property
    def is_constant(self) -> bool:
        """True where all values are the same, so that nothing can go along with them."""
        return self.rows > 0 and self.stdev == 0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two measures over the rows that have both; a coefficient is None where one of them is constant there.

    `by_construction`: one is computed from the other, so that the coefficients tell nothing new.
    """

    first: str
    second: str
    rows: int
    pearson: float | None
    spearman: float | None
    by_construction: bool = False

    @property
    def is_significant(self) -> bool:
        """True where chance alone would give such a Pearson coefficient less than once in twenty (Fisher's z)."""
        if self.pearson is None or self.rows < MIN_PAIRS:
            return False
        if abs(self.pearson) >= 1:
            return True
        return abs(math.atanh(self.pearson)) * math.sqrt(self.rows - 3) > CRITICAL_Z


async def correlate(bench: Workbench, context: ToolContext, args: CorrelateArgs) -> ToolOutput:
    """Correlate."""
    own = [name for name in dict.fromkeys(args.measures) if name not in MEASURES]

    def extra(_: Mapping[Role, Reading], profiles: Sequence[Profile]) -> dict[str, str]:
        return {f"n{index}": _numeric(name, profiles) for index, name in enumerate(own)}

    async with bench.load(context, args, extra) as (opened, facts):
        pricing = await price(facts, args.assume_model, bench.clock.now())
        wanted = {f"column {name}": f"n{index}" for index, name in enumerate(own)}
        wanted |= {name: sql for name, (_, sql) in MEASURES.items() if not args.measures or name in args.measures}
        await facts.session.run(
            "CREATE TABLE measured AS SELECT "
            + ", ".join(f"CAST({sql} AS DOUBLE) AS m{index}" for index, sql in enumerate(wanted.values()))
            + " FROM priced"
        )
        measures = [await _measure(facts, name, f"m{index}") for index, name in enumerate(wanted)]
        usable = [measure for measure in measures if measure.rows >= MIN_PAIRS and not measure.is_constant]
        await context.progress("Columns recognised, comparing", 0.4)
        pairs = [await _pair(facts, first, second) for first, second in combinations(usable, 2)]
    computed = pricing.source in {"catalogue", "mixed"}
    pairs = [replace(pair, by_construction=computed and _is_priced(pair)) for pair in pairs]
    pairs.sort(key=_closeness)
    result: JsonObject = {
        "dataset": dataset_part(opened.chosen, facts.rows),
        "filter": filter_part(args, facts),
        "mapping": mapping_part(facts),
        "unused_columns": unused_part(facts),
        "notes": notes_part(facts),
        "measures": [_measure_part(measure) for measure in measures if measure.rows],
        "pairs": [_pair_part(pair) for pair in pairs],
        "constant": [clip(measure.name) for measure in measures if measure.is_constant],
        "too_few": [clip(measure.name) for measure in measures if 0 < measure.rows < MIN_PAIRS],
        "min_rows": MIN_PAIRS,
        "cautions": _cautions(pairs),
        "missing": missing_part(_missing(facts, args.measures, priced=pricing.priced > 0)),
    }
    return ToolOutput(_summary(opened.session.name, usable, pairs), result)


def _numeric(name: str, profiles: Sequence[Profile]) -> str:
    """Return the SQL of a column of the file. Raises `ToolError` for one that is not there or holds no numbers."""
    found = next((p for p in profiles if p.name.casefold() == name.casefold()), None)
    numeric = [p.name for p in profiles if p.values and p.numbers >= MAX_FRACTIONAL_SHARE * p.values]
    if found is None or found.name not in numeric:
        why = "has no column" if found is None else "has no numbers in the column"
        known = ", ".join([*MEASURES, *map(clip, numeric[:20])])
        raise ToolError(f"The dataset {why} {clip(name)!r}. What can be compared: {known}.")
    value = f"TRY_CAST({identifier(found.name)} AS DOUBLE)"
    return f"CASE WHEN isfinite({value}) THEN {value} END"


async def _measure(facts: Facts, name: str, column: str) -> Measure:
    # Not the standard deviation: of equal values it is not exactly 0.
    ((rows, mean, low, high, stdev),) = (
        await facts.session.run(
            f"SELECT count({column}), avg({column}), min({column}), max({column}), stddev_samp({column}) FROM measured"
        )
    ).rows
    spread = 0.0 if stdev is None or low == high else number(stdev)
    return Measure(name, column, whole(rows) or 0, 0.0 if mean is None else number(mean), spread)


async def _pair(facts: Facts, first: Measure, second: Measure) -> Pair:
    """Compute both coefficients. Ranks are made of the distinct values: equal ones share the mean of their places."""
    ((rows, pearson, spearman),) = (
        await facts.session.run(
            f"WITH pairs AS MATERIALIZED (SELECT {first.sql} AS x, {second.sql} AS y FROM measured "
            f"WHERE {first.sql} IS NOT NULL AND {second.sql} IS NOT NULL), "
            "xs AS (SELECT x, sum(count(*)) OVER (ORDER BY x) - (count(*) - 1) / 2 AS place FROM pairs GROUP BY x), "
            "ys AS (SELECT y, sum(count(*)) OVER (ORDER BY y) - (count(*) - 1) / 2 AS place FROM pairs GROUP BY y) "
            "SELECT count(*), corr(x, y), corr(xs.place, ys.place) FROM pairs JOIN xs USING (x) JOIN ys USING (y)"
        )
    ).rows
    count = whole(rows) or 0
    if count < MIN_PAIRS:
        return Pair(first.name, second.name, count, None, None)
    return Pair(first.name, second.name, count, _coefficient(pearson), _coefficient(spearman))


def _coefficient(value: object) -> float | None:
    """Return the coefficient within -1 and 1; None for what is not defined."""
    if value is None:
        return None
    found = float(str(value))
    return None if math.isnan(found) else max(-1.0, min(1.0, found))


def strength(coefficient: float | None) -> str:
    """Return the coefficient's size in a word; empty for None."""
    if coefficient is None:
        return ""
    return next(word for least, word in STRENGTHS if abs(coefficient) >= least)


def _is_priced(pair: Pair) -> bool:
    """Return whether the pair is the cost and what it is computed from."""
    return "cost_usd" in {pair.first, pair.second} and any("tokens" in name for name in (pair.first, pair.second))


def _closeness(pair: Pair) -> tuple[bool, float, float, str, str]:
    """Order pairs: the closest first, those that tell nothing new last."""
    return pair.by_construction, -abs(pair.pearson or 0), -abs(pair.spearman or 0), pair.first, pair.second


def _cautions(pairs: Sequence[Pair]) -> list[str]:
    if not pairs:
        return []
    cautions = ["Correlation is no cause: both may follow from a third thing, such as the model or the feature."]
    if len(pairs) > 1:
        cautions.append(
            f"{counted(len(pairs), 'pair')} were compared; of pairs that have nothing to do with each other, about one "
            "in twenty looks significant by chance."
        )
    if any(pair.is_significant and strength(pair.pearson) == "none" for pair in pairs):
        cautions.append("With many requests even a coefficient near 0 is significant: look at its size.")
    if any(pair.by_construction for pair in pairs):
        cautions.append("The cost is computed from the tokens, so it goes along with them by construction.")
    return cautions


def _missing(facts: Facts, asked: Sequence[str], *, priced: bool) -> list[Missing]:
    wanted = [role for name, (role, _) in MEASURES.items() if name in (asked or set(MEASURES) - {"cached_tokens"})]
    return facts.missing(*(role for role in wanted if role is not Role.COST or not priced))


def _measure_part(measure: Measure) -> JsonObject:
    return {
        "name": clip(measure.name),
        "rows": measure.rows,
        "constant": measure.is_constant,
        "mean": rounded(measure.mean, 6),
        "stdev": rounded(measure.stdev, 6),
    }


def _pair_part(pair: Pair) -> JsonObject:
    return {
        "first": clip(pair.first),
        "second": clip(pair.second),
        "rows": pair.rows,
        "pearson": None if pair.pearson is None else rounded(pair.pearson, 4),
        "spearman": None if pair.spearman is None else rounded(pair.spearman, 4),
        "strength": strength(pair.pearson),
        "significant": pair.is_significant,
        "by_construction": pair.by_construction,
    }


def _summary(name: str, usable: Sequence[Measure], pairs: Sequence[Pair]) -> str:
    known = [pair for pair in pairs if pair.pearson is not None]
    if not known:
        return f"{name} has {counted(len(usable), 'measure')} that varies; two are needed to compare"
    first = known[0]
    return (
        f"{counted(len(known), 'pair')} of measures compared in {name}; closest: {first.first} and {first.second} "
        f"(r = {first.pearson:.2f}, n = {first.rows:,})"
    )
