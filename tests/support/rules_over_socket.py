"""A request on either side of a rule, as the frame of a socket."""

import json
from collections.abc import Iterable, Mapping
from typing import Final

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.bridge_server import RunningBridge
from tests.support.face import make_token
from tests.support.rules import Edge
from tests.support.rules_over_grpc import Verdict, verdict

MAX_FRAME_BYTES: Final = 8_192

NO_FRAME: Final[Mapping[str, str]] = {
    "RunAgent": "frames are sent on by StartRun, whose message is the same",
    "WatchThread": "watch_thread is not there yet",
    "RevokeTokens": "tokens are revoked over gRPC only",
    "CreateDevToken": "who is on a socket has a token",
    **dict.fromkeys(
        ("ListRuns", "GetRun", "CreateThread", "GetThread", "ListThreads", "UpdateThread", "DeleteThread"), "REST"
    ),
    **dict.fromkeys(("ListMessages", "UploadFile", "ListFiles", "GetFile", "DownloadFile", "DeleteFile"), "REST"),
}
"""The rpcs with rules that no frame leads to, and why."""

HIDDEN: Final[Mapping[str, str]] = {
    "StartRun-run-required": "a frame is a message",
    "StartRun-run-start_run.on_disconnect": "a frame has no on_disconnect",
    "StartRun-run.on_disconnect-defined_only": "a frame has no on_disconnect",
    "StartRun-run.content-max_bytes": "a frame is smaller: MESSAGE_TOO_LARGE says so",
    "CancelRun-reason-max_len": "stop_agent has no reason",
    "CancelRun-reason-not_contains": "stop_agent has no reason",
    "Attach-open_session.token-max_bytes": "a frame is smaller: MESSAGE_TOO_LARGE says so",
}
"""The rules of the other rpcs that no frame can come near, and why. Attach is the bridge's own, but for the token."""

RENAMED: Final = {"client_message_id": "message_id"}
"""What has another name in a frame than in the contract: nothing else."""

Frame = tuple[str, Mapping[str, object]]


def frame_of(edge: Edge, request: Message) -> Frame | None:
    """Return the type and payload of the frame that means this request; None: there is none."""
    frame: Frame | None = None
    match request:
        case pb.StartRunRequest() if request.HasField("run") and not request.run.on_disconnect:
            frame = "start_agent" if request.run.agent else "user_message", _object(request.run)
        case pb.CancelRunRequest() if not request.reason:
            frame = "stop_agent", _object(request)
        case pb.ResolveApprovalRequest():
            frame = "resolve_approval", _object(request)
        case pb.WatchRunRequest():
            frame = "resume", _object(request)
        case pb.AttachRequest() if edge.path == "open_session.token":
            frame = "authenticate", {"token": request.open_session.token}
        case _:
            pass
    return frame if frame is not None and len(_text(frame)) <= MAX_FRAME_BYTES else None


def frame_paths(paths: Iterable[str]) -> frozenset[str]:
    """Return the paths of a request in terms of its frame: the contract names all exceptions."""
    inner = {path.removeprefix("run.").removeprefix("open_session.") for path in paths}
    return frozenset(RENAMED.get(path, path) for path in inner)


def is_the_bridges_own(edge: Edge) -> bool:
    """Tell whether a rule is about what the bridge alone says: items of Attach, but for the token in one."""
    return edge.method.name == "Attach" and edge.path != "open_session.token"


async def over_socket(bridge: RunningBridge, edge: Edge, request: Message, user: str) -> Verdict:
    """Send the frame and return how it was taken."""
    frame = frame_of(edge, request)
    assert frame is not None
    signs_in = frame[0] == "authenticate"
    async with bridge.socket(token=None if signs_in else make_token(user)) as client:
        if not signs_in:
            await client.expect("connection_established")
        await client.connection.send(_text(frame))
        answer = (await client.receive_until("error", "ack"))[-1]
    payload = answer["payload"]
    if answer["type"] == "ack":
        return Verdict()
    return verdict(payload["code"], payload["message"], [violation["field"] for violation in payload["violations"]])


def _text(frame: Frame) -> str:
    kind, payload = frame
    return json.dumps({"type": kind, "payload": payload})


def _object(message: Message) -> dict[str, object]:
    """Return a message as a client would write it: only what is set."""
    return {RENAMED.get(field.name, field.name): _written(field, value) for field, value in message.ListFields()}


def _written(field: FieldDescriptor, value: object) -> object:
    match value:
        case Struct():
            return json_format.MessageToDict(value)
        case Message():
            return _object(value)
        case int() if field.enum_type is not None:
            return enum_name(field, value)
        case bool() | int() | float() | str():
            return value
        case Iterable():
            return [_written(field, one) for one in value]
        case _:
            raise AssertionError(f"{field.name} has no form in JSON")


def enum_name(field: FieldDescriptor, number: int) -> str:
    """Return an enum's value as JSON names it; one that does not exist is its number, which is no name."""
    enum = field.enum_type
    assert enum is not None
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    known = enum.values_by_number.get(number)
    return known.name.removeprefix(prefix).lower() if known is not None else str(number)
