"""Errors as frames of a socket that stays open."""

from typing import Final

from agent_service.api.rates import WINDOW_MS
from tests.support.bridge_server import Frame, SocketClient
from tests.support.provocations.registry import Provocations, Told, Transport
from tests.support.provocations.scenes import IMPATIENT, NOT_FOR_LONG, UNKNOWN, all_places_taken, busy
from tests.support.storage import new_id
from tests.support.whole_system import Setup, WholeSystem, options
from ws_bridge.streams import MAX_STREAMS

KEY: Final = "11111111-1111-4111-8111-111111111111"

FRAMES: Final = Provocations(Transport.FRAME)


async def told_by_frame(system: WholeSystem, kind: str, **payload: object) -> Told:
    """Send a frame and return what its error says."""
    async with system.socket() as client:
        await client.send(kind, **payload)
        return await told_to(client, kind, payload)


async def told_to(client: SocketClient, kind: str | None, payload: Frame) -> Told:
    """Return what the next error says. It names its request, and the socket works on."""
    frame = (await client.receive_until("error"))[-1]
    error = frame["payload"]
    shown = (error["request_type"], error["message_id"], error["run_id"])
    assert shown == (kind, payload.get("message_id"), payload.get("run_id")), error
    await client.send("ping", nonce="still here")
    assert (await client.receive_until("pong"))[-1]["payload"] == {"nonce": "still here"}
    return Told.by_frame(frame)


@FRAMES.of("NOT_FOUND")
async def resumed_run_of_somebody_else(system: WholeSystem) -> Told:
    return await told_by_frame(system, "resume", run_id=(await system.start(user="bob")).run_id)


@FRAMES.of("NOT_FOUND")
async def stopped_run_that_does_not_exist(system: WholeSystem) -> Told:
    return await told_by_frame(system, "stop_agent", run_id=UNKNOWN)


@FRAMES.of("INVALID_ARGUMENT", violations=["run_id"])
async def id_that_is_none(system: WholeSystem) -> Told:
    return await told_by_frame(system, "resume", run_id="5")


@FRAMES.of("INVALID_ARGUMENT", violations=["agent"])
async def agent_that_does_not_exist(system: WholeSystem) -> Told:
    return await told_by_frame(system, "start_agent", content="hello", agent="nobody", message_id=KEY)


@FRAMES.of("EMPTY_MESSAGE", violations=["content"])
async def message_without_text(system: WholeSystem) -> Told:
    return await told_by_frame(system, "user_message", content=" \n\t ", message_id=KEY)


@FRAMES.of("MESSAGE_TOO_LARGE")
async def frame_over_the_limit(system: WholeSystem) -> Told:
    return await told_by_frame(system, "user_message", content="x" * 10_000, message_id=KEY)


@FRAMES.of("MALFORMED_JSON")
async def frame_that_is_no_json(system: WholeSystem) -> Told:
    async with system.socket() as client:
        await client.connection.send("{'type': 'ping'}")
        return await told_to(client, None, {})


@FRAMES.of("UNKNOWN_TYPE")
async def frame_of_a_type_that_does_not_exist(system: WholeSystem) -> Told:
    return await told_by_frame(system, "dance", message_id=KEY)


@FRAMES.of("UNKNOWN_TYPE")
async def frame_of_a_type_that_is_not_there_yet(system: WholeSystem) -> Told:
    return await told_by_frame(system, "watch_thread", thread_id=UNKNOWN)


@FRAMES.of("RATE_LIMITED", Setup(options=options(max_messages_per_minute=1)))
async def too_many_messages(system: WholeSystem) -> Told:
    await system.start()
    told = await told_by_frame(system, "user_message", content="hello", message_id=KEY)
    assert told.retry_after_ms is not None
    assert told.retry_after_ms <= WINDOW_MS
    return told


@FRAMES.of("RATE_LIMITED", Setup(bridge={"max_frames_per_minute": 5}))
async def too_many_frames(system: WholeSystem) -> Told:
    async with system.socket() as client:
        for _ in range(6):
            await client.send("ping")
        frames = await client.receive_until("error")
        assert len(frames) == 6
        told = Told.by_frame(frames[-1])
        assert told.retry_after_ms is not None
        await client.send("user_message", content="messages are counted apart")
        await client.receive_until("ack")
        return told


@FRAMES.of("TOO_MANY_RUNS")
async def one_run_too_many(system: WholeSystem) -> Told:
    await all_places_taken(system)
    told = await told_by_frame(system, "user_message", content="one more", message_id=KEY)
    assert told.retry_after_ms
    return told


@FRAMES.of("TOO_MANY_RUNS")
async def one_stream_too_many(system: WholeSystem) -> Told:
    async with system.socket() as client:
        system.shop.storage.gates["get"].close()  # no watch begins, so none ends
        run_ids = [new_id() for _ in range(MAX_STREAMS + 1)]
        for run_id in run_ids:
            await client.send("resume", run_id=run_id)
        return await told_to(client, "resume", {"run_id": run_ids[-1]})


@FRAMES.of("RUN_CONFLICT")
async def busy_thread(system: WholeSystem) -> Told:
    thread_id = (await busy(system)).thread_id
    message = {"thread_id": thread_id, "message_id": KEY, "conflict_policy": "reject"}
    return await told_by_frame(system, "user_message", content="hi", **message)


@FRAMES.of("CURSOR_AHEAD")
async def cursor_beyond_the_log(system: WholeSystem) -> Told:
    return await told_by_frame(system, "resume", run_id=(await busy(system)).run_id, after_seq=99)


@FRAMES.of("DEADLINE_EXCEEDED", IMPATIENT)
async def service_that_takes_too_long(system: WholeSystem) -> Told:
    system.shop.storage.gates["accept"].close()
    return await told_by_frame(system, "user_message", content="hello", message_id=KEY)


@FRAMES.of("STORAGE_UNAVAILABLE", NOT_FOR_LONG)
async def database_away(system: WholeSystem) -> Told:
    async with system.socket() as client:
        system.shop.storage.failing.add("accept")
        await client.send("user_message", content="hello", message_id=KEY)
        return await told_to(client, "user_message", {"message_id": KEY})


@FRAMES.of("SERVICE_UNAVAILABLE", NOT_FOR_LONG)
async def service_away(system: WholeSystem) -> Told:
    async with system.socket() as client:
        await system.server.stop(0)
        await client.expect("server_status")
        await client.send("user_message", content="hello", message_id=KEY)
        return await told_to(client, "user_message", {"message_id": KEY})


@FRAMES.of("DRAINING", NOT_FOR_LONG)
async def service_that_ends(system: WholeSystem) -> Told:
    system.shop.runs.drain()
    return await told_by_frame(system, "user_message", content="hello", message_id=KEY)


@FRAMES.of("INTERNAL")
async def defect(system: WholeSystem) -> Told:
    system.shop.storage.defective.add("accept")
    return await told_by_frame(system, "user_message", content="hello", message_id=KEY)
