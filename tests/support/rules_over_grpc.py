"""A request on either side of a rule, over gRPC."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import grpc.aio
from google.protobuf import message_factory
from google.protobuf.message import Message

from agent_service.api.validation import CONTENT_REASONS
from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.errors import failure_of
from tests.support.face import Face, signed_in
from tests.support.rules import VALID, Edge

BY_RULE: Final = ("The request is not valid", *(text for _, text in CONTENT_REASONS.values()))
"""How refusals by a rule begin; the engine's own say something else, even about the same field."""

INVALID: Final = re.compile(r"The request is not valid: ([^:]+): ")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a request was taken: why a rule refuses it, and which fields; nothing where no rule does."""

    reason: str = ""
    paths: frozenset[str] = frozenset()


def verdict(reason: str, message: str, paths: Sequence[str]) -> Verdict:
    """Return the verdict of an error."""
    return Verdict(reason, frozenset(paths)) if message.startswith(BY_RULE) else Verdict()


async def over_grpc(face: Face, edge: Edge, request: Message, user: str) -> Verdict:
    """Call the rpc and return how its request was taken. A stream that is accepted is left at once."""
    answer = await _first_answer(face, edge, request, user)
    if isinstance(answer, grpc.aio.AioRpcError):
        failure = failure_of(answer)
        return verdict(failure.reason, failure.message, failure.violations)
    if not isinstance(answer, pb.AttachResponse):
        return Verdict()
    ended = [item.session_ended if item.HasField("session_ended") else item.watch_ended for item in answer.items]
    paths = [found[1] for one in ended if (found := INVALID.match(one.message))]
    return Verdict("INVALID_ARGUMENT", frozenset(paths)) if paths else Verdict()


async def _first_answer(face: Face, edge: Edge, request: Message, user: str) -> Message | grpc.aio.AioRpcError:
    method = edge.method
    kind = f"{_shape(method.client_streaming)}_{_shape(method.server_streaming)}"
    call = getattr(face.channel, kind)(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    given = _requests(edge, request) if method.client_streaming else request
    running = call(given, metadata=signed_in(user))
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
