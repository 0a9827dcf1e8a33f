"""The data agent's answers: headline first, then tables, what is missing, what to ask next. Only measured numbers."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.intents import Intent
from agent_service.llm import offline_sections as sections
from agent_service.llm.offline_conversation import Conversation, Exchange, child, children, names, number, text
from agent_service.llm.offline_format import count, counted, milliseconds, minute, money, percent, table
from agent_service.llm.offline_rules import Facet, Understanding

SUCCESS: Final = "success"

MAX_IDEAS: Final = 3


class Facts:
    """The results of this step's calls, by tool; a what-if is a cost breakdown that declares the model absent."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        looks = [exchange for exchange in exchanges if exchange.tool_name == "usage_summary"]
        self.unfiltered = len(looks) > 1 and looks[-1].status == SUCCESS
        # A result that was too large to pass on is no result here either: its summary says where it went.
        failed = [exchange for exchange in exchanges if exchange.status != SUCCESS or exchange.result is None]
        self.failed = [] if self.unfiltered else failed
        self.filter_error = failed[0].error if self.unfiltered else ""
        good = [exchange for exchange in exchanges if exchange.status == SUCCESS and exchange.result is not None]
        self.what_ifs = [exchange for exchange in good if _is_what_if(exchange)]
        self._by_tool = {exchange.tool_name: exchange.result for exchange in good if not _is_what_if(exchange)}

    def of(self, tool_name: str) -> JsonObject | None:
        """Return the last good result of this tool."""
        return self._by_tool.get(tool_name)

    @property
    def any(self) -> JsonObject | None:
        """Return a good result, whichever: each one names its dataset. The list only says which one comes first."""
        opened = [result for name, result in self._by_tool.items() if name != "list_datasets"]
        return next(iter(opened or self._by_tool.values()), None)

    @property
    def dataset(self) -> JsonObject | None:
        """Return a result that names the dataset, a what-if where there is no other."""
        return self.any or (self.what_ifs[0].result if self.what_ifs else None)

    def missing(self) -> list[JsonObject]:
        """Return what the data lacks, each column once."""
        found: dict[str, JsonObject] = {}
        for result in self._by_tool.values():
            for entry in children(result, "missing"):
                found.setdefault(text(entry, "column"), entry)
        return list(found.values())


def _is_what_if(exchange: Exchange) -> bool:
    return exchange.tool_name == "cost_breakdown" and child(exchange.args, "columns", "model") == ""


def write_answer(understanding: Understanding, conversation: Conversation) -> str:
    """Return the answer in Markdown."""
    facts = Facts(conversation.exchanges)
    if facts.any is None and not facts.what_ifs:
        return _nothing_worked(facts)
    absent = _absent_columns(understanding, facts)
    if absent:
        parts = [*absent, *_failures(facts), *_next(understanding, facts), *_source(facts)]
        return "\n".join(parts).strip() + "\n"
    body = _writer(understanding, facts)(understanding, facts)
    first, rest = body[0] if body else "", body[1:]
    before = _not_there_yet(understanding, facts)
    parts = [
        *before,
        first,
        *(["", *said] if (said := _note(understanding, facts, before)) else []),
        *rest,
        *_failures(facts),
        *_missing(facts),
        *_not_available(conversation),
        *_next(understanding, facts),
        *_source(facts),
    ]
    return "\n".join(parts).strip() + "\n"


def _absent_columns(understanding: Understanding, facts: Facts) -> list[str]:
    """Return that there is nothing to break down by, where that is all that was asked for."""
    asked, lacking = _asked_and_lacking(understanding, facts)
    entries = {text(entry, "column"): entry for entry in facts.missing()}
    if not lacking or len(lacking) < len(asked):
        return []
    where = sections.dataset_name(facts.dataset)
    lines = [f"**There is no {' and no '.join(lacking)} column in {where}.**"]
    for name in lacking:
        lines += ["", f"{text(entries[name], 'why_it_matters')} {text(entries[name], 'how_to_supply')}"]
    hint = f"If a column under another name holds it, say which: “use column team as {lacking[0].replace('_', ' ')}”."
    lines += ["", hint, "", *sections.note(facts.dataset)]
    usage = facts.of("usage_summary")
    return [*lines, *(["As a whole: " + sections.headline(usage).replace("**", ""), ""] if usage is not None else [])]


def _asked_and_lacking(understanding: Understanding, facts: Facts) -> tuple[list[str], list[str]]:
    """Return the columns that a breakdown was asked for by, and those of them that the data does not have."""
    entities = understanding.entities
    if entities.sql:
        return [], []
    asked = list(dict.fromkeys(_COLUMNS.get(name, name) for name in entities.group_by))
    lacks = {text(entry, "column") for entry in facts.missing()} - ({"model"} if entities.assume_model else set())
    return asked, [name for name in asked if name in lacks]


def _not_there_yet(understanding: Understanding, facts: Facts) -> list[str]:
    """Say first what was asked for and cannot be done, and what is told in its place."""
    where, lines = sections.dataset_name(facts.dataset), []
    if Facet.SEVERAL in understanding.facets:
        other = next((name for name in understanding.entities.files if name.lower() not in where.lower()), "")
        then = f"“Analyze {other}”" if other else "“Analyze” and its name"
        lines += [f"**One dataset is analysed at a time: this is {where}.** For another one send {then}.", ""]
    _, lacking = _asked_and_lacking(understanding, facts)
    if lacking:
        lines += [f"**There is no {' and no '.join(lacking)} column in {where}.** What can be told without:", ""]
    scaled = any(goal.change_percent for goal in understanding.entities.goals)
    priced = understanding.intent is Intent.PRICING and bool(facts.what_ifs) and not scaled
    if Facet.FORECAST in understanding.facets and understanding.intent is not Intent.OPTIMIZATION and not priced:
        lines += [
            (
                "**Forecasts and what-ifs, other than the price of the same traffic with another model, are not "
                f"available here yet: nothing below is a forecast, only what {where} measures.**"
            ),
            "",
        ]
    return lines


def _note(understanding: Understanding, facts: Facts, before: Sequence[str]) -> list[str]:
    """Return why it is this dataset where that may surprise, unless it has been said."""
    said = sections.note(facts.dataset)
    return [] if before and Facet.SEVERAL in understanding.facets else said


def _writer(understanding: Understanding, facts: Facts) -> Callable[[Understanding, Facts], list[str]]:
    if facts.unfiltered:
        return _without_filter
    if facts.of("query_dataset") is not None:
        return _query
    return _WRITERS.get(understanding.intent, _inventory)


# The kinds of answers


def _without_filter(_: Understanding, facts: Facts) -> list[str]:
    usage = facts.of("usage_summary")
    opening = f"**{facts.filter_error}**"
    lines = [opening, "", f"Without that filter: {sections.headline(usage)}", "", *sections.totals_in_brief(usage)]
    return [*lines, *sections.groups(usage, "model"), *sections.groups(usage, "feature")]


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
    return [*lines, *sections.peaks(facts.of("usage_pattern")), *sections.prices(usage)]


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
            *sections.columns(described),
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
    columns = [text(column, "name") for column in children(result, "columns")]
    found = child(result, "rows")
    rows = (
        [[_plain(value) for value in row] for row in found if isinstance(row, list | tuple)]
        if isinstance(found, list | tuple)
        else []
    )
    more = f" There are more: {text(result, 'cut_because')}." if child(result, "more_rows") is True else ""
    where = sections.dataset_name(result)
    lines = [f"**The query over {where} returns {counted(len(rows), 'row')}.**{more}", "", *table(columns, rows), ""]
    return [*lines, "```sql", text(result, "sql"), "```", ""]


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

_COLUMNS: Final = MappingProxyType({"day": "timestamp", "hour": "timestamp", "weekday": "timestamp"})
"""Dimensions whose column has another name."""

_NO_DATA: Final = "You have no data of your own here yet"

_LEVELS: Final = MappingProxyType({"sufficient": "a full", "partial": "a partial", "insufficient": "hardly any"})


# What every answer ends with


def _change(cost: float, actual: float) -> str:
    if not actual:
        return ""
    change = (cost / actual - 1) * 100
    return f"{change:+,.1f} %"


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
        elif change is not None:
            wish = f"{goal.metric} {change:+.0f} %" if change else f"{goal.metric} unchanged"
            rows.append([wish, now, show(base * (1 + change / 100)) if base is not None else "not computed"])
    return ["### Your goals in numbers", "", *table(["Goal", "Measured now", "Target"], rows), ""] if rows else []


def _plain(value: JsonValue) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _failures(facts: Facts) -> list[str]:
    if not facts.failed:
        return []
    causes = dict.fromkeys(exchange.error or exchange.summary or exchange.status for exchange in facts.failed)
    return ["### What did not work", "", *(f"- {cause}" for cause in causes), ""]


def _missing(facts: Facts) -> list[str]:
    entries = facts.missing()
    if not entries:
        return []
    lines = [
        f"- **{text(entry, 'column')}**: {text(entry, 'why_it_matters')} {text(entry, 'how_to_supply')}".rstrip()
        for entry in entries
    ]
    return ["### What is missing", "", *lines, ""]


def _not_available(conversation: Conversation) -> list[str]:
    """Say what the request would need that this installation does not have."""
    absent = children(conversation.findings.get("supervisor"), "not_available")
    if not absent:
        return []
    lines = [f"- {text(entry, 'does')}" for entry in absent]
    return ["### Not available here yet", "", "So this answer holds measured facts only. It does without:", *lines, ""]


def _next(understanding: Understanding, facts: Facts) -> list[str]:
    lacks = {text(entry, "column") for entry in facts.missing()}
    entities = understanding.entities
    ideas = []
    if "model" in lacks and not entities.assume_model:
        ideas.append("“assume gpt-4o”: prices the same traffic as that model")
    if understanding.intent is not Intent.PRICING and "model" not in lacks:
        ideas.append("“What would gpt-4o-mini cost for this traffic?”")
    if "feature" not in lacks and "feature" not in entities.group_by:
        ideas.append("“And by feature?”")
    if "timestamp" not in lacks and understanding.intent is not Intent.TECHNICAL:
        ideas.append("“When is our traffic highest?”")
    return ["### What you could ask next", "", *(f"- {idea}" for idea in ideas[:MAX_IDEAS]), ""] if ideas else []


def _source(facts: Facts) -> list[str]:
    """Name the dataset, why it was chosen, and that it is the sample where it is."""
    result = facts.dataset
    name, why = text(result, "dataset", "name"), text(result, "dataset", "chosen_because")
    if child(result, "dataset", "builtin_sample") is True:
        because = "None of your newest datasets can be read" if sections.note(result) else _NO_DATA
        return [
            (
                f"*{because}, so this is the built-in sample ({name}), not your usage. "
                "Upload a log (CSV, JSONL, JSON or Parquet) to see yours.*"
            )
        ]
    return [f"*Data: {name}, chosen because {why}.*" if why else f"*Data: {name}.*"] if name else []


def _nothing_worked(facts: Facts) -> str:
    lines = _failures(facts) or ["There is no result to write about."]
    ways = "Upload another file (CSV, JSONL, JSON or Parquet), or name another one of yours in your message."
    if any(exchange.tool_name == "query_dataset" for exchange in facts.failed):
        ways = "A statement is one SELECT over the table data, for example: SELECT model, count(*) FROM data GROUP BY 1"
    return "\n".join(["**I could not analyse the data.**", "", *lines, "", ways]) + "\n"
