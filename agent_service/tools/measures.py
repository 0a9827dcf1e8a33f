"""Measuring `facts`: totals, groups with a named rest, time span and peaks.

Percentiles interpolate linearly between the closest ranks (`quantile_cont`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolError
from agent_service.tools.facts import MAX_EXACT_INT, Facts
from agent_service.tools.pricing import usd
from agent_service.tools.roles import Role
from agent_service.tools.sandbox import Cell
from agent_service.tools.sandbox_child.sql import sql_text

PERCENTILES = "linear interpolation between the closest ranks"
NO_VALUE = "(none)"
OTHER = "other"
MAX_NAME_CHARACTERS = 64

# Dimension → the role it needs and its SQL; names sort and read well.
DIMENSIONS: Mapping[str, tuple[Role, str]] = {
    "model": (Role.MODEL, "model"),
    "feature": (Role.FEATURE, "feature"),
    "user": (Role.USER, "customer"),
    "status": (Role.STATUS, "status"),
    "day": (Role.TIMESTAMP, "strftime(ts, '%Y-%m-%d')"),
    "hour": (Role.TIMESTAMP, "strftime(ts, '%Y-%m-%d %H:00')"),
    "weekday": (Role.TIMESTAMP, "dayname(ts)"),
}


def grouped_by(dimension: str) -> str:
    """Return the SQL of a group's name."""
    return f"coalesce({DIMENSIONS[dimension][1]}, '{NO_VALUE}')"


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds."""

    measured: int
    mean: float
    minimum: float
    maximum: float
    p50: float
    p90: float
    p95: float
    p99: float
    per_output_token_p50: float | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums of some rows. None: the dataset does not tell. `units` are `facts.UNITS_PER_USD`."""

    name: str
    requests: int
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    units: int | None
    priced: int
    errors: int | None
    judged: int
    latency: Latency | None
    groups: int = 1
    keys: tuple[str, ...] = ()

    @property
    def cost_usd(self) -> float | None:
        """The cost of those rows that are priced."""
        return None if self.units is None else float(usd(self.units))

    @property
    def error_rate(self) -> float | None:
        """Errors as a share of the rows with a status."""
        return None if self.errors is None or not self.judged else rounded(self.errors / self.judged, 6)


@dataclass(frozen=True, slots=True)
class Groups:
    """The largest groups, and the rest as one; None when nothing was left out."""

    shown: Sequence[Totals]
    other: Totals | None

    @property
    def all(self) -> Sequence[Totals]:
        """Shown groups, then the rest."""
        return [*self.shown, *([self.other] if self.other else [])]


def rounded(value: float, digits: int = 3) -> float:
    """Round for people."""
    return round(value, digits)


def counted(number_of: int, thing: str) -> str:
    """Return `1 request`, `19,366 requests`."""
    return f"{number_of:,} {thing}{'' if number_of == 1 else 's'}"


def clip(text: str, limit: int = MAX_NAME_CHARACTERS) -> str:
    """Shorten with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def moment(us: Cell) -> str | None:
    """Return microseconds since 1970 as RFC 3339 with 6 digits."""
    if us is None:
        return None
    return (datetime(1970, 1, 1) + timedelta(microseconds=int(str(us)))).isoformat(timespec="microseconds") + "Z"  # noqa: DTZ001 - UTC


def whole(value: Cell) -> int | None:
    """Return an integer of a result. Raises `ToolError` when JSON could not carry it exactly."""
    if value is None:
        return None
    number = int(str(value))
    if abs(number) > MAX_EXACT_INT:
        raise ToolError("A sum over this dataset is too large to be stated exactly. Look at a smaller part of it.")
    return number


def shares(parts: Sequence[int]) -> list[float]:
    """Return each part's share of the sum with 6 decimals; the largest takes the rest, so that they add up to 1."""
    total = sum(parts)
    if not total:
        return [0.0 for _ in parts]
    exact = [(Decimal(part) / total).quantize(Decimal("0.000001")) for part in parts]
    largest = max(range(len(parts)), key=lambda index: parts[index])
    exact[largest] += 1 - sum(exact)
    return [float(share) for share in exact]


# --- Totals and groups -----------------------------------------------------------------------------------------------


def _fields(facts: Facts, *, cost: bool, latency: bool, pace: bool) -> str:
    have = facts.readings
    fields = {"requests": "count(*)"}
    for role, name in (
        (Role.INPUT_TOKENS, "input_tokens"),
        (Role.OUTPUT_TOKENS, "output_tokens"),
        (Role.CACHED_TOKENS, "cached_tokens"),
    ):
        if role in have:
            fields[name] = f"sum({name})"
    if cost:
        fields |= {"units": "sum(cost)", "priced": "count(cost)"}
    if Role.STATUS in have:
        fields |= {"errors": "count_if(failed)", "judged": "count(failed)"}
    if latency and Role.LATENCY in have:
        fields |= {
            "measured": "count(latency)",
            "mean": "avg(latency)",
            "minimum": "min(latency)",
            "maximum": "max(latency)",
            "quantiles": "quantile_cont(latency, [0.5, 0.9, 0.95, 0.99])",
        }
        if pace and Role.OUTPUT_TOKENS in have:
            fields["pace"] = "quantile_cont(latency / nullif(output_tokens, 0), 0.5)"
    return "{" + ", ".join(f"'{key}': {sql}" for key, sql in fields.items()) + "}"


def _totals(keys: Sequence[str], cell: Cell, groups: int = 1) -> Totals:
    found = cell if isinstance(cell, dict) else {}
    units = found.get("units")
    return Totals(
        name=" / ".join(clip(key) for key in keys),
        keys=tuple(clip(key) for key in keys),
        requests=whole(found.get("requests")) or 0,
        input_tokens=whole(found.get("input_tokens")),
        output_tokens=whole(found.get("output_tokens")),
        cached_tokens=whole(found.get("cached_tokens")),
        units=None if units is None else int(str(units)),
        priced=whole(found.get("priced")) or 0,
        errors=whole(found.get("errors")),
        judged=whole(found.get("judged")) or 0,
        latency=_latency(found),
        groups=groups,
    )


def _latency(found: Mapping[str, Cell]) -> Latency | None:
    quantiles, measured = found.get("quantiles"), whole(found.get("measured"))
    if not measured or not isinstance(quantiles, list):
        return None
    p50, p90, p95, p99 = (rounded(number(value)) for value in quantiles)
    pace = found.get("pace")
    return Latency(
        measured=measured,
        mean=rounded(number(found.get("mean"))),
        minimum=rounded(number(found.get("minimum"))),
        maximum=rounded(number(found.get("maximum"))),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        per_output_token_p50=None if pace is None else rounded(number(pace)),
    )


def number(value: Cell) -> float:
    """Return a number of a result."""
    return float(value) if isinstance(value, (int, float)) else float(str(value))


async def totals(facts: Facts, *, source: str, latency: bool = True, pace: bool = False) -> Totals:
    """Sum all rows of `f` or `priced`. `pace`: with the time per output token."""
    fields = _fields(facts, cost=source == "priced", latency=latency, pace=pace)
    ((cell,),) = (await facts.session.run(f"SELECT {fields} FROM {source}")).rows
    return _totals(("all",), cell)


async def groups(
    facts: Facts,
    dimensions: Sequence[str],
    *,
    source: str,
    order: str,
    top: int,
    latency: bool = True,
    pace: bool = False,
) -> Groups:
    """Sum by dimensions: the `top` largest by the aggregate `order`, ties by name, and the rest as one."""
    if not dimensions:
        return Groups([await totals(facts, source=source, latency=latency, pace=pace)], None)
    keys = ", ".join(f"{grouped_by(dimension)} AS key_{index}" for index, dimension in enumerate(dimensions))
    names = ", ".join(f"key_{index}" for index in range(len(dimensions)))
    named = f"WITH named AS (SELECT *, {keys} FROM {source})"
    largest = (
        await facts.session.run(
            f"{named} SELECT {names}, count(*) OVER () FROM named GROUP BY {names} "
            f"ORDER BY {order} DESC NULLS LAST, {names} LIMIT {top}"
        )
    ).rows
    if not largest:
        return Groups([], None)
    # The few largest are joined, not all: which of a million users comes where costs more than all sums.
    places = ", ".join(
        f"({', '.join(sql_text(str(key)) for key in row[:-1])}, {place})" for place, row in enumerate(largest)
    )
    fields = _fields(facts, cost=source == "priced", latency=latency, pace=pace)
    rows = (
        await facts.session.run(
            f"{named}, largest AS (SELECT * FROM (VALUES {places}) AS v({names}, place)) "
            f"SELECT coalesce(place, {len(largest)}) AS slot, {fields} FROM named LEFT JOIN largest USING ({names}) "
            "GROUP BY slot ORDER BY slot"
        )
    ).rows
    sums = {int(str(row[0])): row[1] for row in rows}
    shown = [_totals([str(key) for key in row[:-1]], sums[place]) for place, row in enumerate(largest)]
    left = int(str(largest[0][-1])) - len(largest)
    return Groups(shown, _totals([OTHER], sums[len(largest)], left) if left else None)


# --- Time ------------------------------------------------------------------------------------------------------------


async def time_span(facts: Facts) -> JsonObject | None:
    """Return first and last request, the days with requests and the mean rate; None without times."""
    if Role.TIMESTAMP not in facts.readings:
        return None
    ((first, last, days, timed),) = (
        await facts.session.run(
            "SELECT epoch_us(min(ts)), epoch_us(max(ts)), count(DISTINCT ts::DATE), count(ts) FROM f"
        )
    ).rows
    if first is None or last is None:
        return None
    seconds = (int(str(last)) - int(str(first))) / 1_000_000
    return {
        "start": moment(first),
        "end": moment(last),
        "span_s": rounded(seconds, 6),
        "days": whole(days),
        "requests_per_minute_mean": rounded(number(timed) * 60 / seconds, 6) if seconds else None,
    }


async def peaks(facts: Facts) -> JsonObject | None:
    """Return the busiest minute, hour and day (UTC; the earliest of equals) and the minute with most tokens."""
    if Role.TIMESTAMP not in facts.readings:
        return None
    found: dict[str, JsonValue] = {}
    for key, unit, order in (
        ("minute", "minute", "2"),
        ("hour", "hour", "2"),
        ("day", "day", "2"),
        ("tokens_minute", "minute", "coalesce(sum(input_tokens), 0) + coalesce(sum(output_tokens), 0)"),
    ):
        rows = (
            await facts.session.run(
                f"SELECT epoch_us(date_trunc('{unit}', ts)::TIMESTAMP) AS bucket, count(*), sum(input_tokens), "
                f"sum(output_tokens) FROM f WHERE ts IS NOT NULL GROUP BY bucket ORDER BY {order} DESC, bucket LIMIT 1"
            )
        ).rows
        if rows and (key != "tokens_minute" or rows[0][2] is not None or rows[0][3] is not None):
            found[key] = bucket(rows[0])
        else:
            found[key] = None
    return found


def bucket(row: Sequence[Cell]) -> JsonObject:
    """Return one bucket of time: start (µs), requests, input and output tokens."""
    return {
        "start": moment(row[0]),
        "requests": whole(row[1]),
        "input_tokens": whole(row[2]),
        "output_tokens": whole(row[3]),
    }
