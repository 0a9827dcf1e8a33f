"""What was stored is readable for ever: recorded runs give the same events, texts and pages as on the day they ran."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio

from agent_service.api.wire import ProtoCodec
from agent_service.engine.run import RunState
from generated.apex.agent.v1 import agent_pb2 as pb
from storage.opening import open_storage
from tests.support.completeness import EVENT, choices
from tests.support.deployment import Deployment
from tests.support.face import Face, make_token, open_face, signed_in
from tests.support.grammar import check_frames, check_run
from tests.support.journals import FOLDER, SUFFIX, Journal, joined, read_journals, recorded_sums, split, store
from tests.support.node import run_module
from tests.support.raw_calls import attached_events, watch_run, watch_run_blocking
from ws_bridge.wire.events import event_json

JOURNALS: Final = read_journals()
EACH: Final = pytest.mark.parametrize("journal", JOURNALS.values(), ids=list(JOURNALS))
USER: Final = "ann"
PLAYER: Final = Path(__file__).parent / "play_frames.mjs"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def face() -> AsyncIterator[Face]:
    """A server over storage in memory that holds every journal."""
    async with open_face() as running:
        for journal in JOURNALS.values():
            await store(running.storage, journal, USER)
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The service as a process of its own, on an embedded database that held every journal before it started."""
    deployment = Deployment(tmp_path_factory.mktemp("journals"))

    async def fill() -> None:
        storage = await open_storage("", deployment.data_dir)
        for journal in JOURNALS.values():
            await store(storage, journal, USER)
        await storage.close()

    asyncio.run(fill())
    deployment.start_service()
    yield deployment
    assert deployment.service is not None
    deployment.service.terminate()


@pytest.fixture(scope="module")
def pages() -> Mapping[str, Mapping[str, Any]]:
    """What the page makes of every journal's frames."""
    played: Mapping[str, Mapping[str, Any]] = run_module(
        PLAYER, {name: list(journal.frames) for name, journal in JOURNALS.items()}
    )
    return played


# ── the files ──


def test_no_journal_has_changed_or_is_gone() -> None:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.glob(f"*{SUFFIX}")}
    assert found == recorded_sums()


def test_the_journals_hold_every_kind_of_event() -> None:
    kinds = {case for journal in JOURNALS.values() for case in journal.cases}
    assert kinds == set(choices(pb.DESCRIPTOR)[EVENT])


def test_the_journals_hold_every_value_that_an_event_can_have() -> None:
    """Reasons aside: there are many, and they all go the same way."""
    seen: dict[str, set[int]] = {}
    for event in (event for journal in JOURNALS.values() for event in journal.wire):
        body = getattr(event, event.WhichOneof("event") or "")
        for field in body.DESCRIPTOR.fields:
            if field.enum_type is not None and field.enum_type is not pb.ErrorReason.DESCRIPTOR:
                seen.setdefault(field.enum_type.name, set()).add(getattr(body, field.name))
    for name, numbers in seen.items():
        values = pb.DESCRIPTOR.enum_types_by_name[name].values
        assert numbers == {value.number for value in values if value.number}, name
    assert len(seen) == 6


@EACH
def test_a_file_is_its_events_each_after_its_length(journal: Journal) -> None:
    content = (FOLDER / f"{journal.name}{SUFFIX}").read_bytes()
    assert joined(split(content)) == content
    with pytest.raises(ValueError, match="cut off"):
        split(content[:-1])


# ── the events ──


@EACH
def test_a_stored_event_is_read_and_written_as_the_same_bytes(journal: Journal) -> None:
    codec = ProtoCodec()
    for data, wire, event in zip(journal.data, journal.wire, journal.events, strict=True):
        assert wire.SerializeToString(deterministic=True) == data
        assert codec.encode(event) == data


@EACH
def test_a_stored_run_keeps_to_the_grammar_in_both_forms(journal: Journal) -> None:
    check_run(journal.events)
    check_frames(journal.frames)


@EACH
def test_a_stored_run_can_be_folded(journal: Journal) -> None:
    state = RunState(journal.events[0].run_id, journal.events[0].thread_id)
    for event in journal.events:
        state.apply(event)
    assert state.ended
    assert state.open_tools == []
    assert state.last_seq == len(journal.data)


@EACH
def test_a_stored_event_is_still_the_same_text(journal: Journal, request: pytest.FixtureRequest) -> None:
    path = FOLDER / f"{journal.name}.frames.jsonl"
    text = b"".join(event_json(event) + b"\n" for event in journal.wire)
    if request.config.getoption("--update-scenarios"):
        path.write_bytes(text)
    assert text == path.read_bytes()


# ── the services ──


@EACH
@pytest.mark.asyncio(loop_scope="module")
async def test_a_service_replays_a_stored_run_byte_by_byte(face: Face, journal: Journal) -> None:
    run_id = journal.wire[0].run_id
    assert await watch_run(face.channel, signed_in(USER), run_id) == journal.data
    assert await attached_events(face.channel, make_token(USER), run_id) == journal.data
    half = len(journal.data) // 2
    assert await watch_run(face.channel, signed_in(USER), run_id, half) == journal.data[half:]


@EACH
def test_a_service_that_starts_on_an_old_database_replays_it_byte_by_byte(
    service: Deployment, journal: Journal
) -> None:
    metadata = (("authorization", f"Bearer {service.token(USER)}"),)
    with grpc.insecure_channel(service.grpc_target) as channel:
        assert watch_run_blocking(channel, metadata, journal.wire[0].run_id) == journal.data


# ── the page ──


@EACH
def test_the_page_makes_the_same_of_a_stored_run(
    pages: Mapping[str, Mapping[str, Any]], journal: Journal, request: pytest.FixtureRequest
) -> None:
    path = FOLDER / f"{journal.name}.page.json"
    played = pages[journal.name]
    (run,) = played["runs"].values()
    if request.config.getoption("--update-scenarios"):
        path.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert run == json.loads(path.read_text(encoding="utf-8"))
    assert run["cursor"] == len(journal.data)
    assert played["owed"] == []
