"""Learning a profile from a dataset: shares and quantiles, never a prompt or the name of a user."""

from collections.abc import Sequence
from typing import Final

from agent_service.tools.facts import Facts
from agent_service.tools.roles import Role
from agent_service.tools.sandbox import Cell
from agent_service.tools.sandbox_child.sql import identifier
from agent_service.tools.synthetic.profile import HOURS, LEVELS, MAX_SEGMENTS, MAX_USERS, WEEKDAYS, Profile, Segment

REST: Final = "(other)"
"""Stands for the models or features of the segments that are too small to be kept apart."""

MAX_ERRORS: Final = 10
"""Different words of failed requests that are kept."""

_PAIRS: Final = (("input_tokens", "output_tokens"), ("input_tokens", "latency"), ("output_tokens", "latency"))
_CACHED: Final = "CASE WHEN cached_tokens <= input_tokens THEN cached_tokens / nullif(input_tokens, 0) END"
_LEVELS_SQL: Final = "[" + ", ".join(map(str, LEVELS)) + "]"


async def learn(facts: Facts, name: str) -> Profile:
    """Return what the rows of the view `f` are like."""
    hours, weekdays, days = await _times(facts)
    return Profile(
        name=name,
        rows=facts.matched,
        days=days,
        segments=await _segments(facts),
        correlation=await _correlation(facts),
        hours=hours,
        weekdays=weekdays,
        users=await _users(facts),
        prompts=await _prompts(facts),
        errors=await _errors(facts),
        has_time=Role.TIMESTAMP in facts.readings,
    )


async def _segments(facts: Facts) -> tuple[Segment, ...]:
    fields = ", ".join(
        (
            "count(*)",
            f"quantile_cont(input_tokens, {_LEVELS_SQL})",
            f"quantile_cont(output_tokens, {_LEVELS_SQL})",
            f"quantile_cont(latency, {_LEVELS_SQL})",
            f"quantile_cont({_CACHED}, {_LEVELS_SQL})",
            "avg(CAST(failed AS INTEGER))",
        )
    )
    ranked = (
        "WITH ranked AS (SELECT coalesce(model, '') AS m, coalesce(feature, '') AS k, "
        "row_number() OVER (ORDER BY count(*) DESC, m, k) AS place FROM f GROUP BY m, k), "
        "placed AS (SELECT f.*, "
        f"CASE WHEN place <= {MAX_SEGMENTS} THEN m ELSE '{REST}' END AS m, "
        f"CASE WHEN place <= {MAX_SEGMENTS} THEN k ELSE '{REST}' END AS k "
        "FROM f JOIN ranked ON coalesce(f.model, '') = m AND coalesce(f.feature, '') = k) "
    )
    rows = await facts.session.run(f"{ranked} SELECT m, k, {fields} FROM placed GROUP BY m, k ORDER BY 3 DESC, m, k")
    return tuple(
        Segment(
            model=str(model),
            feature=str(feature),
            weight=_number(count),
            input_tokens=_quantiles(inputs),
            output_tokens=_quantiles(outputs),
            latency_ms=_quantiles(latency),
            cached_share=_quantiles(cached),
            error_rate=None if failed is None else round(_number(failed), 6),
        )
        for model, feature, count, inputs, outputs, latency, cached, failed in rows.rows
    )


async def _correlation(facts: Facts) -> tuple[float, float, float]:
    """Return Spearman's coefficients within segments: ranks are taken there, and then correlated together."""
    ranks = ", ".join(
        f"percent_rank() OVER (PARTITION BY model, feature ORDER BY {name}) AS r_{name}"
        for name in ("input_tokens", "output_tokens", "latency")
    )
    pairs = ", ".join(f"corr(r_{left}, r_{right})" for left, right in _PAIRS)
    present = [name for name in ("input_tokens", "output_tokens", "latency") if _has(facts, name)]
    whole = " AND ".join(f"{name} IS NOT NULL" for name in present) or "true"
    (row,) = (await facts.session.run(f"SELECT {pairs} FROM (SELECT {ranks} FROM f WHERE {whole})")).rows
    first, second, third = (
        _number(value) if _has(facts, left) and _has(facts, right) else 0.0
        for value, (left, right) in zip(row, _PAIRS, strict=True)
    )
    return first, second, third


def _has(facts: Facts, column: str) -> bool:
    roles = {"input_tokens": Role.INPUT_TOKENS, "output_tokens": Role.OUTPUT_TOKENS, "latency": Role.LATENCY}
    return roles[column] in facts.readings


async def _times(facts: Facts) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Return the requests of each hour and weekday (per such day in the span), and how many days there are."""
    if Role.TIMESTAMP not in facts.readings:
        return (1.0,) * HOURS, (1.0,) * WEEKDAYS, 1
    run = facts.session.run
    by_hour = {
        int(_number(h)): _number(n)
        for h, n in (await run("SELECT hour(ts), count(*) FROM f WHERE ts IS NOT NULL GROUP BY 1")).rows
    }
    by_weekday = {
        int(_number(d)): _number(n)
        for d, n in (
            await run(
                "SELECT isodow(ts), count(*) / count(DISTINCT CAST(ts AS DATE)) FROM f WHERE ts IS NOT NULL GROUP BY 1"
            )
        ).rows
    }
    ((days,),) = (await run("SELECT date_diff('day', min(ts), max(ts)) + 1 FROM f")).rows
    return (
        tuple(by_hour.get(hour, 0.0) for hour in range(HOURS)),
        tuple(round(by_weekday.get(day + 1, 0.0), 3) for day in range(WEEKDAYS)),
        max(1, int(_number(days))),
    )


async def _users(facts: Facts) -> tuple[float, ...]:
    if Role.USER not in facts.readings:
        return ()
    rows = await facts.session.run(
        f"SELECT count(*) FROM f WHERE customer IS NOT NULL GROUP BY customer ORDER BY 1 DESC LIMIT {MAX_USERS}"
    )
    return tuple(_number(count) for (count,) in rows.rows)


async def _prompts(facts: Facts) -> float:
    reading = facts.readings.get(Role.PROMPT)
    if reading is None:
        return 0.0
    column = identifier(reading.column)
    ((share,),) = (
        await facts.session.run(f"SELECT approx_count_distinct({column}) / nullif(count({column}), 0) FROM raw")
    ).rows
    return min(1.0, round(_number(share), 4))


async def _errors(facts: Facts) -> tuple[str, ...]:
    if Role.STATUS not in facts.readings:
        return ("error",)
    rows = await facts.session.run(
        f"SELECT left(status, 40) FROM f WHERE failed GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {MAX_ERRORS}"
    )
    return tuple(str(word) for (word,) in rows.rows if word) or ("error",)


def _number(value: Cell) -> float:
    return 0.0 if value is None else float(str(value))


def _quantiles(value: Cell) -> tuple[float, ...] | None:
    found: Sequence[Cell] = value if isinstance(value, list) else ()
    return tuple(round(_number(entry), 3) for entry in found) if found and found[0] is not None else None
