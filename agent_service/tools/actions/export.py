"""The tool export_policy: computed options become a router configuration file."""

from typing import Final

from pydantic import BaseModel, Field

from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.actions.policy import policy_of
from agent_service.tools.citations import OptionCitation, cited_option

MAX_OPTIONS: Final = 20
"""Of one policy."""

FILE_NAME: Final = "router-policy.json"


class ExportPolicyArgs(BaseModel):
    """Arguments of export_policy."""

    name: str = Field(default="router policy", min_length=1, max_length=200, description="What the policy is called.")
    options: list[OptionCitation] = Field(
        min_length=1,
        max_length=MAX_OPTIONS,
        description="The computed options to put into force, in the order in which their rules are tried.",
    )


async def export_policy(context: ToolContext, args: ExportPolicyArgs) -> ToolOutput:
    """Make the file."""
    options = [cited_option(context, citation) for citation in args.options]
    policy = policy_of(args.name, options)
    artifact_id = await context.artifacts.save(
        FILE_NAME, "application/json", policy.document(), description=f"Router configuration: {args.name}"
    )
    counts = {
        "routing": policy.rules,
        "cache": policy.cache,
        "prompt cache": policy.prompt_cache,
        "trim": policy.trim,
        "batch": policy.batch,
    }
    words = ", ".join(f"{len(parts)} {kind}" for kind, parts in counts.items() if parts)
    return ToolOutput(
        f"A policy with {words} rules, saved as {FILE_NAME}",
        {"artifact_id": artifact_id, "name": FILE_NAME, "policy": policy.model_dump(mode="json")},
    )
