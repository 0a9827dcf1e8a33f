"""Rows in the likeness of a profile, made by SQL: the same profile, seed and options give the same rows.

Chance is a hash of seed, row and purpose, so that the order in which rows are made does not matter. Measures depend on
each other through a Gaussian copula: normal numbers with the profile's correlation, each turned into the quantile that
its segment has there. No value leaves the range of its segment.
"""

import hashlib
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final

from agent_service.tools.sandbox import Session
from agent_service.tools.sandbox_child.sql import sql_text
from agent_service.tools.synthetic.profile import LEVELS, Profile, Segment
from agent_service.tools.synthetic.words import prompts, usernames

CHUNK_ROWS: Final = 50_000
"""Rows that one statement makes."""

MAX_PROMPTS: Final = 2_000
"""Different prompts of one workload."""

PURPOSES: Final = 64
"""Different uses of chance in one row."""

STATEMENT_TIMEOUT_MS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Order:
    """What to make. `start` is midnight UTC of the first day, `noise` from 0 to 1 varies each value by so much.

    `spike_factor` multiplies the traffic of day `spike_day`, counted from 1 (0: no such day).
    """

    profile: Profile
    rows: int
    days: int
    seed: int
    start: datetime
    noise: float = 0.0
    spike_day: int = 0
    spike_factor: float = 1.0


async def generate(session: Session, order: Order, target: Path) -> AsyncIterator[int]:
    """Make the rows and write them to `target`, a Parquet file ordered by time; yield how many there are so far."""
    for statement in _tables(order):
        await session.run(statement, timeout_ms=STATEMENT_TIMEOUT_MS)
    insert = _insert(order)
    await session.run("CREATE TABLE made AS " + insert.partition("INSERT INTO made ")[2].format(start=0, stop=0))
    for start in range(0, order.rows, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, order.rows)
        await session.run(insert.format(start=start, stop=stop), timeout_ms=STATEMENT_TIMEOUT_MS)
        yield stop
    ordered = "ORDER BY timestamp, n" if order.profile.has_time else "ORDER BY n"
    options = "FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false"  # beside the file it may write nothing
    copy = f"COPY (SELECT * EXCLUDE (n) FROM made {ordered}) TO {sql_text(str(target))} ({options})"
    await session.run(copy, timeout_ms=STATEMENT_TIMEOUT_MS)


def _tables(order: Order) -> list[str]:
    """Return what makes the tables that rows are drawn from. `low` is where an entry's part of 0 to 1 begins."""
    profile = order.profile
    statements = [
        _table("segments", "low, model, feature, q_in, q_out, q_lat, q_cached, error_rate", _segment_rows(profile)),
        _table("moments", "low, second", _moment_rows(order)),
        # Abramowitz and Stegun 7.1.26: the error is below 2e-7.
        "CREATE MACRO erf_part(t) AS t*(0.254829592+t*(-0.284496736+t*(1.421413741+t*(-1.453152027+t*1.061405429))))",
        "CREATE MACRO phi(x) AS 0.5*(1+sign(x)*(1-erf_part(1/(1+0.3275911*abs(x)/sqrt(2)))*exp(-x*x/2)))",
        # One number for each row and purpose, so that the hash mixes all of it: hashes of several values hardly mix.
        f"CREATE MACRO chance(n, k) AS (hash(xor({_base(order.seed)}, n*{PURPOSES}+k)) >> 11) / 9007199254740992.0",
        "CREATE MACRO normal(n, k) AS sqrt(-2*ln(1-chance(n, k)))*cos(2*pi()*chance(n, k+1))",
        f"CREATE MACRO at_level(q, p) AS {_interpolation()}",
        f"CREATE MACRO noise(n, k) AS 1+{order.noise!r}*(2*chance(n, k)-1)",
        f"CREATE MACRO varied(q, p, n, k) AS least(greatest(at_level(q, p)*noise(n, k), q[1]), q[{len(LEVELS)}])",
    ]
    if profile.users:
        names = usernames(order.seed, len(profile.users))
        lows = _lows(profile.users)
        entries = [f"({low!r}, {sql_text(name)})" for low, name in zip(lows, names, strict=True)]
        statements.append(_table("users", "low, name", entries))
    if profile.prompts:
        texts = prompts(order.seed, _prompt_count(order))
        statements.append(_table("prompts", "place, said", [f"({i}, {sql_text(t)})" for i, t in enumerate(texts)]))
    return statements


def _base(seed: int) -> int:
    """Return 62 bits that every bit of the seed changes."""
    return int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:8]) >> 2


def _prompt_count(order: Order) -> int:
    return max(1, min(MAX_PROMPTS, round(order.rows * order.profile.prompts)))


def _table(name: str, columns: str, entries: Sequence[str]) -> str:
    return f"CREATE TABLE {name} AS SELECT * FROM (VALUES {', '.join(entries)}) AS t({columns})"


def _lows(weights: Sequence[float]) -> list[float]:
    """Return where each weight's part of 0 to 1 begins. All weights zero: all parts are equal."""
    total = sum(weights)
    if not total:
        return [index / len(weights) for index in range(len(weights))]
    return [low / total for low in accumulate(weights, initial=0.0)][:-1]


def _segment_rows(profile: Profile) -> list[str]:
    lows = _lows([segment.weight for segment in profile.segments])
    return [
        f"({low!r}, {sql_text(segment.model)}, {sql_text(segment.feature)}, {_list(segment.input_tokens)}, "
        f"{_list(segment.output_tokens)}, {_list(segment.latency_ms)}, {_list(segment.cached_share)}, "
        f"CAST({'NULL' if segment.error_rate is None else repr(segment.error_rate)} AS DOUBLE))"
        for low, segment in zip(lows, profile.segments, strict=True)
    ]


def _list(values: Sequence[float] | None) -> str:
    inner = "NULL" if values is None else "[" + ", ".join(repr(float(value)) for value in values) + "]"
    return f"CAST({inner} AS DOUBLE[])"


def _moment_rows(order: Order) -> list[str]:
    """Return the hours of the span, by the weights of weekday and hour; `second` counts from the start."""
    profile = order.profile
    weights, seconds = [], []
    for day in range(order.days):
        factor = order.spike_factor if day + 1 == order.spike_day else 1.0
        weekday = profile.weekdays[(order.start + timedelta(days=day)).weekday()]
        for hour, weight in enumerate(profile.hours):
            weights.append(weight * weekday * factor)
            seconds.append(day * 86_400 + hour * 3_600)
    kept = [(weight, second) for weight, second in zip(weights, seconds, strict=True) if weight] or [
        (1.0, second) for second in seconds
    ]
    lows = _lows([weight for weight, _ in kept])
    return [f"({low!r}, {second})" for low, (_, second) in zip(lows, kept, strict=True)]


def _interpolation() -> str:
    """Return the SQL of the value at level `p` between the values `q` at `LEVELS`."""
    branches = [
        f"WHEN p < {right!r} THEN q[{place}]+(q[{place + 1}]-q[{place}])*(p-{left!r})/{right - left!r}"
        for place, (left, right) in enumerate(pairwise(LEVELS), start=1)
    ]
    return f"CASE {' '.join(branches)} ELSE q[{len(LEVELS)}] END"


def _insert(order: Order) -> str:
    """Return the statement that makes the rows from {start} to {stop}; the first one makes their table, too."""
    profile = order.profile
    columns = ["n"]
    joins = ["ASOF JOIN segments s ON d.pick >= s.low"]
    factors = cholesky(profile.correlation)
    inputs = "z1"
    outputs = f"{factors[0]!r}*z1+{factors[1]!r}*z2"
    latency = f"{factors[2]!r}*z1+{factors[3]!r}*z2+{factors[4]!r}*z3"
    if profile.has_time:
        joins.append("ASOF JOIN moments m ON d.moment >= m.low")
        start = sql_text(order.start.strftime("%Y-%m-%d %H:%M:%S"))
        since = "to_milliseconds(CAST(floor((m.second + 3600*chance(n, 5))*1000) AS BIGINT))"
        columns.append(f"TIMESTAMP {start} + {since} AS timestamp")
    columns += _named(profile, "model"), _named(profile, "feature")
    if profile.users:
        joins.append("ASOF JOIN users u ON d.who >= u.low")
        columns.append("u.name AS user_id")
    has = _present(profile.segments)
    if "input_tokens" in has:
        columns.append("CAST(round(varied(s.q_in, p_in, n, 20)) AS BIGINT) AS input_tokens")
    if "output_tokens" in has:
        columns.append("CAST(round(varied(s.q_out, p_out, n, 21)) AS BIGINT) AS output_tokens")
    if "cached_share" in has and "input_tokens" in has:
        columns.append("CAST(floor(input_tokens * at_level(s.q_cached, chance(n, 8))) AS BIGINT) AS cached_tokens")
    if "latency_ms" in has:
        columns.append("round(varied(s.q_lat, p_lat, n, 22), 1) AS latency_ms")
    if "error_rate" in has:
        words = "[" + ", ".join(map(sql_text, profile.errors)) + "]"
        word = f"{words}[CAST(floor(chance(n, 10)*{len(profile.errors)}) AS INTEGER)+1]"
        columns.append(f"CASE WHEN chance(n, 9) < coalesce(s.error_rate, 0) THEN {word} ELSE 'ok' END AS status")
    if profile.prompts:
        joins.append("JOIN prompts p ON d.asked = p.place")
        columns.append("p.said AS prompt")
    drawn = (
        "SELECT range AS n, chance(n, 1) AS pick, chance(n, 2) AS moment, chance(n, 3) AS who, "
        f"CAST(floor(chance(n, 11)*{_prompt_count(order)}) AS INTEGER) AS asked, "
        "normal(n, 12) AS z1, normal(n, 14) AS z2, normal(n, 16) AS z3 FROM range({start}, {stop})"
    )
    levels = f"SELECT *, phi({inputs}) AS p_in, phi({outputs}) AS p_out, phi({latency}) AS p_lat FROM ({drawn})"
    chosen = ", ".join(column for column in columns if column)
    return f"INSERT INTO made SELECT {chosen} FROM ({levels}) d {' '.join(joins)}"


def _named(profile: Profile, column: str) -> str:
    """Return the column of names, or nothing where no segment has one."""
    known = any(getattr(segment, column) for segment in profile.segments)
    return f"nullif(s.{column}, '') AS {column}" if known else ""


def _present(segments: Sequence[Segment]) -> frozenset[str]:
    names = ("input_tokens", "output_tokens", "latency_ms", "cached_share", "error_rate")
    return frozenset(name for name in names if any(getattr(segment, name) is not None for segment in segments))


def cholesky(spearman: tuple[float, float, float]) -> tuple[float, float, float, float, float]:
    """Return the factors (l21, l22, l31, l32, l33) of the normal correlation that gives these rank correlations.

    For normal numbers r = 2·sin(π·rho/6). What three coefficients cannot be together is drawn towards independence.
    """
    r12, r13, r23 = (2 * math.sin(math.pi * max(-1.0, min(1.0, rho)) / 6) for rho in spearman)
    for _ in range(50):
        rest2 = 1 - r12 * r12
        if rest2 > 0:
            l22 = math.sqrt(rest2)
            l32 = (r23 - r12 * r13) / l22
            rest3 = 1 - r13 * r13 - l32 * l32
            if rest3 >= 0:
                return r12, l22, r13, l32, math.sqrt(rest3)
        r12, r13, r23 = 0.95 * r12, 0.95 * r13, 0.95 * r23
    return 0.0, 1.0, 0.0, 0.0, 1.0
