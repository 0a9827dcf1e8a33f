"""The contract's own rules (protovalidate), so that a frame is refused for what the service would refuse."""

from google.protobuf.message import Message
from protovalidate import Violation as BrokenRule
from protovalidate import collect_violations

from ws_bridge.close_codes import Reason
from ws_bridge.frames import Failure, Violation

MAX_VIOLATIONS = 16
"""Violations that one error names."""
_CONTENT_REASONS = {
    "not_blank": (Reason.EMPTY_MESSAGE, "The message has no text. Write something and send it again."),
    "string.max_bytes": (Reason.MESSAGE_TOO_LARGE, "The message is too long. Shorten it, or upload it as a file."),
}


def broken_rules(message: Message, *, renamed: dict[str, str] | None = None) -> Failure | None:
    """Return why a request is invalid, or None. `renamed`: first field of a path → its name in JSON."""
    found = collect_violations(message)
    if not found:
        return None
    names = renamed or {}
    violations = tuple(Violation(_path(rule, names), _description(rule)) for rule in found[:MAX_VIOLATIONS])
    rule_id = found[0].proto.rule_id
    if violations[0].field == "content" and rule_id in _CONTENT_REASONS:
        reason, text = _CONTENT_REASONS[rule_id]
        return Failure(reason, text, violations=violations)
    return Failure(Reason.INVALID_ARGUMENT, invalid_message(violations), violations=violations)


def invalid_message(violations: tuple[Violation, ...]) -> str:
    """Return the text for the user."""
    first = violations[0]
    return f"The request is not valid: {first.field or 'it'}: {first.description}."


def _description(rule: BrokenRule) -> str:
    return rule.proto.message or f"breaks the rule {rule.proto.rule_id}"


def _path(rule: BrokenRule, renamed: dict[str, str]) -> str:
    """Return the path of a field: `settings.temperature`, `references[0].file_id`."""
    field = rule.proto.field
    parts: list[str] = []
    for element in field.elements if field is not None else []:
        name = element.field_name
        parts.append(renamed.get(name, name) if not parts else name)
        if element.subscript is not None:
            value = element.subscript.value
            parts[-1] += f'["{value}"]' if isinstance(value, str) else f"[{value}]"
    return ".".join(parts)
