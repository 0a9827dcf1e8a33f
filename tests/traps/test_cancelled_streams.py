"""A caller who cancels ends the work for it, whatever the handler is waiting for just then.

A handler that takes the cancellation for an end of its own, or for a defect, keeps its tasks and its watch, or counts
as a call that went well.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import grpc.aio
import pytest
import structlog

from agent_service.engine.clock import SystemIds
from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.stack import Service
from tests.support.tasks import NewTasks
from tests.support.waiting import eventually

PROMPTLY_S: Final = 5.0
"""Far more than it takes; a call that is not ended stays for hours."""

CALLS: Final = 5
"""Of each kind, cancelled in the same moment."""

EVENT: Final = 30_000
MUCH: Final = 100
"""Events of that many characters: more than gRPC and the kernel take on the way to somebody who does not read."""


ALSO: Final = {"Attach": ("OK",), "UploadFile": ("INVALID_ARGUMENT",)}
"""Where the caller sends too, its leaving may be seen as the end of what it sends, a moment earlier."""

MOMENTS: Final = 60
"""Streams that are cancelled at another moment each."""

RUN: Final = pb.RunAgentRequest(content="Speak", on_disconnect=pb.ON_DISCONNECT_CANCEL)


class OpenCall(Protocol):
    """What the calls have in common."""

    def cancel(self) -> bool: ...


Opener = Callable[[Service], Awaitable[OpenCall]]


async def idle_watch(service: Service) -> OpenCall:
    """Everything is read; the handler waits for the next event."""
    talk = await service.start()
    call = service.agents.WatchRun(pb.WatchRunRequest(run_id=talk.run_id), metadata=service.metadata())
    assert isinstance(await call.read(), pb.AgentEvent)
    return call


async def stalled_watch(service: Service) -> OpenCall:
    """The handler waits for room to write."""
    talk = await service.start()
    await talk.say(EVENT, times=MUCH)
    call = service.agents.WatchRun(pb.WatchRunRequest(run_id=talk.run_id), metadata=service.metadata())
    assert isinstance(await call.read(), pb.AgentEvent)
    return call


async def idle_run(service: Service) -> OpenCall:
    call = service.agents.RunAgent(RUN, metadata=service.metadata())
    event = await call.read()
    assert isinstance(event, pb.AgentEvent)
    await service.speaker.talk(event.run_id)
    return call


async def stalled_run(service: Service) -> OpenCall:
    call = service.agents.RunAgent(RUN, metadata=service.metadata())
    event = await call.read()
    assert isinstance(event, pb.AgentEvent)
    await (await service.speaker.talk(event.run_id)).say(EVENT, times=MUCH)
    return call


async def attached(service: Service, run_id: str) -> "grpc.aio.StreamStreamCall[pb.AttachRequest, pb.AttachResponse]":
    """Attach, sign a session in, and let it watch the run."""
    call = service.sessions.Attach()
    session_id = SystemIds().new()
    opening = pb.OpenSession(session_id=session_id, token=service.token(session_id))
    watching = pb.WatchRunItem(session_id=session_id, watch_id="w", run_id=run_id)
    await call.write(pb.AttachRequest(open_session=opening))
    assert isinstance(await call.read(), pb.AttachResponse)
    await call.write(pb.AttachRequest(watch_run=watching))
    assert isinstance(await call.read(), pb.AttachResponse)
    return call


async def idle_gateway(service: Service) -> OpenCall:
    return await attached(service, (await service.start()).run_id)


async def stalled_gateway(service: Service) -> OpenCall:
    talk = await service.start()
    call = await attached(service, talk.run_id)
    await talk.say(EVENT, times=2 * MUCH)
    return call


async def stalled_download(service: Service) -> OpenCall:
    upload = service.files.UploadFile(metadata=service.metadata())
    await upload.write(pb.UploadFileRequest(metadata=pb.FileMetadata(name="log.csv")))
    for _ in range(16):
        await upload.write(pb.UploadFileRequest(chunk=b"x" * 262_144))
    await upload.write(pb.UploadFileRequest(end=pb.FileEnd()))
    await upload.done_writing()
    file_id = (await upload).file.file_id
    call = service.files.DownloadFile(pb.DownloadFileRequest(file_id=file_id), metadata=service.metadata())
    assert isinstance(await call.read(), pb.DownloadFileResponse)
    return call


async def waiting_upload(service: Service) -> OpenCall:
    call = service.files.UploadFile(metadata=service.metadata())
    await call.write(pb.UploadFileRequest(metadata=pb.FileMetadata(name="log.csv")))
    await call.write(pb.UploadFileRequest(chunk=b"x" * 262_144))
    return call


@pytest.mark.parametrize(
    ("method", "opener"),
    [
        ("WatchRun", idle_watch),
        ("WatchRun", stalled_watch),
        ("RunAgent", idle_run),
        ("RunAgent", stalled_run),
        ("Attach", idle_gateway),
        ("Attach", stalled_gateway),
        ("DownloadFile", stalled_download),
        ("UploadFile", waiting_upload),
    ],
)
async def test_a_cancelled_call_ends_as_cancelled_and_leaves_nothing(
    service: Service, method: str, opener: Opener
) -> None:
    (await service.start()).finish()  # what the first call sets up stays
    tasks = NewTasks()
    with structlog.testing.capture_logs() as logs:
        calls = [await opener(service) for _ in range(CALLS)]
        await service.metrics.becomes("apex_grpc_open_calls", CALLS, method=method)
        for call in calls:
            call.cancel()
        await service.no_open_calls(method, timeout_s=PROMPTLY_S)
        for talk in service.speaker.talks.values():
            talk.finish()
        await tasks.gone()

    codes = {"CANCELLED", *ALSO.get(method, ())}
    ended = [await service.metrics.value("apex_grpc_calls_total", method=method, code=code) for code in codes]
    assert sum(ended) == CALLS
    assert [line for line in logs if line["log_level"] == "error"] == []
    assert await service.metrics.value("apex_watches") == 0
    assert await service.metrics.value("apex_sessions") == 0


async def test_whatever_the_moment_it_is_a_cancellation(service: Service) -> None:
    talk = await service.start()
    await talk.say(EVENT, times=MUCH)
    moments = random.Random(20_26)
    with structlog.testing.capture_logs() as logs:
        for _ in range(MOMENTS):
            watch = pb.WatchRunRequest(run_id=talk.run_id)
            call = service.agents.WatchRun(watch, metadata=service.metadata())
            # Not to wait for something, but to be at another place each time.
            await asyncio.sleep(moments.uniform(0, 0.01))
            call.cancel()
        await service.no_open_calls("WatchRun", timeout_s=PROMPTLY_S)

    assert await service.metrics.value("apex_grpc_calls_total", method="WatchRun", code="INTERNAL") == 0
    assert await service.metrics.value("apex_grpc_calls_total", method="WatchRun", code="OK") == 0
    assert [line for line in logs if line["log_level"] == "error"] == []


@pytest.mark.parametrize("opener", [idle_run, stalled_run])
async def test_a_run_that_was_to_end_with_its_caller_does(service: Service, opener: Opener) -> None:
    call = await opener(service)
    assert len(service.speaker.talks) == 1
    call.cancel()
    await service.metrics.becomes("apex_grpc_open_calls", 0, method="RunAgent", timeout_s=PROMPTLY_S)
    await eventually(lambda: not service.speaker.talks, what="the run has ended")
