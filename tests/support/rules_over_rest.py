"""A request on either side of a rule, as a request of HTTP."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import httpx
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.face import make_token
from tests.support.rules import Edge
from tests.support.rules_over_grpc import Verdict, verdict
from tests.support.rules_over_socket import enum_name

NO_ROUTE: Final[Mapping[str, str]] = {
    "RunAgent": "messages go over the socket",
    "StartRun": "messages go over the socket",
    "WatchThread": "there is no such route",
    "Attach": "it is the bridge's own",
    "RevokeTokens": "tokens are revoked over gRPC only",
}
"""The rpcs with rules that no route leads to, and why."""

HIDDEN: Final[Mapping[str, str]] = {
    "CancelRun-target-required": "the path names the run",
    "CancelRun-client_message_id-uuid": "the path names the run, by its id",
    "UploadFile-part-required": "the bridge makes the parts of the form",
    "UploadFile-metadata.size_bytes-gte": "a form does not tell the size of its file",
    "UploadFile-metadata.size_bytes-lte": "a form does not tell the size of its file",
    "UploadFile-chunk-min_len": "the bridge makes the pieces",
    "UploadFile-chunk-max_len": "the bridge makes the pieces",
    "UploadFile-metadata.name-file_name": "the bridge cuts off the folder that this rule's outside has",
}
"""The rules of the other rpcs that no request can come near, and why."""

Written: TypeAlias = int | str | list[str]

RENAMED: Final[Mapping[str, str]] = {
    "metadata.media_type": "file",  # a form has one field
    "expires_in_ms": "expires_in_s",
}
"""What has another name in a request than in the contract."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where an rpc is asked: the fields of its request that are in the path, in the query and in the body."""

    method: str
    path: str
    query: Sequence[str] = ()
    body: Sequence[str] = ()


PAGE: Final = ("page_size", "page_token")
RUN: Final = "/api/v1/runs/{run_id}"
THREAD: Final = "/api/v1/threads/{thread_id}"
FILE: Final = "/api/v1/files/{file_id}"

ROUTES: Final[Mapping[str, Route]] = {
    "ListRuns": Route("GET", "/api/v1/runs", ("thread_id", "statuses", *PAGE)),
    "GetRun": Route("GET", RUN),
    "WatchRun": Route("GET", f"{RUN}/events", ("after_seq",)),
    "CancelRun": Route("POST", f"{RUN}/cancel", body=("reason",)),
    "ResolveApproval": Route("POST", f"{RUN}/approvals/{{approval_id}}", body=("decision", "comment", "edited_args")),
    "ListThreads": Route("GET", "/api/v1/threads", ("query", *PAGE)),
    "CreateThread": Route("POST", "/api/v1/threads", body=("title",)),
    "GetThread": Route("GET", THREAD),
    "UpdateThread": Route("PATCH", THREAD, body=("title",)),
    "DeleteThread": Route("DELETE", THREAD),
    "ListMessages": Route("GET", f"{THREAD}/messages", PAGE),
    "UploadFile": Route("POST", "/api/v1/files"),
    "ListFiles": Route("GET", "/api/v1/files", PAGE),
    "GetFile": Route("GET", FILE),
    "DownloadFile": Route("GET", f"{FILE}/content"),
    "DeleteFile": Route("DELETE", FILE),
    "CreateDevToken": Route("POST", "/auth/dev-token", body=("user_id", "scope", "expires_in_ms")),
}


def is_expressible(edge: Edge) -> bool:
    """Tell whether a request of HTTP can come near the rule."""
    return edge.method.name in ROUTES and str(edge) not in HIDDEN


def rest_paths(paths: Iterable[str]) -> frozenset[str]:
    """Return the paths of a request in terms of HTTP."""
    return frozenset(RENAMED.get(path, path) for path in paths)


async def over_rest(http: httpx.AsyncClient, edge: Edge, request: Message, user: str) -> Verdict:
    """Send the request and return how it was taken."""
    route = ROUTES[edge.method.name]
    given = {field.name: _written(field, value) for field, value in request.ListFields()}
    query = {name: given[name] for name in route.query if name in given}
    body: dict[str, object] = {RENAMED.get(name, name): given[name] for name in route.body if name in given}
    if isinstance(request, pb.ResolveApprovalRequest) and request.HasField("edited_args"):
        body["edited_args"] = json_format.MessageToDict(request.edited_args)
    answer = await http.request(
        route.method,
        route.path.format(**given),
        params=query,
        json=body if route.body else None,
        files=_form(request) if isinstance(request, pb.UploadFileRequest) else None,
        headers={"Authorization": f"Bearer {make_token(user)}"},
    )
    if answer.is_success:
        return Verdict()
    payload = answer.json()["payload"]
    return verdict(payload["code"], payload["message"], [violation["field"] for violation in payload["violations"]])


def _form(request: pb.UploadFileRequest) -> dict[str, tuple[str, bytes, str]]:
    return {"file": (request.metadata.name, b"x", request.metadata.media_type)}


def _written(field: FieldDescriptor, value: object) -> Written:
    """Return a value as HTTP writes it: enums by name, times in whole seconds, rounded away from what is permitted."""
    match value:
        case int() if field.name == "expires_in_ms":
            return math.floor(value / 1000) if value < 1000 else math.ceil(value / 1000)
        case int() if field.enum_type is not None:
            return enum_name(field, value)
        case int() | str():
            return value
        case Message():
            return ""
        case Iterable():
            return [enum_name(field, number) for number in value]
        case _:
            raise AssertionError(f"{field.name} has no form in HTTP")
