"""Errors that end a socket."""

import asyncio
from contextlib import AsyncExitStack
from typing import Final

from tests.support.bridge_server import SocketClient
from tests.support.face import make_token
from tests.support.provocations.registry import Provocations, Told, Transport
from tests.support.provocations.scenes import NOT_FOR_LONG, WITHOUT_ISSUER, run_by_steps
from tests.support.waiting import eventually
from tests.support.whole_system import Setup, WholeSystem
from ws_bridge.app import Bounds
from ws_bridge.outbox import OutboxLimits

MAX_STEPS: Final = 1_500
"""More than the kernel keeps for a socket that does not read, at 16 KB each."""

CLOSES: Final = Provocations(Transport.CLOSE)


async def told_at_the_end(client: SocketClient) -> Told:
    """Return what the last error of a socket says, and the code with which it is closed right after it."""
    frame = (await client.receive_until("error"))[-1]
    code = await client.closed()
    reason = client.connection.close_reason
    assert reason is not None
    assert frame["payload"]["message"].startswith(reason)
    return Told.by_frame(frame, code)


async def told_without_a_word(client: SocketClient, reason: str) -> Told:
    """Return what the close of a socket says that gets no error frame: the code is all that a program needs."""
    code = await client.closed()
    words = client.connection.close_reason
    assert words
    return Told(reason, words, words, code)


async def sign_in_refused(system: WholeSystem, token: str) -> Told:
    """Sign in by the header, which ends the socket."""
    async with system.bridge.socket(token=token) as client:
        return await told_at_the_end(client)


@CLOSES.of("UNAUTHENTICATED")
async def token_of_nobody(system: WholeSystem) -> Told:
    return await sign_in_refused(system, "nonsense")


@CLOSES.of("UNAUTHENTICATED", Setup(bounds=Bounds(sign_in_ms=100)))
async def nobody_signs_in(system: WholeSystem) -> Told:
    async with system.bridge.socket() as client:
        return await told_at_the_end(client)


@CLOSES.of("TOKEN_EXPIRED")
async def old_token(system: WholeSystem) -> Told:
    return await sign_in_refused(system, make_token(lifetime_s=-1))


@CLOSES.of("TOKEN_EXPIRED")
async def token_that_ends_on_a_live_socket(system: WholeSystem) -> Told:
    async with system.bridge.socket(token=make_token(lifetime_s=1.5)) as client:
        await client.expect("connection_established")
        return await told_at_the_end(client)


@CLOSES.of("PERMISSION_DENIED")
async def token_of_somebody_else_on_a_live_socket(system: WholeSystem) -> Told:
    async with system.socket() as client:
        await client.send("authenticate", token=make_token("bob"))
        return await told_at_the_end(client)


@CLOSES.of("RATE_LIMITED", Setup(bridge={"max_frames_per_minute": 5}))
async def flood_of_frames(system: WholeSystem) -> Told:
    async with system.socket() as client:
        for _ in range(11):
            await client.send("ping")
        for kind in (*["pong"] * 5, *["error"] * 5):
            await client.expect(kind)
        return await told_at_the_end(client)


@CLOSES.of("TOO_MANY_CONNECTIONS")
async def one_socket_too_many(system: WholeSystem) -> Told:
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(system.socket())  # the client library answers probes
        told = await sign_in_refused(system, make_token())
    assert told.retry_after_ms
    return told


@CLOSES.of("SLOW_CONSUMER", Setup(bounds=Bounds(outbox=OutboxLimits(max_bytes=256 * 1024))))
async def socket_that_does_not_read(system: WholeSystem) -> Told:
    started, steps = await run_by_steps(system)
    closed = system.bridge.bridge.metrics.registry
    async with system.socket() as client, system.socket() as other:
        for socket in (client, other):
            await socket.send("resume", run_id=started.run_id)
            await socket.receive_until("agent_thinking")
        client.connection.transport.pause_reading()
        for seq in range(3, MAX_STEPS):
            steps.release()
            assert (await other.receive())["seq"] == seq
            if closed.get_sample_value("apex_bridge_sockets_closed_total", {"code": "4008"}):
                break
        client.connection.transport.resume_reading()
        return await told_without_a_word(client, "SLOW_CONSUMER")


@CLOSES.of("STORAGE_UNAVAILABLE", NOT_FOR_LONG)
async def sign_in_while_the_database_is_away(system: WholeSystem) -> Told:
    system.shop.storage.cut.add("runs")
    return await sign_in_refused(system, make_token())


@CLOSES.of("SERVICE_UNAVAILABLE", NOT_FOR_LONG)
async def sign_in_while_the_service_is_away(system: WholeSystem) -> Told:
    await system.server.stop(0)
    await eventually(lambda: not system.bridge.bridge.ready, what="the bridge has noticed")
    return await sign_in_refused(system, make_token())


@CLOSES.of("SERVICE_UNAVAILABLE", WITHOUT_ISSUER)
async def sign_in_while_the_issuer_is_away(system: WholeSystem) -> Told:
    return await sign_in_refused(system, make_token())


@CLOSES.of("DRAINING")
async def bridge_that_ends(system: WholeSystem) -> Told:
    async with system.socket() as client:
        draining = asyncio.create_task(system.bridge.bridge.sockets.drain())
        assert (await client.expect("server_draining"))["reconnect_after_ms"] > 0
        told = await told_without_a_word(client, "DRAINING")
        await draining
        return told


@CLOSES.of("INTERNAL", NOT_FOR_LONG)
async def sign_in_that_meets_a_defect(system: WholeSystem) -> Told:
    system.shop.storage.defective.add("list")
    return await sign_in_refused(system, make_token())
