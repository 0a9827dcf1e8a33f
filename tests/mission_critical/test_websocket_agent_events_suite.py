"""What users rely on: the events of a run over a WebSocket, from real processes, on real sockets.

Runs with pytest, and by itself: `python tests/mission_critical/test_websocket_agent_events_suite.py`. Every event that
the product emits is named in an expected trace here: leaving out a single one turns the suite red.
"""

import asyncio
import base64
import json
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC
from typing import Final

import grpc.aio
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from websockets.exceptions import ConnectionClosed, InvalidStatus

from generated.apex.agent.v1 import agent_pb2, agent_pb2_grpc
from tests.support.bridge_server import Frame, SocketClient
from tests.support.clumsy_service_main import HANG, SILENT
from tests.support.deployment import SECRET, Deployment, OpenSocket
from tests.support.grammar import check_frames
from tests.support.scripted_service_main import SOCKET_NAME, script
from tests.support.tokens import make_token

TERMINAL: Final = ("agent_completed", "agent_error")
STOP_WITHIN_S: Final = 0.5 + 2.5
"""The contract's 500 ms, and what a busy machine needs to tell us."""

SLOW_SQL: Final = "SELECT count(*) FROM range(1000000) a, range(1000000) b"


@pytest.fixture(scope="module")
def apex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The product, as `apex up` starts it."""
    with Deployment(tmp_path_factory.mktemp("apex")) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The product with a supervisor that says each event when it is told to."""
    folder = tmp_path_factory.mktemp("prompted")
    with Deployment(folder, service_module="tests.support.scripted_service_main") as deployment:
        yield deployment


@pytest.fixture(scope="module")
def clumsy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The product with an agent that does what ours do not: write before it looks, find more than an event holds."""
    folder = tmp_path_factory.mktemp("clumsy")
    with Deployment(folder, service_module="tests.support.clumsy_service_main") as deployment:
        yield deployment


@asynccontextmanager
async def ready(apex: Deployment, user: str) -> AsyncIterator[SocketClient]:
    """Open a signed-in socket and take its first frame."""
    async with apex.socket(user) as socket:
        established = await socket.expect("connection_established")
        assert established["user_id"] == user
        yield socket


async def start(socket: SocketClient, content: str, kind: str = "user_message", **more: object) -> Frame:
    """Send a message and return its ack."""
    await socket.send(kind, content=content, **more)
    *before, answer = await socket.receive_until("ack", "error")
    assert answer["type"] == "ack", answer
    ack: Frame = answer["payload"]
    assert not [frame for frame in before if frame.get("run_id") == ack["run_id"]], "an event came before its ack"
    return ack


async def events_of(socket: SocketClient, run_id: str) -> list[Frame]:
    """Return a run's frames up to its end, other frames left out; the grammar holds."""
    events: list[Frame] = []
    while not events or events[-1]["type"] not in TERMINAL:
        frame = await socket.receive()
        if frame.get("run_id") == run_id:
            events.append(frame)
    check_frames(events)
    return events


async def ask(socket: SocketClient, content: str, kind: str = "user_message", **more: object) -> list[Frame]:
    """Send a message and return its run's frames."""
    ack = await start(socket, content, kind, **more)
    return await events_of(socket, ack["run_id"])


def trace(events: Sequence[Frame]) -> list[str]:
    """Return the run in words: one line per event, the streamed text as one line."""
    lines = [_line(event) for event in events]
    return [line for index, line in enumerate(lines) if index == 0 or line != "text" or lines[index - 1] != "text"]


def _line(event: Frame) -> str:  # noqa: PLR0911 - one line per kind of event
    payload = event["payload"]
    match event["type"]:
        case "agent_progress":
            return f"{event['agent_name']} {payload['stage']}{' discard' if payload['discard_partial'] else ''}"
        case "agent_thinking":
            return f"{event['agent_name']} thinks"
        case "agent_handoff":
            return f"{payload['from_agent']} → {payload['to_agent']}"
        case "tool_executing":
            return f"{payload['tool_name']} begins"
        case "tool_completed":
            return f"{payload['tool_name']} {payload['status']}"
        case "partial_result":
            return "text"
        case "agent_completed":
            return f"completed {payload['status']}"
        case "agent_error":
            return f"failed {payload['reason']}"
        case kind:
            return str(kind)


TRIAGE: Final = ["supervisor thinks", "supervisor → triage", "triage thinks"]
LOOK: Final = [
    "list_datasets begins",
    "describe_dataset begins",
    "list_datasets success",
    "describe_dataset success",
    "triage thinks",
]
PLAN: Final = ["supervisor classified", "supervisor planned"]
SUCCESS: Final = ["text", "final_response", "completed success"]


# ---- Every event, in order ----


async def test_an_analysis_shows_every_step(apex: Deployment) -> None:
    async with ready(apex, "analyst") as socket:
        events = await ask(socket, "Analyze my AI costs")

    lines = trace(events)
    # The two measurements run at once: between their first begin and their last end the order is theirs.
    first, last = lines.index("usage_summary begins"), lines.index("data thinks", lines.index("usage_summary begins"))
    measuring = lines[first:last]
    assert lines[:first] == ["agent_started", *TRIAGE, *LOOK, *PLAN, "triage → data", "supervisor step", "data thinks"]
    assert sorted(measuring) == [
        "cost_breakdown begins",
        "cost_breakdown success",
        "data tool",
        "data tool",
        "usage_summary begins",
        "usage_summary success",
    ]
    assert lines[last:] == ["data thinks", *SUCCESS]
    classified = next(event["payload"] for event in events if event["payload"].get("stage") == "classified")
    assert classified["intent"] == "cost_analysis"
    assert classified["confidence"] >= 0.85
    planned = next(event["payload"] for event in events if event["payload"].get("stage") == "planned")
    assert [step["agent_name"] for step in planned["planned_steps"]] == ["data"]
    pieces = [event["payload"]["text"] for event in events if event["type"] == "partial_result"]
    assert len(pieces) > 20
    assert "$96.85" in "".join(pieces)


async def test_a_greeting_needs_no_tool(apex: Deployment) -> None:
    async with ready(apex, "guest") as socket:
        events = await ask(socket, "Hello there")
    assert trace(events) == [
        "agent_started",
        *TRIAGE[:2],
        "triage thinks",
        *PLAN,
        "triage → supervisor",
        "supervisor step",
        *SUCCESS,
    ]


async def test_an_unclear_request_is_asked_about(apex: Deployment) -> None:
    async with ready(apex, "unclear") as socket:
        events = await ask(socket, "asdf ghjk")
    lines = trace(events)
    assert lines[-5:] == ["supervisor classified", "supervisor planned", *SUCCESS]
    assert events[-2]["payload"]["content"].rstrip().endswith("?")


async def test_a_named_agent_is_asked_directly(apex: Deployment) -> None:
    async with ready(apex, "direct") as socket:
        events = await ask(socket, "How many requests are there?", "start_agent", agent="data")
    lines = trace(events)
    assert lines[:4] == ["agent_started", "supervisor planned", "supervisor → data", "supervisor step"]
    assert lines[-3:] == SUCCESS


async def test_a_busy_thread_makes_the_next_message_wait(apex: Deployment) -> None:
    async with ready(apex, "patient") as socket:
        first = await start(socket, SLOW_SQL, "start_agent", agent="data")
        second = await start(socket, "Hello there", thread_id=first["thread_id"])
        await socket.send("stop_agent", run_id=first["run_id"])
        events = await events_of(socket, second["run_id"])
    assert trace(events)[:3] == ["agent_started", "supervisor queued", "supervisor thinks"]


async def test_stop_ends_a_running_tool_at_once(apex: Deployment) -> None:
    async with ready(apex, "stopper") as socket:
        ack = await start(socket, SLOW_SQL, "start_agent", agent="data", message_id=make_id())
        frames = await socket.receive_until("tool_executing")
        loop = asyncio.get_running_loop()
        asked = loop.time()
        await socket.send("stop_agent", message_id=ack["message_id"])
        frames += await socket.receive_until(*TERMINAL)
        assert loop.time() - asked < STOP_WITHIN_S
    events = [frame for frame in frames if frame.get("run_id") == ack["run_id"]]
    assert trace(events)[-2:] == ["query_dataset cancelled", "completed cancelled"]


async def test_a_step_that_takes_too_long_leaves_time_for_an_answer(apex: Deployment) -> None:
    async with ready(apex, "hasty") as socket:
        events = await ask(socket, SLOW_SQL, "start_agent", agent="data", settings={"timeout_ms": 1_000})
    lines = trace(events)
    end = lines.index("query_dataset cancelled")
    assert lines[end : end + 4] == [
        "query_dataset cancelled",
        "supervisor degraded",
        "data → reporting",
        "supervisor step",
    ]
    assert lines[-3:] == SUCCESS
    assert events[-2]["payload"]["degraded"]
    assert "did not finish" in events[-2]["payload"]["content"]


async def test_a_failure_is_an_event_with_advice(clumsy: Deployment) -> None:
    async with ready(clumsy, "failing") as socket:
        events = await ask(socket, HANG, "start_agent", agent="clumsy", settings={"timeout_ms": 1_000})
    assert trace(events)[-1] == "failed DEADLINE_EXCEEDED"
    assert events[-1]["payload"]["error_id"]
    assert events[-1]["payload"]["retryable"]
    assert events[-1]["payload"]["recovery_suggestions"]


async def test_a_killed_service_goes_on_with_the_run(apex: Deployment) -> None:
    async with ready(apex, "survivor") as socket:
        ack = await start(socket, "Analyze my AI costs")
        frames = await socket.receive_until("tool_executing")
        apex.kill_service()
        apex.start_service()
        frames += await socket.receive_until(*TERMINAL)
    events = [frame for frame in frames if frame.get("run_id") == ack["run_id"]]
    check_frames(events)
    assert "supervisor resumed" in trace(events)
    assert trace(events)[-3:] == SUCCESS
    assert {event["attempt"] for event in events} == {1, 2}
    statuses = [frame["payload"]["status"] for frame in frames if frame["type"] == "server_status"]
    assert statuses == ["degraded", "recovered"]


async def test_text_before_a_tool_is_taken_back_and_a_large_result_becomes_a_file(clumsy: Deployment) -> None:
    async with ready(clumsy, "clumsy") as socket:
        events = await ask(socket, "Tell me", "start_agent", agent="clumsy")
    assert trace(events) == [
        "agent_started",
        "supervisor planned",
        "supervisor → clumsy",
        "supervisor step",
        "text",
        "clumsy step discard",
        "clumsy thinks",
        "flood begins",
        "artifact_created",
        "flood success",
        *SUCCESS,
    ]
    artifact = next(event["payload"] for event in events if event["type"] == "artifact_created")
    kept = clumsy.request("GET", f"/api/v1/files/{artifact['artifact_id']}", "clumsy")
    assert kept["size_bytes"] == artifact["size_bytes"] > 32 * 1024
    assert events[-2]["payload"]["content"] == "I have looked."
    assert events[-2]["payload"]["artifact_ids"] == [artifact["artifact_id"]]


async def test_a_tool_is_never_the_first_that_is_seen(clumsy: Deployment) -> None:
    async with ready(clumsy, "silent") as socket:
        events = await ask(socket, f"Please {SILENT}", "start_agent", agent="clumsy")
    assert trace(events)[3:6] == ["supervisor step", "clumsy thinks", "flood begins"]


# ---- In real time ----


class Prompt:
    """Lets the scripted supervisor say one event more."""

    def __init__(self, writer: asyncio.StreamWriter, message: str) -> None:
        self._writer = writer
        self._message = message

    async def next(self) -> None:
        self._writer.write(f"{self._message}\n".encode())
        await self._writer.drain()


@asynccontextmanager
async def prompting(prompted: Deployment, message: str) -> AsyncIterator[Prompt]:
    _, writer = await asyncio.open_unix_connection(prompted.data_dir / SOCKET_NAME)
    try:
        yield Prompt(writer, message)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_every_kind_of_event_arrives_before_the_next_one_is_made(prompted: Deployment) -> None:
    message = "one by one"
    async with ready(prompted, "live") as socket, prompting(prompted, message) as prompt:
        ack = await start(socket, message)
        events = [await run_frame(socket, ack["run_id"])]
        for _ in script("", ""):
            await prompt.next()
            events.append(await run_frame(socket, ack["run_id"]))
        await prompt.next()
        events += [await run_frame(socket, ack["run_id"]), await run_frame(socket, ack["run_id"])]
    check_frames(events)
    assert {event["type"] for event in events} | {"agent_error"} == {
        field.name for field in agent_pb2.AgentEvent.DESCRIPTOR.oneofs_by_name["event"].fields
    }
    assert events[-2]["payload"]["content"] == "You said: one by one That is all."


async def test_an_answer_that_differs_from_its_stream_is_streamed_anew(prompted: Deployment) -> None:
    message = "rewrite it"
    async with ready(prompted, "rewriter") as socket, prompting(prompted, message) as prompt:
        ack = await start(socket, message)
        for _ in range(len(script("", "")) + 1):
            await prompt.next()
        events = await events_of(socket, ack["run_id"])
    assert trace(events)[-5:] == ["text", "supervisor step discard", *SUCCESS]


async def test_stop_resolves_a_waiting_approval(prompted: Deployment) -> None:
    message = "stop me"
    async with ready(prompted, "approver") as socket, prompting(prompted, message) as prompt:
        ack = await start(socket, message)
        frame = await run_frame(socket, ack["run_id"])
        while frame["type"] != "approval_requested":
            await prompt.next()
            frame = await run_frame(socket, ack["run_id"])
        await socket.send("stop_agent", run_id=ack["run_id"])
        resolved, completed = await run_frame(socket, ack["run_id"]), await run_frame(socket, ack["run_id"])
    assert (resolved["type"], resolved["payload"]["decision"]) == ("approval_resolved", "cancelled")
    assert completed["payload"]["status"] == "cancelled"


async def test_a_line_cut_after_every_event_of_a_live_run_loses_none(prompted: Deployment) -> None:
    message = "cut me"
    async with prompting(prompted, message) as prompt:
        async with ready(prompted, "cut") as socket:
            ack = await start(socket, message)
            events = [await run_frame(socket, ack["run_id"])]
        while events[-1]["type"] not in TERMINAL:
            async with prompted.socket("cut") as socket:
                await socket.expect("connection_established")
                await socket.send("resume", run_id=ack["run_id"], after_seq=events[-1]["seq"])
                if events[-1]["type"] != "final_response":
                    await prompt.next()
                events.append(await run_frame(socket, ack["run_id"]))
    check_frames(events)


async def run_frame(socket: SocketClient, run_id: str) -> Frame:
    """Return the next frame of a run."""
    while True:
        frame = await socket.receive()
        if frame.get("run_id") == run_id and "seq" in frame:
            return frame


# ---- Resume ----


async def test_a_finished_run_can_be_resumed_from_every_seq(apex: Deployment) -> None:
    async with ready(apex, "returning") as socket:
        ack = await start(socket, "Hello there")
        texts = await raw_events(socket, ack["run_id"])
    for after_seq in range(len(texts) + 1):
        async with ready(apex, "returning") as socket:
            await socket.send("resume", run_id=ack["run_id"], after_seq=after_seq)
            await socket.send("ping", nonce="done")
            again = await raw_events(socket, ack["run_id"]) if after_seq < len(texts) else []
            assert again == texts[after_seq:]


async def raw_events(socket: SocketClient, run_id: str) -> list[str]:
    """Return the text of each frame of a run up to its end."""
    texts: list[str] = []
    while True:
        text = await asyncio.wait_for(socket.connection.recv(), 10)
        assert isinstance(text, str)
        frame = json.loads(text)
        if frame.get("run_id") == run_id and "seq" in frame:
            texts.append(text)
            if frame["type"] in TERMINAL:
                return texts


async def test_a_cursor_beyond_the_log_and_a_foreign_run_are_refused(apex: Deployment) -> None:
    async with ready(apex, "owner") as socket:
        events = await ask(socket, "Hello there")
        run_id, last_seq = events[-1]["run_id"], events[-1]["seq"]
        await socket.send("resume", run_id=run_id, after_seq=last_seq + 1)
        assert (await socket.receive_until("error"))[-1]["payload"]["code"] == "CURSOR_AHEAD"
    async with ready(apex, "thief") as socket:
        await socket.send("resume", run_id=run_id, after_seq=0)
        assert (await socket.receive_until("error"))[-1]["payload"]["code"] == "NOT_FOUND"
        await socket.send("stop_agent", run_id=run_id)
        assert (await socket.receive_until("error"))[-1]["payload"]["code"] == "NOT_FOUND"


async def test_a_repeated_message_finds_its_run(apex: Deployment) -> None:
    message_id = make_id()
    async with ready(apex, "repeating") as socket:
        first = await start(socket, "Hello there", message_id=message_id)
        await events_of(socket, first["run_id"])
    async with ready(apex, "repeating") as socket:
        second = await start(socket, "Hello there", message_id=message_id)
        assert (second["run_id"], second["already_existed"]) == (first["run_id"], True)
        await socket.send("user_message", content="Something else", message_id=message_id)
        refused = (await socket.receive_until("error"))[-1]["payload"]
        assert (refused["code"], refused["message_id"]) == ("INVALID_ARGUMENT", message_id)


# ---- Many users ----


async def test_ten_users_at_once_see_nothing_of_each_other(apex: Deployment) -> None:
    users = [f"canary{number:02}" for number in range(10)]

    async def use(user: str) -> list[str]:
        rows = "".join(f"2026-01-01T00:00:0{n}Z,{user}-model,{n},1\n" for n in range(1, 6))
        content = f"timestamp,model,input_tokens,output_tokens\n{rows}".encode()
        file_id = await asyncio.to_thread(apex.upload, user, f"{user}.csv", content)
        texts: list[str] = []
        async with ready(apex, user) as socket:
            await socket.send("user_message", content=f"Summarize usage of {user}", references=[{"file_id": file_id}])
            while not texts or json.loads(texts[-1])["type"] not in TERMINAL:
                texts.append(str(await asyncio.wait_for(socket.connection.recv(), 30)))
        return texts

    for user, texts in zip(users, await asyncio.gather(*map(use, users)), strict=True):
        everything = "\n".join(texts)
        assert f"{user}.csv" in everything
        for other in set(users) - {user}:
            assert other not in everything
        events = [json.loads(text) for text in texts if "seq" in json.loads(text)]
        assert len({event["run_id"] for event in events}) == 1
        check_frames(events)


# ---- What does not belong on a socket ----


BAD_FRAMES: Final = {
    "malformed": ("{", "MALFORMED_JSON"),
    "not an object": ("[1, 2]", "MALFORMED_JSON"),
    "deeply nested": ("[" * 4_000 + "]" * 4_000, "MALFORMED_JSON"),
    "deeply nested context": (
        '{"type":"user_message","payload":{"content":"x","context":' + '{"a":' * 1_200 + "1" + "}" * 1_200 + "}}",
        "MALFORMED_JSON",
    ),
    "unknown type": ('{"type":"make_tea","payload":{}}', "UNKNOWN_TYPE"),
    "not there yet": ('{"type":"watch_thread","payload":{"thread_id":"x"}}', "UNKNOWN_TYPE"),
    "empty message": ('{"type":"user_message","payload":{"content":" \\n "}}', "EMPTY_MESSAGE"),
    "oversized": ('{"type":"ping","payload":{"nonce":"' + "x" * 8_192 + '"}}', "MESSAGE_TOO_LARGE"),
    "wrong field": ('{"type":"user_message","payload":{"content":"x","thread_id":"nobody"}}', "INVALID_ARGUMENT"),
}


@pytest.mark.parametrize(("text", "code"), BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
async def test_a_bad_frame_is_answered_and_the_socket_stays(apex: Deployment, text: str, code: str) -> None:
    async with ready(apex, "clumsy") as socket:
        await socket.connection.send(text)
        frame = await socket.receive()
        assert (frame["type"], frame["payload"]["code"]) == ("error", code)
        assert frame["payload"]["message"]
        await socket.send("ping", nonce="still here")
        assert (await socket.expect("pong"))["nonce"] == "still here"


async def test_the_largest_frame_is_taken_and_a_far_larger_one_closes(apex: Deployment) -> None:
    async with ready(apex, "large") as socket:
        shell = '{"type":"ping","payload":{"nonce":"%s"}}'
        await socket.connection.send(shell % ("x" * 64))
        assert (await socket.receive())["type"] == "pong"
        filler = " " * (8_192 - len(shell % "x"))
        await socket.connection.send((shell % "x") + filler)
        assert (await socket.receive())["type"] == "pong"
        with suppress(ConnectionClosed):
            await socket.connection.send("x" * 65_537)
        assert await socket.closed() == 1009


async def test_a_binary_frame_is_refused(apex: Deployment) -> None:
    async with ready(apex, "binary") as socket:
        await socket.connection.send(b"\x00\x01")
        frames = []
        with suppress(ConnectionClosed):
            frames.append(await socket.receive())
        assert frames[0]["type"] == "error"
        assert await socket.closed() == 4400


# ---- Tokens ----


def hostile_tokens() -> dict[str, str]:
    header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    good = make_token("mallory", secret=SECRET)
    claims = good.split(".")[1]
    return {
        "garbage": "not.a.token",
        "empty parts": "..",
        "another secret": make_token("mallory", secret="another secret, also with more than 32 bytes"),
        "no signature": f"{header}.{claims}.",
        "cut signature": good[:-4],
        "expired": make_token("mallory", secret=SECRET, lifetime_s=-1),
        "another issuer": make_token("mallory", secret=SECRET, claims={"iss": "evil"}),
        "another audience": make_token("mallory", secret=SECRET, claims={"aud": "evil"}),
        "no user": make_token("mallory", secret=SECRET, claims={"sub": None}),
        "no id": make_token("mallory", secret=SECRET, claims={"jti": None}),
        "no end": make_token("mallory", secret=SECRET, claims={"exp": None}),
        "a user that is a list": make_token("mallory", secret=SECRET, claims={"sub": ["mallory"]}),
        "very long": make_token("mallory", secret=SECRET, claims={"padding": "x" * 9_000}),
    }


@pytest.mark.parametrize(("name", "token"), hostile_tokens().items(), ids=hostile_tokens().keys())
async def test_a_hostile_token_is_refused(apex: Deployment, name: str, token: str) -> None:
    try:
        async with apex.socket(token=token) as socket:
            frame = await socket.receive()
            assert (frame["type"], frame["payload"]["code"]) in {
                ("error", "UNAUTHENTICATED"),
                ("error", "TOKEN_EXPIRED"),
            }
            assert token not in json.dumps(frame)
            assert await socket.closed() == 4401
    except InvalidStatus as refused:
        # Too long for a header: refused before it is a socket.
        if (name, refused.response.status_code) != ("very long", 431):
            raise


async def test_a_token_in_the_address_signs_nobody_in(apex: Deployment) -> None:
    url = f"{apex.url.replace('http', 'ws')}/ws?token={apex.token('query')}"
    async with OpenSocket(url, "nothing") as socket:
        assert (await socket.receive())["payload"]["code"] == "UNAUTHENTICATED"
        assert await socket.closed() == 4401


# ---- Both transports ----


async def test_the_events_over_grpc_are_the_frames_of_the_socket(apex: Deployment) -> None:
    async with ready(apex, "both") as socket:
        frames = await ask(socket, "Break down my cost by model")
    run_id = frames[0]["run_id"]
    metadata = (("authorization", f"Bearer {apex.token('both')}"),)
    async with grpc.aio.insecure_channel(apex.grpc_target) as channel:
        stub = agent_pb2_grpc.AgentServiceStub(channel)
        request = agent_pb2.WatchRunRequest(run_id=run_id)
        events = [event async for event in stub.WatchRun(request, metadata=metadata)]
        fresh = [
            event
            async for event in stub.RunAgent(
                agent_pb2.RunAgentRequest(content="Break down my cost by model"), metadata=metadata
            )
        ]
    assert [as_frame(event) for event in events] == frames
    check_frames([as_frame(event) for event in fresh])
    assert trace([as_frame(event) for event in fresh])[-3:] == trace(frames)[-3:]


def as_frame(event: agent_pb2.AgentEvent) -> Frame:
    """Return the frame that the contract says, by protobuf's own JSON and not by the bridge's mapping."""
    case = str(event.WhichOneof("event"))
    whole = json_format.MessageToDict(
        event, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    payload = whole.pop(case)
    whole["timestamp"] = event.emit_time.ToDatetime(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    del whole["emit_time"]
    body = getattr(event, case)
    return {**whole, "type": case, "payload": _mapped(body, payload)}


def _mapped(message: Message, payload: Frame) -> Frame:
    """Turn protobuf's JSON of one payload into the contract's: integers, enums, unset messages."""
    mapped: Frame = {}
    for field in message.DESCRIPTOR.fields:
        value = payload.get(field.name)
        if field.type in {field.TYPE_INT64, field.TYPE_UINT64}:
            value = int(str(value))
        elif field.enum_type is not None:
            name = field.enum_type.values_by_name[str(value)].name
            prefix = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
            value = name.removeprefix(prefix)
            value = value if field.enum_type.name == "ErrorReason" else value.lower()
        elif field.message_type is not None and field.message_type.full_name == "google.protobuf.Struct":
            value = _whole_numbers(value)
        elif field.message_type is not None and field.is_repeated:
            value = [_mapped(item, part) for item, part in zip(getattr(message, field.name), value or (), strict=True)]
        elif field.message_type is not None and value is not None:
            value = _mapped(getattr(message, field.name), value)
        mapped[field.name] = value
    return mapped


def _whole_numbers(value: object) -> object:
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def make_id() -> str:
    """Return a client's own message id."""
    return str(uuid.uuid4())


if __name__ == "__main__":
    # This file has imported by now what pytest would rewrite: it need not, and must not take that for a fault.
    sys.exit(pytest.main([__file__, "-q", "-W", "ignore::pytest.PytestAssertRewriteWarning", *sys.argv[1:]]))
