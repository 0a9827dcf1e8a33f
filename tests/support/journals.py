"""Journals: the events of recorded runs, as they were committed. The files are in tests/data/journals, see there."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from functools import cached_property
from pathlib import Path
from typing import Final

from agent_service.api.framing import LOW_BITS, varint
from agent_service.api.wire import ProtoCodec
from agent_service.engine.events import Event
from generated.apex.agent.v1 import agent_pb2 as pb
from storage.interfaces import Storage
from storage.records import AppendOutcome, Ending, RunStatus, StoredEvent
from tests.support.storage import a_run, an_append, working
from ws_bridge.wire.events import event_json
from ws_bridge.wire.values import reason_of

FOLDER: Final = Path(__file__).parents[1] / "data" / "journals"
SUMS: Final = FOLDER / "SHA256SUMS"
SUFFIX: Final = ".journal"


@dataclass(frozen=True)
class Journal:
    """One run. `data` are its encoded events in order."""

    name: str
    data: Sequence[bytes]

    @cached_property
    def wire(self) -> Sequence[pb.AgentEvent]:
        """The events as the contract has them."""
        return [pb.AgentEvent.FromString(data) for data in self.data]

    @cached_property
    def cases(self) -> set[str]:
        """The kinds of its events."""
        return {event.WhichOneof("event") or "" for event in self.wire}

    @cached_property
    def events(self) -> Sequence[Event]:
        """The events as the engine has them."""
        codec = ProtoCodec()
        return [codec.decode(data) for data in self.data]

    @cached_property
    def frames(self) -> Sequence[Mapping[str, object]]:
        """The events as a socket's client gets them."""
        return [json.loads(event_json(event)) for event in self.wire]


def read_journals() -> Mapping[str, Journal]:
    """Return every committed journal by its name."""
    return {path.stem: Journal(path.stem, split(path.read_bytes())) for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}


def add_journal(name: str, data: Sequence[bytes]) -> None:
    """Write a new journal. Raises `FileExistsError` for one that is there: what was recorded stays as it is."""
    content = joined(data)
    with (FOLDER / f"{name}{SUFFIX}").open("xb") as file:
        file.write(content)
    with SUMS.open("a", encoding="utf-8") as sums:
        sums.write(f"{hashlib.sha256(content).hexdigest()}  {name}{SUFFIX}\n")


def recorded_sums() -> Mapping[str, str]:
    """Return the SHA-256 that each journal had when it was recorded, by file name."""
    lines = [line.split("  ") for line in SUMS.read_text(encoding="utf-8").splitlines()]
    return {name: digest for digest, name in lines}


def joined(data: Sequence[bytes]) -> bytes:
    """Return events as one file holds them: each after its length, a varint."""
    return b"".join(varint(len(one)) + one for one in data)


def split(content: bytes) -> list[bytes]:
    """Return the events of a file. Raises `ValueError` when it was cut off."""
    data: list[bytes] = []
    place = 0
    while place < len(content):
        length, shift = 0, 0
        while True:
            byte = content[place]
            place += 1
            length |= (byte & LOW_BITS) << shift
            shift += 7
            if byte <= LOW_BITS:
                break
        if place + length > len(content):
            raise ValueError("the journal was cut off")
        data.append(content[place : place + length])
        place += length
    return data


async def store(storage: Storage, journal: Journal, user_id: str) -> None:
    """Put a finished run into a storage as its workers did: accepted, claimed, its events appended with the end."""
    first, last = journal.wire[0], journal.wire[-1]
    new = replace(
        a_run(user_id),
        run_id=first.run_id,
        thread_id=first.thread_id,
        started=journal.data[0],
        queued=journal.data[1],
        must_wait=journal.wire[1].agent_progress.stage == pb.PROGRESS_STAGE_QUEUED,
    )
    run = await working(storage, new)
    events = [
        StoredEvent(run.run_id, event.seq, data, terminal=event is last)
        for event, data in zip(journal.wire, journal.data, strict=True)
    ]
    append = replace(an_append(run), events=events[run.last_seq :], ending=_ending(last))
    assert await storage.events.append([append]) == [AppendOutcome.APPENDED]


def _ending(last: pb.AgentEvent) -> Ending:
    """Return the end that goes with a terminal event."""
    now = last.emit_time.ToDatetime(tzinfo=UTC)
    if last.HasField("agent_error"):
        return Ending(RunStatus.FAILED, now, error_reason=reason_of(last.agent_error.reason))
    succeeded = last.agent_completed.status == pb.COMPLETION_STATUS_SUCCESS
    return Ending(RunStatus.COMPLETED if succeeded else RunStatus.CANCELLED, now)
