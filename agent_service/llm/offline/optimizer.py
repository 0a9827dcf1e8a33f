"""The offline model as the optimizations agent: what to simulate, what to combine, and when to write."""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from agent_service.engine.events import JsonValue
from agent_service.engine.intents import Intent
from agent_service.llm.offline import advice, audits
from agent_service.llm.offline.conversation import (
    Call,
    Conversation,
    Exchange,
    Saying,
    Thought,
    Words,
    child,
    children,
    text,
)
from agent_service.llm.offline.entities import Entities
from agent_service.llm.offline.facts import SUCCESS, Facts
from agent_service.llm.offline.figures import limits, means_tail, prefix_tokens, trim
from agent_service.llm.offline.understanding import Facet, Understanding, understand

OPTIONS: Final = ("simulate_routing", "simulate_caching", "simulate_batching", "simulate_prompt_trim")
"""The tools whose options can be combined."""

_SINGLE: Final = {
    Facet.ROUTING: "simulate_routing",
    Facet.CACHING: "simulate_caching",
    Facet.BATCHING: "simulate_batching",
    Facet.TRIMMING: "simulate_prompt_trim",
}

_REACH: Final = re.compile(r"reaches from (?P<first>[\d-]{10}T[\d:]{5}) to (?P<last>[\d-]{10}T[\d:]{5})")
"""What evaluate_change says of data that has nothing on one side."""

_YEAR: Final = re.compile(r"\b(?:19|20)\d\d\b")

MAX_TARGETS: Final = 3
"""Models that are tried as targets."""


def can_play(conversation: Conversation) -> bool:
    """True when the tools on offer are those of the optimizations agent."""
    return "combine_options" in conversation.tools


def reply(conversation: Conversation) -> list[Saying]:
    """Return the next turn: simulations, then their combination, then the answer."""
    understanding = understand(conversation.request, conversation.earlier, conversation.now)
    done = {exchange.tool_name for exchange in conversation.exchanges}
    if not done:
        calls, thought = first_calls(understanding, conversation)
        return [Thought(thought), *calls] if calls else [Words(audits.ask_for_a_date(conversation))]
    again = _other_year(conversation)
    if again is not None:
        return [Thought("No year was named, and the data is of another one. I look at that day in it."), again]
    usable = [exchange for exchange in conversation.exchanges if _has_options(exchange)]
    if usable and "combine_options" not in done and _combines(understanding, conversation):
        call = Call(
            "combine_options", {**_dataset(understanding, conversation), "goals": _goals(understanding, conversation)}
        )
        return [Thought("Savings do not add up. I simulate the options together, against all goals at once."), call]
    return [
        Thought("The simulations are there. I write up what they say."),
        Words(_written(understanding, conversation)),
    ]


def first_calls(understanding: Understanding, conversation: Conversation) -> tuple[list[Call], str]:
    """Return the calls that the request needs, and a word on them. No calls: the date of a change is not known."""
    entities, facets = understanding.entities, understanding.facets
    data = _dataset(understanding, conversation)
    if Facet.BEFORE_AFTER in facets or entities.change_time is not None:
        moment = entities.change_time or entities.period.start
        if moment is None:
            return [], ""
        kept = {name: value for name, value in data.items() if name not in {"start_time", "end_time"}}
        call = Call("evaluate_change", {**kept, "change_time": moment.isoformat()})
        return [call], "I compare what was before that moment with what came after."
    rpm, tpm = limits(conversation.request)
    if Facet.CAPACITY in facets or rpm or tpm:
        arguments = {**data, "growth_percent": _growth(entities)}
        arguments |= {key: value for key, value in (("rpm_limit", rpm), ("tpm_limit", tpm)) if value}
        return [Call("forecast_capacity", arguments)], "I scale the busiest minutes to the traffic that you expect."
    if understanding.intent in {Intent.PRICING, Intent.BENCHMARKING} and entities.models:
        calls = [
            Call("compare_models", {**data, "candidates": list(entities.models)}),
            Call("price_lookup", {"models": list(entities.models)}),
        ]
        return calls, "I price the same traffic with the models in question."
    wanted = [tool for facet, tool in _SINGLE.items() if facet in facets]
    if not wanted or _targets(entities):
        wanted = list(OPTIONS)
    thought = "I simulate options over your own requests: routing, caching, batching, shorter inputs."
    if len(wanted) < len(OPTIONS):
        thought = "I simulate that over your own requests."
    return [_simulation(tool, data, understanding, conversation) for tool in wanted], thought


def _simulation(
    tool: str, data: Mapping[str, JsonValue], understanding: Understanding, conversation: Conversation
) -> Call:
    entities = understanding.entities
    arguments = dict(data)
    if tool == "simulate_routing":
        targets = [name for name in entities.models if name != entities.assume_model]
        if targets:
            arguments["targets"] = targets[:MAX_TARGETS]
        if any(goal.metric == "latency" for goal in entities.goals):
            arguments["faster"] = True
    elif tool == "simulate_caching":
        shared = prefix_tokens(conversation.request)
        if shared:
            arguments["prefix_tokens"] = shared
    elif tool == "simulate_batching" and entities.features:
        arguments["batch_features"] = list(entities.features)
    elif tool == "simulate_prompt_trim":
        percent, limit = trim(conversation.request)
        if percent:
            arguments["percent"] = percent
        elif limit:
            arguments["max_input_tokens"] = limit
    return Call(tool, arguments)


def _dataset(understanding: Understanding, conversation: Conversation) -> dict[str, JsonValue]:
    """Return which rows: those that the data agent measured, else those that the request means."""
    entities = understanding.entities
    arguments = entities.dataset_arguments()
    measured = next(
        (
            found
            for exchange in conversation.evidence.get("data", ())
            if exchange.tool_name != "list_datasets" and (found := text(exchange.result, "dataset", "dataset_id"))
        ),
        "",
    )
    if measured:
        arguments["dataset_id"] = measured
    if entities.period.start:
        arguments["start_time"] = entities.period.start.isoformat()
    if entities.period.end:
        arguments["end_time"] = entities.period.end.isoformat()
    if entities.features:
        arguments["features"] = list(entities.features)
    if entities.assume_model:
        arguments["assume_model"] = entities.assume_model
    return arguments


def _goals(understanding: Understanding, conversation: Conversation) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {"growth_percent": _growth(understanding.entities)}
    for goal in understanding.entities.goals:
        if goal.metric == "cost" and goal.amount_usd is not None:
            found["max_cost_usd_per_month"] = goal.amount_usd
        if goal.metric == "cost" and goal.change_percent is not None:
            found["cost_change_percent"] = goal.change_percent
        elif goal.metric == "latency" and goal.change_percent is not None:
            found["latency_change_percent"] = goal.change_percent
            found["latency_percentile"] = "p95" if means_tail(conversation.request) else "p50"
        elif goal.metric == "latency" and goal.limit_ms is not None:
            found["max_latency_ms"] = goal.limit_ms
            found["latency_percentile"] = "p95" if means_tail(conversation.request) else "p50"
        elif goal.metric == "quality":
            found["keep_quality"] = True
    return found


def _targets(entities: Entities) -> bool:
    """Return whether the request names a goal that has to be reached."""
    return any(
        goal.change_percent or goal.amount_usd is not None or goal.limit_ms is not None for goal in entities.goals
    )


def _growth(entities: Entities) -> float:
    return next((goal.change_percent or 0.0 for goal in entities.goals if goal.metric == "usage"), 0.0)


def _combines(understanding: Understanding, conversation: Conversation) -> bool:
    """Return whether there is something to combine: several options, or goals to reach."""
    options = [option for exchange in conversation.exchanges for option in children(exchange.result, "options")]
    return len(options) > 1 or _targets(understanding.entities)


def _other_year(conversation: Conversation) -> Call | None:
    """Return a second look, once, where a day without a year was taken for one that the data does not reach."""
    looks = [exchange for exchange in conversation.exchanges if exchange.tool_name == "evaluate_change"]
    reach = _REACH.search(looks[0].error) if len(looks) == 1 else None
    if reach is None or _YEAR.search(conversation.request):
        return None
    moment = datetime.fromisoformat(text(looks[0].args, "change_time"))
    first, last = (datetime.fromisoformat(reach[name]).replace(tzinfo=UTC) for name in ("first", "last"))
    for year in range(last.year, first.year - 1, -1):
        with suppress(ValueError):  # February 29
            if first <= (moved := moment.replace(year=year)) <= last:
                return Call("evaluate_change", {**looks[0].args, "change_time": moved.isoformat()})
    return None


def _has_options(exchange: Exchange) -> bool:
    options = child(exchange.result, "options")
    return exchange.tool_name in OPTIONS and exchange.status == SUCCESS and bool(options)


def _written(understanding: Understanding, conversation: Conversation) -> str:
    facts = Facts(conversation.exchanges)
    if facts.of("combine_options") is not None or any(facts.of(tool) is not None for tool in OPTIONS):
        return advice.write(understanding, facts)
    return audits.write(facts)
