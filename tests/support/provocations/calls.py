"""Errors as the status of a gRPC call."""

from collections.abc import AsyncIterable, Awaitable, Iterator
from typing import Final

import grpc.aio
import pytest

from agent_service.api.rates import WINDOW_MS
from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.errors import failure_of
from tests.support.face import signed_in
from tests.support.provocations.registry import Provocations, Told, Transport
from tests.support.provocations.scenes import (
    IMPATIENT,
    MAX_CONTENT_BYTES,
    WITHOUT_ISSUER,
    all_places_taken,
    big_run,
    busy,
)
from tests.support.service_client import upload_parts
from tests.support.waiting import eventually
from tests.support.whole_system import CALL_TIMEOUT_S, Setup, WholeSystem, options

CALLS: Final = Provocations(Transport.CALL)


async def told_by(call: Awaitable[object]) -> Told:
    """Return what the status of a call that fails says."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error, failure = caught.value, failure_of(caught.value)
    assert (error.details(), failure.domain) == (failure.message, "apex.agent.v1")
    return Told(
        reason=failure.reason,
        message=failure.message,
        everything=str(error.trailing_metadata()),
        code=error.code(),
        retryable={"true": True, "false": False}[failure.metadata["retryable"]],
        retry_after_ms=failure.retry_after_ms,
        violations=failure.violations,
        error_id=failure.metadata.get("error_id", ""),
    )


async def read_on(stream: AsyncIterable[pb.AgentEvent], seen: list[int]) -> None:
    """Read a stream to its end; its seqs go on from those seen."""
    async for event in stream:
        assert event.seq == seen[-1] + 1
        seen.append(event.seq)


@CALLS.of("UNAUTHENTICATED")
async def no_token(system: WholeSystem) -> Told:
    return await told_by(system.threads.ListThreads(pb.ListThreadsRequest()))


@CALLS.of("UNAUTHENTICATED")
async def token_of_nobody(system: WholeSystem) -> Told:
    metadata = (("authorization", "Bearer nonsense"),)
    return await told_by(system.threads.ListThreads(pb.ListThreadsRequest(), metadata=metadata))


@CALLS.of("TOKEN_EXPIRED")
async def old_token(system: WholeSystem) -> Told:
    return await told_by(system.threads.ListThreads(pb.ListThreadsRequest(), metadata=signed_in(lifetime_s=-1)))


@CALLS.of("TOKEN_EXPIRED")
async def token_that_ends_during_a_stream(system: WholeSystem) -> Told:
    request = pb.WatchRunRequest(run_id=(await busy(system)).run_id)
    return await told_by(read_on(system.agents.WatchRun(request, metadata=signed_in(lifetime_s=0.8)), [0]))


@CALLS.of("PERMISSION_DENIED", Setup(options=options(dev_tokens=False)))
async def development_token_where_there_are_none(system: WholeSystem) -> Told:
    return await told_by(system.sessions.CreateDevToken(pb.CreateDevTokenRequest()))


@CALLS.of("NOT_FOUND")
async def run_of_somebody_else(system: WholeSystem) -> Told:
    request = pb.GetRunRequest(run_id=(await system.start(user="bob")).run_id)
    return await told_by(system.agents.GetRun(request, metadata=signed_in()))


@CALLS.of("INVALID_ARGUMENT", violations=["run_id"])
async def id_that_is_none(system: WholeSystem) -> Told:
    return await told_by(system.agents.GetRun(pb.GetRunRequest(run_id="5"), metadata=signed_in()))


@CALLS.of("INVALID_ARGUMENT", violations=["agent"])
async def agent_that_does_not_exist(system: WholeSystem) -> Told:
    return await told_by(system.start("hello", agent="nobody"))


@CALLS.of("EMPTY_MESSAGE", violations=["run.content"])
async def message_without_text(system: WholeSystem) -> Told:
    return await told_by(system.start(" \n\t "))


@CALLS.of("MESSAGE_TOO_LARGE", violations=["run.content"])
async def message_over_the_limit(system: WholeSystem) -> Told:
    return await told_by(system.start("x" * (MAX_CONTENT_BYTES + 1)))


@CALLS.of("MESSAGE_TOO_LARGE", Setup(options=options(max_upload_bytes=10)))
async def file_over_the_limit(system: WholeSystem) -> Told:
    parts: Iterator[pb.UploadFileRequest] = iter(upload_parts("a.csv", b"x" * 11))
    return await told_by(system.files.UploadFile(parts, metadata=signed_in()))


@CALLS.of("UNKNOWN_TYPE")
async def rpc_that_is_not_there_yet(system: WholeSystem) -> Told:
    return await told_by(system.sessions.RevokeTokens(pb.RevokeTokensRequest(jti="x"), metadata=signed_in()))


@CALLS.of("UNSUPPORTED_FILE")
async def file_without_content(system: WholeSystem) -> Told:
    parts: Iterator[pb.UploadFileRequest] = iter(upload_parts("a.csv", b""))
    return await told_by(system.files.UploadFile(parts, metadata=signed_in()))


@CALLS.of("RATE_LIMITED", Setup(options=options(max_messages_per_minute=1)))
async def too_many_messages(system: WholeSystem) -> Told:
    await system.start()
    told = await told_by(system.start())
    assert told.retry_after_ms is not None
    assert told.retry_after_ms <= WINDOW_MS
    return told


@CALLS.of("TOO_MANY_RUNS")
async def one_run_too_many(system: WholeSystem) -> Told:
    await all_places_taken(system)
    return await told_by(system.start("one more"))


@CALLS.of("RUN_CONFLICT")
async def busy_thread(system: WholeSystem) -> Told:
    thread_id = (await busy(system)).thread_id
    return await told_by(system.start("hi", thread_id=thread_id, conflict_policy=pb.CONFLICT_POLICY_REJECT))


@CALLS.of("CURSOR_AHEAD")
async def cursor_beyond_the_log(system: WholeSystem) -> Told:
    request = pb.WatchRunRequest(run_id=(await busy(system)).run_id, after_seq=99)
    return await told_by(system.agents.WatchRun(request, metadata=signed_in()).read())


@CALLS.of("SLOW_CONSUMER")
async def stream_that_nobody_reads(system: WholeSystem) -> Told:
    started, gate = await big_run(system)
    stream = system.agents.WatchRun(pb.WatchRunRequest(run_id=started.run_id), metadata=signed_in())
    # A stream that still reads the log is never slow: this one has come to its end.
    await eventually(lambda: system.sample("apex_events_delivered_total") > 1, what="a live stream")
    gate.open()
    await eventually(lambda: not system.shop.supervisor.at_work, what="everything is said")
    seen = [0]
    told = await told_by(read_on(stream, seen))
    again = pb.WatchRunRequest(run_id=started.run_id, after_seq=seen[-1])
    await read_on(system.agents.WatchRun(again, metadata=signed_in()), seen)
    return told


@CALLS.of("DEADLINE_EXCEEDED", IMPATIENT)
async def call_that_takes_too_long(system: WholeSystem) -> Told:
    system.shop.storage.gates["accept"].close()
    return await told_by(system.start())


@CALLS.of("STORAGE_UNAVAILABLE")
async def database_away(system: WholeSystem) -> Told:
    system.shop.storage.cut.add("threads")
    return await told_by(system.threads.ListThreads(pb.ListThreadsRequest(), metadata=signed_in()))


@CALLS.of("SERVICE_UNAVAILABLE", WITHOUT_ISSUER)
async def issuer_away(system: WholeSystem) -> Told:
    return await told_by(system.threads.ListThreads(pb.ListThreadsRequest(), metadata=signed_in()))


@CALLS.of("DRAINING")
async def message_to_a_service_that_ends(system: WholeSystem) -> Told:
    system.shop.runs.drain()
    return await told_by(system.start())


@CALLS.of("DRAINING")
async def stream_of_a_service_that_ends(system: WholeSystem) -> Told:
    request = pb.WatchRunRequest(run_id=(await busy(system)).run_id)
    stream = system.agents.WatchRun(request, metadata=signed_in())
    assert (await anext(aiter(stream))).seq == 1
    await system.server.drain()
    return await told_by(read_on(stream, [1]))


@CALLS.of("DRAINING")
async def stream_that_begins_when_the_service_ends(system: WholeSystem) -> Told:
    request = pb.WatchRunRequest(run_id=(await busy(system)).run_id)
    await system.server.drain()
    return await told_by(read_on(system.agents.WatchRun(request, metadata=signed_in(), timeout=CALL_TIMEOUT_S), [0]))


@CALLS.of("DRAINING")
async def download_that_begins_when_the_service_ends(system: WholeSystem) -> Told:
    parts: Iterator[pb.UploadFileRequest] = iter(upload_parts("a.csv", b"x"))
    file_id = (await system.files.UploadFile(parts, metadata=signed_in())).file.file_id
    await system.server.drain()
    request = pb.DownloadFileRequest(file_id=file_id)
    download = system.files.DownloadFile(request, metadata=signed_in(), timeout=CALL_TIMEOUT_S)

    async def to_its_end() -> None:
        async for _ in download:
            pass

    return await told_by(to_its_end())


@CALLS.of("INTERNAL")
async def defect(system: WholeSystem) -> Told:
    system.shop.storage.defective.add("list")
    return await told_by(system.threads.ListThreads(pb.ListThreadsRequest(), metadata=signed_in()))
