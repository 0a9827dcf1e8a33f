"""A real gRPC server that plays the agent service by script: for tests of the bridge.

State outlives a `stop`, so that the service can go away and come back. What users own is not checked beyond the token:
`token-NAME` signs NAME in, anything else is refused.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NoReturn, Self

import grpc
import uuid_utils
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from generated.apex.agent.v1 import agent_pb2 as pb
from generated.apex.agent.v1 import agent_pb2_grpc as rpc

TOKEN_PREFIX = "token-"
TERMINAL = ("agent_completed", "agent_error")
_DECISIONS = {
    pb.APPROVAL_CHOICE_APPROVE: pb.APPROVAL_DECISION_APPROVED,
    pb.APPROVAL_CHOICE_REJECT: pb.APPROVAL_DECISION_REJECTED,
    pb.APPROVAL_CHOICE_EDIT: pb.APPROVAL_DECISION_EDITED,
}
Context = grpc.aio.ServicerContext[Message, Message]


def new_id() -> str:
    return str(uuid_utils.uuid7())


def now() -> Timestamp:
    time = Timestamp()
    time.FromDatetime(datetime(2026, 11, 21, 8, 30, 0, 123456, tzinfo=UTC))
    return time


def answer(text: str) -> list[pb.AgentEvent]:
    """Bodies of a short run that ends well; the first event is made by the service itself."""
    message_id = new_id()
    return [
        pb.AgentEvent(agent_thinking=pb.AgentThinking(thought="Let me see.")),
        pb.AgentEvent(partial_result=pb.PartialResult(message_id=message_id, text=text)),
        pb.AgentEvent(
            final_response=pb.FinalResponse(message_id=message_id, content=text, source=pb.ANSWER_SOURCE_COMPUTED)
        ),
        pb.AgentEvent(
            agent_completed=pb.AgentCompleted(agent_id="a", status=pb.COMPLETION_STATUS_SUCCESS, usage=pb.Usage())
        ),
    ]


@dataclass
class ScriptedRun:
    """A run's log. `emit` appends and wakes the watchers."""

    run_id: str
    thread_id: str
    user_id: str
    request: pb.RunAgentRequest
    events: list[pb.AgentEvent] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def finished(self) -> bool:
        return bool(self.events) and self.events[-1].WhichOneof("event") in TERMINAL

    async def emit(self, *bodies: pb.AgentEvent) -> None:
        async with self.changed:
            for body in bodies:
                event = pb.AgentEvent()
                event.CopyFrom(body)
                event.run_id, event.thread_id = self.run_id, self.thread_id
                event.seq, event.attempt = len(self.events) + 1, 1
                event.agent_name = event.agent_name or "supervisor"
                event.emit_time.CopyFrom(now())
                self.events.append(event)
            self.changed.notify_all()

    async def after(self, seq: int) -> AsyncIterator[pb.AgentEvent]:
        """Every event after the cursor, then live, to the terminal one."""
        while True:
            async with self.changed:
                while len(self.events) <= seq and not self.finished:
                    await self.changed.wait()
                news = self.events[seq:]
            for event in news:
                yield event
            seq += len(news)
            if self.finished and seq >= len(self.events):
                return

    def record(self) -> pb.Run:
        status = pb.RUN_STATUS_COMPLETED if self.finished else pb.RUN_STATUS_RUNNING
        return pb.Run(
            run_id=self.run_id,
            thread_id=self.thread_id,
            user_message_id=self.run_id,
            client_message_id=self.request.client_message_id,
            status=status,
            attempt=1,
            last_seq=len(self.events),
            create_time=now(),
        )


@dataclass
class StoredFile:
    file: pb.File
    content: bytes


class AttachedSession:
    """A session of the Attach call, as the service sees it."""

    def __init__(self, session_id: str, user_id: str, out: asyncio.Queue[pb.AttachResponse.Item]) -> None:
        self.session_id = session_id
        self.user_id = user_id
        self.watches: dict[str, asyncio.Task[None]] = {}
        self._out = out

    def put(self, item: pb.AttachResponse.Item) -> None:
        item.session_id = self.session_id
        self._out.put_nowait(item)

    def end(self, reason: pb.ErrorReason.ValueType, message: str = "", retry_after_ms: int = 0) -> None:
        ended = pb.SessionEnded(reason=reason, message=message, retry_after_ms=retry_after_ms)
        self.put(pb.AttachResponse.Item(session_ended=ended))

    def cancel(self) -> None:
        for task in self.watches.values():
            task.cancel()


class ScriptedService(
    rpc.SessionServiceServicer, rpc.AgentServiceServicer, rpc.ThreadServiceServicer, rpc.FileServiceServicer
):
    """Use as `async with ScriptedService() as service`; `service.target` is its address, the same after a restart."""

    def __init__(self) -> None:
        self.script: Sequence[pb.AgentEvent] | None = answer("Forty-two.")
        self.runs: dict[str, ScriptedRun] = {}
        self.threads: dict[str, pb.Thread] = {}
        self.messages: dict[str, list[pb.Message]] = defaultdict(list)
        self.files: dict[str, StoredFile] = {}
        self.sessions: dict[str, AttachedSession] = {}
        self.requests: list[pb.AttachRequest] = []
        self.calls: list[tuple[str, Message]] = []
        self.tokens: list[str] = []
        self.fail_starts: list[grpc.StatusCode] = []
        self.lose_starts = 0
        self.refuse_sessions: dict[str, pb.ErrorReason.ValueType] = {}
        self.port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        rpc.add_SessionServiceServicer_to_server(self, server)
        rpc.add_AgentServiceServicer_to_server(self, server)
        rpc.add_ThreadServiceServicer_to_server(self, server)
        rpc.add_FileServiceServicer_to_server(self, server)
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Go away at once, as if killed."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)
        self.sessions.clear()

    def opened(self) -> list[str]:
        """Ids of the sessions that were asked for, in order, renewals included."""
        return [r.open_session.session_id for r in self.requests if r.WhichOneof("request") == "open_session"]

    def only_run(self) -> ScriptedRun:
        (run,) = self.runs.values()
        return run

    # --- SessionService

    async def Attach(
        self, request_iterator: AsyncIterator[pb.AttachRequest], context: Context
    ) -> AsyncIterator[pb.AttachResponse]:
        out: asyncio.Queue[pb.AttachResponse.Item] = asyncio.Queue()
        sessions: dict[str, AttachedSession] = {}

        async def read() -> None:
            async for request in request_iterator:
                self.requests.append(request)
                self._handle(request, sessions, out)

        reading = asyncio.create_task(read())
        try:
            while True:
                items = [await out.get()]
                while not out.empty():
                    items.append(out.get_nowait())
                yield pb.AttachResponse(items=items)
        finally:
            reading.cancel()
            for session in sessions.values():
                session.cancel()

    def _handle(
        self,
        request: pb.AttachRequest,
        sessions: dict[str, AttachedSession],
        out: asyncio.Queue[pb.AttachResponse.Item],
    ) -> None:
        match request.WhichOneof("request"):
            case "open_session":
                self._open(request.open_session, sessions, out)
            case "close_session":
                session = sessions.pop(request.close_session.session_id, None)
                if session is not None:
                    session.cancel()
                    self.sessions.pop(session.session_id, None)
            case "watch_run":
                watch = request.watch_run
                session = sessions[watch.session_id]
                session.watches[watch.watch_id] = asyncio.create_task(self._watch(session, watch))
            case "unwatch":
                session = sessions[request.unwatch.session_id]
                session.watches.pop(request.unwatch.watch_id).cancel()
            case _:
                pass  # recorded in `requests`

    def _open(
        self,
        request: pb.OpenSession,
        sessions: dict[str, AttachedSession],
        out: asyncio.Queue[pb.AttachResponse.Item],
    ) -> None:
        self.tokens.append(request.token)
        user_id = request.token.removeprefix(TOKEN_PREFIX)
        session = sessions.get(request.session_id) or AttachedSession(request.session_id, user_id, out)
        refused = self.refuse_sessions.get(request.token)
        if refused is None and not request.token.startswith(TOKEN_PREFIX):
            refused = pb.ERROR_REASON_UNAUTHENTICATED
        if refused is not None:
            session.end(refused, "The token is not valid. Sign in again.")
            return
        sessions[request.session_id] = self.sessions[request.session_id] = session
        expires = now()
        expires.FromDatetime(now().ToDatetime() + timedelta(hours=1))
        open_runs = [run for run in self.runs.values() if run.user_id == user_id and not run.finished]
        ready = pb.SessionReady(
            user_id=user_id,
            expire_time=expires,
            active_runs=[
                pb.ActiveRun(
                    run_id=run.run_id,
                    thread_id=run.thread_id,
                    last_seq=len(run.events),
                    status=pb.RUN_STATUS_RUNNING,
                )
                for run in open_runs
            ],
        )
        session.put(pb.AttachResponse.Item(session_ready=ready))

    async def _watch(self, session: AttachedSession, watch: pb.WatchRunItem) -> None:
        run = self.runs.get(watch.run_id)
        ended = pb.WatchEnded(last_seq=watch.after_seq)
        if run is None or run.user_id != session.user_id:
            ended.reason, ended.message = pb.ERROR_REASON_NOT_FOUND, "There is no such run."
        elif watch.after_seq > len(run.events):
            ended.reason, ended.message = pb.ERROR_REASON_CURSOR_AHEAD, "The cursor is ahead of the run."
        else:
            async for event in run.after(watch.after_seq):
                session.put(pb.AttachResponse.Item(watch_id=watch.watch_id, event=event))
        session.put(pb.AttachResponse.Item(watch_id=watch.watch_id, watch_ended=ended))

    async def CreateDevToken(self, request: pb.CreateDevTokenRequest, context: Context) -> pb.CreateDevTokenResponse:
        self.calls.append(("CreateDevToken", request))
        user_id = request.user_id or "dev"
        return pb.CreateDevTokenResponse(token=f"{TOKEN_PREFIX}{user_id}", expire_time=now(), user_id=user_id)

    # --- AgentService

    async def StartRun(self, request: pb.StartRunRequest, context: Context) -> pb.StartRunResponse:
        user_id = await self._user(context, "StartRun", request)
        if self.fail_starts:
            await context.abort(self.fail_starts.pop(0), "scripted")
        known = [r for r in self.runs.values() if r.request.client_message_id == request.run.client_message_id]
        run = known[0] if known else await self._accept(user_id, request.run)
        if self.lose_starts > 0:
            self.lose_starts -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        return pb.StartRunResponse(
            run_id=run.run_id, thread_id=run.thread_id, user_message_id=run.run_id, already_existed=bool(known)
        )

    async def _accept(self, user_id: str, request: pb.RunAgentRequest) -> ScriptedRun:
        if request.content == "refuse me":
            raise AssertionError("an unknown exception of the service")
        run = ScriptedRun(new_id(), request.thread_id or new_id(), user_id, request)
        self.runs[run.run_id] = run
        started = pb.AgentStarted(agent_id="a", message="I am on it.", user_message_id=run.run_id)
        await run.emit(pb.AgentEvent(agent_started=started), *(self.script or ()))
        return run

    async def RunAgent(self, request: pb.RunAgentRequest, context: Context) -> AsyncIterator[pb.AgentEvent]:
        run = await self._accept(await self._user(context, "RunAgent", request), request)
        async for event in run.after(0):
            yield event

    async def WatchRun(self, request: pb.WatchRunRequest, context: Context) -> AsyncIterator[pb.AgentEvent]:
        await self._user(context, "WatchRun", request)
        async for event in (await self._find(context, request.run_id)).after(request.after_seq):
            yield event

    async def CancelRun(self, request: pb.CancelRunRequest, context: Context) -> pb.CancelRunResponse:
        await self._user(context, "CancelRun", request)
        by_key = [r for r in self.runs.values() if r.request.client_message_id == request.client_message_id]
        run = by_key[0] if by_key else await self._find(context, request.run_id)
        if not run.finished:
            cancelled = pb.AgentCompleted(agent_id="a", status=pb.COMPLETION_STATUS_CANCELLED)
            await run.emit(pb.AgentEvent(agent_completed=cancelled))
        return pb.CancelRunResponse(run=run.record())

    async def ResolveApproval(self, request: pb.ResolveApprovalRequest, context: Context) -> pb.ResolveApprovalResponse:
        user_id = await self._user(context, "ResolveApproval", request)
        run = await self._find(context, request.run_id)
        decision = _DECISIONS[request.decision]
        resolved = pb.ApprovalResolved(
            approval_id=request.approval_id, decision=decision, decided_by=user_id, comment=request.comment
        )
        if not run.finished:
            await run.emit(pb.AgentEvent(approval_resolved=resolved))
        return pb.ResolveApprovalResponse(decision=decision)

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        await self._user(context, "GetRun", request)
        return pb.GetRunResponse(run=(await self._find(context, request.run_id)).record())

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        await self._user(context, "ListRuns", request)
        return pb.ListRunsResponse(runs=[run.record() for run in self.runs.values()])

    async def ListAgents(self, request: pb.ListAgentsRequest, context: Context) -> pb.ListAgentsResponse:
        await self._user(context, "ListAgents", request)
        tool = pb.Tool(name="usage_summary", effect=pb.TOOL_EFFECT_READ_ONLY, timeout_ms=1000, argument_schema="{}")
        return pb.ListAgentsResponse(agents=[pb.Agent(name="data", tool_names=["usage_summary"])], tools=[tool])

    # --- ThreadService

    async def CreateThread(self, request: pb.CreateThreadRequest, context: Context) -> pb.CreateThreadResponse:
        await self._user(context, "CreateThread", request)
        thread = pb.Thread(thread_id=new_id(), title=request.title, create_time=now(), update_time=now())
        self.threads[thread.thread_id] = thread
        return pb.CreateThreadResponse(thread=thread)

    async def GetThread(self, request: pb.GetThreadRequest, context: Context) -> pb.GetThreadResponse:
        await self._user(context, "GetThread", request)
        return pb.GetThreadResponse(thread=await self._thread(context, request.thread_id))

    async def ListThreads(self, request: pb.ListThreadsRequest, context: Context) -> pb.ListThreadsResponse:
        await self._user(context, "ListThreads", request)
        return pb.ListThreadsResponse(threads=self.threads.values(), next_page_token="")

    async def UpdateThread(self, request: pb.UpdateThreadRequest, context: Context) -> pb.UpdateThreadResponse:
        await self._user(context, "UpdateThread", request)
        thread = await self._thread(context, request.thread_id)
        if not request.title.strip():
            violation = BadRequest.FieldViolation(field="title", description="must not be blank")
            await self.fail(
                context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", BadRequest(field_violations=[violation])
            )
        thread.title = request.title
        return pb.UpdateThreadResponse(thread=thread)

    async def DeleteThread(self, request: pb.DeleteThreadRequest, context: Context) -> pb.DeleteThreadResponse:
        await self._user(context, "DeleteThread", request)
        del self.threads[(await self._thread(context, request.thread_id)).thread_id]
        return pb.DeleteThreadResponse()

    async def ListMessages(self, request: pb.ListMessagesRequest, context: Context) -> pb.ListMessagesResponse:
        await self._user(context, "ListMessages", request)
        await self._thread(context, request.thread_id)
        message = pb.Message(
            message_id=new_id(),
            thread_id=request.thread_id,
            run_id=new_id(),
            role=pb.MESSAGE_ROLE_USER,
            content="Hello",
            create_time=now(),
        )
        return pb.ListMessagesResponse(messages=[message])

    # --- FileService

    async def UploadFile(
        self, request_iterator: AsyncIterator[pb.UploadFileRequest], context: Context
    ) -> pb.UploadFileResponse:
        await self._user(context, "UploadFile", pb.UploadFileRequest())
        metadata = pb.FileMetadata()
        content = bytearray()
        ended = False
        async for part in request_iterator:
            if part.WhichOneof("part") == "metadata":
                metadata = part.metadata
                if metadata.name.endswith(".exe"):
                    await self.fail(context, grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED_FILE")
                if len(metadata.name) > 255:
                    violation = BadRequest.FieldViolation(
                        field="metadata.name", description="must be at most 255 characters"
                    )
                    bad = BadRequest(field_violations=[violation])
                    await self.fail(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", bad)
            assert not ended, "something follows the end"
            content += part.chunk
            ended = part.WhichOneof("part") == "end"
        if not ended:  # a caller who goes away looks like one who has sent everything
            await self.fail(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
        file = pb.File(
            file_id=new_id(),
            name=metadata.name,
            media_type=metadata.media_type or "text/csv",
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            create_time=now(),
        )
        self.files[file.file_id] = StoredFile(file, bytes(content))
        return pb.UploadFileResponse(file=file)

    async def ListFiles(self, request: pb.ListFilesRequest, context: Context) -> pb.ListFilesResponse:
        await self._user(context, "ListFiles", request)
        return pb.ListFilesResponse(files=[stored.file for stored in self.files.values()])

    async def GetFile(self, request: pb.GetFileRequest, context: Context) -> pb.GetFileResponse:
        await self._user(context, "GetFile", request)
        return pb.GetFileResponse(file=(await self._file(context, request.file_id)).file)

    async def DownloadFile(
        self, request: pb.DownloadFileRequest, context: Context
    ) -> AsyncIterator[pb.DownloadFileResponse]:
        await self._user(context, "DownloadFile", request)
        stored = await self._file(context, request.file_id)
        yield pb.DownloadFileResponse(file=stored.file)
        for start in range(0, len(stored.content), 262_144):
            yield pb.DownloadFileResponse(chunk=stored.content[start : start + 262_144])

    async def DeleteFile(self, request: pb.DeleteFileRequest, context: Context) -> pb.DeleteFileResponse:
        await self._user(context, "DeleteFile", request)
        del self.files[(await self._file(context, request.file_id)).file.file_id]
        return pb.DeleteFileResponse()

    # --- what the bridge never calls

    async def WatchThread(self, request: pb.WatchThreadRequest, context: Context) -> AsyncIterator[pb.AgentEvent]:
        events: list[pb.AgentEvent] = []
        for event in events:
            yield event

    async def RevokeTokens(self, request: pb.RevokeTokensRequest, context: Context) -> pb.RevokeTokensResponse:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED)

    # --- help

    async def fail(self, context: Context, code: grpc.StatusCode, reason: str, *details: Message) -> NoReturn:
        """End a call as the service does: with `google.rpc` details."""
        status = Status(code=code.value[0], message=f"Scripted: {reason}.")
        info = ErrorInfo(reason=reason, domain="apex.agent.v1", metadata={"error_id": "scripted-error"})
        for detail in (info, *details):
            status.details.add().Pack(detail)
        await context.abort(code, status.message, (("grpc-status-details-bin", status.SerializeToString()),))

    async def _user(self, context: Context, name: str, request: Message) -> str:
        self.calls.append((name, request))
        metadata = dict(context.invocation_metadata() or ())
        token = str(metadata.get("authorization", "")).removeprefix("Bearer ")
        if not token.startswith(TOKEN_PREFIX):
            await self.fail(context, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        if token == f"{TOKEN_PREFIX}limited":
            retry = RetryInfo()
            retry.retry_delay.FromMilliseconds(1200)
            await self.fail(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry)
        return token.removeprefix(TOKEN_PREFIX)

    async def _find(self, context: Context, run_id: str) -> ScriptedRun:
        if run_id not in self.runs:
            await self.fail(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        return self.runs[run_id]

    async def _thread(self, context: Context, thread_id: str) -> pb.Thread:
        if thread_id not in self.threads:
            await self.fail(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        return self.threads[thread_id]

    async def _file(self, context: Context, file_id: str) -> StoredFile:
        if file_id not in self.files:
            await self.fail(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        return self.files[file_id]
