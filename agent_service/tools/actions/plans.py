"""What a plan is: steps with owners, effort, checks and a way back, in an order that respects what each one needs."""

from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolError
from storage.records import PlanRecord

Effort: TypeAlias = Literal["S", "M", "L"]
Status: TypeAlias = Literal["todo", "doing", "done", "blocked"]

STATUSES: Final[tuple[Status, ...]] = ("todo", "doing", "done", "blocked")

EFFORTS: Final = {"S": "hours", "M": "days", "L": "weeks"}
"""What the sizes mean."""


class Step(msgspec.Struct, frozen=True):
    """One step. `option_id` and `tool_call_id` name the computed option that it realises, with its saving.

    `saving_usd` is over the span of the measured data, `saving_percent` of its cost.
    """

    id: str
    what: str
    owner_role: str
    effort: Effort
    validation: str
    rollback: str
    depends_on: tuple[str, ...] = ()
    option_id: str = ""
    tool_call_id: str = ""
    saving_usd: float | None = None
    saving_percent: float | None = None
    status: Status = "todo"
    note: str = ""


class Plan(msgspec.Struct, frozen=True):
    """A plan. Its steps are in the order in which they can be done."""

    title: str
    steps: tuple[Step, ...]


def in_order(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps so that each comes after all that it depends on; of those that could be next, the given order.

    Raises `ToolError` for an id that is there twice, a dependency that is not there, and a cycle, naming them.
    """
    doubled = [step_id for step_id, count in Counter(step.id for step in steps).items() if count > 1]
    if doubled:
        raise ToolError(f"Step ids must differ: {', '.join(doubled)} stands for several steps.")
    known = {step.id for step in steps}
    for step in steps:
        unknown = [needed for needed in step.depends_on if needed not in known]
        if unknown:
            raise ToolError(
                f"The step {step.id} depends on {', '.join(unknown)}, which the plan does not have. "
                f"Its steps are: {', '.join(sorted(known))}."
            )
    ordered: list[Step] = []
    waiting = list(steps)
    while waiting:
        done = {step.id for step in ordered}
        ready = next((step for step in waiting if done.issuperset(step.depends_on)), None)
        if ready is None:
            raise ToolError(f"These steps wait for each other in a circle: {' → '.join(_circle(waiting))}.")
        ordered.append(ready)
        waiting.remove(ready)
    return tuple(ordered)


def _circle(waiting: Sequence[Step]) -> list[str]:
    """Return one cycle among steps that each wait for another one of them; its first id stands at the end again."""
    stuck = {step.id: step for step in waiting}
    path = [waiting[0].id]
    while True:
        needed = next(step_id for step_id in stuck[path[-1]].depends_on if step_id in stuck)
        if needed in path:
            return [*path[path.index(needed) :], needed]
        path.append(needed)


def decode(record: PlanRecord) -> Plan:
    """Return the plan that a record keeps."""
    return msgspec.json.decode(record.document, type=Plan)


def encode(plan: Plan) -> bytes:
    """Return the document that a record keeps."""
    return msgspec.json.encode(plan)


def plan_part(record: PlanRecord, plan: Plan) -> dict[str, JsonValue]:
    """Return the plan as the results of tools show it.

    `next_steps` are those whose dependencies are done; `progress` counts the steps of each status.
    """
    counts = Counter(step.status for step in plan.steps)
    return {
        "plan_id": record.plan_id,
        "title": plan.title,
        "version": record.version,
        "progress": {status: counts[status] for status in STATUSES},
        "next_steps": [step.id for step in plan.steps if step.status == "todo" and not unfinished(plan, step)],
        "steps": [_step_part(order, step) for order, step in enumerate(plan.steps, start=1)],
    }


def unfinished(plan: Plan, step: Step) -> list[str]:
    """Return the ids of what the step depends on and is not done."""
    done = {other.id for other in plan.steps if other.status == "done"}
    return [needed for needed in step.depends_on if needed not in done]


def _step_part(order: int, step: Step) -> JsonObject:
    return {
        "order": order,
        "id": step.id,
        "what": step.what,
        "owner_role": step.owner_role,
        "effort": step.effort,
        "depends_on": list(step.depends_on),
        "validation": step.validation,
        "rollback": step.rollback,
        "option_id": step.option_id,
        "tool_call_id": step.tool_call_id,
        "saving_usd": step.saving_usd,
        "saving_percent": step.saving_percent,
        "status": step.status,
        "note": step.note,
    }
