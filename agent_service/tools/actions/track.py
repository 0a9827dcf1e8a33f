"""The tool track_action: how far a saved plan is, and the status of one step."""

from typing import Final

import msgspec
from pydantic import BaseModel, Field

from agent_service.engine.events import JsonValue
from agent_service.engine.ports import Clock
from agent_service.engine.tool import ToolContext, ToolError, ToolOutput
from agent_service.tools.actions.plans import Plan, Status, decode, encode, plan_part, unfinished
from storage.errors import RecordNotFoundError
from storage.interfaces import ActionPlans
from storage.records import PlanRecord

MAX_NOTE_CHARACTERS: Final = 500
"""Of the note at a step."""

MAX_PLANS: Final = 50
"""The newest plans that are looked through when none is named."""

MAX_TRIES: Final = 5
"""How often a change is tried again when another one came first."""


class TrackActionArgs(BaseModel):
    """Arguments of track_action."""

    plan_id: str = Field(
        default="", max_length=64, description="The plan. Empty: this conversation's newest, else the newest."
    )
    step_id: str = Field(default="", max_length=40, description="The step to change. Empty: only show the plan.")
    status: Status | None = Field(default=None, description="The step's new status.")
    note: str = Field(default="", max_length=MAX_NOTE_CHARACTERS, description="What there is to say about it.")


async def track_action(plans: ActionPlans, clock: Clock, context: ToolContext, args: TrackActionArgs) -> ToolOutput:
    """Show a plan, and change a step of it where one is named."""
    record = await _find(plans, context, args.plan_id)
    if not args.step_id:
        if args.status is not None:
            raise ToolError(f"Which step is {args.status}? {_steps_in_words(decode(record))}")
        return _output(context, record, decode(record), changed="")
    for _ in range(MAX_TRIES):
        plan = _changed(decode(record), args)
        if plan == decode(record):
            return _output(context, record, plan, changed="")
        saved = await plans.replace(
            context.user_id, record.plan_id, encode(plan), version=record.version, update_time=clock.now()
        )
        if saved is not None:
            return _output(context, saved, plan, changed=args.step_id)
        record = await plans.get(context.user_id, record.plan_id)
    raise ToolError("The plan is being changed by others at this very moment. Try again.")


async def _find(plans: ActionPlans, context: ToolContext, plan_id: str) -> PlanRecord:
    try:
        if plan_id:
            return await plans.get(context.user_id, plan_id)
    except RecordNotFoundError:
        raise ToolError(f"There is no plan {plan_id!r}. Leave the id out to see the newest one.") from None
    newest = await plans.list(context.user_id, limit=MAX_PLANS)
    if not newest:
        raise ToolError("There is no plan yet. Ask for one first, for example: make a plan to cut costs by 20 %.")
    return next((plan for plan in newest if plan.thread_id == context.thread_id), newest[0])


def _changed(plan: Plan, args: TrackActionArgs) -> Plan:
    if args.step_id not in {step.id for step in plan.steps}:
        raise ToolError(f"The plan has no step {args.step_id!r}. {_steps_in_words(plan)}")
    steps = tuple(
        msgspec.structs.replace(step, status=args.status or step.status, note=args.note or step.note)
        if step.id == args.step_id
        else step
        for step in plan.steps
    )
    return msgspec.structs.replace(plan, steps=steps)


def _steps_in_words(plan: Plan) -> str:
    return f"Its steps are: {', '.join(step.id for step in plan.steps)}."


def _output(context: ToolContext, record: PlanRecord, plan: Plan, *, changed: str) -> ToolOutput:
    shown = plan_part(record, plan)
    early: list[JsonValue] = [
        f"{step.id} is {step.status}, but {', '.join(unfinished(plan, step))} is not done yet"
        for step in plan.steps
        if step.status in {"doing", "done"} and unfinished(plan, step)
    ]
    done = sum(step.status == "done" for step in plan.steps)
    summary = f"{done} of {len(plan.steps)} steps of “{plan.title}” are done"
    if changed:
        status = next(step.status for step in plan.steps if step.id == changed)
        summary = f"{changed} is {status} now; {summary}"
    here = record.thread_id == context.thread_id
    return ToolOutput(summary, {**shown, "this_conversation": here, "changed": changed, "warnings": early})
