"""Which options are combined: those that earlier calls computed over the same rows, and in which sets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolError, ToolRecord
from agent_service.tools.optimization.options import LEVELS, SIZES, Level, Lever, Size, faster_ms
from agent_service.tools.optimization.policy import Policy

MAX_OPTIONS: Final = 12
"""Options that are combined: those without a risk, then those that save most alone."""

MAX_TOGETHER: Final = 5
"""Options in one combination."""

MAX_COMBINATIONS: Final = 80
"""Combinations that are simulated."""

MIN_COMBINATIONS: Final = 8
"""Combinations that are simulated however many rows there are."""

ROW_BUDGET: Final = 12_000_000
"""Rows times combinations that one call may simulate."""

SIMULATIONS: Final = frozenset({"simulate_routing", "simulate_caching", "simulate_batching", "simulate_prompt_trim"})
"""The tools whose options can be combined."""


ItemT = TypeVar("ItemT")


class Cited(BaseModel):
    """An option of an earlier call."""

    model_config = ConfigDict(extra="forbid")

    tool_call_id: str = Field(max_length=200, description="The call that computed it.")
    option_id: str = Field(default="", max_length=200, description="Its id; empty: all options of that call.")


@dataclass(frozen=True, slots=True)
class Part:
    """A cited option. Alone it saves `alone` US dollars, and makes the usual request `faster` by so many ms."""

    tool_call_id: str
    lever: Lever
    alone: float
    faster: float


def cited_records(records: Sequence[ToolRecord], cited: Sequence[Cited]) -> list[ToolRecord]:
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


def parts_of(
    records: Sequence[ToolRecord], options: Sequence[Cited], own: JsonObject, *, for_speed: bool
) -> tuple[list[Part], list[str]]:
    """Return the options that can be combined, and why others are left out.

    `own` is a result over the rows that count: options over other rows cannot be combined with them.
    """
    found: dict[str, Part] = {}
    left_out: list[str] = []
    wanted = {(one.tool_call_id, one.option_id) for one in options}
    rows = _rows_of(own)
    for record in records:
        if _rows_of(record.result or {}) != rows:
            left_out.append(f"{record.tool_name}: it was computed over other rows (dataset, filter or assumed model)")
            continue
        found_options = (record.result or {}).get("options")
        for option in found_options if isinstance(found_options, list | tuple) else ():
            if not isinstance(option, Mapping):
                continue
            key = str(option.get("id"))
            if wanted and not {(record.tool_call_id, key), (record.tool_call_id, "")} & wanted:
                continue
            lever, alone, faster = _lever(option), float(str(option.get("saving_usd", 0))), faster_ms(option)
            if lever is None:
                left_out.append(f"{key}: its rules cannot be read")
            elif alone <= 0 and faster <= 0:
                left_out.append(f"{lever.title}: it saves nothing and is not faster")
            else:
                found.setdefault(str(lever.policy), Part(record.tool_call_id, lever, alone, faster))
    parts = sorted(found.values(), key=lambda part: part.lever.id)
    ordered = list(_in_turn(parts, [_careful, _saving, *([_quick] if for_speed else [])]))
    left_out += [f"{part.lever.title}: only {MAX_OPTIONS} are combined" for part in ordered[MAX_OPTIONS:]]
    return ordered[:MAX_OPTIONS], left_out


def _careful(part: Part) -> tuple[bool, int, float]:
    return bool(part.lever.question), rank(part.lever.risk), -part.alone


def _saving(part: Part) -> tuple[bool, int, float]:
    return False, 0, -part.alone


def _quick(part: Part) -> tuple[bool, int, float]:
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


def sets_of(parts: Sequence[Part], rows: int) -> tuple[list[tuple[Part, ...]], list[tuple[Part, ...]], int]:
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


def _promising(fitting: Sequence[tuple[Part, ...]]) -> list[tuple[Part, ...]]:
    """Return single options first, then sets in turn: what saves most, what risks least, what is fastest."""
    more = [chosen for chosen in fitting if len(chosen) > 1]

    def saving(chosen: tuple[Part, ...]) -> tuple[bool, int, float]:
        return False, 0, -sum(part.alone for part in chosen)

    def careful(chosen: tuple[Part, ...]) -> tuple[bool, int, float]:
        return False, max(rank(part.lever.risk) for part in chosen), -sum(part.alone for part in chosen)

    def quick(chosen: tuple[Part, ...]) -> tuple[bool, int, float]:
        return False, 0, -sum(part.faster for part in chosen)

    orders = [saving, careful, *([quick] if any(part.faster > 0 for chosen in fitting for part in chosen) else [])]
    return [*(chosen for chosen in fitting if len(chosen) == 1), *_in_turn(more, orders)]


def rank(risk: str) -> int:
    """Return how high a risk is: 0 for none."""
    return LEVELS.index(_level(risk))


def _level(name: str) -> Level:
    return next((level for level in LEVELS if level == name), "high")


def _size(name: str) -> Size:
    return next((size for size in SIZES if size == name), "L")


def _texts(value: JsonValue) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list | tuple) else ()
