"""Commands: contract ↔ domain. Ids become lower case, so that one id has one spelling inside."""

from typing import Final

from agent_service.api.wire_values import EnumMap, from_struct, to_struct
from agent_service.engine.approvals import Verdict
from agent_service.engine.commands import Reference, RunCommand, RunSettings
from agent_service.engine.errors import ApexError, ErrorReason, Violation
from agent_service.engine.events import ApprovalDecision
from agent_service.engine.translation import invalid
from generated.apex.agent.v1 import agent_pb2 as pb
from storage.records import ThreadConflict

CONFLICTS: Final = EnumMap(ThreadConflict, pb.ConflictPolicy, "CONFLICT_POLICY")

MAX_CONTEXT_BYTES: Final = 32_768
"""Of a message's context, encoded; the one limit of the contract that a rule cannot count."""


CHOICES: Final = {
    pb.APPROVAL_CHOICE_APPROVE: ApprovalDecision.APPROVED,
    pb.APPROVAL_CHOICE_REJECT: ApprovalDecision.REJECTED,
    pb.APPROVAL_CHOICE_EDIT: ApprovalDecision.EDITED,
}
"""What each choice of a person becomes. That there is no other, the contract's rules have checked."""

MAX_ARGS_BYTES: Final = 32_768
"""Of edited arguments, encoded; likewise no rule can count them."""


def verdict_to_domain(wire: pb.ResolveApprovalRequest) -> Verdict:
    """Return what a person says about a call. Raises `ApexError(INVALID_ARGUMENT)` for arguments that are too large."""
    if wire.edited_args.ByteSize() > MAX_ARGS_BYTES:
        raise invalid("edited_args", f"must be at most {MAX_ARGS_BYTES} bytes encoded")
    edited = from_struct(wire.edited_args) if wire.HasField("edited_args") else None
    return Verdict(CHOICES[wire.decision], wire.comment, edited)


def command_to_domain(wire: pb.RunAgentRequest) -> RunCommand:
    """Return the domain's command. Raises `ApexError(INVALID_ARGUMENT)` for a context that is too large."""
    if wire.context.ByteSize() > MAX_CONTEXT_BYTES:
        violation = Violation("context", f"must be at most {MAX_CONTEXT_BYTES} bytes encoded")
        raise ApexError(ErrorReason.INVALID_ARGUMENT, "The context is too large.", violations=(violation,))
    return RunCommand(
        content=wire.content,
        thread_id=wire.thread_id.lower(),
        client_message_id=wire.client_message_id.lower(),
        agent=wire.agent,
        context=from_struct(wire.context),
        settings=_settings_to_domain(wire.settings),
        references=tuple(_reference_to_domain(reference) for reference in wire.references),
        conflict=CONFLICTS.to_domain_or(wire.conflict_policy, ThreadConflict.ENQUEUE),
    )


def command_to_wire(command: RunCommand) -> pb.RunAgentRequest:
    """Return the contract's message. `on_disconnect` belongs to the stream, not to the run, and is not part of it."""
    return pb.RunAgentRequest(
        thread_id=command.thread_id,
        content=command.content,
        client_message_id=command.client_message_id,
        agent=command.agent,
        context=to_struct(command.context) if command.context else None,
        settings=_settings_to_wire(command.settings),
        references=[_reference_to_wire(reference) for reference in command.references],
        conflict_policy=CONFLICTS.to_wire(command.conflict),
    )


def _settings_to_domain(wire: pb.RunSettings) -> RunSettings:
    return RunSettings(
        model=wire.model,
        temperature=wire.temperature if wire.HasField("temperature") else None,
        max_output_tokens=wire.max_output_tokens if wire.HasField("max_output_tokens") else None,
        timeout_ms=wire.timeout_ms or None,
        budget_usd=wire.budget_usd if wire.HasField("budget_usd") else None,
        require_approval=wire.require_approval,
        use_cache=wire.use_cache if wire.HasField("use_cache") else True,
    )


def _settings_to_wire(settings: RunSettings) -> pb.RunSettings:
    return pb.RunSettings(
        model=settings.model,
        temperature=settings.temperature,
        max_output_tokens=settings.max_output_tokens,
        timeout_ms=settings.timeout_ms or 0,
        budget_usd=settings.budget_usd,
        require_approval=settings.require_approval,
        use_cache=settings.use_cache,
    )


def _reference_to_domain(wire: pb.Reference) -> Reference:
    return Reference(wire.file_id.lower(), wire.message_id.lower(), wire.corpus_id.lower())


def _reference_to_wire(reference: Reference) -> pb.Reference:
    if reference.file_id:
        return pb.Reference(file_id=reference.file_id)
    if reference.message_id:
        return pb.Reference(message_id=reference.message_id)
    return pb.Reference(corpus_id=reference.corpus_id)
