"""The tool combine_options: options together, simulated as one, and judged against every goal at once."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolContext, ToolError, ToolOutput, ToolRecord
from agent_service.tools.analysis import PricedArgs, Workbench, bounded
from agent_service.tools.optimization.bench import Ready, ready
from agent_service.tools.optimization.constraints import Goals, Verdict, is_feasible, judge, preference
from agent_service.tools.optimization.options import LEVELS, SIZES, Level, Lever, Size, latency, option_of
from agent_service.tools.optimization.policy import Policy, combine
from agent_service.tools.optimization.simulation import Affected, Outcome

MAX_OPTIONS: Final = 12
"""Options that are combined: those without a risk, then those that save most alone."""

MAX_TOGETHER: Final = 5
"""Options in one combination."""

MAX_COMBINATIONS: Final = 80
"""Combinations that are simulated."""

MIN_COMBINATIONS: Final = 12
"""Combinations that are simulated however many rows there are."""

ROW_BUDGET: Final = 20_000_000
"""Rows times combinations that one call may simulate."""

SHOWN: Final = 4
"""Combinations that a result shows beside the best."""

MAX_LEFT_OUT: Final = 12
"""Options of which it is said why they are left out; the rest is counted."""

SIMULATIONS: Final = frozenset({"simulate_routing", "simulate_caching", "simulate_batching", "simulate_prompt_trim"})
"""The tools whose options can be combined."""


ItemT = TypeVar("ItemT")


class Cited(BaseModel):
    """An option of an earlier call."""

    model_config = ConfigDict(extra="forbid")

    tool_call_id: str = Field(max_length=200, description="The call that computed it.")
    option_id: str = Field(default="", max_length=200, description="Its id; empty: all options of that call.")


class CombineOptionsArgs(PricedArgs):
    """Arguments of combine_options. Dataset, filter and assumed model must be those of the cited calls."""

    options: list[Cited] = Field(
        default=[], max_length=40, description="Options to combine; none: all that earlier calls of this run computed."
    )
    goals: Goals = Field(default_factory=Goals, description="What has to hold, all at once.")


@dataclass(frozen=True, slots=True)
class _Part:
    """A cited option. Alone it saves `alone` US dollars, and makes the usual request `faster` by so many ms."""

    tool_call_id: str
    lever: Lever
    alone: float
    faster: float


@dataclass(frozen=True, slots=True)
class _Tried:
    parts: tuple[_Part, ...]
    lever: Lever
    outcome: Outcome
    verdicts: list[Verdict]


async def combine_options(bench: Workbench, context: ToolContext, args: CombineOptionsArgs) -> ToolOutput:
    """Combine options."""
    records = _cited(context.records(), args.options)
    repeats = any(record.tool_name == "simulate_caching" for record in records)
    async with ready(bench, context, args, repeats=repeats, idle=repeats) as it:
        parts, left_out = _parts(records, args, it)
        decided, undecided, skipped = _sets(parts, it.simulation.baseline.requests)
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


# --- What is combined ------------------------------------------------------------------------------------------------


def _cited(records: Sequence[ToolRecord], cited: Sequence[Cited]) -> list[ToolRecord]:
    """Return the calls whose options are meant. Raises `ToolError` for one that is not there."""
    known = {record.tool_call_id: record for record in records if record.tool_name in SIMULATIONS and record.result}
    for one in cited:
        if one.tool_call_id not in known:
            raise ToolError(
                f"There is no call {one.tool_call_id!r} with options in this run. First call "
                f"{', '.join(sorted(SIMULATIONS))}, and cite their tool_call_id."
            )
    wanted = {one.tool_call_id for one in cited} or known.keys()
    found = [record for call, record in known.items() if call in wanted]
    if not found:
        raise ToolError(
            f"There is no option to combine yet. Call {', '.join(sorted(SIMULATIONS))} first, in the same run."
        )
    return found


def _parts(records: Sequence[ToolRecord], args: CombineOptionsArgs, it: Ready) -> tuple[list[_Part], list[str]]:
    """Return the options that can be combined, best first, and why others are left out."""
    found: dict[str, _Part] = {}
    left_out: list[str] = []
    wanted = {(one.tool_call_id, one.option_id) for one in args.options}
    own = _rows_of(it.result(args, [], {}))
    for record in records:
        if _rows_of(record.result or {}) != own:
            left_out.append(f"{record.tool_name}: it was computed over other rows (dataset, filter or assumed model)")
            continue
        options = (record.result or {}).get("options")
        for option in options if isinstance(options, list | tuple) else ():
            if not isinstance(option, Mapping):
                continue
            key = str(option.get("id"))
            if wanted and not {(record.tool_call_id, key), (record.tool_call_id, "")} & wanted:
                continue
            lever, alone, faster = _lever(option), float(str(option.get("saving_usd", 0))), _faster(option)
            if lever is None:
                left_out.append(f"{key}: its rules cannot be read")
            elif alone <= 0 and faster <= 0:
                left_out.append(f"{lever.title}: it saves nothing and is not faster")
            else:
                found.setdefault(str(lever.policy), _Part(record.tool_call_id, lever, alone, faster))
    parts = sorted(found.values(), key=lambda part: part.lever.id)
    ordered = list(_in_turn(parts, [_careful, _saving, *([_quick] if args.goals.latency_change_percent else [])]))
    left_out += [f"{part.lever.title}: only {MAX_OPTIONS} are combined" for part in ordered[MAX_OPTIONS:]]
    return ordered[:MAX_OPTIONS], left_out


def _careful(part: _Part) -> tuple[bool, int, float]:
    return bool(part.lever.question), _rank(part.lever.risk), -part.alone


def _saving(part: _Part) -> tuple[bool, int, float]:
    return False, 0, -part.alone


def _quick(part: _Part) -> tuple[bool, int, float]:
    return bool(part.lever.question), 0, -part.faster


def _in_turn(items: Sequence[ItemT], orders: Sequence[Callable[[ItemT], tuple[bool, int, float]]]) -> Iterator[ItemT]:
    """Yield each item once: the first by every order, then the second by every order, and so on."""
    seen: set[int] = set()
    keys = [[order(item) for item in items] for order in orders]
    rankings = [sorted(range(len(items)), key=key.__getitem__) for key in keys]
    for places in zip(*rankings, strict=True):
        for index in places:
            if index not in seen:
                seen.add(index)
                yield items[index]


def _rows_of(result: JsonObject) -> tuple[JsonValue, ...]:
    """Return what says over which rows, and at which prices, a result was computed."""
    found: list[JsonValue] = []
    for part, names in (
        ("dataset", ("dataset_id",)),
        ("filter", ("start_time", "end_time", "models", "features")),
        ("pricing", ("assumed_model",)),
    ):
        of = result.get(part)
        for name in names:
            value = of.get(name) if isinstance(of, Mapping) else None
            found.append(tuple(value) if isinstance(value, list | tuple) else value)
    return tuple(found)


def _faster(option: JsonObject) -> float:
    """Return by how many ms the median falls, as far as it is known."""
    speed = option.get("latency")
    before, after = (speed.get("before"), speed.get("after")) if isinstance(speed, Mapping) else (None, None)
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return 0.0
    return float(str(before["p50"])) - float(str(after["p50"]))


def _lever(option: JsonObject) -> Lever | None:
    """Return the lever of an option as the tools write it; None where it is not one."""
    risk, effort = option.get("quality_risk"), option.get("effort")
    try:
        policy = Policy.model_validate(option.get("how"))
    except ValidationError:
        return None
    if not isinstance(risk, Mapping) or not isinstance(effort, Mapping):
        return None
    return Lever(
        id=str(option.get("id")),
        kind="combination",
        title=str(option.get("title")),
        policy=policy,
        risk=_level(str(risk.get("level"))),
        risk_reason=str(risk.get("reason")),
        effort=_size(str(effort.get("size"))),
        effort_reason=str(effort.get("reason")),
        rollback=str(option.get("rollback")),
        assumptions=_texts(option.get("assumptions")),
        question=str(option.get("question") or ""),
    )


def _sets(parts: Sequence[_Part], rows: int) -> tuple[list[tuple[_Part, ...]], list[tuple[_Part, ...]], int]:
    """Return the sets to simulate, without and with options that need a decision, and how many more there would be."""
    fitting = [
        chosen
        for size in range(1, MAX_TOGETHER + 1)
        for chosen in combinations(parts, size)
        if not any(one.lever.policy.conflicts(two.lever.policy) for one, two in combinations(chosen, 2))
    ]
    limit = min(MAX_COMBINATIONS, max(MIN_COMBINATIONS, ROW_BUDGET // max(rows, 1)))
    open_ = [chosen for chosen in fitting if any(part.lever.question for part in chosen)]
    settled = [chosen for chosen in fitting if not any(part.lever.question for part in chosen)]
    asking = _promising(open_)[: limit // 3]
    decided = _promising(settled)[: limit - len(asking)]
    return decided, asking, len(fitting) - len(decided) - len(asking)


def _promising(fitting: Sequence[tuple[_Part, ...]]) -> list[tuple[_Part, ...]]:
    """Return single options first, then sets in turn: what saves most, what risks least, what is fastest."""
    more = [chosen for chosen in fitting if len(chosen) > 1]

    def saving(chosen: tuple[_Part, ...]) -> tuple[bool, int, float]:
        return False, 0, -sum(part.alone for part in chosen)

    def careful(chosen: tuple[_Part, ...]) -> tuple[bool, int, float]:
        return False, max(_rank(part.lever.risk) for part in chosen), -sum(part.alone for part in chosen)

    def quick(chosen: tuple[_Part, ...]) -> tuple[bool, int, float]:
        return False, 0, -sum(part.faster for part in chosen)

    orders = [saving, careful, *([quick] if any(part.faster > 0 for chosen in fitting for part in chosen) else [])]
    return [*(chosen for chosen in fitting if len(chosen) == 1), *_in_turn(more, orders)]


# --- What comes of it ------------------------------------------------------------------------------------------------


async def _try(it: Ready, chosen: tuple[_Part, ...], goals: Goals) -> _Tried:
    lever = _together(chosen)
    outcome = await it.simulation.outcome(lever.policy, whom=False)
    note = str(latency(outcome, lever.policy)["note"])
    return _Tried(chosen, lever, outcome, judge(goals, it.simulation.baseline, outcome, note, lever.risk))


def _together(chosen: tuple[_Part, ...]) -> Lever:
    levers = [part.lever for part in chosen]
    risk = max((lever.risk for lever in levers), key=_rank)
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


def _rank(risk: str) -> int:
    return LEVELS.index(_level(risk))


def _level(name: str) -> Level:
    return next((level for level in LEVELS if level == name), "high")


def _size(name: str) -> Size:
    return next((size for size in SIZES if size == name), "L")


def _texts(value: JsonValue) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list | tuple) else ()
