"""The tool create_action_plan: options become an ordered plan that is saved and can be tracked."""

import uuid
from typing import Annotated, Final

from pydantic import BaseModel, Field

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.ports import Clock
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.actions.plan_document import as_markdown
from agent_service.tools.actions.plans import Effort, Plan, Step, encode, in_order, plan_part
from agent_service.tools.citations import OptionCitation, cited_option, number
from storage.interfaces import ActionPlans
from storage.records import PlanRecord

MAX_STEPS: Final = 40
"""Of one plan."""

MAX_WORDS_CHARACTERS: Final = 500
"""Of each sentence of a step."""

StepId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
Sentence = Annotated[str, Field(min_length=1, max_length=MAX_WORDS_CHARACTERS)]


class StepArgs(BaseModel):
    """One step of a plan."""

    id: StepId = Field(description="A short id such as pilot-routing: small letters, digits, - and _.")
    what: Sentence = Field(description="What is done, beginning with a verb.")
    owner_role: str = Field(min_length=1, max_length=80, description="Who does it: a role, not a name.")
    effort: Effort = Field(description="S: hours. M: days. L: weeks.")
    validation: Sentence = Field(description="How one sees that it worked.")
    rollback: Sentence = Field(description="How it is taken back.")
    depends_on: list[StepId] = Field(default=[], max_length=MAX_STEPS, description="Ids of steps that come before.")
    option: OptionCitation | None = Field(
        default=None, description="The computed option that this step puts into force; its saving is taken from there."
    )


class CreateActionPlanArgs(BaseModel):
    """Arguments of create_action_plan."""

    title: str = Field(min_length=1, max_length=200, description="What the plan is to reach.")
    steps: list[StepArgs] = Field(min_length=1, max_length=MAX_STEPS)


async def create_action_plan(
    plans: ActionPlans, clock: Clock, context: ToolContext, args: CreateActionPlanArgs
) -> ToolOutput:
    """Order the steps, save the plan, and make its documents."""
    plan = Plan(args.title, in_order([_step(context, step) for step in args.steps]))
    now = clock.now()
    plan_id = _plan_id(context)
    record = await plans.create(PlanRecord(plan_id, context.user_id, context.thread_id, 1, encode(plan), now, now))
    shown = plan_part(record, plan)
    name = f"action-plan-{plan_id[:8]}"
    files: list[JsonValue] = []
    for suffix, media_type, content in (
        ("md", "text/markdown", as_markdown(plan, plan_id).encode()),
        ("json", "application/json", encode_shown(shown)),
    ):
        artifact_id = await context.artifacts.save(
            f"{name}.{suffix}", media_type, content, description=f"The plan: {args.title}"
        )
        files.append({"artifact_id": artifact_id, "name": f"{name}.{suffix}"})
    count = len(plan.steps)
    summary = f"A plan of {count} step{'' if count == 1 else 's'}, saved as {plan_id}"
    return ToolOutput(summary, {**shown, "files": files})


def encode_shown(shown: JsonObject) -> bytes:
    """Return a result as a readable JSON document."""
    import json

    return (json.dumps(shown, ensure_ascii=False, indent=2) + "\n").encode()


def _step(context: ToolContext, args: StepArgs) -> Step:
    option = cited_option(context, args.option) if args.option else None
    return Step(
        id=args.id,
        what=args.what,
        owner_role=args.owner_role,
        effort=args.effort,
        validation=args.validation,
        rollback=args.rollback,
        depends_on=tuple(dict.fromkeys(args.depends_on)),
        option_id=option.id if option else "",
        tool_call_id=option.record.tool_call_id if option else "",
        saving_usd=number(option.data, "saving_usd") if option else None,
        saving_percent=number(option.data, "saving_percent") if option else None,
    )


def _plan_id(context: ToolContext) -> str:
    """Return the id of this call's plan: a call that runs again after a crash finds its plan there."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{context.run_id}\n{context.tool_call_id}"))
