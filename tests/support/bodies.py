"""Event bodies as plain JSON and back, for scenario files: `{"type": "agent_thinking", "thought": "…"}`.

Fields that have their default are left out, so that a file shows what matters.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Final, get_args, get_type_hints

from agent_service.engine import events
from agent_service.engine.events import Body, PlannedStep, Usage

KINDS: Final = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower(): kind for kind in get_args(Body)}
_NAMES: Final = {kind: name for name, kind in KINDS.items()}


def body_to_json(body: Body) -> dict[str, object]:
    """Return the body as JSON."""
    return {"type": _NAMES[type(body)], **_fields_to_json(body)}


def body_from_json(data: Mapping[str, object]) -> Body:
    """Return the body that the JSON describes. Raises `TypeError` for what does not fit."""
    values = dict(data)
    kind = KINDS[str(values.pop("type"))]
    hints = get_type_hints(kind, vars(events))
    body: Body = kind(**{name: _from_json(hints[name], value) for name, value in values.items()})
    return body


def _fields_to_json(value: Body | PlannedStep | Usage) -> dict[str, object]:
    return {
        field.name: _to_json(getattr(value, field.name))
        for field in fields(value)
        if getattr(value, field.name) != _default(field)
    }


def _default(field: "Field[object]") -> object:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _to_json(value: object) -> object:
    if isinstance(value, Usage | PlannedStep):
        return _fields_to_json(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    return value


def _from_json(hint: object, value: object) -> object:
    if isinstance(value, list):
        item = get_args(hint)[0] if get_args(hint) else object
        return tuple(_from_json(item, entry) for entry in value)
    if hint is datetime:
        return datetime.fromisoformat(str(value))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if isinstance(hint, type) and is_dataclass(hint) and isinstance(value, Mapping):
        return hint(**value)
    return value
