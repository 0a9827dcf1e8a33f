"""The tool combine_options: options together, simulated as one, and judged against every goal at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import Field

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.analysis import PricedArgs, Workbench, bounded
from agent_service.tools.optimization.bench import Ready, ready
from agent_service.tools.optimization.constraints import Goals, Verdict, is_feasible, judge, preference
from agent_service.tools.optimization.options import SIZES, Lever, latency, option_of
from agent_service.tools.optimization.policy import combine
from agent_service.tools.optimization.selection import Cited, Part, cited_records, parts_of, rank, sets_of
from agent_service.tools.optimization.simulation import Affected, Outcome

SHOWN: Final = 4
"""Combinations that a result shows beside the best."""

MAX_LEFT_OUT: Final = 12
"""Options of which it is said why they are left out; the rest is counted."""


class CombineOptionsArgs(PricedArgs):
    """Arguments of combine_options. Dataset, filter and assumed model must be those of the cited calls."""

    options: list[Cited] = Field(
        default=[], max_length=40, description="Options to combine; none: all that earlier calls of this run computed."
    )
    goals: Goals = Field(default_factory=Goals, description="What has to hold, all at once.")


@dataclass(frozen=True, slots=True)
class _Tried:
    parts: tuple[Part, ...]
    lever: Lever
    outcome: Outcome
    verdicts: list[Verdict]


async def combine_options(bench: Workbench, context: ToolContext, args: CombineOptionsArgs) -> ToolOutput:
    """Combine options."""
    records = cited_records(context.records(), args.options)
    repeats = any(record.tool_name == "simulate_caching" for record in records)
    async with ready(bench, context, args, repeats=repeats, idle=repeats) as it:
        parts, left_out = parts_of(
            records,
            args.options,
            it.result(args, [], {}),
            for_speed=args.goals.latency_change_percent is not None or args.goals.max_latency_ms is not None,
        )
        decided, undecided, skipped = sets_of(parts, it.simulation.baseline.requests)
        await context.progress(f"{len(decided) + len(undecided)} combinations are simulated", 0.6)
        tried = _ranked(it, [await _try(it, chosen, args.goals) for chosen in decided])
        asking = _ranked(it, [await _try(it, chosen, args.goals) for chosen in undecided])
        feasible = [one for one in tried if is_feasible(one.verdicts)]
        best = await _shown(it, (feasible or tried)[0]) if tried else None
        now = judge(args.goals, it.simulation.baseline, _nothing(it), "as it is measured now", "none")
        more = len(left_out[MAX_LEFT_OUT:])
        shown: JsonObject = {
            "goals": args.goals.model_dump(mode="json"),
            "feasible": bool(feasible),
            "best": best if feasible else None,
            "nearest": None if feasible else best,
            "with_decisions": _brief(it, asking[0]) if asking and _is_better(it, asking[0], tried) else None,
            "without_change": [verdict.part() for verdict in now],
            "options": [
                {
                    "tool_call_id": part.tool_call_id,
                    "id": part.lever.id,
                    "title": part.lever.title,
                    "alone_usd": part.alone,
                    "question": part.lever.question,
                }
                for part in parts
            ],
            "growth_note": "more traffic is taken to change neither the size nor the speed of requests",
            "simulated": len(tried) + len(asking),
            "not_simulated": skipped,
            "left_out": [*left_out[:MAX_LEFT_OUT], *([f"and {more} more"] if more else [])],
        }

        async def make(top: int) -> JsonObject:
            return it.result(args, [], {**shown, "combinations": [_brief(it, one) for one in tried[:top]]})

        result = await bounded(SHOWN, make)
    return ToolOutput(_summary(it, args.goals, tried, feasible=bool(feasible)), result)


async def _try(it: Ready, chosen: tuple[Part, ...], goals: Goals) -> _Tried:
    lever = _together(chosen)
    outcome = await it.simulation.outcome(lever.policy, whom=False)
    note = str(latency(outcome, lever.policy)["note"])
    return _Tried(chosen, lever, outcome, judge(goals, it.simulation.baseline, outcome, note, lever.risk))


def _together(chosen: tuple[Part, ...]) -> Lever:
    levers = [part.lever for part in chosen]
    risk = max((lever.risk for lever in levers), key=rank)
    hardest = max(levers, key=lambda lever: SIZES.index(lever.effort))
    size = SIZES[min(SIZES.index(hardest.effort) + (len(levers) > 2), len(SIZES) - 1)]  # noqa: PLR2004 - several changes
    return Lever(
        id="+".join(lever.id for lever in levers),
        kind="combination",
        title=" + ".join(lever.title for lever in levers),
        policy=combine([lever.policy for lever in levers]),
        risk=risk,
        risk_reason="; ".join(dict.fromkeys(lever.risk_reason for lever in levers if lever.risk == risk)),
        effort=size,
        effort_reason="; ".join(dict.fromkeys(lever.effort_reason for lever in levers)),
        rollback=" ".join(dict.fromkeys(lever.rollback for lever in levers)),
        assumptions=tuple(dict.fromkeys(said for lever in levers for said in lever.assumptions)),
        question=" ".join(dict.fromkeys(lever.question for lever in levers if lever.question)),
    )


async def _shown(it: Ready, one: _Tried) -> JsonObject:
    """Return a combination as an option, with its parts and the verdict on each goal."""
    outcome = await it.simulation.outcome(one.lever.policy)
    return {
        **option_of(it.simulation, one.lever, outcome),
        "option_ids": [part.lever.id for part in one.parts],
        "parts": [
            {
                "tool_call_id": part.tool_call_id,
                "option_id": part.lever.id,
                "title": part.lever.title,
                "alone_usd": part.alone,
            }
            for part in one.parts
        ],
        "sum_of_parts_usd": round(math.fsum(part.alone for part in one.parts), 6),
        "constraints": [verdict.part() for verdict in one.verdicts],
        "feasible": is_feasible(one.verdicts),
    }


def _brief(it: Ready, one: _Tried) -> JsonObject:
    found = option_of(it.simulation, one.lever, one.outcome)
    kept = ["id", "title", "how", "saving_usd", "saving_percent", "saving_usd_per_month", "quality_risk", "effort"]
    kept += ["latency", "question"]
    return {
        **{name: found[name] for name in kept},
        "option_ids": [part.lever.id for part in one.parts],
        "constraints": [verdict.part() for verdict in one.verdicts],
        "feasible": is_feasible(one.verdicts),
    }


def _nothing(it: Ready) -> Outcome:
    speed = it.simulation.baseline.speed
    return Outcome(0, 0, 0, 0, 0, speed, speed, 0, Affected())


def _ranked(it: Ready, tried: Sequence[_Tried]) -> list[_Tried]:
    """Return the best first: by preference, then less effort, fewer changes, and what is saved to the cent."""

    def order(one: _Tried) -> tuple[tuple[int, float, int, int], int, int, int, str]:
        effort = SIZES.index(one.lever.effort)
        return _key(it, one), effort, len(one.parts), -one.outcome.saved, one.lever.id

    return sorted(tried, key=order)


def _key(it: Ready, one: _Tried) -> tuple[int, float, int, int]:
    return preference(one.verdicts, it.simulation.baseline, one.outcome.saved, one.lever.risk)


def _is_better(it: Ready, one: _Tried, tried: Sequence[_Tried]) -> bool:
    return not tried or _key(it, one) < _key(it, tried[0])


def _summary(it: Ready, goals: Goals, tried: Sequence[_Tried], *, feasible: bool) -> str:
    name = it.opened.session.name
    if not tried:
        return f"No option saves anything in {name}, so there is nothing to combine"
    best = option_of(it.simulation, tried[0].lever, tried[0].outcome)
    found = f"{best['saving_usd']:,.2f} USD ({best['saving_percent']:.1f} %) less with {best['title']}"
    if goals == Goals():
        return f"{name}: {found}"
    return (
        f"{name}: all goals can be met: {found}" if feasible else f"{name}: not all goals can be met; nearest: {found}"
    )
