"""A newer service's runs pass through everything of this version: nothing is lost, nothing falls over.

One run with new fields everywhere, a new kind of event and a new value goes the whole way: storage, service, gateway
call, bridge, socket, page, terminal.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from hypothesis import given

from agent_service.terminal import Client, Screen
from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.bridge_server import Frame, running_bridge
from tests.support.completeness import messages
from tests.support.face import LEASE_MS, Face, make_token, open_face, signed_in
from tests.support.gateway import open_gateway
from tests.support.newer_contract import NEW_FIELD, NEW_RPC, NEW_VALUE_NUMBER, set_field
from tests.support.newer_runs import ANSWER, NEWER, append, ending, future_event, future_value, log_of, thought
from tests.support.node import run_module
from tests.support.random_events import agent_events
from tests.support.raw_calls import attached_events, watch_run
from tests.support.rules import ID
from ws_bridge.close_codes import MEANINGS, Reason, meaning_of
from ws_bridge.items import SessionEnded
from ws_bridge.wire.events import EventTexts, event_json
from ws_bridge.wire.items import items_of
from ws_bridge.wire.values import time_text

PLAYER: Final = Path(__file__).parent / "play_frames.mjs"
USER: Final = "ann"
FUTURE_SEQ: Final = 3
KINDS: Final = ["agent_started", "agent_thinking", "unknown_event", "agent_progress", "partial_result"]


@dataclass(frozen=True)
class NewerRun:
    """A run of a newer service in the storage of this one."""

    face: Face
    run_id: str
    data: Sequence[bytes]


@pytest.fixture
async def newer_run() -> AsyncIterator[NewerRun]:
    async with open_face() as face:
        request = pb.StartRunRequest(run=pb.RunAgentRequest(content="Hi"))
        run_id = (await face.agents.StartRun(request, metadata=signed_in(USER))).run_id
        run = await face.storage.runs.claim_run(USER, run_id, "newer", lease_ms=LEASE_MS)
        assert run is not None
        middle = [thought(run, 2), future_event(run, FUTURE_SEQ), future_value(run, 4)]
        await append(face.storage, run, [*middle, *ending(run, 5)], ends=True)
        yield NewerRun(face, run_id, await log_of(face.storage, run))


# ── the messages ──


@given(agent_events())
def test_new_fields_are_kept_by_whoever_reads_and_writes_on(event: pb.AgentEvent) -> None:
    data = NEWER.event(event)
    read = pb.AgentEvent.FromString(data)
    assert read.SerializeToString(deterministic=True) == data
    read.DiscardUnknownFields()
    assert read == event


@given(agent_events())
def test_a_new_kind_of_event_is_kept_likewise(event: pb.AgentEvent) -> None:
    data = NEWER.future_event(event)
    read = pb.AgentEvent.FromString(data)
    assert read.WhichOneof("event") is None
    assert read.SerializeToString(deterministic=True) == data


@pytest.mark.parametrize("name", [kind.full_name.removeprefix("apex.agent.v1.") for kind in messages(pb.DESCRIPTOR)])
def test_every_message_keeps_what_it_does_not_know(name: str) -> None:
    newer = NEWER.new(name)
    setattr(newer, NEW_FIELD, "newer")
    kind: type[Message] = pb.AttachResponse.Item if "." in name else getattr(pb, name)
    read = kind.FromString(newer.SerializeToString())
    assert read.SerializeToString() == newer.SerializeToString() != b""


@given(agent_events())
def test_new_fields_do_not_change_an_events_text(event: pb.AgentEvent) -> None:
    assert event_json(pb.AgentEvent.FromString(NEWER.event(event))) == event_json(event)


# ── the service ──


async def test_the_service_hands_on_what_it_does_not_know(newer_run: NewerRun) -> None:
    face, run_id = newer_run.face, newer_run.run_id
    assert await watch_run(face.channel, signed_in(USER), run_id) == newer_run.data
    assert await attached_events(face.channel, make_token(USER), run_id) == newer_run.data


async def test_a_newer_clients_message_is_taken(newer_run: NewerRun) -> None:
    newer = NEWER.new("StartRunRequest", pb.StartRunRequest(run=pb.RunAgentRequest(content="Hi")).SerializeToString())
    setattr(newer, NEW_FIELD, "newer")
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = newer_run.face.channel.unary_unary(
        "/apex.agent.v1.AgentService/StartRun"
    )
    answer = await call(newer.SerializeToString(), metadata=signed_in(USER))
    assert pb.StartRunResponse.FromString(answer).run_id


async def test_a_call_that_the_service_does_not_know_says_so(newer_run: NewerRun) -> None:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = newer_run.face.channel.unary_unary(
        f"/apex.agent.v1.AgentService/{NEW_RPC}"
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", metadata=signed_in(USER))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_newer_gateways_request_does_not_end_its_call(newer_run: NewerRun) -> None:
    newer = NEWER.new("AttachRequest")
    set_field(newer, "future_request.message", "of the future")
    async with open_gateway(newer_run.face.sessions) as gateway:
        await gateway.signed_in(ID)
        await gateway.call.write(pb.AttachRequest.FromString(newer.SerializeToString()))
        refused = await gateway.expect("session_ended")
        assert (refused.session_id, refused.session_ended.reason) == ("", pb.ERROR_REASON_INVALID_ARGUMENT)
        await gateway.watch(ID, "w", newer_run.run_id)
        await gateway.expect("event", ID)


# ── the bridge and the page ──


async def frames_of(newer_run: NewerRun) -> list[Frame]:
    """Return the run as a socket's client gets it."""
    async with (
        running_bridge(f"127.0.0.1:{newer_run.face.port}") as bridge,
        bridge.socket(token=make_token(USER)) as client,
    ):
        await client.expect("connection_established")
        await client.send("resume", run_id=newer_run.run_id, after_seq=0)
        return await client.receive_until("agent_completed")


async def test_the_bridge_shows_the_envelope_of_an_event_that_it_does_not_know(newer_run: NewerRun) -> None:
    frames = await frames_of(newer_run)
    assert [frame["type"] for frame in frames] == [*KINDS, "final_response", "agent_completed"]
    assert [frame["seq"] for frame in frames] == list(range(1, 8))
    assert frames[FUTURE_SEQ - 1] == {
        "type": "unknown_event",
        "run_id": newer_run.run_id,
        "thread_id": frames[0]["thread_id"],
        "seq": FUTURE_SEQ,
        "attempt": 1,
        "agent_name": "data",
        "timestamp": time_text(pb.AgentEvent.FromString(newer_run.data[FUTURE_SEQ - 1]).emit_time),
        "payload": {},
    }
    assert frames[FUTURE_SEQ]["payload"]["stage"] == str(NEW_VALUE_NUMBER)


async def test_the_page_goes_on_over_what_it_does_not_know(newer_run: NewerRun) -> None:
    frames = await frames_of(newer_run)
    played = await asyncio.to_thread(run_module, PLAYER, {"run": frames})
    run = played["run"]["runs"][newer_run.run_id]
    assert (run["status"], run["cursor"], run["final"]["content"]) == ("completed", len(frames), ANSWER)
    assert [step["kind"] for step in run["steps"]] == ["thought", "other", str(NEW_VALUE_NUMBER)]
    assert played["run"]["owed"] == []


def test_an_item_that_the_bridge_does_not_know_is_nothing() -> None:
    newer = NEWER.new("AttachResponse.Item", pb.AttachResponse.Item(session_id=ID).SerializeToString())
    set_field(newer, "future_item.message", "of the future")
    assert not list(items_of([pb.AttachResponse.Item.FromString(newer.SerializeToString())], EventTexts()))


def test_a_reason_that_the_bridge_does_not_know_is_like_a_defect_of_the_service() -> None:
    newer = NEWER.new("AttachResponse.Item")
    set_field(newer, "session_ended.reason", NEW_VALUE_NUMBER)
    (item,) = items_of([pb.AttachResponse.Item.FromString(newer.SerializeToString())], EventTexts())
    assert isinstance(item, SessionEnded)
    assert item.failure is not None
    assert item.failure.reason == str(NEW_VALUE_NUMBER)
    assert meaning_of(item.failure.reason) == meaning_of("FUTURE") == MEANINGS[Reason.INTERNAL]


# ── the terminal ──


@pytest.mark.parametrize("as_json", [False, True], ids=["steps", "json"])
async def test_the_terminal_shows_the_rest(
    newer_run: NewerRun, capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    client = Client(newer_run.face.channel, make_token(USER), pytest.fail)
    screen = Screen(as_json=as_json)
    capsys.readouterr()
    async for event in client.replay(newer_run.run_id, 0):
        screen.show(event)
    assert screen.succeeded
    shown = capsys.readouterr().out
    assert ANSWER in shown
    if as_json:
        lines = [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
        assert [line["seq"] for line in lines] == list(range(1, len(newer_run.data) + 1))
