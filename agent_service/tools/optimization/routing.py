"""The tool simulate_routing: other models for some of the requests."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import Field

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolContext, ToolError, ToolOutput
from agent_service.tools.analysis import PricedArgs, Workbench, bounded
from agent_service.tools.measures import clip
from agent_service.tools.optimization.bench import Ready, ready
from agent_service.tools.optimization.catalogue import cheaper_relative, unknown_model
from agent_service.tools.optimization.options import Level, Lever, is_worth_it, option_of, ranked
from agent_service.tools.optimization.policy import MAX_NAME_CHARACTERS, MAX_RULES, Name, Policy, RouteRule
from agent_service.tools.optimization.simulation import Affected, Simulation
from agent_service.tools.optimization.words import best_of, names
from agent_service.tools.roles import Role

MAX_SOURCES: Final = 3
"""Models, those that cost most, for which options are proposed."""

MAX_TARGETS: Final = 3
"""Models that each of them is tried with."""

MAX_PAIRS: Final = 5_000
"""Pairs of model and feature, the most frequent, that tell whether a model serves a feature already."""

FASTEST: Final = "the fewest ms per output token in this data"
"""Why a model is tried that answers faster than all others."""

ROLLBACK: Final = (
    "Send the requests back to the model that answered them before: one line of the router's configuration."
)
OUTPUT_NOTE: Final = (
    "output sizes are known only afterwards: a router needs a stand-in for them, such as the feature or max_tokens"
)


class SimulateRoutingArgs(PricedArgs):
    """Arguments of simulate_routing."""

    rules: list[RouteRule] = Field(
        default=[], max_length=MAX_RULES, description="Rules to simulate together; the first that matches counts."
    )
    targets: list[Name] = Field(
        default=[], max_length=MAX_TARGETS, description="Without rules: models to try for the most expensive traffic."
    )
    faster: bool = Field(
        default=False, description="Without rules: also try the model that answers fastest in this data, for speed."
    )


@dataclass(frozen=True, slots=True)
class _Source:
    """A model of the data. `small` is the median of its input tokens, `feature` its most expensive feature."""

    model: str
    small: int | None
    feature: str | None
    features: int


async def simulate_routing(bench: Workbench, context: ToolContext, args: SimulateRoutingArgs) -> ToolOutput:
    """Simulate routing."""
    async with ready(bench, context, args) as it:
        wanted = list(dict.fromkeys([*(rule.target for rule in args.rules), *args.targets]))
        await it.simulation.tariffs.know(wanted)
        for name in wanted:
            why = it.simulation.tariffs.known[name]
            if isinstance(why, str):
                raise ToolError(await asyncio.to_thread(unknown_model, name, why))
        candidates: list[str] = []
        if args.rules:
            policies = [(f"route-to-{_slug(args.rules[0].target)}", _title(args.rules), Policy(routes=args.rules))]
        else:
            policies = await _proposed(bench, it, args, candidates)
        served = await _served(it.simulation)
        options = [await _option(it.simulation, id_, title, policy, served) for id_, title, policy in policies]
        lacking = [] if args.rules else it.facts.missing(Role.FEATURE)
        lacking += [] if args.assume_model else it.facts.missing(Role.MODEL)
        if not args.rules and any(is_worth_it(one) for one in options):
            options = [one for one in options if is_worth_it(one)]
        ordered = ranked(options)

        async def make(top: int) -> JsonObject:
            parts: JsonObject = {
                "options": ordered[:top],
                "options_not_shown": len(ordered[top:]),
                "candidates": list[JsonValue](candidates),
            }
            return it.result(args, lacking, parts)

        result = await bounded(max(1, len(ordered)), make)
    return ToolOutput(best_of(options, "Routing", it.opened.session.name), result)


def _title(rules: Sequence[RouteRule]) -> str:
    targets = names([rule.target for rule in rules])
    return f"Route by {len(rules)} rules to {targets}" if len(rules) > 1 else f"Route by your rule to {targets}"


async def _proposed(
    bench: Workbench, it: Ready, args: SimulateRoutingArgs, candidates: list[str]
) -> list[tuple[str, str, Policy]]:
    """Return id, title and policy for the most expensive models: small requests, costliest feature, all of it.

    For speed alone only all of it: moving a few requests does not make the usual one faster.
    """
    found: list[tuple[str, str, Policy]] = []
    fastest = await it.simulation.fastest() if args.faster else None
    for source in await _sources(it.simulation):
        chosen = dict.fromkeys(args.targets, "as you asked")
        relative = None if args.targets else await asyncio.to_thread(cheaper_relative, source.model, bench.clock.now())
        if relative is not None:
            chosen[relative.name] = (
                "same provider and family, input and output tokens both cost less, and its name is most alike"
            )
        elif not args.targets:
            why = "the catalogue has no cheaper model of the same provider and family; name one"
            candidates.append(f"{clip(source.model)}: {why}")
        if fastest is not None and fastest not in chosen:
            chosen[fastest] = FASTEST
        for target, why in chosen.items():
            if target.lower() != source.model.lower():
                candidates.append(f"{clip(source.model)} → {clip(target)}: {why}")
                policies = list(_policies(source, target))
                found += policies[-1:] if why == FASTEST else policies
    return found


def _policies(source: _Source, target: str) -> Iterator[tuple[str, str, Policy]]:
    base = f"route-{_slug(source.model)}-to-{_slug(target)}"
    model, to = clip(source.model), clip(target)
    if source.small is not None:
        rule = RouteRule(models=[source.model], max_input_tokens=source.small, target=target)
        title = f"Route {model} requests of up to {source.small:,} input tokens to {to}"
        yield f"{base}-small", title, Policy(routes=[rule])
    if source.feature is not None and source.features > 1:
        rule = RouteRule(models=[source.model], features=[source.feature], target=target)
        yield f"{base}-feature", f"Route {model} requests of {clip(source.feature)} to {to}", Policy(routes=[rule])
    rule = RouteRule(models=[source.model], target=target)
    yield f"{base}-all", f"Route all {model} requests to {to}", Policy(routes=[rule])


async def _option(
    simulation: Simulation, id_: str, title: str, policy: Policy, served: frozenset[tuple[str, str]]
) -> JsonObject:
    outcome = await simulation.outcome(policy)
    risk, reason = _risk(policy, outcome.affected, served)
    simple = all(not rule.features and not _by_size(rule) for rule in policy.routes)
    by_output = any(rule.min_output_tokens is not None or rule.max_output_tokens is not None for rule in policy.routes)
    lever = Lever(
        id=id_,
        kind="routing",
        title=title,
        policy=policy,
        risk=risk,
        risk_reason=reason,
        effort="S" if simple else "M",
        effort_reason="only the model's name changes" if simple else "a router has to look at each request first",
        rollback=ROLLBACK,
        assumptions=(OUTPUT_NOTE,) if by_output else (),
    )
    return option_of(simulation, lever, outcome)


def _by_size(rule: RouteRule) -> bool:
    bounds = (rule.min_input_tokens, rule.max_input_tokens, rule.min_output_tokens, rule.max_output_tokens)
    return any(bound is not None for bound in bounds)


def _risk(policy: Policy, whom: Affected, served: frozenset[tuple[str, str]]) -> tuple[Level, str]:
    """Return the risk to quality, from what is known: how much is moved, and whether the targets serve it already."""
    small = all(rule.max_input_tokens is not None or rule.max_output_tokens is not None for rule in policy.routes)
    targets = [rule.target for rule in policy.routes]
    moved, to = "small requests only" if small else "requests of every size", names(targets)
    known = all((target.lower(), feature) in served for target in targets for feature in whom.features)
    if whom.features and known and len(whom.features) == whom.feature_count:
        level: Level = "low" if small else "medium"
        return level, f"{moved} go to {to}, which answers requests of the same features in this data already"
    return "medium" if small else "high", f"{moved} go to {to}, which this data does not show with these features"


async def _served(simulation: Simulation) -> frozenset[tuple[str, str]]:
    """Return which models (lower case) answer which features in the data, the most frequent pairs."""
    rows = await simulation.facts.session.run(
        "SELECT lower(key), feature FROM sim WHERE key IS NOT NULL AND feature IS NOT NULL GROUP BY ALL "
        f"ORDER BY count(*) DESC, 1, 2 LIMIT {MAX_PAIRS}"
    )
    return frozenset((str(row[0]), str(row[1])) for row in rows.rows)


async def _sources(simulation: Simulation) -> list[_Source]:
    rows = await simulation.facts.session.run(
        "SELECT key, CAST(floor(quantile_cont(input_tokens, 0.5)) AS BIGINT), count(DISTINCT feature) FROM sim "
        f"WHERE key IS NOT NULL AND cost > 0 AND length(key) <= {MAX_NAME_CHARACTERS} "
        f"GROUP BY 1 ORDER BY sum(cost) DESC, 1 LIMIT {MAX_SOURCES}"
    )
    costliest = await simulation.facts.session.run(
        "SELECT key, first(feature ORDER BY spent DESC, feature) FROM (SELECT key, feature, sum(cost) AS spent "
        "FROM sim WHERE key IS NOT NULL AND feature IS NOT NULL AND cost > 0 "
        f"AND length(feature) <= {MAX_NAME_CHARACTERS} GROUP BY ALL) GROUP BY 1"
    )
    features = {str(row[0]): str(row[1]) for row in costliest.rows}
    return [
        _Source(str(row[0]), None if row[1] is None else int(str(row[1])), features.get(str(row[0])), int(str(row[2])))
        for row in rows.rows
    ]


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())[:40]
