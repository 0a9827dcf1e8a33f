from typing import TypeVar

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct

from agent_service.api.call import MAX_STREAMS_PER_USER
from agent_service.api.options import ApiOptions
from agent_service.api.wire_commands import MAX_ARGS_BYTES
from agent_service.engine.approvals import Verdict
from agent_service.engine.events import AgentThinking, ApprovalDecision, PartialResult
from generated.apex.agent.v1 import agent_pb2 as pb
from storage.records import RunStatus
from tests.support.errors import failed_with
from tests.support.face import Face, open_face, signed_in
from tests.support.waiting import eventually

RequestT = TypeVar("RequestT")
KEY = "0197f000-0000-7000-8000-000000000001"


def text_event(text: str = "x") -> PartialResult:
    return PartialResult(KEY, text)


async def start(face: Face, *, client_message_id: str = "") -> pb.StartRunResponse:
    request = pb.StartRunRequest(run=pb.RunAgentRequest(content="hello", client_message_id=client_message_id))
    return await face.agents.StartRun(request, metadata=signed_in())


async def read_all(call: "grpc.aio.UnaryStreamCall[pb.RunAgentRequest, pb.AgentEvent]", seqs: list[int]) -> None:
    while isinstance(event := await call.read(), pb.AgentEvent):
        seqs.append(event.seq)


async def next_event(
    call: "grpc.aio.UnaryStreamCall[RequestT, pb.AgentEvent]",
) -> pb.AgentEvent:
    event = await call.read()
    assert isinstance(event, pb.AgentEvent)
    return event


async def test_run_agent_tells_the_ids_and_streams_every_event_to_the_terminal_one(face: Face) -> None:
    call = face.agents.RunAgent(pb.RunAgentRequest(content="hello"), metadata=signed_in())
    initial = dict(await call.initial_metadata())
    run = await face.run(str(initial["apex-run-id"]))
    assert initial["apex-thread-id"] == run.thread_id
    assert initial["apex-already-existed"] == "false"
    await face.stage.emit(run, AgentThinking("hm"))
    await face.stage.answer(run)
    events = [event async for event in call]
    assert [event.seq for event in events] == [1, 2, 3, 4]
    cases = [event.WhichOneof("event") for event in events]
    assert cases == ["agent_started", "agent_thinking", "final_response", "agent_completed"]
    assert await call.code() is grpc.StatusCode.OK


async def test_an_event_arrives_before_the_next_is_made(face: Face) -> None:
    call = face.agents.RunAgent(pb.RunAgentRequest(content="hello"), metadata=signed_in())
    assert (await next_event(call)).seq == 1
    run = await face.run(str(dict(await call.initial_metadata())["apex-run-id"]))
    for seq in (2, 3, 4):
        await face.stage.emit(run, text_event())
        assert (await next_event(call)).seq == seq
    call.cancel()


async def test_the_bytes_leave_as_they_were_committed(face: Face) -> None:
    started = await start(face)
    run = await face.run(started.run_id)
    await face.stage.answer(run)
    stored = await face.storage.events.read("ann", run.run_id, 0, max_events=100, max_bytes=1_000_000)
    watch: grpc.aio.UnaryStreamMultiCallable[pb.WatchRunRequest, bytes] = face.channel.unary_stream(
        "/apex.agent.v1.AgentService/WatchRun",
        request_serializer=pb.WatchRunRequest.SerializeToString,
    )
    received = [data async for data in watch(pb.WatchRunRequest(run_id=run.run_id), metadata=signed_in())]
    assert received == [event.data for event in stored]


async def test_the_same_key_attaches_to_the_run_that_exists(face: Face) -> None:
    first = await start(face, client_message_id=KEY)
    call = face.agents.RunAgent(
        pb.RunAgentRequest(content="hello", client_message_id=KEY.upper()), metadata=signed_in()
    )
    initial = dict(await call.initial_metadata())
    assert (initial["apex-run-id"], initial["apex-already-existed"]) == (first.run_id, "true")
    await face.stage.answer(await face.run(first.run_id))
    assert [event.seq async for event in call] == [1, 2, 3]


async def test_the_same_key_with_other_content_is_invalid(face: Face) -> None:
    await start(face, client_message_id=KEY)
    request = pb.StartRunRequest(run=pb.RunAgentRequest(content="other", client_message_id=KEY))
    async with failed_with("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT) as failure:
        await face.agents.StartRun(request, metadata=signed_in())
    assert failure.violations == ["client_message_id"]


async def test_a_dropped_stream_cancels_the_run_only_when_asked(face: Face) -> None:
    runs = []
    for policy in (pb.ON_DISCONNECT_CANCEL, pb.ON_DISCONNECT_CONTINUE):
        call = face.agents.RunAgent(pb.RunAgentRequest(content="hello", on_disconnect=policy), metadata=signed_in())
        await call.read()
        runs.append(str(dict(await call.initial_metadata())["apex-run-id"]))
        call.cancel()
    await eventually(lambda: runs[0] in face.stage.cancelled, what="the first run is cancelled")
    assert (await face.run(runs[0])).status is RunStatus.CANCELLED
    assert (await face.run(runs[1])).status is RunStatus.QUEUED


async def test_a_caller_who_leaves_before_it_is_told_of_its_run_cancels_it_too(face: Face) -> None:
    first = await start(face)
    face.stage.cancelling.close()
    request = pb.RunAgentRequest(
        content="hello",
        thread_id=first.thread_id,
        client_message_id=KEY,
        conflict_policy=pb.CONFLICT_POLICY_INTERRUPT,
        on_disconnect=pb.ON_DISCONNECT_CANCEL,
    )
    call = face.agents.RunAgent(request, metadata=signed_in())
    # It is accepted, but the caller cannot know: the answer waits for the end of the interrupted run.
    await face.stage.cancelling.reached()
    call.cancel()
    await face.agents.GetRun(pb.GetRunRequest(run_id=first.run_id), metadata=signed_in())
    face.stage.cancelling.open()
    accepted = await face.storage.runs.find_by_client_message("ann", KEY)
    await eventually(lambda: accepted.run_id in face.stage.cancelled, what="the run is cancelled")
    assert (await face.run(accepted.run_id)).status is RunStatus.CANCELLED


async def test_a_deadline_counts_as_a_disconnect(face: Face) -> None:
    request = pb.RunAgentRequest(content="hello", on_disconnect=pb.ON_DISCONNECT_CANCEL)
    call = face.agents.RunAgent(request, metadata=signed_in(), timeout=0.5)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        async for _ in call:
            pass
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: len(face.stage.cancelled) == 1, what="the run is cancelled")


async def test_an_attached_stream_never_cancels(face: Face) -> None:
    started = await start(face, client_message_id=KEY)
    request = pb.RunAgentRequest(content="hello", client_message_id=KEY, on_disconnect=pb.ON_DISCONNECT_CANCEL)
    call = face.agents.RunAgent(request, metadata=signed_in())
    await call.read()
    call.cancel()
    await face.stage.answer(await face.run(started.run_id))
    watch = face.agents.WatchRun(pb.WatchRunRequest(run_id=started.run_id), metadata=signed_in())
    last = [event async for event in watch][-1]
    assert last.agent_completed.status == pb.COMPLETION_STATUS_SUCCESS


async def test_start_run_refuses_on_disconnect_cancel(face: Face) -> None:
    request = pb.StartRunRequest(run=pb.RunAgentRequest(content="x", on_disconnect=pb.ON_DISCONNECT_CANCEL))
    async with failed_with("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT):
        await face.agents.StartRun(request, metadata=signed_in())


@pytest.mark.parametrize("after_seq", [0, 1, 2, 3])
async def test_watch_run_of_a_finished_run_gives_what_follows_the_cursor(face: Face, after_seq: int) -> None:
    started = await start(face)
    await face.stage.answer(await face.run(started.run_id))
    call = face.agents.WatchRun(pb.WatchRunRequest(run_id=started.run_id, after_seq=after_seq), metadata=signed_in())
    assert [event.seq async for event in call] == list(range(after_seq + 1, 4))


async def test_a_cursor_beyond_the_log_is_ahead(face: Face) -> None:
    started = await start(face)
    call = face.agents.WatchRun(pb.WatchRunRequest(run_id=started.run_id, after_seq=2), metadata=signed_in())
    async with failed_with("CURSOR_AHEAD", grpc.StatusCode.OUT_OF_RANGE) as failure:
        await call.read()
    assert failure.metadata["last_seq"] == "1"


async def test_what_belongs_to_somebody_else_is_not_there(face: Face) -> None:
    started = await start(face)
    other = signed_in("bob")
    async with failed_with("NOT_FOUND", grpc.StatusCode.NOT_FOUND):
        await face.agents.GetRun(pb.GetRunRequest(run_id=started.run_id), metadata=other)
    async with failed_with("NOT_FOUND", grpc.StatusCode.NOT_FOUND):
        await face.agents.CancelRun(pb.CancelRunRequest(run_id=started.run_id), metadata=other)
    async with failed_with("NOT_FOUND", grpc.StatusCode.NOT_FOUND):
        await face.agents.WatchRun(pb.WatchRunRequest(run_id=started.run_id), metadata=other).read()


async def test_the_tokens_end_ends_a_stream_with_the_last_seq(face: Face) -> None:
    call = face.agents.RunAgent(pb.RunAgentRequest(content="hello"), metadata=signed_in(lifetime_s=0.7))
    assert (await next_event(call)).seq == 1
    run = await face.run(str(dict(await call.initial_metadata())["apex-run-id"]))
    await face.stage.emit(run, text_event())
    assert (await next_event(call)).seq == 2
    async with failed_with("TOKEN_EXPIRED", grpc.StatusCode.UNAUTHENTICATED) as failure:
        await call.read()
    assert failure.metadata["last_seq"] == "2"
    assert face.stage.cancelled == []


async def test_the_tokens_end_reaches_a_reader_that_had_stopped(face: Face) -> None:
    call = face.agents.RunAgent(pb.RunAgentRequest(content="hello"), metadata=signed_in(lifetime_s=0.7))
    seen = [(await next_event(call)).seq]
    run = await face.run(str(dict(await call.initial_metadata())["apex-run-id"]))
    await face.stage.emit(run, *(text_event("y" * 60_000) for _ in range(15)))
    labels = {"method": "RunAgent"}
    await eventually(
        lambda: face.metrics.get_sample_value("apex_grpc_open_calls", labels) == 0, what="the server has ended the call"
    )
    async with failed_with("TOKEN_EXPIRED", grpc.StatusCode.UNAUTHENTICATED) as failure:
        await read_all(call, seen)
    assert seen == list(range(1, len(seen) + 1))
    assert int(failure.metadata["last_seq"]) <= seen[-1]


async def test_draining_ends_a_stream_with_the_last_seq(face: Face) -> None:
    call = face.agents.RunAgent(pb.RunAgentRequest(content="hello"), metadata=signed_in())
    assert (await next_event(call)).seq == 1
    await face.server.drain()
    async with failed_with("DRAINING", grpc.StatusCode.UNAVAILABLE) as failure:
        await call.read()
    assert failure.metadata["last_seq"] == "1"
    assert failure.retry_after_ms is not None


async def test_cancel_by_run_and_by_message_ends_a_queued_run_and_is_idempotent(face: Face) -> None:
    started = await start(face, client_message_id=KEY)
    by_run = pb.CancelRunRequest(run_id=started.run_id)
    for request in (pb.CancelRunRequest(client_message_id=KEY), by_run, by_run):
        answer = await face.agents.CancelRun(request, metadata=signed_in())
        assert (answer.run.status, answer.run.last_seq) == (pb.RUN_STATUS_CANCELLED, 2)


async def test_messages_are_limited_by_user() -> None:
    options = ApiOptions("127.0.0.1:0", max_messages_per_minute=2)
    async with open_face(options) as limited:
        await start(limited)
        await start(limited)
        async with failed_with("RATE_LIMITED", grpc.StatusCode.RESOURCE_EXHAUSTED) as failure:
            await start(limited)
        assert failure.retry_after_ms is not None
        assert 0 < failure.retry_after_ms <= 60_000
        other = pb.StartRunRequest(run=pb.RunAgentRequest(content="hello"))
        await limited.agents.StartRun(other, metadata=signed_in("bob"))


async def test_a_slow_reader_is_told_so_and_the_run_goes_on(face: Face) -> None:
    call = face.agents.RunAgent(pb.RunAgentRequest(content="hello"), metadata=signed_in())
    assert (await next_event(call)).seq == 1
    run = await face.run(str(dict(await call.initial_metadata())["apex-run-id"]))
    # A stream that still reads the log is never slow; this one has reached its end when its events are counted.
    await eventually(lambda: face.metrics.get_sample_value("apex_events_delivered_total") == 1, what="a live stream")
    for _ in range(10):
        await face.stage.emit(run, *(text_event("y" * 60_000) for _ in range(10)))
    await face.stage.answer(run)
    seen = [1]
    async with failed_with("SLOW_CONSUMER", grpc.StatusCode.ABORTED) as failure:
        await read_all(call, seen)
    assert seen == list(range(1, len(seen) + 1))
    assert failure.metadata["last_seq"] == str(seen[-1])
    again = face.agents.WatchRun(pb.WatchRunRequest(run_id=run.run_id, after_seq=seen[-1]), metadata=signed_in())
    assert [event.seq async for event in again] == list(range(seen[-1] + 1, 104))


async def test_lists_and_catalogue(face: Face) -> None:
    started = [await start(face) for _ in range(3)]
    page = await face.agents.ListRuns(pb.ListRunsRequest(page_size=2), metadata=signed_in())
    rest = await face.agents.ListRuns(
        pb.ListRunsRequest(page_size=2, page_token=page.next_page_token), metadata=signed_in()
    )
    listed = [run.run_id for run in (*page.runs, *rest.runs)]
    assert listed == [run.run_id for run in reversed(started)]
    catalogue = await face.agents.ListAgents(pb.ListAgentsRequest(), metadata=signed_in())
    assert [agent.name for agent in catalogue.agents] == ["data"]
    assert catalogue.tools[0].effect == pb.TOOL_EFFECT_READ_ONLY
    assert list(catalogue.tools[0].scopes) == ["eyes"]


async def test_a_decision_reaches_the_engine_as_it_was_made(face: Face) -> None:
    run_id = (await start(face)).run_id
    edited = Struct()
    edited.update({"limit_usd": 50, "models": ["small"]})
    requests = [
        (pb.APPROVAL_CHOICE_APPROVE, None, "", pb.APPROVAL_DECISION_APPROVED),
        (pb.APPROVAL_CHOICE_REJECT, None, "Too dear.", pb.APPROVAL_DECISION_REJECTED),
        (pb.APPROVAL_CHOICE_EDIT, edited, "", pb.APPROVAL_DECISION_EDITED),
        (pb.APPROVAL_CHOICE_EDIT, Struct(), "", pb.APPROVAL_DECISION_EDITED),
    ]
    for choice, args, comment, decision in requests:
        request = pb.ResolveApprovalRequest(
            run_id=run_id, approval_id=KEY.upper(), decision=choice, comment=comment, edited_args=args
        )
        answer = await face.agents.ResolveApproval(request, metadata=signed_in())
        assert answer.decision == decision
    assert face.stage.decided == [
        ("ann", run_id, KEY, Verdict(ApprovalDecision.APPROVED)),
        ("ann", run_id, KEY, Verdict(ApprovalDecision.REJECTED, "Too dear.")),
        ("ann", run_id, KEY, Verdict(ApprovalDecision.EDITED, "", {"limit_usd": 50, "models": ["small"]})),
        ("ann", run_id, KEY, Verdict(ApprovalDecision.EDITED, "", {})),
    ]


@pytest.mark.parametrize("surplus", [0, 1])
async def test_edited_arguments_have_a_bound(face: Face, surplus: int) -> None:
    run_id = (await start(face)).run_id
    edited = Struct()
    edited["text"] = "x" * (MAX_ARGS_BYTES // 2)
    # A text of this length and one of the bound have length fields of the same sizes.
    edited["text"] = "x" * (MAX_ARGS_BYTES // 2 + MAX_ARGS_BYTES + surplus - edited.ByteSize())
    assert edited.ByteSize() == MAX_ARGS_BYTES + surplus
    request = pb.ResolveApprovalRequest(
        run_id=run_id, approval_id=KEY, decision=pb.APPROVAL_CHOICE_EDIT, edited_args=edited
    )
    call = face.agents.ResolveApproval(request, metadata=signed_in())
    if not surplus:
        assert (await call).decision == pb.APPROVAL_DECISION_EDITED
        return
    async with failed_with("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT):
        await call
    assert not face.stage.decided


async def test_what_is_not_there_yet_says_so(face: Face) -> None:
    async with failed_with("UNKNOWN_TYPE", grpc.StatusCode.UNIMPLEMENTED):
        await face.agents.WatchThread(pb.WatchThreadRequest(thread_id=KEY), metadata=signed_in()).read()
    async with failed_with("UNKNOWN_TYPE", grpc.StatusCode.UNIMPLEMENTED):
        await face.sessions.RevokeTokens(pb.RevokeTokensRequest(jti="x"), metadata=signed_in())


async def test_a_user_has_so_many_streams_and_no_more(face: Face) -> None:
    run = await start(face)
    watching = pb.WatchRunRequest(run_id=run.run_id)
    streams = [face.agents.WatchRun(watching, metadata=signed_in()) for _ in range(MAX_STREAMS_PER_USER)]
    for stream in streams:
        await next_event(stream)
    async with failed_with("RATE_LIMITED", grpc.StatusCode.RESOURCE_EXHAUSTED):
        await face.agents.WatchRun(watching, metadata=signed_in()).read()
    async with failed_with("RATE_LIMITED", grpc.StatusCode.RESOURCE_EXHAUSTED):
        await face.agents.RunAgent(pb.RunAgentRequest(content="hello"), metadata=signed_in()).read()
    assert len((await face.agents.ListRuns(pb.ListRunsRequest(), metadata=signed_in())).runs) == 1  # nothing was saved
    other = face.agents.RunAgent(pb.RunAgentRequest(content="hello"), metadata=signed_in("bob"))
    await next_event(other)
    streams[0].cancel()

    async def has_room() -> bool:
        again = face.agents.WatchRun(watching, metadata=signed_in())
        try:
            return isinstance(await again.read(), pb.AgentEvent)
        except grpc.aio.AioRpcError:
            return False

    while not await has_room():
        pass
