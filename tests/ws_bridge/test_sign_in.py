"""Before `connection_established`: the three ways to sign in, and who is turned away before the upgrade."""

import base64
import json
from contextlib import AsyncExitStack

import pytest
from websockets.exceptions import InvalidStatus

from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.bridge_server import RunningBridge, running_bridge
from tests.support.scripted_service import ScriptedService
from tests.support.waiting import eventually
from ws_bridge.app import Bounds
from ws_bridge.sockets import MAX_UNSIGNED_PER_ADDRESS


def carrier(token: str) -> str:
    return "jwt." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


async def test_by_header_no_origin_is_needed(bridge: RunningBridge, service: ScriptedService) -> None:
    async with bridge.socket(token="token-alice", origin=None) as client:
        established = await client.expect("connection_established")

    assert established["user_id"] == "alice"
    assert established["protocol"] == "apex.v1"
    assert established["max_frame_bytes"] == 8192
    assert established["heartbeat_interval_ms"] == 45_000
    assert established["token_expires_at"] == "2026-11-21T09:30:00.123456Z"
    assert established["active_runs"] == []
    assert service.opened() == [established["connection_id"]]


async def test_by_subprotocol_the_server_answers_its_own_name(bridge: RunningBridge) -> None:
    async with bridge.socket(subprotocols=("apex.v1", carrier("token-alice"))) as client:
        assert (await client.expect("connection_established"))["user_id"] == "alice"
        assert client.connection.subprotocol == "apex.v1"


async def test_by_subprotocol_alone_it_is_echoed(bridge: RunningBridge) -> None:
    async with bridge.socket(subprotocols=(carrier("token-bob"),)) as client:
        assert (await client.expect("connection_established"))["user_id"] == "bob"
        assert client.connection.subprotocol == carrier("token-bob")


async def test_by_first_frame(bridge: RunningBridge) -> None:
    async with bridge.socket() as client:
        await client.send("authenticate", token="token-carol")
        assert (await client.expect("connection_established"))["user_id"] == "carol"


async def test_the_header_comes_before_the_subprotocol(bridge: RunningBridge) -> None:
    async with bridge.socket(token="token-alice", subprotocols=("apex.v1", carrier("token-bob"))) as client:
        assert (await client.expect("connection_established"))["user_id"] == "alice"


async def test_a_token_in_the_query_string_is_nothing(bridge: RunningBridge, service: ScriptedService) -> None:
    async with bridge.socket(path="/ws?token=token-alice") as client:
        await client.send("authenticate", token="token-bob")
        assert (await client.expect("connection_established"))["user_id"] == "bob"
    assert service.tokens == ["token-bob"]


@pytest.mark.parametrize("token", ["", "nonsense", "x" * 7000, "ünïcode"])
async def test_a_bad_token_is_an_error_then_4401(bridge: RunningBridge, token: str) -> None:
    async with bridge.socket() as client:
        await client.send("authenticate", token=token)
        error = await client.expect("error")
        assert error["request_type"] == "authenticate"
        assert await client.closed() == 4401


async def test_a_bad_token_in_the_upgrade_likewise(bridge: RunningBridge) -> None:
    for subprotocol in ("jwt.%%%", "jwt.", carrier("nonsense")):
        async with bridge.socket(subprotocols=("apex.v1", subprotocol.replace("%", "!"))) as client:
            assert (await client.expect("error"))["code"] == "UNAUTHENTICATED"
            assert await client.closed() == 4401


async def test_the_fourth_connection_is_4103(bridge: RunningBridge, service: ScriptedService) -> None:
    service.refuse_sessions["token-alice"] = pb.ERROR_REASON_TOO_MANY_CONNECTIONS
    async with bridge.socket(token="token-alice") as client:
        assert (await client.expect("error"))["code"] == "TOO_MANY_CONNECTIONS"
        assert await client.closed() == 4103


async def test_nobody_signs_in_in_time(service: ScriptedService) -> None:
    async with running_bridge(service.target, bounds=Bounds(sign_in_ms=50)) as bridge, bridge.socket() as client:
        assert (await client.expect("error"))["code"] == "UNAUTHENTICATED"
        assert await client.closed() == 4401
    assert service.opened() == []


async def test_frames_before_the_sign_in_wait_and_none_is_lost(bridge: RunningBridge) -> None:
    async with bridge.socket() as client:
        await client.send("ping", nonce=1)
        await client.send("user_message", content="Hi")
        await client.send("authenticate", token="token-alice")
        await client.expect("connection_established")
        assert await client.expect("pong") == {"nonce": 1}
        await client.expect("ack")
        assert (await client.receive())["seq"] == 1


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", None])
async def test_a_foreign_origin_is_refused_before_the_upgrade(bridge: RunningBridge, origin: str | None) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with bridge.socket(origin=origin, subprotocols=("apex.v1", carrier("token-alice"))):
            pass
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["payload"]["code"] == "PERMISSION_DENIED"


async def test_a_foreign_origin_does_not_pass_with_a_header_either(bridge: RunningBridge) -> None:
    with pytest.raises(InvalidStatus):
        async with bridge.socket(token="token-alice", origin="http://evil.example"):
            pass


async def test_the_host_header_grants_no_origin(bridge: RunningBridge) -> None:
    headers = {"Host": "evil.example"}
    with pytest.raises(InvalidStatus) as refused:
        async with bridge.socket(origin="http://evil.example", headers=headers):
            pass
    assert refused.value.response.status_code == 400


async def test_configured_origins_may_connect(service: ScriptedService) -> None:
    allowed = "https://a.example, https://b.example:444"
    async with running_bridge(service.target, public_url="https://apex.example", allowed_origins=allowed) as bridge:
        for origin in ("https://apex.example", "https://a.example", "https://b.example:444"):
            async with bridge.socket(origin=origin, subprotocols=("apex.v1", carrier("token-alice"))) as client:
                await client.expect("connection_established")


async def test_waiting_for_the_service_is_not_waiting_for_a_sign_in(
    bridge: RunningBridge, service: ScriptedService
) -> None:
    await service.stop()
    await eventually(lambda: not bridge.bridge.ready, what="the bridge has noticed")
    async with AsyncExitStack() as stack:
        offers = ("apex.v1", carrier("token-alice"))
        sockets = [
            await stack.enter_async_context(bridge.socket(subprotocols=offers))
            for _ in range(MAX_UNSIGNED_PER_ADDRESS + 1)
        ]
        await service.start()
        for client in sockets:
            await client.expect("connection_established")


async def test_sockets_without_a_sign_in_are_bounded_by_address(bridge: RunningBridge) -> None:
    async with AsyncExitStack() as stack:
        waiting = [await stack.enter_async_context(bridge.socket()) for _ in range(MAX_UNSIGNED_PER_ADDRESS)]
        with pytest.raises(InvalidStatus) as refused:
            await stack.enter_async_context(bridge.socket())
        assert refused.value.response.status_code == 429

        await waiting[0].send("authenticate", token="token-alice")
        await waiting[0].expect("connection_established")
        async with bridge.signed_in("bob"):
            pass
        await waiting[1].connection.close()
        await eventually(lambda: len(bridge.bridge.sockets) == MAX_UNSIGNED_PER_ADDRESS - 1, what="one left")
        async with bridge.signed_in("bob"):
            pass
