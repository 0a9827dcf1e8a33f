"""The service goes away and comes back: sockets stay, are told, and miss nothing."""

from contextlib import AsyncExitStack

import grpc
import httpx

from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.bridge_server import RunningBridge, running_bridge
from tests.support.scripted_service import ScriptedService, answer
from tests.support.waiting import eventually
from ws_bridge.app import Bounds

ID = "11111111-1111-4111-8111-111111111111"


async def status(bridge: RunningBridge, path: str) -> int:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{bridge.url}{path}")).status_code


async def test_a_run_goes_on_where_it_was(bridge: RunningBridge, service: ScriptedService) -> None:
    service.script = []
    async with bridge.signed_in() as client, bridge.signed_in() as idle:
        await client.send("user_message", content="Hi")
        assert [f["type"] for f in await client.receive_until("agent_started")] == ["ack", "agent_started"]
        await service.stop()
        assert (await client.expect("server_status"))["status"] == "degraded"
        assert (await idle.expect("server_status"))["status"] == "degraded"
        assert (await status(bridge, "/readyz"), await status(bridge, "/healthz")) == (503, 200)
        await client.send("ping", nonce=1)
        await client.expect("pong")

        run = service.only_run()
        thinking, *rest = answer("Forty-two.")
        await run.emit(thinking)
        await service.start()
        assert (await client.expect("server_status"))["status"] == "recovered"
        assert (await idle.expect("server_status"))["status"] == "recovered"
        await run.emit(*rest)
        frames = await client.receive_until("agent_completed")

    assert [frame["seq"] for frame in frames] == [2, 3, 4, 5]
    assert service.tokens == ["token-alice"] * 4


async def test_it_may_go_away_again_and_again(bridge: RunningBridge, service: ScriptedService) -> None:
    service.script = []
    async with bridge.signed_in() as client:
        await client.send("user_message", content="Hi")
        frames = await client.receive_until("agent_started")
        for body in answer("Forty-two."):
            await service.stop()
            await client.receive_until("server_status")
            await service.only_run().emit(body)
            await service.start()
            assert (await client.expect("server_status"))["status"] == "recovered"
            frames.append(await client.receive())

    assert [frame["seq"] for frame in frames[1:]] == [1, 2, 3, 4, 5]


async def test_a_start_whose_answer_is_lost_is_made_again_under_the_same_id(
    bridge: RunningBridge, service: ScriptedService
) -> None:
    service.lose_starts = 2
    async with bridge.signed_in() as client:
        await client.send("user_message", content="Hi")
        ack = await client.expect("ack")
        await client.receive_until("agent_completed")

    starts = [request for name, request in service.calls if name == "StartRun"]
    assert len(starts) == 3
    assert all(request == starts[0] for request in starts)
    assert ack["message_id"] == service.only_run().request.client_message_id


async def test_a_message_sent_while_the_service_is_away_is_done_when_it_is_back(
    bridge: RunningBridge, service: ScriptedService
) -> None:
    async with bridge.signed_in() as client:
        await service.stop()
        await client.expect("server_status")
        await client.send("user_message", content="Hi")
        await client.send("stop_agent", message_id=ID)
        await service.start()
        frames = await client.receive_until("agent_completed")

    assert {"ack", "server_status", "agent_started"} <= {frame["type"] for frame in frames}


async def test_after_a_while_the_message_is_refused_as_retryable(service: ScriptedService) -> None:
    async with running_bridge(service.target, bounds=Bounds(retry_ms=300)) as bridge, bridge.signed_in() as client:
        await service.stop()
        await client.expect("server_status")
        await client.send("user_message", content="Hi", message_id=ID)
        error = await client.expect("error")
        assert (error["code"], error["retryable"], error["message_id"]) == ("SERVICE_UNAVAILABLE", True, ID)
        await service.start()


async def test_a_definite_refusal_is_not_repeated(bridge: RunningBridge, service: ScriptedService) -> None:
    service.fail_starts = [grpc.StatusCode.FAILED_PRECONDITION]
    async with bridge.signed_in() as client:
        await client.send("user_message", content="Hi")
        await client.expect("error")
    assert [name for name, _ in service.calls] == ["StartRun"]


async def test_a_socket_that_comes_while_the_service_is_away_waits_for_it(service: ScriptedService) -> None:
    async with running_bridge(service.target) as bridge:
        await service.stop()
        await eventually(lambda: not bridge.bridge.ready, what="the bridge has noticed")
        async with bridge.socket(token="token-alice") as client:
            await client.send("ping")
            await service.start()
            await client.expect("connection_established")
            await client.expect("pong")


async def test_and_is_told_to_come_back_when_that_takes_too_long(service: ScriptedService) -> None:
    async with running_bridge(service.target, bounds=Bounds(open_ms=100)) as bridge:
        await service.stop()
        await eventually(lambda: not bridge.bridge.ready, what="the bridge has noticed")
        async with bridge.socket(token="token-alice") as client:
            assert (await client.expect("error"))["code"] == "SERVICE_UNAVAILABLE"
            assert await client.closed() == 1012
        await service.start()


async def test_a_draining_service_is_asked_again(bridge: RunningBridge, service: ScriptedService) -> None:
    async with bridge.signed_in() as client:
        (session,) = service.sessions.values()
        session.end(pb.ERROR_REASON_DRAINING, "The service is shutting down.", retry_after_ms=50)
        assert (await client.expect("server_status"))["status"] == "degraded"
        assert (await client.expect("server_status"))["status"] == "recovered"
    assert len(service.tokens) == 2


async def test_the_bridge_starts_without_a_service_and_finds_it(service: ScriptedService) -> None:
    await service.stop()
    async with running_bridge(service.target) as bridge:
        assert await status(bridge, "/readyz") == 503
        await service.start()
        await eventually(lambda: bridge.bridge.ready, what="attached")
        assert await status(bridge, "/readyz") == 200
        async with bridge.signed_in():
            pass


async def test_many_sockets_come_back_together(bridge: RunningBridge, service: ScriptedService) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(bridge.signed_in(f"user{number}")) for number in range(30)]
        await service.stop()
        await service.start()
        for client in clients:
            assert (await client.expect("server_status"))["status"] == "degraded"
            assert (await client.expect("server_status"))["status"] == "recovered"
