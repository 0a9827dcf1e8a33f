"""REST under `/api/v1`: each handler calls the RPC of the same name with the caller's own token."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Final

from fastapi import APIRouter, Body, Depends, Query
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from pydantic import AfterValidator
from starlette.responses import Response

from generated.apex.agent.v1 import agent_pb2 as pb
from ws_bridge import rest_models as models
from ws_bridge.calls import Calls, bearer
from ws_bridge.close_codes import MEANINGS, Reason
from ws_bridge.frames import Failure, Violation
from ws_bridge.http_errors import JSON, RefusedError
from ws_bridge.wire.events import event_json, is_terminal
from ws_bridge.wire.validation import invalid_message
from ws_bridge.wire.values import JsonObject, message_object, struct_of, time_text, to_json

CALL_TIMEOUT_S: Final = 30.0
MAX_EVENTS: Final = 1000
"""Events of one answer; fewer if they are large."""
MAX_EVENTS_BYTES: Final = 4 * 1024 * 1024
ERRORS: Final[Mapping[int | str, dict[str, object]]] = {
    status: {"model": models.Error}
    for status in sorted({meaning.http_status for meaning in MEANINGS.values()} & {400, 401, 403, 404, 429, 500, 503})
}

_scheme = HTTPBearer(auto_error=False, description="The user's token.")


def user_token(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]) -> str:
    """Return the caller's token; the service verifies it."""
    token = credentials.credentials if credentials is not None else ""
    if not token or not token.isascii() or not token.isprintable():
        raise RefusedError(Failure(Reason.UNAUTHENTICATED, "Sign in first: Authorization: Bearer with a valid token."))
    return token


Token = Annotated[str, Depends(user_token)]
INT32_MIN: Final = -(2**31)
INT32_MAX: Final = 2**31 - 1


def _int32(value: int) -> int:
    """Return the nearest value that the contract's field can carry; the contract's own rule then refuses it."""
    return min(max(value, INT32_MIN), INT32_MAX)


# Limits of the contract are the service's to check, so that both transports refuse with the same words: these two
# only show them.
PageSize = Annotated[
    int,
    AfterValidator(_int32),
    Query(description="At most; 0: 50.", json_schema_extra={"minimum": 0, "maximum": 200}),
]
PageToken = Annotated[
    str, Query(description="`next_page_token` of the page before.", json_schema_extra={"maxLength": 512})
]


def json_response(value: JsonObject, status: int = 200) -> Response:
    """Return a JSON object as a response."""
    return Response(to_json(value), status, media_type=JSON)


def message_response(message: Message, status: int = 200) -> Response:
    """Return a message of the contract as a response."""
    return json_response(message_object(message), status)


def thread_routes(calls: Calls) -> APIRouter:
    """Return the routes of threads and their messages."""
    router = APIRouter(tags=["threads"], responses={**ERRORS})

    @router.get("/threads", response_model=models.ThreadPage, summary="List threads, most recently used first")
    async def list_threads(
        token: Token,
        query: Annotated[
            str, Query(description="Only threads that contain it.", json_schema_extra={"maxLength": 200})
        ] = "",
        page_size: PageSize = 0,
        page_token: PageToken = "",
    ) -> Response:
        request = pb.ListThreadsRequest(query=query, page_size=page_size, page_token=page_token)
        return message_response(
            await calls.threads.ListThreads(request, metadata=bearer(token), timeout=CALL_TIMEOUT_S)
        )

    @router.post("/threads", response_model=models.Thread, status_code=201, summary="Make an empty thread")
    async def create_thread(token: Token, body: Annotated[models.NewThread | None, Body()] = None) -> Response:
        request = pb.CreateThreadRequest(title=body.title if body else "")
        response = await calls.threads.CreateThread(request, metadata=bearer(token), timeout=CALL_TIMEOUT_S)
        return message_response(response.thread, 201)

    @router.get("/threads/{thread_id}", response_model=models.Thread, summary="Get a thread")
    async def get_thread(token: Token, thread_id: str) -> Response:
        request = pb.GetThreadRequest(thread_id=thread_id)
        response = await calls.threads.GetThread(request, metadata=bearer(token), timeout=CALL_TIMEOUT_S)
        return message_response(response.thread)

    @router.patch("/threads/{thread_id}", response_model=models.Thread, summary="Rename a thread")
    async def update_thread(token: Token, thread_id: str, body: models.ThreadChange) -> Response:
        request = pb.UpdateThreadRequest(thread_id=thread_id, title=body.title)
        response = await calls.threads.UpdateThread(request, metadata=bearer(token), timeout=CALL_TIMEOUT_S)
        return message_response(response.thread)

    @router.delete("/threads/{thread_id}", status_code=204, summary="Delete a thread with all that belongs to it")
    async def delete_thread(token: Token, thread_id: str) -> Response:
        request = pb.DeleteThreadRequest(thread_id=thread_id)
        await calls.threads.DeleteThread(request, metadata=bearer(token), timeout=CALL_TIMEOUT_S)
        return Response(status_code=204)

    @router.get("/threads/{thread_id}/messages", response_model=models.MessagePage, summary="List a thread's messages")
    async def list_messages(
        token: Token, thread_id: str, page_size: PageSize = 0, page_token: PageToken = ""
    ) -> Response:
        request = pb.ListMessagesRequest(thread_id=thread_id, page_size=page_size, page_token=page_token)
        return message_response(
            await calls.threads.ListMessages(request, metadata=bearer(token), timeout=CALL_TIMEOUT_S)
        )

    return router


def run_routes(calls: Calls) -> APIRouter:
    """Return the routes of runs and the catalogue."""
    router = APIRouter(tags=["runs"], responses={**ERRORS})

    @router.get("/runs", response_model=models.RunPage, summary="List runs, newest first")
    async def list_runs(
        token: Token,
        thread_id: str = "",
        statuses: Annotated[list[models.RunStatusName] | None, Query(description="Only these states.")] = None,
        page_size: PageSize = 0,
        page_token: PageToken = "",
    ) -> Response:
        numbers = [pb.RunStatus.Value(f"RUN_STATUS_{name.upper()}") for name in statuses or ()]
        request = pb.ListRunsRequest(thread_id=thread_id, statuses=numbers, page_size=page_size, page_token=page_token)
        return message_response(await calls.agents.ListRuns(request, metadata=bearer(token), timeout=CALL_TIMEOUT_S))

    @router.get("/runs/{run_id}", response_model=models.Run, summary="Get a run")
    async def get_run(token: Token, run_id: str) -> Response:
        return message_response(await _run(calls, token, run_id))

    @router.post("/runs/{run_id}/cancel", response_model=models.Run, summary="Ask a run to end")
    async def cancel_run(
        token: Token, run_id: str, body: Annotated[models.Cancellation | None, Body()] = None
    ) -> Response:
        request = pb.CancelRunRequest(run_id=run_id, reason=body.reason if body else "")
        response = await calls.agents.CancelRun(request, metadata=bearer(token), timeout=CALL_TIMEOUT_S)
        return message_response(response.run)

    @router.post(
        "/runs/{run_id}/approvals/{approval_id}",
        response_model=models.ApprovalResolution,
        responses={409: {"model": models.Error}},
        summary="Decide about a tool call that waits for a person",
    )
    async def resolve_approval(token: Token, run_id: str, approval_id: str, body: models.ApprovalVerdict) -> Response:
        request = pb.ResolveApprovalRequest(
            run_id=run_id,
            approval_id=approval_id,
            decision=pb.ApprovalChoice.Value(f"APPROVAL_CHOICE_{body.decision.upper()}"),
            comment=body.comment,
            edited_args=None if body.edited_args is None else _struct("edited_args", body.edited_args),
        )
        return message_response(
            await calls.agents.ResolveApproval(request, metadata=bearer(token), timeout=CALL_TIMEOUT_S)
        )

    @router.get("/runs/{run_id}/events", response_model=models.RunEvents, summary="Get a run's events so far")
    async def list_events(
        token: Token,
        run_id: str,
        after_seq: Annotated[int, Query(ge=0, le=2**32 - 1, description="The last seq that you have.")] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_EVENTS)] = MAX_EVENTS,
    ) -> Response:
        run = await _run(calls, token, run_id)
        if after_seq > run.last_seq:
            text = f"The run has {run.last_seq} events so far; after_seq is {after_seq}."
            raise RefusedError(Failure(Reason.CURSOR_AHEAD, text))
        last_seq = min(run.last_seq, after_seq + limit)
        frames = [frame async for frame in _events(calls, token, run_id, after_seq, last_seq)]
        body = b'{"events":[%b],"last_seq":%d}' % (b",".join(frames), run.last_seq)
        return Response(body, media_type=JSON)

    @router.get("/agents", response_model=models.Catalogue, summary="List the agents and their tools")
    async def list_agents(token: Token) -> Response:
        request = pb.ListAgentsRequest()
        return message_response(await calls.agents.ListAgents(request, metadata=bearer(token), timeout=CALL_TIMEOUT_S))

    return router


def dev_token_route(calls: Calls) -> APIRouter:
    """Return the route that makes tokens without a sign-in; for development and test only."""
    router = APIRouter(tags=["sign-in"], responses={**ERRORS})

    @router.post("/auth/dev-token", response_model=models.DevToken, summary="Make a token for development")
    async def create_dev_token(body: Annotated[models.DevTokenRequest | None, Body()] = None) -> Response:
        asked = body or models.DevTokenRequest()
        request = pb.CreateDevTokenRequest(
            user_id=asked.user_id, scope=asked.scope, expires_in_ms=asked.expires_in_s * 1000
        )
        made = await calls.sessions.CreateDevToken(request, timeout=CALL_TIMEOUT_S)
        expires_at = time_text(made.expire_time)
        return json_response(
            {"token": made.token, "token_type": "Bearer", "expires_at": expires_at, "user_id": made.user_id}
        )

    return router


def _struct(field: str, value: Mapping[str, object]) -> Struct:
    try:
        return struct_of(value)
    except (ValueError, OverflowError) as error:
        violations = (Violation(field, f"holds a value that cannot be sent on: {error}"),)
        raise RefusedError(
            Failure(Reason.INVALID_ARGUMENT, invalid_message(violations), violations=violations)
        ) from error


async def _run(calls: Calls, token: str, run_id: str) -> pb.Run:
    request = pb.GetRunRequest(run_id=run_id)
    return (await calls.agents.GetRun(request, metadata=bearer(token), timeout=CALL_TIMEOUT_S)).run


async def _events(calls: Calls, token: str, run_id: str, after_seq: int, last_seq: int) -> AsyncIterator[bytes]:
    """Yield the frames of the events after the cursor, up to `last_seq`, which the run has reached already."""
    if after_seq >= last_seq:
        return
    size = 0
    request = pb.WatchRunRequest(run_id=run_id, after_seq=after_seq)
    call = calls.agents.WatchRun(request, metadata=bearer(token), timeout=CALL_TIMEOUT_S)
    try:
        async for event in call:
            frame = event_json(event)
            yield frame
            size += len(frame)
            if event.seq >= last_seq or size >= MAX_EVENTS_BYTES or is_terminal(event):
                return
    finally:
        call.cancel()
