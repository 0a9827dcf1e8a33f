"""What requests cost: the recorded cost, else the price catalogue by model, date and size of the request.

All sums are exact integers of 10⁻¹⁵ US dollars and become dollars with 6 decimals at the very end. A model that the
catalogue does not know stays without a price and is named; none is guessed.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise
from typing import TYPE_CHECKING

from agent_service.engine.tool import ToolError
from agent_service.tools.facts import UNITS_PER_USD, Facts
from agent_service.tools.reading import MAX_TOKENS_PER_REQUEST
from agent_service.tools.roles import Role
from agent_service.tools.sandbox_child.sql import sql_text

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

MAX_MODELS = 500
# The share of requests with more cached than input tokens that does not yet say that the two are counted apart.
MAX_STRAYS = 0.05
MICRO_USD = Decimal("0.000001")
_PER_MTOK = UNITS_PER_USD // 10**6
_PER_THOUSAND = UNITS_PER_USD // 10**3
_DAY_S = 86_400
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PriceSpan:
    """The price of one model for a span of dates, times of day (s, UTC) and sizes (input tokens, above → up to).

    `input`, `output`, `cached` and `written` (input that the provider's prompt cache stores) are units per token,
    `request` units per request.
    """

    model: str
    start: datetime
    end: datetime
    start_s: int
    end_s: int
    above: int
    up_to: int
    input: int
    output: int
    cached: int
    request: int
    written: int = 0


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model of the data, found in the catalogue. Prices per million tokens are the latest, for small requests."""

    model: str
    matched: str
    provider: str
    input_usd_per_mtok: Decimal
    output_usd_per_mtok: Decimal
    cached_usd_per_mtok: Decimal | None
    price_changes: int
    note: str
    spans: tuple[PriceSpan, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unpriced:
    """Requests that could not be priced, and why."""

    model: str
    requests: int
    input_tokens: int | None
    output_tokens: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Pricing:
    """How the rows were priced. `counts` says how many rows each catalogue model priced.

    `cached_within`: cached tokens are a part of the input tokens, not counted beside them.
    """

    source: str
    catalogue: str
    assumed_model: str
    priced: int
    unpriced: int
    known: Sequence[KnownModel]
    counts: Sequence[tuple[str, bool, int]]
    gaps: Sequence[Unpriced]
    cached_note: str
    cached_within: bool = False


def usd(units: int) -> Decimal:
    """Return US dollars with 6 decimals."""
    return (Decimal(units) / UNITS_PER_USD).quantize(MICRO_USD, ROUND_HALF_EVEN)


def mean_usd(units: int | None, requests: int) -> float | None:
    """Return US dollars per request with 6 decimals; None when nothing is priced."""
    if units is None or not requests:
        return None
    return float((Decimal(units) / requests / UNITS_PER_USD).quantize(MICRO_USD, ROUND_HALF_EVEN))


# --- The catalogue ---------------------------------------------------------------------------------------------------


def find(model: str) -> "tuple[Provider, ModelInfo] | None":
    """Return the catalogue's entry of a model (`gpt-4o` or `provider/model`); None where there is none."""
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    provider_id, slash, rest = model.partition("/")
    for reference, provider in ((model, None), (rest, provider_id)) if slash else ((model, None),):
        try:
            return snapshot.find_provider_model(reference, None, provider, None)
        except LookupError:
            continue
    return None


def look_up(
    model: str, first: datetime, last: datetime, price_context: Mapping[str, str] | None = None
) -> KnownModel | str:
    """Find a model and its prices between two moments (UTC); else return why not.

    `price_context` asks for the catalogue's variant, such as `{"processing": "batch"}`, where it has one.
    """
    entry = find(model)
    if entry is None:
        return "the price catalogue does not know this model"
    found_provider, info = entry
    spans = tuple(_spans(model, info, first, last, dict(price_context or {})))
    if not any(span.input or span.output or span.request for span in spans):
        return "the price catalogue has no token price for this model"
    latest = max(spans, key=lambda span: (span.start, -span.start_s, -span.above))
    sizes = len({span.above for span in spans})
    notes = ["larger requests have another price"] * (sizes > 1)
    notes += ["the price depends on the time of day"] * (len({span.start_s for span in spans}) > 1)
    notes += ["there is a price per request too"] * any(span.request for span in spans)
    return KnownModel(
        model=model,
        matched=info.id,
        provider=found_provider.id,
        input_usd_per_mtok=Decimal(latest.input) / _PER_MTOK,
        output_usd_per_mtok=Decimal(latest.output) / _PER_MTOK,
        cached_usd_per_mtok=Decimal(latest.cached) / _PER_MTOK if latest.cached != latest.input else None,
        price_changes=len({span.start for span in spans}) - 1,
        note="; ".join(notes),
        spans=spans,
    )


def _spans(
    model: str, info: "ModelInfo", first: datetime, last: datetime, price_context: dict[str, str]
) -> Sequence[PriceSpan]:
    from genai_prices.types import ModelPrice, StartDateConstraint, TimeOfDateConstraint

    dates, times = {_EARLIEST}, {0}
    for conditional in [] if isinstance(info.prices, ModelPrice) else info.prices:
        match conditional.constraint:
            case StartDateConstraint(start_date=first_day):
                dates.add(datetime.combine(first_day, time(), UTC))
            case TimeOfDateConstraint(start_time=from_time, end_time=to_time):
                times |= {_second_of_day(from_time), _second_of_day(to_time)}
            case None:
                pass
    starts, seconds = sorted(dates), sorted(times)
    found: list[PriceSpan] = []
    for start, end in zip(starts, [*starts[1:], _LATEST], strict=True):
        if start > last or end <= first:
            continue
        for start_s, end_s in zip(seconds, [*seconds[1:], _DAY_S], strict=True):
            # A variant may begin within the span of a price: it is asked for on the first day that counts.
            day = datetime.combine((max(start, first) if price_context else start).date(), time(), UTC)
            price = info.get_prices(day + timedelta(seconds=start_s), price_context)
            found += _sizes(PriceSpan(model, start, end, start_s, end_s, -1, 0, 0, 0, 0, 0), price)
    return found


def _sizes(span: PriceSpan, price: "ModelPrice") -> list[PriceSpan]:
    from genai_prices.types import TieredPrices

    input_price, output_price = price.input_mtok, price.output_mtok
    cached_price = price.cache_read_mtok if price.cache_read_mtok is not None else input_price
    tiers = {
        tier.start
        for value in (input_price, output_price, cached_price)
        if isinstance(value, TieredPrices)
        for tier in value.tiers
    }
    bounds = [-1, *sorted(tiers), MAX_TOKENS_PER_REQUEST]
    request = price.requests_kcount
    return [
        PriceSpan(
            span.model,
            span.start,
            span.end,
            span.start_s,
            span.end_s,
            above,
            up_to,
            _units(input_price, above, _PER_MTOK),
            _units(output_price, above, _PER_MTOK),
            _units(cached_price, above, _PER_MTOK),
            _units(request, above, _PER_THOUSAND),
            _units(price.cache_write_mtok, above, _PER_MTOK),
        )
        for above, up_to in pairwise(bounds)
    ]


def _units(price: "Decimal | TieredPrices | None", above: int, factor: int) -> int:
    if price is None:
        return 0
    if isinstance(price, Decimal):
        return int((price * factor).to_integral_value(ROUND_HALF_EVEN))
    applicable = price.base
    for tier in price.tiers:
        if above >= tier.start:
            applicable = tier.price
    return int((applicable * factor).to_integral_value(ROUND_HALF_EVEN))


def _second_of_day(moment: time) -> int:
    if moment.tzinfo is not None:
        moment = datetime.combine(datetime(2000, 1, 2, tzinfo=UTC), moment).astimezone(UTC).time()
    return moment.hour * 3600 + moment.minute * 60 + moment.second


# --- Pricing rows ----------------------------------------------------------------------------------------------------


async def price(facts: Facts, assume_model: str, now: datetime) -> Pricing:
    """Make the view `priced`: `f` with cost, cost_input, cost_output, cost_cached, cost_request in units.

    Rows without a model are priced as `assume_model`, rows without a time at `now`. Raises `ToolError` when the
    catalogue does not know the assumed model.
    """
    from genai_prices import __version__

    assumed = assume_model.strip()
    if assumed and isinstance(why := await asyncio.to_thread(look_up, assumed, now, now), str):
        raise ToolError(
            f"The model {assumed!r} cannot be assumed: {why}. Name one such as gpt-4o or claude-sonnet-4-5."
        )
    wanted = await _models(facts, assumed, now)
    looked_up = await asyncio.to_thread(lambda: {name: look_up(name, a, b) for name, a, b in wanted[:MAX_MODELS]})
    looked_up |= {name: f"only the {MAX_MODELS} most frequent models are priced" for name, *_ in wanted[MAX_MODELS:]}
    known = [found for found in looked_up.values() if isinstance(found, KnownModel)]
    cached_note, uncached = await _cached(facts)
    await _make_view(facts, known, assumed, now, uncached)
    rows = (
        await facts.session.run(
            "SELECT key, model IS NULL, given IS NOT NULL, cost IS NOT NULL, count(*), sum(input_tokens), "
            "sum(output_tokens) FROM priced GROUP BY ALL ORDER BY 5 DESC, 1, 2"
        )
    ).rows
    by_column = sum(int(str(row[4])) for row in rows if row[2])
    by_catalogue = [(str(row[0]), bool(row[1]), int(str(row[4]))) for row in rows if row[3] and not row[2]]
    gaps = [_gap(row, looked_up) for row in rows if not row[3]]
    source = {(True, True): "mixed", (True, False): "column", (False, True): "catalogue"}
    return Pricing(
        source=source.get((by_column > 0, bool(by_catalogue)), "none"),
        catalogue=f"genai-prices {__version__}",
        assumed_model=assumed,
        priced=by_column + sum(count for *_, count in by_catalogue),
        unpriced=sum(gap.requests for gap in gaps),
        known=known,
        counts=by_catalogue,
        gaps=gaps,
        cached_note=cached_note,
        cached_within=uncached != "input_tokens",
    )


def _gap(row: Sequence[object], looked_up: dict[str, KnownModel | str]) -> Unpriced:
    key, _, _, _, requests, inputs, outputs = row
    if key is None:
        why = "no model is known for them; say which one to assume"
    else:
        found = looked_up.get(str(key), "")
        why = found if isinstance(found, str) and found else "their token counts are missing"
    return Unpriced(
        model="(none)" if key is None else str(key),
        requests=int(str(requests)),
        input_tokens=None if inputs is None else int(str(inputs)),
        output_tokens=None if outputs is None else int(str(outputs)),
        why=why,
    )


async def _models(facts: Facts, assumed: str, now: datetime) -> list[tuple[str, datetime, datetime]]:
    """Return the models of rows that need a price, most frequent first, each with its first and last moment."""
    found = await facts.session.run(
        f"SELECT {_key(assumed)} AS key, min(epoch_us(ts)), max(epoch_us(ts)), count(*) - count(ts) FROM f "
        "WHERE given IS NULL AND key IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1"
    )
    wanted: list[tuple[str, datetime, datetime]] = []
    for key, first, last, timeless in found.rows:
        moments = [_EARLIEST + timedelta(microseconds=int(str(us))) for us in (first, last) if us is not None]
        moments += [now] if timeless else []
        wanted.append((str(key), min(moments), max(moments)))
    return wanted


def _key(assumed: str) -> str:
    return f"coalesce(model, {sql_text(assumed)})" if assumed else "model"


async def _cached(facts: Facts) -> tuple[str, str]:
    """Return how cached tokens relate to input tokens, and the SQL of the tokens priced as ordinary input."""
    if Role.CACHED_TOKENS not in facts.readings or Role.INPUT_TOKENS not in facts.readings:
        return "", "input_tokens"
    # Of the whole file: a filter must not change the meaning of a column. A stray row must not either.
    ((beyond, judged),) = (
        await facts.session.run(
            "SELECT count_if(cached_tokens > input_tokens), count_if(cached_tokens > 0 AND input_tokens IS NOT NULL) "
            "FROM facts"
        )
    ).rows
    strays = int(str(beyond))
    if strays > MAX_STRAYS * int(str(judged)):
        return "cached tokens are counted beside the input tokens", "input_tokens"
    note = "cached tokens are counted within the input tokens"
    if strays:
        note += f"; {strays:,} requests have more of them than input"
    return note, "greatest(input_tokens - coalesce(cached_tokens, 0), 0)"


async def _make_view(facts: Facts, known: Sequence[KnownModel], assumed: str, now: datetime, uncached: str) -> None:
    spans = [span for model in known for span in model.spans]
    if not spans:
        await facts.session.run(
            f"CREATE VIEW priced AS SELECT *, {_key(assumed)} AS key, given AS cost, NULL::HUGEINT AS cost_input, "
            "NULL::HUGEINT AS cost_output, NULL::HUGEINT AS cost_cached, NULL::HUGEINT AS cost_request FROM f"
        )
        return
    values = ", ".join(
        f"({sql_text(s.model)}, {_moment(s.start)}, {_moment(s.end)}, {s.start_s}, {s.end_s}, {s.above}, {s.up_to}, "
        f"{s.input}::HUGEINT, {s.output}::HUGEINT, {s.cached}::HUGEINT, {s.request}::HUGEINT)"
        for s in spans
    )
    await facts.session.run(
        f"CREATE TABLE spans AS SELECT * FROM (VALUES {values}) AS v"
        "(span_model, starts, ends, start_s, end_s, above, up_to, per_input, per_output, per_cached, per_request)"
    )
    joined = [f"span_model = {_key(assumed)}"]
    if any(model.price_changes for model in known):
        joined.append(f"coalesce(ts, {_moment(now)}) >= starts AND coalesce(ts, {_moment(now)}) < ends")
    if any(span.start_s or span.end_s != _DAY_S for span in spans):
        second = f"(epoch_us(coalesce(ts, {_moment(now)})) // 1000000) % {_DAY_S}"
        joined.append(f"{second} >= start_s AND {second} < end_s")
    if any(span.above >= 0 for span in spans):
        joined.append("input_tokens > above AND input_tokens <= up_to")
    await facts.session.run(
        f"CREATE VIEW priced AS SELECT f.*, {_key(assumed)} AS key, "
        f"CASE WHEN given IS NULL AND output_tokens IS NOT NULL THEN {uncached} * per_input END AS cost_input, "
        "CASE WHEN given IS NULL AND input_tokens IS NOT NULL THEN output_tokens * per_output END AS cost_output, "
        "CASE WHEN given IS NULL AND input_tokens IS NOT NULL AND output_tokens IS NOT NULL "
        "THEN coalesce(cached_tokens, 0) * per_cached END AS cost_cached, "
        "CASE WHEN given IS NULL AND input_tokens IS NOT NULL AND output_tokens IS NOT NULL "
        "THEN per_request END AS cost_request, "
        "coalesce(given, cost_input + cost_output + cost_cached + cost_request) AS cost "
        f"FROM f LEFT JOIN spans ON {' AND '.join(joined)}"
    )


def _moment(moment: datetime) -> str:
    return f"TIMESTAMP '{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}'"
