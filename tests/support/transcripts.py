"""What a run tells, written down so that two runs of the same request over the same data read the same.

One JSON object a line: the agent, the event, what is in it. Ids have names in the order of their appearance, times of
the wall clock are gone, as are how long things took. Calls of one turn run at the same time, and so their events come
as they come: here they stand in the order of the calls.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Final

from agent_service.engine.events import (
    AgentProgress,
    ArtifactCreated,
    Event,
    PartialResult,
    ProgressStage,
    ToolCompleted,
    ToolExecuting,
)

MAX_RESULT_CHARACTERS: Final = 600
"""Of a tool's result that is shown whole; of a longer one there is its hash. The tools' own tests look into results."""

_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SHORT_ID: Final = re.compile(r"(?<=action-plan-)[0-9a-f]{8}")
_EMPTY: Final = ("", 0, None, ())
_DROPPED: Final = frozenset({"execution_time_ms"})
_PACKED: Final = frozenset({"application/pdf"})
"""Media types whose size depends on how well ids can be compressed."""


def transcript(events: Sequence[Event]) -> str:
    """Return the run in lines."""
    names = _Names()
    lines = [names.replace(json.dumps(_plain(event), ensure_ascii=False, sort_keys=True)) for event in _told(events)]
    return "".join(f"{_short(line)}\n" for line in lines)


def _told(events: Sequence[Event]) -> Iterable[Event]:
    """Yield the events of calls in the calls' order, and of a streamed text the first piece only."""
    for kind, group in groupby(events, key=_kind):
        found = list(group)
        match kind:
            case "calls":
                yield from sorted(filter(_is_certain, found), key=_place)
            case "text":
                yield found[0]
            case _:
                yield from found


def _kind(event: Event) -> str:
    match event.body:
        case ToolExecuting() | ToolCompleted() | ArtifactCreated() | AgentProgress(stage=ProgressStage.TOOL):
            return "calls"
        case PartialResult():
            return "text"
        case _:
            return "other"


def _is_certain(event: Event) -> bool:
    """False for word that a call waits for another one: whether it has to is a matter of time."""
    return not (isinstance(event.body, AgentProgress) and event.body.message.startswith("Waiting for "))


def _place(event: Event) -> tuple[int, int, str]:
    match event.body:
        case ToolExecuting(tool_call_id=call_id):
            return 0, _number(call_id), ""
        case AgentProgress(tool_call_id=call_id, fraction=fraction):
            return 1, _number(call_id), f"{fraction:.3f}"
        case ArtifactCreated(name=name):
            return 2, 0, _SHORT_ID.sub("", name)
        case ToolCompleted(tool_call_id=call_id):
            return 3, _number(call_id), ""
        case _:
            raise AssertionError(event)


def _number(call_id: str) -> int:
    return int(call_id.rpartition(".c")[2])


def _plain(event: Event) -> dict[str, object]:
    body = {name: value for name, value in asdict(event.body).items() if value not in _EMPTY and name not in _DROPPED}
    match event.body:
        case PartialResult():
            body = {"text": "…"}
        case ArtifactCreated(media_type=media_type) if media_type in _PACKED:
            body.pop("size_bytes")
        case _:
            pass
    return {"agent": event.agent_name, "event": type(event.body).__name__, **body}


class _Names:
    """Names for ids, in the order of their appearance."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def replace(self, line: str) -> str:
        """Return the line with names for its ids; the beginning of an id in a file's name is one, too."""
        return _SHORT_ID.sub(self._name, _ID.sub(self._name, line))

    def _name(self, found: re.Match[str]) -> str:
        return self._names.setdefault(found[0], f"id-{len(self._names) + 1}")


def _short(line: str) -> str:
    """Return the line with the hash of a long result in its place, and its files in the order of their names here."""
    told = json.loads(line)
    if "artifact_ids" in told:
        told["artifact_ids"].sort(key=lambda name: int(name.removeprefix("id-")))
    result = json.dumps(told.get("result"), ensure_ascii=False, sort_keys=True)
    if len(result) > MAX_RESULT_CHARACTERS:
        told["result"] = f"{len(result)} characters, SHA-256 {hashlib.sha256(result.encode()).hexdigest()[:16]}"
    return json.dumps(told, ensure_ascii=False, sort_keys=True)
