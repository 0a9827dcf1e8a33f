"""The kinds of answers, one for each intent: headline first, then what was measured."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.intents import Intent
from agent_service.llm.offline import analyses, sections
from agent_service.llm.offline.conversation import child, children, names, number, text
from agent_service.llm.offline.facts import Facts
from agent_service.llm.offline.format import count, counted, milliseconds, minute, money, percent, table
from agent_service.llm.offline.mapping import columns
from agent_service.llm.offline.understanding import Facet, Understanding

_LEVELS: Final = MappingProxyType({"sufficient": "a full", "partial": "a partial", "insufficient": "hardly any"})


def body(understanding: Understanding, facts: Facts) -> list[str]:
    """Return the lines that answer the question, the headline first."""
    if facts.unfiltered:
        return _without_filter(understanding, facts)
    if facts.of("query_dataset") is not None:
        return _query(understanding, facts)
    if understanding.intent is not Intent.OPTIMIZATION and (special := _special(facts)):
        return [*special, *sections.totals_in_brief(facts.of("usage_summary"))]
    return _WRITERS.get(understanding.intent, _inventory)(understanding, facts)


def _special(facts: Facts) -> list[str]:
    """Return what the looks found that a request names itself: anomalies, correlations, repeated prompts."""
    lines: list[str] = []
    for tool_name, write in _SPECIAL:
        if (found := facts.of(tool_name)) is not None:
            lines += write(found)
    return lines


def _without_filter(understanding: Understanding, facts: Facts) -> list[str]:
    usage = facts.of("usage_summary")
    opening = f"**{facts.filter_error}**"
    lines = [opening, "", f"Without that filter: {sections.headline(usage)}", "", *sections.totals_in_brief(usage)]
    for dimension in dict.fromkeys([*understanding.entities.group_by, "model", "feature"]):
        lines += sections.groups(usage, dimension)
    return lines


def _costs(understanding: Understanding, facts: Facts) -> list[str]:
    usage = facts.of("usage_summary")
    breakdown = facts.of("cost_breakdown")
    asked = understanding.entities.group_by
    lines = [sections.headline(usage), ""]
    shown = names(breakdown, "group_by")
    leader = sections.leader(breakdown) if asked else ""
    if leader:
        lines = [leader, "", *sections.breakdown(breakdown), sections.headline(usage), ""]
    lines += sections.totals_in_brief(usage) if leader else sections.totals(usage)
    if not leader:
        lines += sections.breakdown(breakdown)
    for dimension in (name for name in asked or ("feature", "user") if name not in shown):
        lines += sections.groups(usage, dimension)
    return [*lines, *sections.prices(usage)]


def _benchmark(_: Understanding, facts: Facts) -> list[str]:
    latency, usage = facts.of("latency_analysis"), facts.of("usage_summary")
    overall = child(latency, "overall")
    if overall is None:
        where = sections.dataset_name(latency)
        lines = [f"**Latency cannot be measured: {where} has no latency column.** What it does tell:", ""]
        return [*lines, *sections.totals_in_brief(usage), *sections.groups(usage, "model")]
    groups = children(latency, "groups")
    where = f"In {sections.dataset_name(latency)}, "
    lines = []
    if len(groups) > 1:
        fastest = min(groups, key=lambda group: number(group, "p95") or 0.0)
        slowest = max(groups, key=lambda group: number(group, "p95") or 0.0)
        lines.append(
            f"**{where}{text(fastest, 'name')} is the fastest: p95 {milliseconds(number(fastest, 'p95'))}; "
            f"{text(slowest, 'name')} is the slowest: p95 {milliseconds(number(slowest, 'p95'))}.** "
            f"Over all: p50 {milliseconds(number(overall, 'p50'))}, p95 {milliseconds(number(overall, 'p95'))}."
        )
    else:
        lines.append(
            f"**{where}half of the {count(number(overall, 'measured'))} measured requests were answered within "
            f"{milliseconds(number(overall, 'p50'))}, 95 % within {milliseconds(number(overall, 'p95'))}.**"
        )
    return [*lines, "", *sections.latency_table(latency), *sections.slow_hours(latency), *sections.errors(latency)]


def _pricing(_: Understanding, facts: Facts) -> list[str]:
    usage = facts.of("usage_summary")
    actual = number(usage, "totals", "cost_usd")
    if not facts.what_ifs:
        where = sections.dataset_name(usage)
        hint = f"**Tell me which model to price {where} with**, for example “What would gpt-4o-mini cost?”."
        return [hint, "", sections.headline(usage), "", *sections.totals(usage), *sections.prices(usage)]
    priced = sorted(
        (
            (number(exchange.result, "total_cost_usd"), text(exchange.args, "assume_model"), exchange.result)
            for exchange in facts.what_ifs
        ),
        key=lambda entry: (entry[0] is None, entry[0] or 0.0),
    )
    cost, model = priced[0][:2]
    requests = counted(number(usage, "totals", "requests"), "request")
    where = sections.dataset_name(facts.dataset)
    if cost is None:
        lines = [f"**The traffic of {where} cannot be priced with {model}: the price catalogue does not know it.**", ""]
    else:
        compared = f", against {money(actual)} as it was" if actual is not None else ""
        change = f" ({_change(cost, actual)})" if actual else ""
        lines = [f"**The same {requests} of {where} would cost {money(cost)} with {model}{compared}{change}.**", ""]
    rows = [["as it was", money(actual), "", "", ""]] if actual is not None else []
    for cost, model, result in priced:
        catalogue = children(result, "pricing", "models")
        price = catalogue[0] if catalogue else None
        rows.append(
            [
                model,
                money(cost),
                _change(cost, actual) if cost is not None and actual else "",
                money(number(price, "input_usd_per_mtok")),
                money(number(price, "output_usd_per_mtok")),
            ]
        )
    lines += ["### The same traffic, priced", ""]
    lines += table(["Model", "Cost", "Change", "Input / 1M tokens", "Output / 1M tokens"], rows)
    lines += ["", "Same requests and token counts; whether the quality holds is not something that a price tells.", ""]
    return [*lines, *sections.totals_in_brief(usage)]


def _change(cost: float, actual: float) -> str:
    if not actual:
        return ""
    change = (cost / actual - 1) * 100
    return f"{change:+,.1f} %"


def _optimization(understanding: Understanding, facts: Facts) -> list[str]:
    usage, breakdown = facts.of("usage_summary"), facts.of("cost_breakdown")
    where = sections.dataset_name(facts.dataset)
    opening = f"**This is the measured baseline of {where} that any saving has to be computed against.**"
    lines = [f"{opening} {sections.headline(usage)}"]
    lines += ["", *_goal_table(understanding, usage)]
    if facts.what_ifs:
        lines += _pricing(understanding, facts)
    lines += sections.totals_in_brief(usage)
    if names(breakdown, "group_by"):
        lines += ["Where a saving can come from is where the money goes:", "", *sections.breakdown(breakdown)]
    for dimension in ("model", "feature"):
        if dimension not in names(breakdown, "group_by"):
            lines += sections.groups(usage, dimension)
    lines += _special(facts)
    return [*lines, *sections.peaks(facts.of("usage_pattern")), *sections.prices(usage)]


def _goal_table(understanding: Understanding, usage: JsonObject | None) -> list[str]:
    """Return what the goals mean in absolute numbers: plain arithmetic over measured values."""
    measured = {
        "cost": (number(usage, "totals", "cost_usd"), money),
        "usage": (number(usage, "totals", "requests"), lambda value: f"{count(value)} requests"),
        "latency": (number(usage, "latency_ms", "p50"), lambda value: f"p50 {milliseconds(value)}"),
        "errors": (number(usage, "totals", "errors"), count),
    }
    rows = []
    for goal in understanding.entities.goals:
        change = goal.change_percent
        base, show = measured.get(goal.metric, (None, count))
        now = show(base) if base is not None else "not measured"
        if goal.amount_usd is not None:
            rows.append([f"{goal.metric} limit", now, money(goal.amount_usd)])
        elif goal.limit_ms is not None:
            rows.append([f"{goal.metric} limit", now, milliseconds(goal.limit_ms)])
        elif change is not None:
            wish = f"{goal.metric} {change:+.0f} %" if change else f"{goal.metric} unchanged"
            rows.append([wish, now, show(base * (1 + change / 100)) if base is not None else "not computed"])
    return ["### Your goals in numbers", "", *table(["Goal", "Measured now", "Target"], rows), ""] if rows else []


def _technical(understanding: Understanding, facts: Facts) -> list[str]:
    latency, usage, pattern = facts.of("latency_analysis"), facts.of("usage_summary"), facts.of("usage_pattern")
    lines: list[str] = []
    if pattern is not None:
        lines += [
            sections.peak_headline(pattern),
            "",
            *sections.peaks(pattern),
            *sections.hours(pattern),
            *sections.gaps(pattern),
        ]
    if Facet.ERRORS in understanding.facets and latency is not None:
        errors = child(latency, "errors")
        if errors is None:
            lines += [f"**Errors cannot be counted: {sections.dataset_name(latency)} has no status column.**", ""]
        else:
            rate = percent(number(errors, "rate"))
            failed = counted(number(errors, "requests"), "request")
            lines += [f"**In {sections.dataset_name(latency)}, {failed} failed: {rate} of all.**", ""]
            lines += sections.errors(latency)
    if latency is not None and (child(latency, "overall") is not None or Facet.LATENCY in understanding.facets):
        lines += _benchmark(understanding, facts) if child(latency, "overall") is not None else []
    if not lines:
        lines = [sections.headline(usage), ""]
    return [*lines, *sections.totals_in_brief(usage)]


def _report(_: Understanding, facts: Facts) -> list[str]:
    usage, latency, pattern = facts.of("usage_summary"), facts.of("latency_analysis"), facts.of("usage_pattern")
    lines = [sections.headline(usage), "", sections.leader(facts.of("cost_breakdown")), ""]
    lines += [*sections.totals(usage), *sections.breakdown(facts.of("cost_breakdown"))]
    lines += [*sections.groups(usage, "feature"), *sections.prices(usage)]
    lines += [*sections.latency_table(latency), *sections.errors(latency)]
    return [*lines, *sections.hours(pattern)]


def _inventory(_: Understanding, facts: Facts) -> list[str]:
    """Say which data there is and how far it goes."""
    listed, described = facts.of("list_datasets"), facts.of("describe_dataset")
    lines: list[str] = []
    if described is not None:
        name, rows = sections.dataset_name(described), number(described, "dataset", "rows")
        level, score = text(described, "sufficiency", "level"), number(described, "sufficiency", "score")
        lines += [
            (
                f"**{sections.capital(name)} has {counted(rows, 'row')} and allows {_LEVELS.get(level, 'an')} "
                f"analysis** (completeness {percent(score)})."
            ),
            "",
            *columns(described),
        ]
    datasets = children(listed, "datasets")
    if datasets:
        lines += ["### Your datasets", ""]
        rows_of = [
            [
                text(entry, "name"),
                text(entry, "format"),
                count(number(entry, "size_bytes")),
                "built in" if child(entry, "builtin_sample") is True else minute(text(entry, "create_time")),
            ]
            for entry in datasets
        ]
        lines += [*table(["Name", "Format", "Bytes", "Since"], rows_of, texts=2), ""]
        not_shown = number(listed, "not_shown")
        if not_shown:
            lines += [f"… and {count(not_shown)} more.", ""]
    return lines


def _query(_: Understanding, facts: Facts) -> list[str]:
    result = facts.of("query_dataset")
    names_ = [text(column, "name") for column in children(result, "columns")]
    found = child(result, "rows")
    rows = (
        [[_plain(value) for value in row] for row in found if isinstance(row, list | tuple)]
        if isinstance(found, list | tuple)
        else []
    )
    more = f" There are more: {text(result, 'cut_because')}." if child(result, "more_rows") is True else ""
    where = sections.dataset_name(result)
    lines = [f"**The query over {where} returns {counted(len(rows), 'row')}.**{more}", "", *table(names_, rows), ""]
    return [*lines, "```sql", text(result, "sql"), "```", ""]


def _plain(value: JsonValue) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


_SPECIAL: Final[tuple[tuple[str, Callable[[JsonObject], list[str]]], ...]] = (
    ("anomaly_scan", analyses.anomalies),
    ("correlate", analyses.correlations),
    ("duplicate_prompts", analyses.duplicates),
)

_WRITERS: Final[Mapping[Intent, Callable[[Understanding, Facts], list[str]]]] = MappingProxyType(
    {
        Intent.COST_ANALYSIS: _costs,
        Intent.BENCHMARKING: _benchmark,
        Intent.PRICING: _pricing,
        Intent.OPTIMIZATION: _optimization,
        Intent.TECHNICAL: _technical,
        Intent.REPORTING: _report,
    }
)
