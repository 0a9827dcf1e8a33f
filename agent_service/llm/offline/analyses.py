"""Answers from the special looks at a dataset: unusual buckets of time, correlations, repeated prompts."""

from collections.abc import Sequence
from typing import Final

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.llm.offline import sections
from agent_service.llm.offline.conversation import child, children, names, number, text
from agent_service.llm.offline.format import count, counted, milliseconds, minute, money, percent, table

SHOWN_PAIRS: Final = 15
"""Pairs of measures in an answer, the closest first."""

METRICS: Final = {
    "requests": "requests",
    "tokens": "tokens",
    "cost_usd": "cost",
    "errors": "failed requests",
    "latency_p95_ms": "p95 latency",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "cached_tokens": "cached tokens",
    "latency_ms": "latency",
    "failed": "failing",
    "hour": "hour of the day",
}
"""What the tools' measures are called."""

_SIZES: Final = frozenset({"input_tokens", "output_tokens"})

_METHODS: Final = {"iqr": "IQR", "z_score": "z-score"}


def _metric(name: str) -> str:
    return METRICS.get(name, name)


def _value(metric: str, value: float | None) -> str:
    if metric == "cost_usd":
        return money(value)
    if metric == "latency_p95_ms":
        return milliseconds(value)
    return count(value)


def anomalies(found: JsonObject | None) -> list[str]:
    """Return what is unusual, the most unusual first; or that nothing is, or that there is too little to say."""
    where = sections.dataset_name(found)
    if child(found, "time") is None:
        return [f"**Unusual hours cannot be told: {where} has no timestamps.**", ""]
    if text(found, "too_little"):
        return [f"**{sections.capital(where)} is too short to say what is unusual.** {text(found, 'too_little')}", ""]
    unit, total = text(found, "bucket"), number(found, "anomalies_total") or 0
    looked = f"{counted(number(found, 'buckets'), unit)} of {where}"
    shown = children(found, "anomalies")
    note = text(found, "unit_note")
    if not shown:
        lines = [f"**Nothing unusual: I looked at {looked}.**", ""]
    else:
        first = shown[0]
        metric = text(first, "metric")
        anomaly = "1 anomaly" if total == 1 else f"{count(total)} anomalies"
        lines = [
            (
                f"**{anomaly} in {looked}; the most unusual: {_metric(metric)} at "
                f"{_when(first, unit)}, {_value(metric, number(first, 'value'))} where "
                f"{_range(first)} is usual.**"
            ),
            "",
            *_anomaly_table(shown, unit),
        ]
        if number(found, "anomalies_not_shown"):
            lines += [f"… and {count(number(found, 'anomalies_not_shown'))} more.", ""]
    return [*lines, *([f"{note[:1].upper()}{note[1:]}.", ""] if note else []), *_baselines(found)]


def _when(anomaly: JsonObject, unit: str) -> str:
    start = text(anomaly, "bucket")
    return start[:10] if unit == "day" else minute(start)


def _range(anomaly: JsonObject) -> str:
    metric = text(anomaly, "metric")
    low, high = number(anomaly, "expected_low"), number(anomaly, "expected_high")
    return f"{_value(metric, low)} to {_value(metric, high)}"


def _anomaly_table(shown: Sequence[JsonObject], unit: str) -> list[str]:
    rows = [
        [
            _when(one, unit),
            _metric(text(one, "metric")),
            ", ".join(_METHODS.get(name, name) for name in names(one, "methods")),
            _value(text(one, "metric"), number(one, "value")),
            _range(one),
            f"{number(one, 'score') or 0:+.1f}",
        ]
        for one in shown
    ]
    header = [unit.capitalize(), "Measure", "Found by", "Value", "Usual", "Standard deviations"]
    return ["### What is unusual", "", *table(header, rows, texts=3), ""]


def _baselines(found: JsonObject | None) -> list[str]:
    rows = [
        [
            _metric(text(one, "metric")),
            *(_value(text(one, "metric"), number(one, name)) for name in ("median", "mean", "stdev")),
            count(number(one, "anomalies")),
        ]
        for one in children(found, "metrics")
        if number(one, "mean") is not None
    ]
    unit = text(found, "bucket")
    header = ["Measure", "Median", "Mean", "Standard deviation", "Anomalies"]
    how = (
        f"Unusual is what lies {text(found, 'method', 'iqr')} (IQR), or {text(found, 'method', 'z_score')} (z-score). "
        "The first and the last bucket may be cut off, so they are never called too low."
    )
    return [f"### What is usual for {_article(unit)} {unit}", "", *table(header, rows), "", how, ""] if rows else []


def _article(unit: str) -> str:
    return "an" if unit == "hour" else "a"


def correlations(found: JsonObject | None) -> list[str]:
    """Return which measures go together, the closest pair first."""
    where = sections.dataset_name(found)
    pairs = [pair for pair in children(found, "pairs") if number(pair, "pearson") is not None]
    constant = ", ".join(map(_metric, names(found, "constant")))
    notes = [f"Always the same, so nothing can go along with it: {constant}.", ""] if constant else []
    if names(found, "too_few"):
        few = ", ".join(map(_metric, names(found, "too_few")))
        notes += [f"Fewer than {count(number(found, 'min_rows'))} requests have a value: {few}.", ""]
    if not pairs:
        return [f"**There are no two measures in {where} that vary, so there is nothing to compare.**", "", *notes]
    # That long questions have long answers is seldom what was asked.
    first = next((pair for pair in pairs if not {text(pair, "first"), text(pair, "second")} >= _SIZES), pairs[0])
    strength = text(first, "strength")
    coefficient = number(first, "pearson") or 0.0
    names_of = f"{_metric(text(first, 'first'))} and {_metric(text(first, 'second'))}"
    if strength == "none":
        lines = [
            f"**Nothing in {where} goes together to speak of; the closest are {names_of} (r = {coefficient:.2f}).**"
        ]
    else:
        how = "rise together" if coefficient > 0 else "go in opposite directions"
        lines = [
            (
                f"**In {where}, {names_of} {how} most clearly: a {strength} correlation "
                f"(r = {coefficient:.2f}, {counted(number(first, 'rows'), 'request')}).**"
            )
        ]
    rows = [
        [
            _metric(text(pair, "first")),
            _metric(text(pair, "second")),
            f"{text(pair, 'strength')}{' (computed from it)' if child(pair, 'by_construction') is True else ''}",
            "yes" if child(pair, "significant") is True else "no",
            count(number(pair, "rows")),
            _coefficient(number(pair, "pearson")),
            _coefficient(number(pair, "spearman")),
        ]
        for pair in pairs[:SHOWN_PAIRS]
    ]
    header = ["Measure", "With", "Strength", "Significant", "Requests", "Pearson", "Spearman"]
    cautions = [f"- {caution}" for caution in names(found, "cautions")]
    return [*lines, "", "### Pairs", "", *table(header, rows, texts=4), "", *cautions, "", *notes]


def _coefficient(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def duplicates(found: JsonObject | None) -> list[str]:
    """Return how many requests repeat an earlier prompt, and what a cache could have saved."""
    where = sections.dataset_name(found)
    exact = child(found, "exact")
    if exact is None:
        return [f"**Repeated prompts cannot be found: {where} has no column of prompts or their hashes.**", ""]
    repeats, cost = number(exact, "repeats"), number(exact, "cost_usd")
    window = number(found, "window_minutes")
    within = f" within {_span(window)}" if window else ""
    if not repeats:
        lines = [f"**No prompt in {where} repeats{within}: a cache of exact prompts would have saved nothing.**"]
    else:
        saved = (
            f", and would have saved {money(cost)} ({percent(number(exact, 'share_of_cost'))} of the cost)"
            if cost
            else ""
        )
        verb = "repeats" if repeats == 1 else "repeat"
        lines = [
            (
                f"**In {where}, {counted(repeats, 'request')} ({percent(number(exact, 'share_of_requests'))}) {verb} "
                f"an earlier prompt{within}: a cache could have answered them{saved}.**"
            )
        ]
    rows = [
        _repeat_row(title, child(found, name))
        for name, title in (("exact", "the very same prompt"), ("normalised", "the same but for case and blanks"))
        if child(found, name) is not None
    ]
    header = [
        "A repeat is",
        "Prompts that repeat",
        "Requests saved",
        "Of requests",
        "Tokens",
        "Of tokens",
        "Cost",
        "Of cost",
    ]
    lines += ["", "### What a cache could have saved", "", *table(header, rows), ""]
    groups = [
        [
            text(group, "prompt"),
            count(number(group, "requests")),
            count(number(group, "repeats")),
            count(number(group, "tokens")),
            money(number(group, "cost_usd")),
        ]
        for group in children(found, "groups")
    ]
    if groups:
        columns = ["Prompt (its beginning)", "Requests", "Saved", "Tokens saved", "Cost saved"]
        lines += ["### The most repeated", "", *table(columns, groups), ""]
        left = number(found, "groups_not_shown")
        lines += [f"… and {count(left)} more.", ""] if left else []
    return [*lines, *(f"- {rule}" for rule in names(found, "rules")), ""]


def _repeat_row(title: str, found: JsonValue) -> list[str]:
    return [
        title,
        count(number(found, "groups")),
        count(number(found, "repeats")),
        percent(number(found, "share_of_requests")),
        count(number(found, "tokens")),
        percent(number(found, "share_of_tokens")),
        money(number(found, "cost_usd")),
        percent(number(found, "share_of_cost")),
    ]


def _span(minutes: float) -> str:
    """`1440` → `24 h`, `90` → `90 min`."""
    hours, rest = divmod(minutes, 60)
    return f"{hours:,.0f} h" if hours and not rest else f"{minutes:,.0f} min"
