"""The offline model as the synthetic data agent: what to make, then whether it came out alike."""

import math
import re
from typing import Final

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.llm.offline.conversation import (
    Call,
    Conversation,
    Exchange,
    Saying,
    Thought,
    Words,
    child,
    children,
    number,
    text,
)
from agent_service.llm.offline.facts import SUCCESS
from agent_service.llm.offline.format import count, counted, percent, table
from agent_service.llm.offline.understanding import Facet, Understanding, understand

DEFAULT_PRESET: Final = "ecommerce"
"""Taken, and said, where a request names neither a trade nor data of one's own."""

PRESETS: Final = ("ecommerce", "financial", "healthcare", "gaming", "research")

SPIKE_FACTOR: Final = 5.0
"""The traffic of an event's day against the usual, where a request names an event and no number. It is said."""

SPIKE_PLACE: Final = 0.8
"""Where in the span such a day lies, from 0 to 1."""

SHOWN_SEGMENTS: Final = 8

_MADE_UP: Final = "They are made up: use them for tests and what-ifs, not as measurements."

_NO_OWN: Final = "You have no data of your own here yet, so the built-in sample is what they are like."

_OWN: Final = re.compile(
    r"\b(?:my|our|this|these|that|the (?:real|actual|uploaded|original)|existing|production|real) "
    r"(?:\w+ ){0,2}(?:data|dataset|logs?|traffic|usage|file|upload|trace|workload|requests)\b"
)
_EVENT: Final = re.compile(
    r"\b(black friday|cyber monday|singles day|prime day|christmas|launch day|product launch|flash sale|sale|"
    r"spikes?|surge|rush)\b"
)
_FACTOR: Final = re.compile(r"\b(\d{1,2}(?:\.\d)?) ?(?:x|times)\b")


def can_play(conversation: Conversation) -> bool:
    """True when the tools on offer are those of the synthetic data agent."""
    return "generate_workload" in conversation.tools


def reply(conversation: Conversation) -> list[Saying]:
    """Return the next turn: tool calls, or the answer."""
    understanding = understand(conversation.request, conversation.earlier, conversation.now)
    made = _last(conversation, "generate_workload")
    if not conversation.exchanges:
        call, thought = _first(understanding, conversation)
        return [Thought(thought), call]
    if len(conversation.exchanges) == 1 and (newest := _newest_generated(conversation)):
        source = text(conversation.exchanges[0].result, "dataset", "dataset_id")
        return [Thought(f"{newest} was generated last. I hold it against its source."), _check_of(newest, source)]
    if made is not None and made.status == SUCCESS and _last(conversation, "validate_synthetic") is None:
        return [Thought("The rows are there. I check how alike they are."), _validation(made)]
    return [Words("\n".join(_answer(conversation, made)).strip() + "\n")]


def _first(understanding: Understanding, conversation: Conversation) -> tuple[Call, str]:
    entities, facets = understanding.entities, understanding.facets
    request = conversation.request.lower()
    if Facet.VALIDATE in facets and entities.files and entities.rows is None:
        names = entities.files
        arguments: dict[str, JsonValue] = {"synthetic_dataset": names[0]}
        if len(names) > 1:
            arguments["source_dataset"] = names[1]
        else:
            arguments["preset"] = entities.preset or DEFAULT_PRESET
        return Call("validate_synthetic", arguments), "I compare the two, measure by measure."
    if Facet.VALIDATE in facets and entities.rows is None and "list_datasets" in conversation.tools:
        return Call("list_datasets", {}), "I look for the dataset that was generated last."
    from_own = not entities.preset and bool(entities.files or _OWN.search(request))
    if Facet.PROFILE in facets and entities.rows is None and not entities.preset:
        return Call("profile_dataset", entities.dataset_arguments()), "I learn what this data is like."
    arguments = {} if not from_own else entities.dataset_arguments()
    if not from_own:
        arguments["preset"] = entities.preset or DEFAULT_PRESET
    for name, value in (("rows", entities.rows), ("days", entities.days), ("seed", entities.seed)):
        if value is not None:
            arguments[name] = value
    if _EVENT.search(request) and (entities.days or 0) != 1:
        days = entities.days or 30
        factor = _FACTOR.search(request)
        arguments |= {
            "days": days,
            "spike_day": math.ceil(SPIKE_PLACE * days),
            "spike_factor": float(factor[1]) if factor else SPIKE_FACTOR,
        }
    thought = "I learn your data's profile, then make rows like it." if from_own else "I make the rows from a preset."
    return Call("generate_workload", arguments), thought


def _newest_generated(conversation: Conversation) -> str:
    """Return the name of the newest generated dataset, where the datasets were listed to find it."""
    listed = _last(conversation, "list_datasets")
    entries = children(listed.result, "datasets") if listed is not None else []
    return next((text(entry, "name") for entry in entries if child(entry, "generated") is True), "")


def _check_of(name: str, own_dataset_id: str) -> Call:
    """Return the check of a dataset against the preset that its name says, else against the data that one has."""
    preset = next((preset for preset in PRESETS if preset in name.lower()), "")
    source: dict[str, JsonValue] = {"preset": preset} if preset else {"source_dataset": own_dataset_id}
    return Call("validate_synthetic", {"synthetic_dataset": name, **source})


def _validation(made: Exchange) -> Call:
    arguments: dict[str, JsonValue] = {"synthetic_dataset": text(made.result, "artifact_id")}
    source = text(made.result, "source", "dataset", "dataset_id")
    if source:
        arguments["source_dataset"] = source
    else:
        arguments["preset"] = text(made.result, "source", "preset") or DEFAULT_PRESET
    return Call("validate_synthetic", arguments)


def _last(conversation: Conversation, tool_name: str) -> Exchange | None:
    found = [exchange for exchange in conversation.exchanges if exchange.tool_name == tool_name]
    return found[-1] if found else None


def _answer(conversation: Conversation, made: Exchange | None) -> list[str]:
    if made is not None:
        if made.status != SUCCESS or made.result is None:
            return _refused(made)
        return _generated(conversation, made.result, _last(conversation, "validate_synthetic"))
    profiled, checked = _last(conversation, "profile_dataset"), _last(conversation, "validate_synthetic")
    if profiled is not None and profiled.result is not None:
        return _profiled(profiled.result)
    if checked is not None and checked.result is not None:
        return _checked(checked.result, headline=True)
    if _last(conversation, "list_datasets") is not None and checked is None:
        return ["**There is no generated dataset to check.** Generate one first: “Generate 1,000 rows like my data”."]
    failed = conversation.exchanges[-1]
    return [f"**That did not work:** {failed.error or failed.summary}"]


def _refused(made: Exchange) -> list[str]:
    lines = [f"**No rows were made.** {made.error or made.summary}"]
    rows = number(made.args, "rows")
    if made.status == "denied" and rows:
        lines += ["", "Up to 50,000 rows need no approval: “Generate 50,000 requests” works at once."]
    return lines


def _generated(conversation: Conversation, result: JsonObject, checked: Exchange | None) -> list[str]:
    name, rows, days = text(result, "dataset", "name"), number(result, "dataset", "rows"), number(result, "days")
    source = text(result, "source", "dataset", "name") or f"the preset {text(result, 'source', 'preset')}"
    span = f"{text(result, 'start_date')} to {text(result, 'end_date')}"
    what = f"{counted(rows, 'synthetic request')} over {counted(days, 'day')} ({span})"
    lines = [
        f"**{name} is ready: {what}, like {source}.** {_MADE_UP}",
        *(["", _NO_OWN] if child(result, "source", "dataset", "builtin_sample") is True else []),
        "",
        *_assumptions(conversation, result),
        *_segments(result),
    ]
    if checked is not None and checked.result is not None:
        lines += _checked(checked.result, headline=False)
        if child(result, "spike") is not None:
            lines += ["The day of more traffic was asked for: weekdays may differ because of it.", ""]
    elif checked is not None:
        lines += [f"The check did not work: {checked.error or checked.summary}", ""]
    lines += ["### What you could ask next", "", f"- “Analyze {name}”", f"- “When is the peak in {name}?”"]
    return lines


def _assumptions(conversation: Conversation, result: JsonObject) -> list[str]:
    rows = [["Seed", count(number(result, "seed"))], ["Noise", percent(number(result, "noise"))]]
    spike = child(result, "spike")
    if spike is not None:
        day, factor = count(number(spike, "day")), number(spike, "factor") or 1.0
        rows.append(["Day of more traffic", f"day {day}, {factor:g} times the usual"])
    event = _EVENT.search(conversation.request.lower())
    said = [event[0]] if event and spike is not None and not _FACTOR.search(conversation.request.lower()) else []
    lines = ["### How they were made", "", *table(["Setting", "Value"], rows, texts=2), ""]
    if said:
        lines += [f"“{said[0]}” names no number, so {SPIKE_FACTOR:g} times was assumed: say another, such as “8x”.", ""]
    preset = text(result, "source", "preset")
    asked = understand(conversation.request, conversation.earlier, conversation.now).entities.preset
    if preset and preset not in conversation.request.lower():
        why = "That reads like" if asked else "You named neither data of yours nor a trade, so it is"
        lines += [f"{why} the preset {preset}: others are {', '.join(name for name in PRESETS if name != preset)}.", ""]
    return lines


def _segments(result: JsonObject) -> list[str]:
    segments = children(result, "profile", "segments")
    rows = [
        [
            text(segment, "model") or "(none)",
            text(segment, "feature") or "(none)",
            percent(number(segment, "share")),
            _median(segment, "input_tokens"),
            _median(segment, "output_tokens"),
            _median(segment, "latency_ms"),
        ]
        for segment in segments[:SHOWN_SEGMENTS]
    ]
    heads = ["Model", "Feature", "Share", "Input tokens, median", "Output tokens, median", "Latency ms, median"]
    return ["### What they are like", "", *table(heads, rows, texts=2), ""] if rows else []


def _median(segment: JsonObject, measure: str) -> str:
    values = child(segment, measure)
    if not isinstance(values, list | tuple) or not values:
        return ""
    middle = values[len(values) // 2 - 1]
    return count(round(middle)) if isinstance(middle, int | float) else ""


def _checked(result: JsonObject, *, headline: bool) -> list[str]:
    checks = children(result, "checks")
    passed = count(number(result, "passed"))
    sentence = f"{text(result, 'synthetic')} against {text(result, 'source')}: {passed} of {len(checks)} checks passed."
    rows = [
        [
            text(check, "what"),
            text(check, "measure"),
            f"{number(check, 'value') or 0:.3f}",
            f"{number(check, 'limit') or 0:g}",
            "passed" if child(check, "passed") is True else "**different**",
        ]
        for check in checks
    ]
    opening = f"**{sentence}**" if headline else sentence
    heads = ["What", "Measure", "Value", "Limit", "Outcome"]
    return [*([] if headline else ["### How alike they are", ""]), opening, "", *table(heads, rows, texts=2), ""]


def _profiled(result: JsonObject) -> list[str]:
    name, rows = text(result, "dataset", "name"), number(result, "dataset", "rows")
    days = number(result, "profile", "days")
    opening = f"**{name} has {counted(rows, 'request')} over {counted(days, 'day')}; this is what they are like.**"
    lines = [opening, "", *_segments(result)]
    pairs = child(result, "profile", "correlation")
    if isinstance(pairs, dict):
        found = [
            [key.replace("_", " and "), f"{value:+.2f}"] for key, value in pairs.items() if isinstance(value, float)
        ]
        lines += ["### Rank correlations within each pair of model and feature", "", *table(["Of", "Value"], found), ""]
    return [*lines, "No prompt and no user's name is kept.", "", f"Next: “Generate 10,000 rows like {name}”."]
