"""Every validation rule of every request, from both sides, over gRPC."""

from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf import message_factory
from google.protobuf.message import Message

from agent_service.api.validation import CONTENT_REASONS
from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.errors import failure_of
from tests.support.face import Face, open_face, signed_in
from tests.support.rules import PARTS, VALID, Edge, edges

EDGES = list(edges())
BY_RULE = ("The request is not valid", *(text for _, text in CONTENT_REASONS.values()))
"""How refusals by a rule begin; the engine's own say something else, even about the same field."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def face() -> AsyncIterator[Face]:
    async with open_face() as running:
        yield running


async def first_answer(face: Face, edge: Edge, request: Message) -> Message | grpc.aio.AioRpcError:
    """Call the rpc; return its first response, or its error. A stream that is accepted is left at once."""
    method = edge.method
    kind = f"{_shape(method.client_streaming)}_{_shape(method.server_streaming)}"
    call = getattr(face.channel, kind)(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    given = _requests(edge, request) if method.client_streaming else request
    running = call(given, metadata=signed_in("rules"))
    try:
        answer = await anext(aiter(running)) if method.server_streaming else await running
    except grpc.aio.AioRpcError as error:
        return error
    finally:
        running.cancel()
    assert isinstance(answer, Message)
    return answer


def _shape(streams: bool) -> str:  # noqa: FBT001 - straight from the descriptor
    return "stream" if streams else "unary"


def _requests(edge: Edge, request: Message) -> list[Message]:
    """Return the stream's requests: a piece of an upload comes after its metadata, and one more request of Attach
    about no session makes sure of an answer."""
    if isinstance(request, pb.UploadFileRequest) and not request.HasField("metadata"):
        return [VALID["UploadFile"], request]
    if edge.method.name == "Attach":
        marker = pb.WatchRunItem(session_id="0197f000-0000-7000-8000-00000000000e", watch_id="marker")
        marker.run_id = marker.session_id
        return [request, pb.AttachRequest(watch_run=marker)]
    return [request]


def refused_paths(answer: Message | grpc.aio.AioRpcError) -> list[str]:
    """Return the paths that an answer calls invalid."""
    if isinstance(answer, grpc.aio.AioRpcError):
        failure = failure_of(answer)
        return list(failure.violations) if failure.message.startswith(BY_RULE) else []
    if not isinstance(answer, pb.AttachResponse):
        return []
    ended = [item.session_ended if item.HasField("session_ended") else item.watch_ended for item in answer.items]
    invalid = [one.message for one in ended if one.reason == pb.ERROR_REASON_INVALID_ARGUMENT]
    return [message.removeprefix("The request is not valid: ").split(": ")[0] for message in invalid]


@pytest.mark.parametrize("edge", EDGES, ids=str)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_rule_is_kept_on_its_inside_and_refused_on_its_outside(face: Face, edge: Edge) -> None:
    assert edge.path not in refused_paths(await first_answer(face, edge, edge.inside))
    refused = await first_answer(face, edge, edge.outside)
    assert edge.path in refused_paths(refused)
    if isinstance(refused, grpc.aio.AioRpcError):
        assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_every_rpc_has_a_valid_request_and_every_part_a_valid_message() -> None:
    methods = [method for service in pb.DESCRIPTOR.services_by_name.values() for method in service.methods]
    assert sorted(VALID) == sorted(method.name for method in methods)
    held = {
        field.message_type.full_name
        for message in (*(method.input_type for method in methods), pb.RunAgentRequest.DESCRIPTOR)
        for field in message.fields
        if field.message_type is not None and field.message_type.file is pb.DESCRIPTOR
    }
    entries = {name for name in held if name.endswith("Entry")}
    assert held - entries <= set(PARTS)


def test_there_are_rules_for_all_free_texts_and_ids() -> None:
    """A string without a rule would be a string without a limit."""
    ruled = {(edge.method.name, edge.path.split("[")[0]) for edge in EDGES}
    unruled = {
        (method.name, field.name)
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        for field in method.input_type.fields
        if field.type == field.TYPE_STRING and (method.name, field.name) not in ruled
    }
    assert not unruled
