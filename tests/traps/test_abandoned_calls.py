"""Whoever opens a call ends it, however early they lose interest in it.

gRPC does not: at best a call ends when its object is collected, which takes as long as something holds it, and a cycle
does. Here that help is taken away, so that only what we do ourselves ends a call.
"""

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import grpc.aio
import httpx
import pytest

from agent_service.terminal import CHANNEL_OPTIONS, Client
from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.scripted_service import Context, ScriptedService
from tests.support.stack import Service, Stack
from tests.support.tasks import NewTasks
from tests.support.timing import fastest
from tests.support.waiting import DEFAULT_TIMEOUT_S, eventually
from ws_bridge.calls import Calls
from ws_bridge.channels import attach_channel, call_channel
from ws_bridge.upstream import Upstream

PROMPTLY_S: Final = 1.0
"""How long the service may go on for somebody who does not listen any more."""

PIECE: Final = b"x" * 262_144
PIECES: Final = 32
"""Of a file: more than all buffers on the way hold."""

OUTAGES: Final = 4


async def time_to_end(service: Service, method: str, abandon: Callable[[], Awaitable[None]]) -> float:
    """Return how long after `abandon` the service still has the call, in seconds."""

    async def measure() -> float:
        await abandon()
        begun = time.monotonic()
        await service.metrics.becomes("apex_grpc_open_calls", 0, method=method)
        return time.monotonic() - begun

    return await fastest(measure, enough_s=PROMPTLY_S)


@pytest.fixture(autouse=True)
def _no_end_by_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("grpc.aio._call.Call.__del__", raising=False)


def no_warning(text: str) -> None:
    raise AssertionError(text)


@pytest.fixture
async def terminal(service: Service) -> AsyncIterator[Client]:
    async with grpc.aio.insecure_channel(service.target, options=CHANNEL_OPTIONS) as channel:
        yield Client(channel, service.token(), no_warning)


# ---- The terminal client


async def test_the_terminal_ends_a_run_stream_that_it_stops_reading(service: Service, terminal: Client) -> None:
    async def abandon() -> None:
        async for event in terminal.run(pb.RunAgentRequest(content="Speak")):
            await service.speaker.talk(event.run_id)
            break

    assert await time_to_end(service, "RunAgent", abandon) < PROMPTLY_S


async def test_the_terminal_ends_a_replay_that_it_is_interrupted_in(service: Service, terminal: Client) -> None:
    talk = await service.start()
    seen = asyncio.Event()

    async def follow() -> None:
        async for _ in terminal.replay(talk.run_id, 0):
            seen.set()

    async def abandon() -> None:
        following = asyncio.create_task(follow())
        await seen.wait()
        seen.clear()
        assert await service.open_calls("WatchRun") == 1
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    assert await time_to_end(service, "WatchRun", abandon) < PROMPTLY_S


# ---- The bridge's calls for sockets


async def test_the_bridge_ends_its_attach_call(service: Service) -> None:
    async def abandon() -> None:
        upstream = Upstream()
        async with attach_channel(service.target) as channel:
            running = asyncio.create_task(upstream.run(channel))
            await service.metrics.becomes("apex_grpc_open_calls", 1, method="Attach")
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert not upstream.attached
            # Before the channel is closed, which would end the call too.
            await service.metrics.becomes("apex_grpc_open_calls", 0, method="Attach")

    assert await time_to_end(service, "Attach", abandon) < PROMPTLY_S


async def test_no_task_of_a_call_outlives_it_when_the_service_goes_away(caplog: pytest.LogCaptureFixture) -> None:
    upstream = Upstream()

    async def attached(calls: int) -> None:
        """Return when the service has so many calls' first requests."""
        assert await upstream.wait_attached(DEFAULT_TIMEOUT_S)
        upstream.send(pb.AttachRequest(close_session=pb.CloseSession(session_id="nobody")))
        await eventually(lambda: len(service.requests) == calls, what="the call stands")

    async with ScriptedService() as service, attach_channel(service.target) as channel:
        running = asyncio.create_task(upstream.run(channel))
        await attached(1)
        tasks = NewTasks()
        for outage in range(OUTAGES):
            await service.stop()
            await eventually(lambda: not upstream.attached, what="the outage is noticed")
            await service.start()
            await attached(outage + 2)
        await tasks.gone()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    gc.collect()
    assert "Task was destroyed but it is pending" not in caplog.text


class UnansweringService(ScriptedService):
    """Takes messages and never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0

    async def StartRun(self, request: pb.StartRunRequest, context: Context) -> pb.StartRunResponse:
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1
        return pb.StartRunResponse()


async def test_the_bridge_ends_a_message_that_it_waits_for_no_longer() -> None:
    async with UnansweringService() as service, call_channel(service.target) as channel:
        calls = Calls(retry_ms=20_000)
        calls.open(channel)

        async def measure() -> float:
            starting = asyncio.create_task(calls.start_run("token-ann", pb.RunAgentRequest(content="Hello")))
            await eventually(lambda: service.waiting == 1, what="the service has the message")
            starting.cancel()
            begun = time.monotonic()
            await asyncio.gather(starting, return_exceptions=True)
            await eventually(lambda: service.waiting == 0, what="the service has let go of it")
            return time.monotonic() - begun

        assert await fastest(measure, enough_s=PROMPTLY_S) < PROMPTLY_S


# ---- The bridge's calls for requests


@contextlib.asynccontextmanager
async def rest_client(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {stack.service.token()}"}
    async with httpx.AsyncClient(base_url=stack.bridge.url, headers=headers) as client:
        yield client


async def test_a_list_of_events_ends_its_stream_though_the_run_goes_on(stack: Stack) -> None:
    talk = await stack.service.start()
    await talk.say(100, times=50)
    async with rest_client(stack) as client:

        async def abandon() -> None:
            answer = await client.get(f"/api/v1/runs/{talk.run_id}/events", params={"limit": 10})
            assert answer.json()["last_seq"] == 51
            assert len(answer.json()["events"]) == 10

        assert await time_to_end(stack.service, "WatchRun", abandon) < PROMPTLY_S


async def test_a_download_that_is_broken_off_ends_its_call(stack: Stack) -> None:
    async with rest_client(stack) as client:
        files = {"file": ("log.csv", PIECE * PIECES)}
        file_id = (await client.post("/api/v1/files", files=files)).json()["file_id"]

        async def abandon() -> None:
            async with client.stream("GET", f"/api/v1/files/{file_id}/content") as answer:
                async for _ in answer.aiter_raw():
                    break
                assert await stack.service.open_calls("DownloadFile") == 1

        assert await time_to_end(stack.service, "DownloadFile", abandon) < PROMPTLY_S


async def test_an_upload_that_is_broken_off_ends_its_call(stack: Stack) -> None:
    head = (
        f"POST /api/v1/files HTTP/1.1\r\nHost: 127.0.0.1:{stack.bridge.port}\r\nContent-Length: 1000000\r\n"
        f"Authorization: Bearer {stack.service.token()}\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="log.csv"\r\n\r\na,b\n1,2\n'
    )

    async def abandon() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", stack.bridge.port)
        try:
            writer.write(head.encode())
            await stack.service.metrics.becomes("apex_grpc_open_calls", 1, method="UploadFile")
        finally:
            writer.transport.abort()

    assert await time_to_end(stack.service, "UploadFile", abandon) < PROMPTLY_S
