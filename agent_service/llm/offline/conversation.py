"""What the offline model works on: a conversation so far, and what it says next. Plain values, no library's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from agent_service.engine.events import JsonObject, JsonValue


@dataclass(frozen=True, slots=True)
class Exchange:
    """A tool call and what came of it. `result` is None when it failed or was too large.

    Of an earlier step's call, `tool_call_id` is the id under which tools know it; of this step's own it is empty.
    """

    tool_name: str
    args: JsonObject
    status: str
    summary: str
    result: JsonObject | None
    error: str
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the model is asked.

    `request` is the person's message, `earlier` their earlier messages of the thread (oldest first). `findings` maps
    an agent to what it found, `evidence` an agent to its calls that ended well. `tools` are the tools on offer;
    `output_tool` is the one to answer through, with `output_fields`, where the answer must be typed.
    """

    request: str
    earlier: tuple[str, ...]
    now: datetime
    findings: Mapping[str, JsonObject]
    exchanges: tuple[Exchange, ...]
    tools: frozenset[str]
    output_tool: str = ""
    output_fields: frozenset[str] = frozenset()
    evidence: Mapping[str, tuple[Exchange, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Thought:
    """Visible reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class Words:
    """Text for people, Markdown."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A wish to call a tool, or to answer through the output tool."""

    tool_name: str
    args: JsonObject


Saying: TypeAlias = Thought | Words | Call


def child(value: JsonValue, *path: str) -> JsonValue:
    """Return what is at this path of nested objects, None where there is nothing."""
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def children(value: JsonValue, *path: str) -> Sequence[JsonObject]:
    """Return the objects in the list at this path, none where there is no list."""
    found = child(value, *path)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list | tuple) else []


def number(value: JsonValue, *path: str) -> float | None:
    """Return the number at this path, None where there is none. Whole numbers up to 2**53 stay exact."""
    found = child(value, *path)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def text(value: JsonValue, *path: str) -> str:
    """Return the text at this path, empty where there is none."""
    found = child(value, *path)
    return found if isinstance(found, str) else ""


def names(value: JsonValue, *path: str) -> list[str]:
    """Return the texts in the list at this path."""
    found = child(value, *path)
    return [item for item in found if isinstance(item, str)] if isinstance(found, list | tuple) else []
