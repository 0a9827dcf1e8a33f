"""The contract's rules, checked on every request."""

from typing import Final

import protovalidate
from google.protobuf.message import Message

from agent_service.api.status import MAX_VIOLATIONS
from agent_service.engine.errors import ApexError, ErrorReason, Violation

CONTENT_REASONS: Final = {
    "not_blank": (ErrorReason.EMPTY_MESSAGE, "The message has no text. Write something and send it again."),
    "string.max_bytes": (ErrorReason.MESSAGE_TOO_LARGE, "The message is too long. Shorten it, or upload it as a file."),
}
"""Rules of a message's text that have a reason of their own, by rule id."""


def check(message: Message) -> None:
    """Raise `ApexError` with the violations if the message breaks a rule."""
    found = protovalidate.collect_violations(message)
    if not found:
        return
    violations = tuple(Violation(_path(item), item.proto.message) for item in found[:MAX_VIOLATIONS])
    reason, text = _reason(found, violations)
    raise ApexError(reason, text, violations=violations)


def _reason(found: list[protovalidate.Violation], violations: tuple[Violation, ...]) -> tuple[ErrorReason, str]:
    first, path = found[0].proto.rule_id, violations[0].field
    if path in {"content", "run.content"} and first in CONTENT_REASONS:
        return CONTENT_REASONS[first]
    return ErrorReason.INVALID_ARGUMENT, f"The request is not valid: {path or 'it'}: {violations[0].description}."


def _path(violation: protovalidate.Violation) -> str:
    """Return the field's path as `a.b[0].c["key"]`."""
    path = violation.proto.field
    if path is None:
        return ""
    text = ""
    for element in path.elements:
        text += f".{element.field_name}" if text else element.field_name
        if element.subscript is not None:
            key = element.subscript.value
            text += f'["{key}"]' if isinstance(key, str) else f"[{key}]"
    return text
