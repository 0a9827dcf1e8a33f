"""A signed-in socket over a real server: order, resume, limits, slow peers, dead peers, expiry, draining."""

import asyncio
import contextlib
import json

import pytest
from websockets.exceptions import ConnectionClosed

from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.bridge_server import RunningBridge, running_bridge
from tests.support.scripted_service import ScriptedService, answer
from tests.support.waiting import eventually
from ws_bridge.app import Bounds
from ws_bridge.line import MAX_FRAGMENTS
from ws_bridge.outbox import OutboxLimits

ID = "11111111-1111-4111-8111-111111111111"


def piece(text: str) -> pb.AgentEvent:
    return pb.AgentEvent(partial_result=pb.PartialResult(message_id=ID, text=text))


async def test_the_ack_comes_before_the_first_event_and_events_in_order(
    bridge: RunningBridge, service: ScriptedService
) -> None:
    async with bridge.signed_in() as client:
        await client.send("user_message", content="Analyze my AI costs", message_id=ID)
        ack = await client.expect("ack")
        frames = await client.receive_until("agent_completed")

    run = service.only_run()
    assert ack == {
        "message_id": ID,
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "user_message_id": run.run_id,
        "already_existed": False,
    }
    assert [frame["seq"] for frame in frames] == [1, 2, 3, 4, 5]
    assert {frame["run_id"] for frame in frames} == {run.run_id}
    assert run.user_id == "alice"


async def test_an_event_arrives_before_the_next_one_is_made(bridge: RunningBridge, service: ScriptedService) -> None:
    service.script = []
    async with bridge.signed_in() as client:
        await client.send("user_message", content="Hi")
        await client.expect("ack")
        assert (await client.receive())["seq"] == 1
        for number in range(2, 6):
            await service.only_run().emit(piece("x"))
            assert (await client.receive())["seq"] == number


async def test_a_stop_right_after_its_message_works(bridge: RunningBridge, service: ScriptedService) -> None:
    service.script = []
    async with bridge.signed_in() as client:
        await client.send("user_message", content="Hi", message_id=ID)
        await client.send("stop_agent", message_id=ID)
        frames = await client.receive_until("agent_completed")

    assert frames[-1]["payload"]["status"] == "cancelled"
    assert [name for name, _ in service.calls] == ["StartRun", "CancelRun"]


async def test_a_repeated_message_is_only_acked(bridge: RunningBridge) -> None:
    async with bridge.signed_in() as client:
        await client.send("user_message", content="Hi", message_id=ID)
        await client.receive_until("agent_completed")
        await client.send("user_message", content="Hi", message_id=ID)
        assert (await client.expect("ack"))["already_existed"] is True
        await client.send("ping")
        await client.expect("pong")


async def test_another_socket_resumes_from_every_cursor(bridge: RunningBridge, service: ScriptedService) -> None:
    async with bridge.signed_in() as client:
        await client.send("user_message", content="Hi")
        frames = (await client.receive_until("agent_completed"))[1:]
    run_id = service.only_run().run_id

    for after_seq in range(len(frames)):
        async with bridge.signed_in() as client:
            await client.send("resume", run_id=run_id, after_seq=after_seq)
            assert await client.receive_until("agent_completed") == frames[after_seq:]


async def test_a_resume_of_somebody_elses_run_finds_nothing(bridge: RunningBridge, service: ScriptedService) -> None:
    async with bridge.signed_in("alice") as client:
        await client.send("user_message", content="Hi")
        await client.receive_until("agent_completed")
    async with bridge.signed_in("bob") as client:
        await client.send("resume", run_id=service.only_run().run_id)
        error = await client.expect("error")

    assert (error["code"], error["run_id"], error["request_type"]) == (
        "NOT_FOUND",
        service.only_run().run_id,
        "resume",
    )


async def test_sockets_of_many_users_get_their_own_frames_only(bridge: RunningBridge, service: ScriptedService) -> None:
    service.script = None

    async def ask(user: str) -> list[str]:
        async with bridge.signed_in(user) as client:
            await client.send("user_message", content=f"canary of {user}")
            await client.expect("ack")
            run = next(run for run in service.runs.values() if run.user_id == user)
            await run.emit(*answer(f"canary of {user}"))
            return [json.dumps(frame) for frame in await client.receive_until("agent_completed")]

    users = [f"user{number}" for number in range(10)]
    for user, frames in zip(users, await asyncio.gather(*map(ask, users)), strict=True):
        text = "".join(frames)
        assert f"canary of {user}" in text
        assert not any(f"canary of {other}" in text for other in users if other != user and not user.startswith(other))


async def test_two_sockets_of_a_user_see_the_same_text(bridge: RunningBridge, service: ScriptedService) -> None:
    async with bridge.signed_in() as first, bridge.signed_in() as second:
        await first.send("user_message", content="Hi")
        frames = (await first.receive_until("agent_completed"))[1:]
        await second.send("resume", run_id=service.only_run().run_id)
        assert await second.receive_until("agent_completed") == frames


async def test_active_runs_and_threads_are_told(bridge: RunningBridge, service: ScriptedService) -> None:
    service.script = []
    async with bridge.signed_in() as client:
        await client.send("user_message", content="Hi")
        await client.receive_until("agent_started")
        run = service.only_run()
        async with bridge.socket(token="token-alice") as other:
            established = await other.expect("connection_established")
            (session,) = [s for s in service.sessions.values() if s.session_id == established["connection_id"]]
            thread = pb.Thread(thread_id=run.thread_id, title="Costs")
            changed = pb.ThreadChanged(change=pb.THREAD_CHANGE_UPDATED, thread=thread)
            session.put(pb.AttachResponse.Item(thread_changed=changed))
            updated = await other.expect("thread_updated")

    assert established["active_runs"] == [
        {"run_id": run.run_id, "thread_id": run.thread_id, "last_seq": 1, "status": "running"}
    ]
    assert updated["thread"] == {
        "thread_id": run.thread_id,
        "title": "Costs",
        "create_time": None,
        "update_time": None,
    }


async def test_a_refused_start_is_an_error_that_names_the_message(bridge: RunningBridge) -> None:
    async with bridge.signed_in("limited") as client:
        await client.send("user_message", content="Hi", message_id=ID)
        error = await client.expect("error")

    assert error["code"] == "RATE_LIMITED"
    assert error["retryable"] is True
    assert error["retry_after_ms"] == 1200
    assert error["message_id"] == ID
    assert error["request_type"] == "user_message"
    assert error["error_id"] == "scripted-error"


async def test_an_exception_of_the_service_tells_nothing_of_itself(bridge: RunningBridge) -> None:
    async with bridge.signed_in() as client:
        await client.send("user_message", content="refuse me")
        error = await client.expect("error")

    assert error["code"] == "INTERNAL"
    assert "unknown exception" not in json.dumps(error)


@pytest.mark.parametrize(
    ("size", "code"), [(8192, "MALFORMED_JSON"), (8193, "MESSAGE_TOO_LARGE"), (65_536, "MESSAGE_TOO_LARGE")]
)
async def test_an_oversized_frame_is_refused_and_the_socket_stays(bridge: RunningBridge, size: int, code: str) -> None:
    async with bridge.signed_in() as client:
        await client.connection.send("x" * size)
        assert (await client.expect("error"))["code"] == code
        await client.send("ping")
        await client.expect("pong")


async def test_a_huge_frame_is_1009(bridge: RunningBridge) -> None:
    async with bridge.signed_in() as client:
        await client.connection.send("x" * 65_537)
        assert await client.closed() == 1009


async def test_a_binary_frame_is_4400(bridge: RunningBridge) -> None:
    async with bridge.signed_in() as client:
        await client.connection.send(b"{}")
        assert (await client.expect("error"))["code"] == "MALFORMED_JSON"
        assert await client.closed() == 4400


async def test_a_flood_is_4129(service: ScriptedService) -> None:
    async with running_bridge(service.target, max_frames_per_minute=5) as bridge, bridge.signed_in() as client:
        for _ in range(11):
            await client.send("ping")
        frames = [(await client.receive())["type"] for _ in range(11)]
        assert frames == ["pong"] * 5 + ["error"] * 6
        assert await client.closed() == 4129


async def test_a_slow_socket_is_4008_and_the_others_notice_nothing(service: ScriptedService) -> None:
    service.script = []
    bounds = Bounds(outbox=OutboxLimits(max_bytes=256 * 1024))
    async with (
        running_bridge(service.target, bounds=bounds) as bridge,
        bridge.signed_in() as slow,
        bridge.signed_in() as other,
    ):
        await slow.send("user_message", content="Hi")
        await slow.receive_until("agent_started")
        run = service.only_run()
        await other.send("resume", run_id=run.run_id)
        assert (await other.receive())["seq"] == 1
        closed = bridge.bridge.metrics.registry
        while not closed.get_sample_value("apex_bridge_sockets_closed_total", {"code": "4008"}):
            assert len(run.events) < 1000
            await run.emit(piece("x" * 60_000))
            assert (await other.receive())["seq"] == len(run.events)
        assert await slow.closed() == 4008
        await run.emit(piece("still here"))
        assert (await other.receive())["payload"]["text"] == "still here"


async def test_pings_of_a_peer_that_does_not_read_pile_up_nothing(bridge: RunningBridge) -> None:
    def masked(opcode: int, data: bytes) -> bytes:
        return bytes((0x80 | opcode, 0x80 | len(data))) + bytes(4) + data

    reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
    writer.write(
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{bridge.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Authorization: Bearer token-alice\r\n\r\n".encode()
    )
    try:
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(160):  # 20 MB: more than the kernel keeps for both sides
            writer.write(masked(0x9, b"x" * 125) * 1000)
            await writer.drain()
        writer.write(masked(0x1, b'{"type":"pong"}'))
        await eventually(lambda: frames_received(bridge) == 1, what="all pings handled")
        (protocol,) = bridge.server.server_state.connections
        assert protocol.transport.get_write_buffer_size() < 256 * 1024
    finally:
        writer.transport.abort()


def frames_received(bridge: RunningBridge) -> float | None:
    return bridge.bridge.metrics.registry.get_sample_value("apex_bridge_frames_received_total")


async def test_a_dead_peer_is_found_and_freed(service: ScriptedService) -> None:
    async with running_bridge(service.target, heartbeat_interval_s=0.2, heartbeat_timeout_s=0.4) as bridge:
        reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
        writer.write(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{bridge.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Authorization: Bearer token-alice\r\n\r\n".encode()
        )
        await eventually(lambda: len(service.sessions) == 1, what="signed in")
        # The peer reads, but never answers: no pong, no close.
        received = b""
        async with asyncio.timeout(10):
            while not received.endswith(b"no answer to pings"):
                received += await reader.read(65_536)
        assert b'"type":"ping"' in received
        assert (4001).to_bytes(2) in received
        await eventually(lambda: not service.sessions and not len(bridge.bridge.sockets), what="freed")
        assert not len(bridge.bridge.upstream)
        # It does not answer the close either: its connection is broken.
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                await reader.read()
        writer.close()


async def test_a_living_peer_is_kept_and_answers_probes(service: ScriptedService) -> None:
    async with (
        running_bridge(service.target, heartbeat_interval_s=0.1, heartbeat_timeout_s=0.3) as bridge,
        bridge.signed_in() as client,
    ):
        for _ in range(4):
            await client.expect("ping")
        (session,) = service.sessions.values()
        session.put(pb.AttachResponse.Item(session_probe=pb.SessionProbe(timeout_ms=2000)))
        await eventually(
            lambda: any(r.WhichOneof("request") == "session_alive" for r in service.requests), what="the probe's answer"
        )


async def test_an_expiring_token_is_renewed_on_the_living_socket(
    bridge: RunningBridge, service: ScriptedService
) -> None:
    async with bridge.signed_in() as client:
        (session,) = service.sessions.values()
        session.put(pb.AttachResponse.Item(session_expiring=pb.SessionExpiring(expires_in_ms=60_000)))
        assert await client.expect("auth_expiring") == {"expires_in_ms": 60_000}
        await client.send("authenticate", token="token-alice")
        await eventually(lambda: service.tokens == ["token-alice"] * 2, what="the renewal")


async def test_an_expired_token_is_4401_and_the_run_goes_on(bridge: RunningBridge, service: ScriptedService) -> None:
    service.script = []
    async with bridge.signed_in() as client:
        await client.send("user_message", content="Hi")
        await client.receive_until("agent_started")
        (session,) = service.sessions.values()
        session.end(pb.ERROR_REASON_TOKEN_EXPIRED, "The token has expired. Sign in again.")
        assert (await client.expect("error"))["code"] == "TOKEN_EXPIRED"
        assert await client.closed() == 4401
    assert not service.only_run().finished


async def test_an_idle_socket_is_closed(service: ScriptedService) -> None:
    async with running_bridge(service.target, connection_timeout_s=0.3) as bridge, bridge.signed_in() as client:
        assert await client.closed() == 1000


async def test_a_socket_that_leaves_is_told_to_the_service(bridge: RunningBridge, service: ScriptedService) -> None:
    async with bridge.signed_in():
        assert len(service.sessions) == 1
    await eventually(lambda: not service.sessions, what="the session is closed")


async def test_draining_tells_every_socket_when_to_come_back(service: ScriptedService) -> None:
    async with running_bridge(service.target) as bridge, bridge.signed_in() as first, bridge.signed_in() as second:
        bridge.server.should_exit = True
        for client in (first, second):
            assert 500 <= (await client.expect("server_draining"))["reconnect_after_ms"] <= 5000
            assert await client.closed() == 4000
        async with asyncio.timeout(10):
            await bridge.serving


async def test_a_message_comes_in_so_many_fragments_and_no_more(bridge: RunningBridge) -> None:
    ping = '{"type":"ping","payload":{}}'
    async with bridge.signed_in() as client:
        # The client library ends such a message with one more fragment, which is empty.
        await client.connection.send([ping, *[" "] * (MAX_FRAGMENTS - 2)])
        await client.expect("pong")
        with contextlib.suppress(ConnectionClosed):
            await client.connection.send([ping, *[""] * (MAX_FRAGMENTS - 1)])
        assert await client.closed() == 1009


async def test_a_decision_is_passed_on_and_seen_in_the_run(bridge: RunningBridge, service: ScriptedService) -> None:
    service.script = []
    async with bridge.signed_in() as client:
        await client.send("user_message", content="Hi")
        await client.expect("ack")
        run_id = service.only_run().run_id
        await client.send("resolve_approval", run_id=run_id, approval_id=ID, decision="reject", comment="Too dear.")
        resolved = (await client.receive_until("approval_resolved"))[-1]
        await client.send("resolve_approval", run_id=ID, approval_id=ID, decision="approve")
        refused = await client.expect("error")

    assert resolved["payload"] == {
        "approval_id": ID,
        "decision": "rejected",
        "decided_by": "alice",
        "comment": "Too dear.",
    }
    shown = [refused[name] for name in ("code", "request_type", "run_id")]
    assert shown == ["NOT_FOUND", "resolve_approval", ID]
