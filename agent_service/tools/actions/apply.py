"""The tool apply_policy: sends an exported policy to the router that this deployment is configured with."""

from typing import Final

from pydantic import BaseModel, Field

from agent_service.engine.ports import Clock
from agent_service.engine.tool import ToolContext, ToolError, ToolOutput
from agent_service.tools.actions.policy import read_policy
from agent_service.tools.actions.webhook import Answer, Webhook, send
from agent_service.tools.citations import text
from storage.errors import RecordNotFoundError
from storage.interfaces import Files

MAX_POLICY_BYTES: Final = 256 * 1024
"""Of a policy that is sent."""

NOT_CONFIGURED: Final = (
    "No webhook is configured, so the policy cannot be applied from here. Set APEX_POLICY_WEBHOOK_URL and "
    "APEX_POLICY_WEBHOOK_SECRET, or download the exported policy and put it into your router yourself."
)


class ApplyPolicyArgs(BaseModel):
    """Arguments of apply_policy."""

    policy: str = Field(
        min_length=1,
        max_length=80,
        description="The artifact id of an exported policy, or the tool_call_id of an export_policy call of this run.",
    )


def reason_to_ask(webhook: Webhook, args: ApplyPolicyArgs) -> str:
    """Return why a person must decide."""
    return f"This sends the policy {args.policy} to {webhook.host} and changes how live requests are routed there."


async def apply_policy(
    files: Files, webhook: Webhook | None, clock: Clock, context: ToolContext, args: ApplyPolicyArgs
) -> ToolOutput:
    """Send the file as it is, once."""
    if webhook is None:
        raise ToolError(NOT_CONFIGURED)
    artifact_id = _artifact_id(context, args.policy)
    body = await _content(files, context.user_id, artifact_id)
    policy = read_policy(body)
    if policy is None:
        raise ToolError(f"The file {artifact_id} is no policy that export_policy made. Export one, then apply that.")
    # A call's id is unique in its run; the other side knows runs of many.
    key = f"{context.run_id}.{context.tool_call_id}"
    answer = await send(webhook, body, key=key, now=clock.now())
    _accepted(webhook, answer, key)
    said = f": “{answer.words}”" if answer.words else ""
    return ToolOutput(
        f"{webhook.host} took the policy “{policy.name}” (HTTP {answer.status}){said}",
        {
            "host": webhook.host,
            "policy": policy.name,
            "artifact_id": artifact_id,
            "status": answer.status,
            "answer": answer.words,
            "idempotency_key": key,
        },
    )


def _artifact_id(context: ToolContext, policy: str) -> str:
    for record in context.records():
        if record.tool_call_id == policy and record.tool_name == "export_policy":
            return text(record.result, "artifact_id") or record.artifact_id
    return policy


async def _content(files: Files, user_id: str, artifact_id: str) -> bytes:
    missing = ToolError(f"There is no exported policy {artifact_id!r}. Export one with export_policy first.")
    try:
        record = await files.get(user_id, artifact_id)
        if record.run_id is None or record.size_bytes > MAX_POLICY_BYTES:
            # What people upload is data: only what a run exported from computed options is ever sent.
            raise missing
        return b"".join([piece async for piece in files.read(user_id, artifact_id)])
    except RecordNotFoundError:
        raise missing from None


def _accepted(webhook: Webhook, answer: Answer, key: str) -> None:
    """Raise `ToolError` unless the other side took the policy."""
    said = f" It says: “{answer.words}”." if answer.words else ""
    match answer.status // 100:
        case 2:
            return
        case 3:
            what = f"{webhook.host} answered with a redirect (HTTP {answer.status}), which is not followed."
            raise ToolError(f"{what} Set APEX_POLICY_WEBHOOK_URL to the final address.")
        case 4:
            raise ToolError(f"{webhook.host} refused the policy (HTTP {answer.status}).{said} It is not in force.")
        case _:
            what = f"{webhook.host} failed (HTTP {answer.status}), and nobody knows whether the policy is in force."
            raise ToolError(f"{what}{said} Look there before anything is sent again; its Idempotency-Key is {key}.")
