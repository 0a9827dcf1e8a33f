"""Citing earlier calls of the run: what a tool builds on comes from their results, never from what a model types."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, Field

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolContext, ToolError, ToolRecord

MAX_NAMED: Final = 12
"""Calls or options that a refusal names."""

COMBINED: Final = ("best", "nearest")
"""Where a result keeps a combination of options: the one that meets every goal, or the nearest to that."""

CallId = Field(min_length=1, max_length=80, description="The tool_call_id of an earlier call of this run.")


class OptionCitation(BaseModel):
    """An option of an earlier optimization call."""

    tool_call_id: str = CallId
    option_id: str = Field(min_length=1, max_length=200, description="The option's id in that call's result.")


@dataclass(frozen=True, slots=True)
class Option:
    """A cited option: `data` is what the optimization tool computed."""

    record: ToolRecord
    data: JsonObject

    @property
    def id(self) -> str:
        """The option's id in its call."""
        return text(self.data, "id")

    @property
    def title(self) -> str:
        """What it is called; its id where it has no title."""
        return text(self.data, "title") or self.id


def cited(context: ToolContext, tool_call_id: str) -> ToolRecord:
    """Return the call of this run that is cited. Raises `ToolError` naming those that there are."""
    records = context.records()
    for record in records:
        if record.tool_call_id == tool_call_id:
            if record.result is None:
                raise ToolError(
                    f"The result of {record.tool_name} ({tool_call_id}) was too large to work with. Call it again for "
                    "less, for example with a smaller `top` or a shorter time range."
                )
            return record
    raise ToolError(f"There is no call {tool_call_id!r} in this run that ended well. {available(records)}")


def cited_option(context: ToolContext, citation: OptionCitation) -> Option:
    """Return the option that is cited. Raises `ToolError` naming those that there are."""
    record = cited(context, citation.tool_call_id)
    for option in options_of(record):
        if option.id == citation.option_id:
            return option
    known = [option.id for option in options_of(record)]
    has = f"It has: {', '.join(known[:MAX_NAMED])}." if known else "Its result holds no options at all."
    raise ToolError(f"The call {record.tool_call_id} ({record.tool_name}) has no option {citation.option_id!r}. {has}")


def options_of(record: ToolRecord) -> list[Option]:
    """Return the options that a call computed, a combination first; none where it computes something else."""
    combined = [found for key in COMBINED if isinstance(found := child(record.result, key), Mapping)]
    listed = [data for data in objects(record.result, "options") if "saving_usd" in data]
    return [Option(record, data) for data in [*combined, *listed]]


def available(records: Sequence[ToolRecord]) -> str:
    """Return which calls may be cited, in a sentence."""
    if not records:
        return "No tool has been called in this run yet: measure first, then cite."
    named = [f"{record.tool_call_id} ({record.tool_name})" for record in records[-MAX_NAMED:]]
    return f"These may be cited: {', '.join(named)}."


def child(value: JsonValue | None, *path: str) -> JsonValue:
    """Return what is at this path of nested objects, None where there is nothing."""
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def objects(value: JsonValue | None, *path: str) -> list[JsonObject]:
    """Return the objects in the list at this path, none where there is no list."""
    found = child(value, *path)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list | tuple) else []


def number(value: JsonValue | None, *path: str) -> float | None:
    """Return the number at this path, None where there is none."""
    found = child(value, *path)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def text(value: JsonValue | None, *path: str) -> str:
    """Return the text at this path, empty where there is none."""
    found = child(value, *path)
    return found if isinstance(found, str) else ""
