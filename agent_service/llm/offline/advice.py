"""Options in words: the best combination first, then the goals, the options ranked, risks, and what is missing."""

from collections.abc import Mapping, Sequence
from typing import Final

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.llm.offline import audits, endings, sections
from agent_service.llm.offline.conversation import child, children, names, number, text
from agent_service.llm.offline.facts import Facts
from agent_service.llm.offline.format import count, counted, milliseconds, money, table
from agent_service.llm.offline.understanding import Facet, Understanding

SHOWN_OPTIONS: Final = 12
"""Options in the table; the rest is counted."""

SHOWN_QUESTIONS: Final = 4
"""Questions to the person."""

CENT: Final = 0.01
"""A difference in US dollars that is worth a word."""

_SOURCES: Final = ("simulate_routing", "simulate_caching", "simulate_batching", "simulate_prompt_trim")
_MET: Final = {True: "met", False: "**not met**", None: "cannot be judged"}


def write(understanding: Understanding, facts: Facts) -> str:
    """Return the answer in Markdown. `facts` hold one simulation at least."""
    combined = facts.of("combine_options")
    best = _object(child(combined, "best")) or _object(child(combined, "nearest"))
    options = _options(facts)
    lines = [_headline(facts, combined, best, options), "", *sections.note(facts.dataset)]
    lines += _baseline(facts)
    if number(_any(facts), "baseline", "cost_usd") is None:
        # Rules without a saving are no options.
        best, options = None, []
    if best is not None:
        lines += [*_parts(best), *_goals(combined, best)]
    lines += _decisions(combined)
    lines += _table(options)
    if Facet.CACHING in understanding.facets:
        lines += audits.caching(facts.of("simulate_caching"))
    lines += _risks(best, options)
    lines += _questions(options)
    lines += _basis(facts, best, options)
    lines += [*endings.failures(facts), *endings.missing(facts), *_also_missing(facts, best, options)]
    lines += [*_next(understanding, facts), *endings.source(facts)]
    return "\n".join(lines).strip() + "\n"


def _headline(facts: Facts, combined: JsonObject | None, best: JsonObject | None, options: Sequence[JsonObject]) -> str:
    where = sections.dataset_name(facts.dataset)
    total = number(_any(facts), "baseline", "cost_usd")
    if total is None:
        return f"**No saving can be computed for {where}: what its requests cost is not known.**"
    asked = _object(child(combined, "with_decisions"))
    chosen = best or asked or next((one for one in options if (number(one, "saving_usd") or 0) > 0), None)
    if chosen is None:
        return f"**In {where}, none of the options that were simulated saves anything of its {money(total)}.**"
    saved = f"{money(number(chosen, 'saving_usd'))} of {money(total)} ({_points(chosen)})"
    goals = children(chosen, "constraints")
    if best is not None and child(combined, "feasible") is False and goals:
        missed = [_missed(goal) for goal in goals if child(goal, "met") is not True]
        lead = "the nearest combination saves" if (number(chosen, "saving_usd") or 0) >= 0 else "the nearest one costs"
        return (
            f"**In {where}, not all goals can be met together: {lead} {saved}, but leaves open: {'; '.join(missed)}.**"
        )
    if best is not None and goals:
        tail = ", as far as a usage log can tell" if any(child(goal, "met") is None for goal in goals) else ""
        return f"**In {where}, all goals can be met together{tail}: this saves {saved}.**"
    condition = ", if you decide so" if text(chosen, "question") else ""
    return f"**In {where}, up to {saved} can be saved{condition}.**"


def _missed(goal: JsonObject) -> str:
    """Return a goal that is not met, with how near it comes."""
    if number(goal, "value") is None or number(goal, "limit") is None:
        return f"{text(goal, 'goal')} (cannot be judged)"
    return f"{text(goal, 'goal')} ({_value(goal, 'value')} instead of {_value(goal, 'limit')})"


def _points(one: JsonObject) -> str:
    """Return the saving in percent."""
    return f"{number(one, 'saving_percent') or 0.0:,.1f} %"


def _baseline(facts: Facts) -> list[str]:
    result = _any(facts)
    requests, cost = number(result, "baseline", "requests"), number(result, "baseline", "cost_usd")
    if cost is None:
        return []
    monthly = number(result, "baseline", "cost_usd_per_month")
    basis = text(result, "baseline", "month_basis")
    a_month = f", or {money(monthly)} a month ({basis})" if monthly is not None else f"; {basis}"
    p50 = number(result, "baseline", "latency_ms", "p50")
    speed = f" Latency: p50 {milliseconds(p50)}." if p50 is not None else ""
    return [f"Measured now: {counted(requests, 'request')} for {money(cost)}{a_month}.{speed}", ""]


def _parts(best: JsonObject) -> list[str]:
    """Return what the combination consists of, each part with what it saves alone."""
    parts = children(best, "parts")
    if not parts:
        return []
    lines = ["### What to do", ""]
    for place, part in enumerate(parts, start=1):
        lines.append(f"{place}. {text(part, 'title')} (alone: {money(number(part, 'alone_usd'))})")
    saved, alone = number(best, "saving_usd"), number(best, "sum_of_parts_usd")
    if len(parts) > 1 and saved is not None and alone is not None:
        overlap = f", not the sum of {money(alone)}: the parts touch the same requests" if alone - saved >= CENT else ""
        lines += ["", f"Together, simulated as one: {money(saved)}{overlap}."]
    monthly = number(best, "saving_usd_per_month")
    if monthly is not None:
        lines += ["", f"That is {money(monthly)} a month at the traffic of the data."]
    return [*lines, ""]


def _goals(combined: JsonObject | None, best: JsonObject) -> list[str]:
    """Return the table of the goals: now, with the combination, and whether each is met."""
    now = {text(goal, "metric"): goal for goal in children(combined, "without_change")}
    rows = []
    for goal in children(best, "constraints"):
        said = text(goal, "note") or _MET[_met(goal)]
        verdict = _MET[_met(goal)] if said == _MET[_met(goal)] else f"{_MET[_met(goal)]}: {said}"
        before = now.get(text(goal, "metric"))
        rows.append(
            [text(goal, "goal"), _value(goal, "limit"), _value(before, "value"), _value(goal, "value"), verdict]
        )
    growth = number(combined, "goals", "growth_percent")
    said = f"All at {growth:+g} % traffic, also without the change; {text(combined, 'growth_note')}." if growth else ""
    lines = table(["Goal", "Limit", "Without it", "With it", "Verdict"], rows)
    return ["### Your goals, all at once", "", *lines, "", *([said, ""] if said else [])] if rows else []


def _met(goal: JsonObject) -> bool | None:
    found = child(goal, "met")
    return found if isinstance(found, bool) else None


def _value(goal: JsonObject | None, name: str) -> str:
    value, unit = number(goal, name), text(goal, "unit")
    if value is None:
        return audits.NOTHING
    return milliseconds(value) if unit == "ms" else f"{money(value)}{' a month' if unit.endswith('a month') else ''}"


def _decisions(combined: JsonObject | None) -> list[str]:
    """Return what would be better if a person decided something."""
    found = _object(child(combined, "with_decisions"))
    if found is None:
        return []
    saved = f"{money(number(found, 'saving_usd'))} ({_points(found)})"
    risk = text(found, "quality_risk", "level")
    said = f"{text(found, 'question')} If yes: {text(found, 'title')} would save {saved} together, quality risk {risk}."
    return ["### If you decide so", "", said, ""]


def _table(options: Sequence[JsonObject]) -> list[str]:
    rows = [
        [
            text(one, "title"),
            money(number(one, "saving_usd")),
            _points(one),
            count(number(one, "affected", "requests")),
            text(one, "quality_risk", "level"),
            text(one, "effort", "size"),
            _latency(one),
        ]
        for one in options[:SHOWN_OPTIONS]
    ]
    if not rows:
        return []
    header = ["Option", "Saving", "Of the cost", "Requests", "Quality risk", "Effort", "Latency p50"]
    more = len(options) - SHOWN_OPTIONS
    rest = [f"… and {counted(more, 'option')} more that save less.", ""] if more > 0 else []
    return ["### Options, each by itself", "", *table(header, rows), "", *rest]


def _latency(one: JsonObject) -> str:
    before, after = number(one, "latency", "before", "p50"), number(one, "latency", "after", "p50")
    if text(one, "kind") == "batching":
        return "nobody waits"
    if before is None or after is None:
        return "not measurable"
    return f"{milliseconds(before)} → {milliseconds(after)}"


def _risks(best: JsonObject | None, options: Sequence[JsonObject]) -> list[str]:
    """Return what speaks against it, how to find out, and the way back."""
    chosen = best or next(iter(options), None)
    if chosen is None:
        return []
    level = text(chosen, "quality_risk", "level")
    lines = [f"- Quality risk {level}: {text(chosen, 'quality_risk', 'reason')}."]
    how = text(chosen, "validation", "how")
    lines += [f"- Before you rely on it: {how}"] if how else []
    lines.append(f"- Effort {text(chosen, 'effort', 'size')}: {text(chosen, 'effort', 'reason')}.")
    lines.append(f"- Way back: {text(chosen, 'rollback')}")
    note = text(chosen, "latency", "note")
    lines += [f"- Latency: {note}."] if note else []
    return ["### What speaks against it", "", *lines, ""]


def _questions(options: Sequence[JsonObject]) -> list[str]:
    asked = [(text(one, "question"), number(one, "saving_usd")) for one in options if text(one, "question")]
    lines = [f"- {question} A yes saves {money(saved)} by itself." for question, saved in asked[:SHOWN_QUESTIONS]]
    return ["### Questions to you", "", *lines, ""] if lines else []


def _basis(facts: Facts, best: JsonObject | None, options: Sequence[JsonObject]) -> list[str]:
    chosen = best or next(iter(options), None)
    said = [f"- {line}" for line in names(chosen, "assumptions")]
    said += [f"- candidate: {line}" for line in names(facts.of("simulate_routing"), "candidates")]
    catalogue = text(_any(facts), "pricing", "catalogue")
    return [f"### What it rests on ({catalogue})", "", *said, ""] if said else []


def _also_missing(facts: Facts, best: JsonObject | None, options: Sequence[JsonObject]) -> list[str]:
    found = [line for one in [*([best] if best else []), *options] for line in names(one, "missing")]
    found += names(facts.of("simulate_caching"), "notes_on_prefix")
    batching = facts.of("simulate_batching")
    if batching is not None and not children(batching, "options"):
        whys = dict.fromkeys(text(entry, "why") for entry in children(batching, "batch_prices") if text(entry, "why"))
        found += [f"batching is not computed: {'; '.join(whys)}"] if whys else []
    lines = [f"- {line[:1].upper()}{line[1:]}." for line in dict.fromkeys(found)]
    return ["### What could not be computed", "", *(line.replace("..", ".") for line in lines), ""] if lines else []


def _next(understanding: Understanding, facts: Facts) -> list[str]:
    facets = understanding.facets
    ideas = []
    if Facet.CACHING not in facets:
        ideas.append("“Audit caching”")
    if number(_any(facts), "baseline", "cost_usd") is not None:
        ideas.append("“Make a plan for this”")
    if Facet.CAPACITY not in facets:
        ideas.append("“Will +50 % traffic fit our limits of 500 RPM and 200k TPM?”")
    return ["### What you could ask next", "", *(f"- {idea}" for idea in ideas), ""]


def _options(facts: Facts) -> list[JsonObject]:
    """Return the options of all simulations, the largest saving first."""
    found = [one for tool in _SOURCES for one in children(facts.of(tool), "options")]
    return sorted(found, key=lambda one: -(number(one, "saving_usd") or 0.0))


def _any(facts: Facts) -> JsonObject | None:
    """Return a result that has the baseline."""
    return next((found for tool in ("combine_options", *_SOURCES) if (found := facts.of(tool)) is not None), None)


def _object(value: JsonValue) -> JsonObject | None:
    return value if isinstance(value, Mapping) else None
