"""Every rpc of the contract answers over a real server, or stands in the one table of what is not there yet."""

import copy
from collections.abc import AsyncIterator, Mapping, Sequence

import grpc
import grpc.aio
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message

from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.completeness import rpc_gaps, rpcs
from tests.support.errors import reason_of
from tests.support.face import Face, make_token, open_face, signed_in
from tests.support.gateway import open_gateway
from tests.support.rules import ID, VALID

NOT_YET = {"AgentService.WatchThread", "SessionService.RevokeTokens"}
"""The only rpcs that may be UNIMPLEMENTED. Whoever serves one takes it out: the tests below insist on it."""

NOT_YET_ATTACHED = {"watch_thread"}
"""The same of requests of the Attach call."""

SERVED = [name for name in rpcs(pb.DESCRIPTOR) if name not in NOT_YET]
METHODS = {
    f"{service.name}.{method.name}": method
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
ATTACH_CASES = [field.name for field in pb.AttachRequest.DESCRIPTOR.oneofs_by_name["request"].fields]


@pytest.fixture
async def face() -> AsyncIterator[Face]:
    async with open_face() as running:
        yield running


async def things_of(face: Face) -> Mapping[str, str]:
    """Make one of everything that requests ask for, and return the ids by the fields that name them."""
    metadata = signed_in()
    run = await face.agents.StartRun(pb.StartRunRequest(run=pb.RunAgentRequest(content="Hello")), metadata=metadata)
    saved = await face.files.UploadFile(iter(_upload()), metadata=metadata)
    return {"run_id": run.run_id, "thread_id": run.thread_id, "file_id": saved.file.file_id}


def _upload() -> list[pb.UploadFileRequest]:
    return [
        pb.UploadFileRequest(metadata=pb.FileMetadata(name="a.csv")),
        pb.UploadFileRequest(chunk=b"a,b\n1,2\n"),
        pb.UploadFileRequest(end=pb.FileEnd()),
    ]


def requests_of(method: MethodDescriptor, things: Mapping[str, str]) -> Sequence[Message]:
    """Return the requests of one call that has an answer."""
    request = copy.deepcopy(VALID[method.name])
    for name, value in things.items():
        if getattr(request, name, "") == ID:
            setattr(request, name, value)
    match request:
        case pb.UploadFileRequest():
            return _upload()
        case pb.AttachRequest():
            return [pb.AttachRequest(open_session=pb.OpenSession(session_id=ID, token=make_token()))]
        case _:
            return [request]


async def answer_of(face: Face, name: str) -> Message:
    """Call the rpc and return its first response. Raises its error."""
    method = METHODS[name]
    streams = {False: "unary", True: "stream"}
    call = getattr(face.channel, f"{streams[method.client_streaming]}_{streams[method.server_streaming]}")(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    requests = requests_of(method, await things_of(face))
    running = call(iter(requests) if method.client_streaming else requests[0], metadata=signed_in())
    try:
        answer = await anext(aiter(running)) if method.server_streaming else await running
    finally:
        running.cancel()
    assert isinstance(answer, Message)
    return answer


def test_every_rpc_is_served_or_listed() -> None:
    assert rpc_gaps(pb.DESCRIPTOR, {"call of these tests": [*SERVED, *NOT_YET]}) == []
    assert VALID.keys() == {method.name for method in METHODS.values()}


@pytest.mark.parametrize("name", SERVED)
async def test_a_served_rpc_answers(face: Face, name: str) -> None:
    answer = await answer_of(face, name)
    assert answer.ListFields() or not METHODS[name].output_type.fields


@pytest.mark.parametrize("name", sorted(NOT_YET))
async def test_what_is_not_there_yet_says_so(face: Face, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer_of(face, name)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert reason_of(caught.value) == "UNKNOWN_TYPE"


@pytest.mark.parametrize("case", ATTACH_CASES)
async def test_every_request_of_a_gateway_is_taken_or_listed(face: Face, case: str) -> None:
    things = await things_of(face)
    async with open_gateway(face.sessions) as gateway:
        await gateway.signed_in(ID)
        inner = _attach_request(pb.AttachRequest.DESCRIPTOR.fields_by_name[case].message_type, things)
        await gateway.say(**{case: inner})
        if case == "close_session":
            assert (await gateway.until("session_ended")).session_ended == pb.SessionEnded()
            return
        # A session handles its requests in order: what it has to say about this one comes before the renewal.
        await gateway.open(ID)
        heard = [await gateway.item()]
        while not heard[-1].HasField("session_ready"):
            heard.append(await gateway.item())
    refusals = [item.watch_ended.reason for item in heard if item.watch_ended.reason]
    assert refusals == ([pb.ERROR_REASON_UNKNOWN_TYPE] if case in NOT_YET_ATTACHED else [])
    assert not any(item.HasField("session_ended") for item in heard)


def _attach_request(kind: Descriptor | None, things: Mapping[str, str]) -> Message:
    assert kind is not None
    known = {"session_id": ID, "watch_id": "w", "token": make_token(), **things}
    inner = message_factory.GetMessageClass(kind)()
    for field in kind.fields:
        if field.name in known:
            setattr(inner, field.name, known[field.name])
    return inner
