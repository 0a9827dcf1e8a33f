"""What the rows would cost, and how fast they would be, under a policy: simulated row by row, in SQL.

The table `sim` has one row per request: id, ts, key (its model, or the assumed one), feature, customer, input_tokens,
output_tokens, cached_tokens, latency (ms), failed, cost (what it cost, units), listed (what the catalogue says it
costs), again_us (µs since the same prompt was answered by the same model), idle_us (µs since the last request of the
same model and feature).

A request that a policy changes costs what the catalogue says it costs then. Where its cost was recorded, the recorded
cost is scaled by the ratio of the catalogue's prices after and before, so that a discount stays one.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from agent_service.tools.facts import Facts
from agent_service.tools.measures import number
from agent_service.tools.optimization.policy import Policy, Rule
from agent_service.tools.optimization.statement import after, matches, plain_tokens
from agent_service.tools.optimization.tariffs import Tariffs
from agent_service.tools.pricing import MAX_MODELS, Pricing, price
from agent_service.tools.roles import Role
from agent_service.tools.sandbox import Cell

MIN_PACED: Final = 30
"""Requests with a latency that a model needs before its speed is taken to be known."""

DAYS_PER_MONTH: Final = 30
"""Days of the month that sums are scaled to."""

MIN_MONTH_SPAN_S: Final = 86_400
"""Seconds that data must span before a month is computed from it."""

MAX_SHOWN_NAMES: Final = 5
"""Features or models that an option names; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Percentiles of latency, milliseconds. `measured` requests have one."""

    measured: int
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is, before any change. `units` are `facts.UNITS_PER_USD`; `days` are calendar days, None without times."""

    requests: int
    priced: int
    units: int
    days: int | None
    span_s: float | None
    speed: Speed | None

    def per_month(self, units: int) -> int | None:
        """Scale a sum over the data to a month; None where the data spans less than a day."""
        if self.days is None or self.span_s is None or self.span_s < MIN_MONTH_SPAN_S:
            return None
        return round(units * DAYS_PER_MONTH / self.days)


@dataclass(frozen=True, slots=True)
class Affected:
    """Whom a policy touches. Names are those of the largest groups."""

    features: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    feature_count: int = 0
    model_count: int = 0
    user_count: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy does. `saved` are units, negative for an increase; `touched` requests are changed.

    `unsimulated` of them have a cost, but no catalogue price to compute the new one by: they count as they were.
    `speed` is what the measured latencies become, `speed_before` what they are for the same requests: `batched` ones,
    for which nobody waits, are in neither, and `hits` count as 0 ms. `speed_unknown` requests go to a model whose speed
    the data does not tell.
    """

    saved: int
    touched: int
    hits: int
    batched: int
    unsimulated: int
    speed_before: Speed | None
    speed: Speed | None
    speed_unknown: int
    affected: Affected


@dataclass(frozen=True, slots=True)
class Simulation:
    """The rows, ready to be simulated."""

    facts: Facts
    pricing: Pricing
    tariffs: Tariffs
    baseline: Baseline

    async def outcome(self, policy: Policy, *, whom: bool = True) -> Outcome:
        """Simulate a policy over all rows; without `whom`, whom it touches is left out, which is faster."""
        await self.tariffs.know(rule.target for rule in policy.routes)
        if policy.batches:
            await self.tariffs.know_batch(self.tariffs.known)
        fields = [
            "sum(cost - after) FILTER (WHERE touched)",
            "count_if(touched)",
            "count_if(touched AND hit)",
            "count_if(touched AND batched)",
            "count_if(touched AND unsimulated)",
            "count_if(touched AND latency IS NOT NULL AND later IS NULL AND NOT batched)",
        ]
        has_speed = self.baseline.speed is not None
        rest = "FILTER (WHERE NOT batched)" if policy.batches else ""
        for column, wanted in (("latency", has_speed and bool(rest)), ("later", has_speed)):
            quantiles = f"quantile_cont({column}, [0.5, 0.95]) {rest}"
            fields.append(f"{{'measured': count({column}) {rest}, 'quantiles': {quantiles}}}" if wanted else "NULL")
        fields += [_largest("feature"), _largest("key")] if whom else ["NULL", "NULL"]
        fields += [
            f"count(DISTINCT {column}) FILTER (WHERE touched)" for column in ("feature", "key", "customer") if whom
        ]
        rows = after(policy, self.tariffs, cached_within=self.pricing.cached_within)
        where = "" if has_speed else "WHERE touched"
        (row,) = (await self.facts.session.run(f"SELECT {', '.join(fields)} FROM ({rows}) {where}")).rows
        saved, touched, hits, batched, unsimulated, unknown, before, later, features, models, *counts = row
        return Outcome(
            saved=_whole(saved),
            touched=_whole(touched),
            hits=_whole(hits),
            batched=_whole(batched),
            unsimulated=_whole(unsimulated),
            speed_before=_speed(before) if rest else self.baseline.speed,
            speed=_speed(later),
            speed_unknown=_whole(unknown),
            affected=Affected(_names(features), _names(models), *map(_whole, counts)),
        )

    async def fastest(self) -> str | None:
        """Return the model with the fewest ms per output token (median), if one has enough measured requests."""
        rows = await self.facts.session.run("SELECT pace_model FROM paces ORDER BY pace, pace_model LIMIT 1")
        return str(rows.rows[0][0]) if rows.rows else None

    async def input_quantile(self, rule: Rule, share: float) -> int:
        """Return the quantile of the input tokens of the rule's rows, in whole tokens; 0 where there are none."""
        (row,) = (
            await self.facts.session.run(
                f"SELECT CAST(floor(quantile_cont(input_tokens, {share!r})) AS BIGINT) FROM sim WHERE {matches(rule)}"
            )
        ).rows
        return _whole(row[0])


async def simulation(
    facts: Facts, assume_model: str, now: datetime, *, repeats: bool = False, idle: bool = False
) -> Simulation:
    """Price the rows as they are, and make the table `sim`. Raises `ToolError` for an assumed model without a price.

    `repeats` and `idle` say whether again_us and idle_us are needed; they are NULL otherwise.
    """
    pricing = await price(facts, assume_model, now)
    run = facts.session.run
    ((first, last),) = (await run("SELECT epoch_us(min(ts)), epoch_us(max(ts)) FROM f")).rows
    start, end = _time(first) or now, _time(last) or now
    tariffs = Tariffs(facts.session, min(start, now), max(end, now), now)
    await tariffs.create()
    found = await run(
        f"SELECT key FROM priced WHERE key IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {MAX_MODELS}"
    )
    await tariffs.know(str(row[0]) for row in found.rows)
    plain = plain_tokens("input_tokens", "cached_tokens", within=pricing.cached_within)
    again, since = _again(facts) if repeats else ("NULL::BIGINT", "NULL::BIGINT")
    idle_us = (
        "us - lag(us) OVER (PARTITION BY key, feature ORDER BY ts, id)" if idle and _timed(facts) else "NULL::BIGINT"
    )
    await run(
        f"CREATE TABLE sim AS SELECT * EXCLUDE (prompt, us, before_us, given), {since} AS again_us FROM ("
        f"SELECT p.*, {again} AS before_us, {idle_us} AS idle_us, ({plain}) * per_input + output_tokens * per_output "
        "+ coalesce(cached_tokens, 0) * per_cached + per_request AS listed FROM ("
        "SELECT row_number() OVER () AS id, ts, epoch_us(ts) AS us, key, feature, customer, input_tokens, "
        "output_tokens, cached_tokens, latency, failed, cost, given, prompt FROM priced) p "
        f"LEFT JOIN tariffs ON {tariffs.joined('key', 'input_tokens')})"
    )
    await run(
        "CREATE TABLE paces AS SELECT key AS pace_model, quantile_cont(latency / output_tokens, 0.5) AS pace FROM sim "
        "WHERE latency IS NOT NULL AND output_tokens > 0 AND NOT coalesce(failed, false) AND key IS NOT NULL "
        f"GROUP BY 1 HAVING count(*) >= {MIN_PACED}"
    )
    return Simulation(facts, pricing, tariffs, await _baseline(facts))


def _timed(facts: Facts) -> bool:
    return Role.TIMESTAMP in facts.readings


def _again(facts: Facts) -> tuple[str, str]:
    """Return SQL of when the same prompt was last answered by the same model, and of how long ago that was.

    A failed request leaves no answer behind. Without times only the order is known, and repeats are 0 µs apart.
    """
    if Role.PROMPT not in facts.readings:
        return "NULL::BIGINT", "NULL::BIGINT"
    moment = "us" if _timed(facts) else "0"
    window = "PARTITION BY prompt, key ORDER BY ts, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"
    before = f"max(CASE WHEN NOT coalesce(failed, false) THEN {moment} END) OVER ({window})"
    return f"CASE WHEN prompt IS NOT NULL THEN {before} END", f"{moment} - before_us"


async def _baseline(facts: Facts) -> Baseline:
    (row,) = (
        await facts.session.run(
            "SELECT count(*), count(cost), sum(cost), date_diff('day', min(ts), max(ts)) + 1, "
            "epoch_us(max(ts)) - epoch_us(min(ts)), "
            "{'measured': count(latency), 'quantiles': quantile_cont(latency, [0.5, 0.95])} FROM sim"
        )
    ).rows
    requests, priced, units, days, span_us, speed = row
    return Baseline(
        requests=_whole(requests),
        priced=_whole(priced),
        units=_whole(units),
        days=None if days is None else _whole(days),
        span_s=None if span_us is None else _whole(span_us) / 1_000_000,
        speed=_speed(speed),
    )


def _speed(cell: Cell) -> Speed | None:
    found = cell if isinstance(cell, dict) else {}
    quantiles, measured = found.get("quantiles"), found.get("measured")
    if not measured or not isinstance(quantiles, list):
        return None
    return Speed(_whole(measured), number(quantiles[0]), number(quantiles[1]))


def _largest(column: str) -> str:
    """Return the SQL of the largest groups of the touched rows, as a list of {less, name}."""
    counted = f"map_entries(histogram({column}) FILTER (WHERE touched AND {column} IS NOT NULL))"
    groups = f"list_transform({counted}, lambda e: {{'less': -CAST(e.value AS BIGINT), 'name': e.key}})"
    return f"list_slice(list_sort({groups}), 1, {MAX_SHOWN_NAMES})"


def _names(cell: Cell) -> tuple[str, ...]:
    return tuple(str(entry["name"]) for entry in cell if isinstance(entry, dict)) if isinstance(cell, list) else ()


def _whole(value: Cell) -> int:
    return 0 if value is None else int(str(value))


def _time(us: Cell) -> datetime | None:
    return None if us is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(str(us)))
