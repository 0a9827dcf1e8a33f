"""Single looks in words: caching, capacity, before and after, other models' prices."""

from collections.abc import Mapping
from typing import Final

from agent_service.engine.events import JsonObject
from agent_service.llm.offline import endings, sections
from agent_service.llm.offline.conversation import Conversation, child, children, names, number, text
from agent_service.llm.offline.facts import Facts
from agent_service.llm.offline.format import count, counted, decimal, milliseconds, minute, money, percent, table

NOTHING: Final = "-"
"""Stands in a cell where there is no number."""

_MEASURES: Final = {
    "cost_per_request": "Cost per request, mean",
    "latency": "Latency, mean",
    "error_rate": "Failed requests",
    "input_tokens": "Input tokens per request",
    "output_tokens": "Output tokens per request",
}
_TTLS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def write(facts: Facts) -> str:
    """Return the answer to a question about capacity, a change, or other models, in Markdown."""
    capacity, change = facts.of("forecast_capacity"), facts.of("evaluate_change")
    compared, looked_up = facts.of("compare_models"), facts.of("price_lookup")
    if capacity is not None:
        lines = _capacity(capacity)
    elif change is not None:
        lines = _change(change)
    elif compared is not None or looked_up is not None:
        lines = [*_compared(compared), *_prices(looked_up)]
    elif facts.failed:
        return f"**{facts.failed[-1].error or facts.failed[-1].summary}**\n"
    else:
        return "\n".join(endings.nothing_worked(facts)).strip() + "\n"
    failed = [] if change is not None else endings.failures(facts)
    ending = [*failed, *endings.missing(facts), *endings.source(facts)]
    first, *rest = lines
    return "\n".join([first, "", *sections.note(facts.dataset), *rest, *ending]).strip() + "\n"


def ask_for_a_date(_: Conversation) -> str:
    """Return the question when it was that something changed."""
    return (
        "**When did it change? Name the day, and I compare cost, latency, errors and tokens before and after.**\n\n"
        "For example: “Was the upgrade on May 10 worth it?”\n"
    )


def caching(result: JsonObject | None) -> list[str]:
    """Return the tables of an audit of caching: lifetimes of entries, and the provider's own cache."""
    lines: list[str] = []
    rows = [
        [
            _lifetime(number(entry, "ttl_s")),
            count(number(entry, "hits")),
            percent(number(entry, "hit_rate")),
            money(number(entry, "saving_usd")),
            f"{number(entry, 'saving_percent') or 0.0:,.1f} %",
        ]
        for entry in children(result, "exact_repeats", "lifetimes")
    ]
    if rows:
        header = ["Entries live", "Hits", "Hit rate", "Saving", "Of the cost"]
        lines += ["### Exactly repeated prompts, by lifetime of entries", "", *table(header, rows), ""]
    models = children(result, "provider_cache", "models")
    if models:
        rows = [
            [
                text(model, "model"),
                count(number(model, "input_tokens")),
                percent(number(model, "cached_share")),
                money(number(model, "saved_usd")) if child(model, "has_cached_price") is True else "no cached price",
            ]
            for model in models
        ]
        header = ["Model", "Input tokens", "From the cache", "Saved so far"]
        lines += ["### The provider's prompt cache, as it is", "", *table(header, rows), ""]
    return lines


def _lifetime(seconds: float | None) -> str:
    if seconds is None:
        return "for ever"
    length, unit = next((length, unit) for length, unit in _TTLS if seconds % length == 0)
    return counted(seconds / length, unit)


# --- Capacity --------------------------------------------------------------------------------------------------------


def _capacity(result: JsonObject) -> list[str]:
    growth = number(result, "growth_percent") or 0.0
    where = sections.dataset_name(result)
    at = f"In {where}, at {growth:+g} % traffic" if growth else f"In {where}, at today's traffic"
    peaks = [(child(result, "peaks", key), title) for key, title in _PEAKS]
    found = [(peak, title) for peak, title in peaks if isinstance(peak, Mapping)]
    if not found:
        first = f"**{at}, the peaks cannot be told: the data has no times.**"
    else:
        verdicts = [_verdict(peak, title) for peak, title in found]
        limited = [peak for peak, _ in found if number(peak, "limit") is not None]
        fits = all(child(peak, "fits") is True for peak in limited)
        lead = "" if not limited else "it fits: " if fits else "it does not fit: "
        first = f"**{at}, {lead}{'; '.join(verdicts)}.**"
    lines = [first]
    rows = [_peak_row(peak, title) for peak, title in found]
    for model in children(result, "models"):
        for key, title in _PEAKS:
            peak = child(model, key)
            if isinstance(peak, Mapping) and len(children(result, "models")) > 1:
                rows.append(_peak_row(peak, f"{text(model, 'model')}: {title}"))
    header = ["Busiest minute", "Now", "Then", "Limit", "Headroom", "Minutes over", "Growth until the limit", "When"]
    lines += ["### Peaks", "", *table(header, rows), ""] if rows else []
    now, then = number(result, "cost", "now_usd"), number(result, "cost", "then_usd")
    if now is not None:
        monthly = number(result, "cost", "then_usd_per_month")
        a_month = f", {money(monthly)} a month" if monthly is not None else ""
        lines += [
            f"Cost: {money(now)} now, {money(then)} then{a_month}; {text(result, 'baseline', 'month_basis')}.",
            "",
        ]
    said = [text(result, "definition"), text(result, "limits_note")]
    return [*lines, *(f"- {line[:1].upper()}{line[1:]}." for line in said if line), ""]


_PEAKS: Final = (("requests_per_minute", "requests per minute"), ("tokens_per_minute", "tokens per minute"))


def _verdict(peak: JsonObject, title: str) -> str:
    then, limit = number(peak, "then") or 0.0, number(peak, "limit")
    if limit is None:
        return f"{decimal(then, 0)} {title} in the busiest minute"
    if child(peak, "fits") is True:
        return f"{decimal(then, 0)} of {count(limit)} {title}"
    return f"{decimal(then, 0)} {title} where {count(limit)} are allowed ({percent(then / limit - 1)} over)"


def _peak_row(peak: JsonObject, title: str) -> list[str]:
    limited = number(peak, "limit") is not None
    until = number(peak, "growth_until_limit_percent")
    return [
        title,
        count(number(peak, "now")),
        decimal(number(peak, "then"), 0),
        count(number(peak, "limit")) if limited else NOTHING,
        percent(number(peak, "headroom_share")) if limited else NOTHING,
        count(number(peak, "minutes_over")) if limited else NOTHING,
        f"{until:+,.0f} %" if until is not None else NOTHING,
        minute(text(peak, "at")),
    ]


# --- Before and after ------------------------------------------------------------------------------------------------


def _change(result: JsonObject) -> list[str]:
    where = sections.dataset_name(result)
    lines = [f"**{text(result, 'verdict', 'words')}, since {minute(text(result, 'change_time'))} in {where}.**"]
    rows = [
        [
            _MEASURES.get(text(measure, "name"), text(measure, "name")),
            _figure(measure, "mean_before"),
            _figure(measure, "mean_after"),
            _signed(number(measure, "change_percent")),
            _signed(number(measure, "same_mix", "change_percent")),
            f"{text(measure, 'direction')}{_chance(measure)}",
        ]
        for measure in children(result, "measures")
    ]
    lines += [
        "### Before and after",
        "",
        *table(["Measure", "Before", "After", "Change", "Within features", "More than chance?"], rows),
        "",
    ]
    sides = [(name, child(result, name)) for name in ("before", "after")]
    rows = [
        [
            name,
            count(number(side, "requests")),
            decimal(number(side, "requests_per_day")),
            money(number(side, "cost_usd")),
            *(milliseconds(number(side, "latency_ms", key)) for key in ("p50", "p95", "p99")),
        ]
        for name, side in sides
    ]
    lines += [*table(["Side", "Requests", "Requests per day", "Cost", "p50", "p95", "p99"], rows), ""]
    return [*lines, text(result, "definition"), ""]


def _figure(measure: JsonObject, name: str) -> str:
    value, unit = number(measure, name), text(measure, "unit")
    if unit == "USD":
        return money(value)
    if unit == "ms":
        return milliseconds(value)
    return percent(value) if unit == "share" else decimal(value)


def _signed(value: float | None) -> str:
    return NOTHING if value is None else f"{value:+,.1f} %"


def _chance(measure: JsonObject) -> str:
    within = child(measure, "same_mix") is not None
    p_value = number(measure, "same_mix", "p_value") if within else number(measure, "p_value")
    if p_value is None:
        return ""
    return " (p < 0.001)" if p_value < 0.001 else f" (p = {p_value:.3f})"  # noqa: PLR2004 - smaller says no more


# --- Prices ----------------------------------------------------------------------------------------------------------


def _compared(result: JsonObject | None) -> list[str]:
    models = children(result, "models")
    if not models:
        return ["**None of these models can be compared.**" if result is not None else "**Prices by the catalogue**"]
    now, best = number(result, "baseline", "cost_usd"), models[0]
    where = sections.dataset_name(result)
    change = _signed(number(best, "change_percent"))
    cost = f"{money(number(best, 'cost_usd'))} with {text(best, 'model')}"
    lines = [f"**The traffic of {where} would cost {cost}, against {money(now)} as it is ({change}).**"]
    rows = [
        [
            text(model, "model"),
            money(number(model, "cost_usd")),
            _signed(number(model, "change_percent")),
            money(number(model, "input_usd_per_mtok")),
            money(number(model, "output_usd_per_mtok")),
            milliseconds(number(model, "measured", "p50_ms")) if child(model, "measured") else "not in the data",
            milliseconds(number(model, "measured", "p95_ms")) if child(model, "measured") else "not in the data",
        ]
        for model in models
    ]
    header = [
        "Model",
        "Cost",
        "Change",
        "Input / 1M tokens",
        "Output / 1M tokens",
        "p50 in the data",
        "p95 in the data",
    ]
    lines += ["### The same traffic, priced", "", *table(header, rows), ""]
    lines += [f"- {line}" for line in names(result, "unknown")]
    definition = text(result, "definition")
    return [*lines, f"{definition[:1].upper()}{definition[1:]}.", ""]


def _prices(result: JsonObject | None) -> list[str]:
    if result is None:
        return []
    rows, unknown = [], []
    for model in children(result, "models"):
        if child(model, "found") is not True:
            near = names(model, "near_names")
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            unknown.append(f"- {text(model, 'model')}: {text(model, 'why')}.{hint}")
            continue
        batch = number(model, "batch", "input_usd_per_mtok"), number(model, "batch", "output_usd_per_mtok")
        rows.append(
            [
                text(model, "model"),
                money(number(model, "input_usd_per_mtok")),
                money(number(model, "output_usd_per_mtok")),
                money(number(model, "cached_usd_per_mtok")) if number(model, "cached_usd_per_mtok") else NOTHING,
                f"{money(batch[0])} / {money(batch[1])}" if batch[0] is not None else NOTHING,
                count(number(model, "context_window")) if number(model, "context_window") else NOTHING,
            ]
        )
    header = ["Model", "Input", "Output", "Cached input", "Batch in / out", "Context window"]
    title = f"### Per million tokens on {text(result, 'date')[:10]} ({text(result, 'catalogue')})"
    return [title, "", *table(header, rows), "", *unknown, ""]
