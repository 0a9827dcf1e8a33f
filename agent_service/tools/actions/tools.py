"""The actions agent's tools, as the registry takes them."""

from functools import partial

from pydantic import BaseModel

from agent_service.engine.events import Effect
from agent_service.engine.ports import Clock
from agent_service.engine.tool import Tool, define_tool
from agent_service.tools.actions.apply import ApplyPolicyArgs, apply_policy, reason_to_ask
from agent_service.tools.actions.create import CreateActionPlanArgs, create_action_plan
from agent_service.tools.actions.export import ExportPolicyArgs, export_policy
from agent_service.tools.actions.track import TrackActionArgs, track_action
from agent_service.tools.actions.webhook import Webhook
from storage.interfaces import ActionPlans, Files


def action_tools(
    plans: ActionPlans, files: Files, clock: Clock, webhook: Webhook | None
) -> tuple[Tool[BaseModel], ...]:
    """Return the tools. `webhook` is where policies are applied; None where nothing is configured.

    Then apply_policy changes nothing: it says what to configure, and nobody is asked about that.
    """
    return (
        define_tool(
            "create_action_plan",
            "Make an ordered plan of steps, save it, and export it as Markdown and JSON. The order follows from "
            "depends_on; a circle is refused. Savings come from the options that steps cite.",
            CreateActionPlanArgs,
            partial(create_action_plan, plans, clock),
            effect=Effect.IDEMPOTENT,
        ),
        define_tool(
            "track_action",
            "Show a saved plan and how far it is, or set the status and note of one of its steps.",
            TrackActionArgs,
            partial(track_action, plans, clock),
            effect=Effect.IDEMPOTENT,
        ),
        define_tool(
            "export_policy",
            "Export computed options as a router configuration file (JSON). Options are cited by tool_call_id and "
            "option_id; their rules are taken over as they were simulated.",
            ExportPolicyArgs,
            export_policy,
            effect=Effect.IDEMPOTENT,
        ),
        define_tool(
            "apply_policy",
            "Send an exported policy to the configured router, once. A person must approve it; live traffic changes.",
            ApplyPolicyArgs,
            partial(apply_policy, files, webhook, clock),
            effect=Effect.READ_ONLY if webhook is None else Effect.UNSAFE,
            needs_approval=None if webhook is None else partial(reason_to_ask, webhook),
        ),
    )
