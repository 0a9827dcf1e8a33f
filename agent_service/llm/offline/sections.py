"""The parts of an answer, each made from one tool result as the data tools give it. Nothing measured: no part."""

from collections.abc import Mapping
from typing import Final

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.llm.offline.conversation import child, children, names, number, text
from agent_service.llm.offline.format import (
    count,
    counted,
    decimal,
    duration,
    milliseconds,
    minute,
    moment,
    money,
    percent,
    table,
)

BUSY_HOURS: Final = 5

DIMENSION_TITLES: Final = {
    "model": "By model",
    "feature": "By feature",
    "user": "By user",
    "day": "By day",
    "hour": "By hour",
    "weekday": "By weekday",
    "status": "By status",
}


RATES: Final = (("minute", 60), ("hour", 3_600), ("day", 86_400))
"""Units of a rate, in seconds: the shortest one in which there is at least one request is shown."""

NO_TOKENS: Final = "their token counts are missing"
"""Why the tools could not price requests of a model that has a price."""

TELLING_PEAK: Final = 10
"""Requests from which on the busiest minute or hour says something."""


def dataset_name(result: JsonObject | None) -> str:
    """Return what the dataset is called, and that it is the sample where it is."""
    name = text(result, "dataset", "name") or "your data"
    return f"the built-in sample ({name})" if child(result, "dataset", "builtin_sample") is True else name


def note(result: JsonObject | None) -> list[str]:
    """Return what else to know about the choice of the dataset, such as a newer one that cannot be read."""
    said = text(result, "dataset", "note")
    if not said:
        return []
    return [f"*{said.rstrip('.')}. This answer is about {dataset_name(result)}.*", ""]


def headline(usage: JsonObject | None) -> str:
    """Return the sentence that answers first: requests, tokens, time, and what they cost or why that is not known."""
    requests = number(usage, "totals", "requests")
    if not requests:
        return f"**{capital(dataset_name(usage))} holds no requests that match.**"
    where = f"In {dataset_name(usage)}, "
    known = [
        counted(value, f"{kind} token")
        for kind, value in (
            ("context (input)", number(usage, "totals", "input_tokens")),
            ("generated (output)", number(usage, "totals", "output_tokens")),
        )
        if value is not None
    ]
    tokens = " and ".join(known) or "no token counts"
    span = _span(usage)
    what = f"{counted(requests, 'request')}{narrowed(usage)}"
    cost = number(usage, "totals", "cost_usd")
    if cost is None:
        return f"**{where}{what}: {tokens}{span}. What {_unpriced(usage, requests)}.**"
    assumed = text(usage, "pricing", "assumed_model")
    how = f", priced as if all were {assumed}" if assumed else ""
    unpriced = number(usage, "pricing", "requests_unpriced")
    if unpriced:
        verb = "is" if unpriced == 1 else "are"
        how += f" ({count(unpriced)} of them could not be priced and {verb} not in it)"
    cost_verb = "costs" if requests == 1 else "cost"
    return f"**{where}{what} {cost_verb} {money(cost)}{how}: {tokens}{span}.**"


def narrowed(result: JsonObject | None) -> str:
    """Return which requests a result is limited to, as words after them: ` of support_chat with gpt-4o`."""
    of, by = names(result, "filter", "features"), names(result, "filter", "models")
    return (f" of {' and '.join(of)}" if of else "") + (f" with {' and '.join(by)}" if by else "")


def _unpriced(usage: JsonObject | None, requests: float) -> str:
    """Return why the cost is not known, with the way out that fits."""
    said = "it costs is not known" if requests == 1 else "they cost is not known"
    if not number(usage, "totals", "models"):
        return f"{said}: there is no model to price by; say, for example, “assume gpt-4o”"
    gaps = children(usage, "pricing", "unpriced")
    if gaps and all(text(entry, "why") == NO_TOKENS for entry in gaps):
        return f"{said}: {NO_TOKENS.replace('their', 'the')}"
    found = [text(entry, "model") for entry in gaps]
    unknown = ", ".join(name for name in found if name and name != "(none)")
    if not unknown:
        return f"{said}: no price is known"
    return f"{said}: there is no price for {unknown}; ask, for example, “What would gpt-4o cost for this traffic?”"


def capital(words: str) -> str:
    """Return the words with a capital first letter where they begin with an article; names stay as they are."""
    return f"The {words[4:]}" if words.startswith("the ") else words


def _span(usage: JsonObject | None) -> str:
    if child(usage, "time") is None:
        return ""
    start, end = text(usage, "time", "start"), text(usage, "time", "end")
    return f", from {minute(start)} to {minute(end)} ({duration(number(usage, 'time', 'span_s'))})"


def totals_in_brief(usage: JsonObject | None) -> list[str]:
    """Return the few totals that an answer about something else rests on."""
    if usage is None:
        return []
    rows = _token_rows(usage)
    if number(usage, "totals", "cost_usd") is not None:
        rows.append(["Cost", money(number(usage, "totals", "cost_usd"))])
    if child(usage, "time") is not None:
        rows.append(["Time span", duration(number(usage, "time", "span_s"))])
    return ["### What it rests on", "", *table(["Measure", "Value"], rows), ""]


def _token_rows(usage: JsonObject) -> list[list[str]]:
    return [
        ["Requests", count(number(usage, "totals", "requests"))],
        ["Context (input) tokens", count(number(usage, "totals", "input_tokens"))],
        ["Generated (output) tokens", count(number(usage, "totals", "output_tokens"))],
        ["Tokens in all", count(number(usage, "totals", "total_tokens"))],
    ]


def totals(usage: JsonObject | None) -> list[str]:
    """Return the table of totals, exact, with time span and peaks."""
    if usage is None:
        return []
    rows = _token_rows(usage)
    if number(usage, "totals", "cached_tokens") is not None:
        rows.append(["of the input: cached", count(number(usage, "totals", "cached_tokens"))])
    rows += _per_request(usage)
    if number(usage, "totals", "cost_usd") is not None:
        rows.append(["Cost", money(number(usage, "totals", "cost_usd"))])
        rows.append(["Cost per request", money(number(usage, "per_request", "cost_usd_mean"))])
    if number(usage, "totals", "errors") is not None:
        errors, rate = number(usage, "totals", "errors"), number(usage, "totals", "error_rate")
        rows.append(["Failed requests", f"{count(errors)} ({percent(rate)})"])
    if child(usage, "latency_ms") is not None:
        rows.append(["Latency, p50 / p95", f"{_ms(usage, 'p50')} / {_ms(usage, 'p95')}"])
    if child(usage, "time") is not None:
        rows.append(["First request", moment(text(usage, "time", "start"))])
        rows.append(["Last request", moment(text(usage, "time", "end"))])
        rows.append(["Time span", duration(number(usage, "time", "span_s"))])
        rows += _rate(number(usage, "time", "requests_per_minute_mean"))
    rows += _peak_rows(usage)
    return ["### The numbers", "", *table(["Measure", "Value"], rows), ""]


def _rate(per_minute: float | None) -> list[list[str]]:
    """Return the mean rate in a unit in which it can be read."""
    if not per_minute:
        return []
    unit, seconds = next(((unit, length) for unit, length in RATES if per_minute * length >= RATES[0][1]), RATES[-1])
    rate = per_minute * seconds / RATES[0][1]
    return [[f"Requests per {unit}, mean", decimal(rate, 1 if rate >= 1 else 3)]]


def _ms(usage: JsonObject, name: str) -> str:
    return milliseconds(number(usage, "latency_ms", name))


def _per_request(usage: JsonObject) -> list[list[str]]:
    rows = []
    for name, title in (("input_tokens", "Input tokens per request"), ("output_tokens", "Output tokens per request")):
        if child(usage, "per_request", name) is not None:
            mean, p95 = number(usage, "per_request", name, "mean"), number(usage, "per_request", name, "p95")
            largest = count(number(usage, "per_request", name, "max"))
            rows.append([title, f"mean {decimal(mean)}, p95 {decimal(p95, 0)}, largest {largest}"])
    return rows


def _peak_rows(result: JsonObject | None) -> list[list[str]]:
    """Return the busiest minute, hour and day, and the minute with the most tokens."""
    rows = []
    for name, title in (
        ("minute", "Busiest minute"),
        ("hour", "Busiest hour"),
        ("day", "Busiest day"),
        ("tokens_minute", "Minute with most tokens"),
    ):
        same = name == "tokens_minute" and child(result, "peaks", name) == child(result, "peaks", "minute")
        only = name == "day" and number(result, "time", "days") == 1
        if same or only or child(result, "peaks", name) is None:
            continue
        start = text(result, "peaks", name, "start")
        requests = counted(number(result, "peaks", name, "requests"), "request")
        sides = [number(result, "peaks", name, side) for side in ("input_tokens", "output_tokens")]
        known = [value for value in sides if value is not None]
        tokens = f", {counted(sum(known), 'token')}" if known else ""
        when = start[:10] if name == "day" else minute(start)
        rows.append([title, f"{when}: {requests}{tokens}"])
    return rows


def breakdown(result: JsonObject | None) -> list[str]:
    """Return the table of a cost breakdown: groups and the rest sum to the total."""
    groups = [*children(result, "groups"), *_other(child(result, "other"))]
    dimensions = child(result, "group_by")
    if not groups or not isinstance(dimensions, list | tuple) or not dimensions:
        return []
    priced = number(result, "total_cost_usd") is not None
    title = " and ".join(DIMENSION_TITLES.get(str(name), str(name)).lower() for name in dimensions)
    header = ["Group", "Requests", "Input tokens", "Output tokens", *(["Cost", "Share of cost"] if priced else [])]
    rows = [
        [
            text(group, "name"),
            count(number(group, "requests")),
            count(number(group, "input_tokens")),
            count(number(group, "output_tokens")),
            *([money(number(group, "cost_usd")), percent(number(group, "share"))] if priced else []),
        ]
        for group in groups
    ]
    lines = [f"### Cost {title}" if priced else f"### Usage {title}", "", *table(header, rows), ""]
    return lines + _components(result)


def leader(result: JsonObject | None) -> str:
    """Return which group costs most, in a sentence; nothing where there is only one, or no price."""
    found, total = children(result, "groups"), number(result, "total_cost_usd")
    if len(found) < 2 or not total:  # noqa: PLR2004 - one group leads nobody
        return ""
    first = found[0]
    return (
        f"**In {dataset_name(result)}, {text(first, 'name')} costs most: {money(number(first, 'cost_usd'))}, "
        f"{percent(number(first, 'share'))} of {money(total)}.**"
    )


def _components(result: JsonObject | None) -> list[str]:
    if child(result, "components") is None:
        return []
    parts = [
        f"input {money(number(result, 'components', 'input_usd'))}",
        f"output {money(number(result, 'components', 'output_usd'))}",
    ]
    if number(result, "components", "cached_usd"):
        parts.append(f"cached input {money(number(result, 'components', 'cached_usd'))}")
    return [f"Of the cost: {', '.join(parts)}.", ""]


def groups(usage: JsonObject | None, dimension: str) -> list[str]:
    """Return the usage table of one dimension, if the data has it."""
    found = [*children(usage, "groups", dimension), *_other(child(usage, "other", dimension))]
    if not found:
        return []
    priced = number(usage, "totals", "cost_usd") is not None
    header = ["Group", "Requests", "Share of requests", "Input tokens", "Output tokens", *(["Cost"] if priced else [])]
    rows = [
        [
            text(group, "name"),
            count(number(group, "requests")),
            percent(number(group, "share_of_requests")),
            count(number(group, "input_tokens")),
            count(number(group, "output_tokens")),
            *([money(number(group, "cost_usd"))] if priced else []),
        ]
        for group in found
    ]
    return [f"### {DIMENSION_TITLES.get(dimension, dimension)}", "", *table(header, rows), ""]


def _other(other: JsonValue) -> list[JsonObject]:
    """Return the row that stands for all groups that are not shown."""
    if not isinstance(other, Mapping):
        return []
    return [{**other, "name": f"{count(number(other, 'groups'))} others"}]


def prices(result: JsonObject | None) -> list[str]:
    """Return where the prices come from, and what could not be priced."""
    source = text(result, "pricing", "source")
    lines = []
    models = children(result, "pricing", "models")
    if source in {"catalogue", "mixed"} and models:
        rows = [
            [
                f"{text(model, 'model')}{' (assumed)' if child(model, 'assumed') is True else ''}",
                count(number(model, "requests")),
                money(number(model, "input_usd_per_mtok")),
                money(number(model, "output_usd_per_mtok")),
                text(model, "note"),
            ]
            for model in models
        ]
        header = ["Model", "Requests", "Input / 1M tokens", "Output / 1M tokens", "Note"]
        lines += [f"### Prices ({text(result, 'pricing', 'catalogue')})", "", *table(header, rows), ""]
    if source == "column":
        lines += ["The cost is the one that the data's own cost column states.", ""]
    for entry in children(result, "pricing", "unpriced") if source != "none" else ():
        name, requests = text(entry, "model") or "(none)", counted(number(entry, "requests"), "request")
        lines += [f"- Not priced: {requests} of {name}: {text(entry, 'why')}."]
    return [*lines, ""] if lines and lines[-1] else lines


def latency_table(latency: JsonObject | None) -> list[str]:
    """Return the percentiles, over all and by group."""
    overall = child(latency, "overall")
    if not isinstance(overall, Mapping):
        return []
    found = [{**overall, "name": "all"}, *children(latency, "groups"), *_other(child(latency, "other"))]
    rows = [
        [
            text(group, "name"),
            count(number(group, "measured")),
            *(milliseconds(number(group, name)) for name in ("mean", "p50", "p95", "p99", "max")),
        ]
        for group in found
    ]
    return ["### Latency", "", *table(["Group", "Measured", "Mean", "p50", "p95", "p99", "Max"], rows), ""]


def slow_hours(latency: JsonObject | None) -> list[str]:
    """Return the hours with the worst p95."""
    rows = [
        [minute(text(hour, "start")), count(number(hour, "measured")), milliseconds(number(hour, "p95"))]
        for hour in children(latency, "slowest_hours")
    ]
    return ["### Slowest hours", "", *table(["Hour", "Measured", "p95"], rows), ""] if rows else []


def errors(latency: JsonObject | None) -> list[str]:
    """Return failures by status."""
    rows = [
        [text(entry, "name"), count(number(entry, "requests"))] for entry in children(latency, "errors", "by_status")
    ]
    return ["### Failures", "", *table(["Status", "Requests"], rows), ""] if rows else []


def peak_headline(pattern: JsonObject | None) -> str:
    """Return when the load is highest, in a sentence."""
    hour = number(pattern, "busiest_hour")
    if hour is None:
        return f"**When the load comes cannot be told: {dataset_name(pattern)} has no timestamps.**"
    opening = f"In {dataset_name(pattern)}, most requests come between {hour:.0f}:00 and {(hour + 1) % 24:.0f}:00 UTC"
    for unit in ("minute", "hour"):
        requests = number(pattern, "peaks", unit, "requests") or 0
        if requests >= TELLING_PEAK:
            times = f"{decimal(number(pattern, 'peak_to_mean', unit))} times the mean"
            start = minute(text(pattern, "peaks", unit, "start"))
            return f"**{opening}; the busiest {unit} is {start} with {counted(requests, 'request')}, {times}.**"
    return f"**{opening}.**"


def peaks(pattern: JsonObject | None) -> list[str]:
    """Return the table of peaks."""
    rows = _peak_rows(pattern)
    return ["### Peaks", "", *table(["Peak", "When and how much"], rows, texts=2), ""] if rows else []


def hours(pattern: JsonObject | None) -> list[str]:
    """Return the busiest hours of the day, and the weekdays if there is more than one."""
    found = [hour for hour in children(pattern, "hourly") if number(hour, "requests")]
    busiest = sorted(found, key=lambda hour: -(number(hour, "requests") or 0))[:BUSY_HOURS]
    rows = [
        [f"{number(hour, 'hour') or 0:.0f}:00", count(number(hour, "requests")), percent(number(hour, "share"))]
        for hour in busiest
    ]
    lines = (
        ["### Busiest hours of the day (UTC)", "", *table(["Hour", "Requests", "Share of requests"], rows), ""]
        if rows
        else []
    )
    weekdays = [day for day in children(pattern, "weekly") if number(day, "requests")]
    if len(weekdays) > 1:
        by_day = [
            [text(day, "weekday"), count(number(day, "requests")), percent(number(day, "share"))] for day in weekdays
        ]
        lines += ["### Weekdays", "", *table(["Weekday", "Requests", "Share of requests"], by_day), ""]
    return lines


def gaps(pattern: JsonObject | None) -> list[str]:
    """Return the longest times without a request."""
    rows = [
        [moment(text(gap, "start")), moment(text(gap, "end")), duration(number(gap, "duration_s"))]
        for gap in children(pattern, "gaps")
    ]
    return ["### Longest gaps", "", *table(["From", "To", "Length"], rows), ""] if rows else []
