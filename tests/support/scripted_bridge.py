"""A bridge that plays scripts: the page's static files and protocol, with every pause in the test's hands.

It holds what the real bridge and service cannot be made to do on purpose: a run that stands still in the middle, a
gap in the events, a line that breaks at a chosen event. What the product does is tested against the product.
"""

import asyncio
import contextlib
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

import uvicorn
from fastapi import FastAPI, Request, Response, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from ws_bridge.http_guard import CSP, STATIC

TERMINAL = ("agent_completed", "agent_error")

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | dict[str, Json] | None"
Frame: TypeAlias = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a scripted run."""

    type: str
    payload: Frame
    agent_name: str = "supervisor"


@dataclass(frozen=True, slots=True)
class Pause:
    """The run stands still here until the test calls `release(name)`."""

    name: str


Script: TypeAlias = Callable[[str], Sequence[Event | Pause]]


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(slots=True, eq=False)
class Run:
    """A run and its log."""

    run_id: str
    thread_id: str
    message_id: str
    content: str
    create_time: str
    status: str = "queued"
    events: list[Frame] = field(default_factory=list)
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    player: "asyncio.Task[None] | None" = None

    def append(self, event: Event) -> None:
        self.events.append(
            {
                "type": event.type,
                "run_id": self.run_id,
                "thread_id": self.thread_id,
                "seq": len(self.events) + 1,
                "attempt": 1,
                "agent_name": event.agent_name,
                "timestamp": now(),
                "payload": event.payload,
            }
        )
        ended = {"agent_completed": "completed", "agent_error": "failed"}.get(event.type, "running")
        self.status = "cancelled" if event.payload.get("status") == "cancelled" and ended == "completed" else ended
        self.grown.set()
        self.grown = asyncio.Event()

    def row(self) -> Frame:
        return {
            "run_id": self.run_id,
            "thread_id": self.thread_id,
            "status": self.status,
            "last_seq": len(self.events),
            "create_time": self.create_time,
        }

    def messages(self) -> list[Frame]:
        row: Frame = {"thread_id": self.thread_id, "run_id": self.run_id, "create_time": self.create_time}
        row["superseded_by_run_id"] = ""
        rows: list[Frame] = [{**row, "message_id": self.message_id, "role": "user", "content": self.content}]
        for event in self.events:
            payload = event["payload"]
            if event["type"] == "final_response" and isinstance(payload, dict):
                rows.append({**row, "message_id": str(uuid.uuid4()), "role": "assistant", **payload})
        return rows


class _Server(uvicorn.Server):
    """A server that says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


class ScriptedBridge:
    """Serves the page and plays `script(content)` for every message."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.received: list[Frame] = []  # every frame of every client, in order
        self.refusals: list[Frame] = []  # error payloads for the next messages and decisions, each used once
        self.contents: dict[str, Response] = {}  # file id → its content
        self.skipped: set[int] = set()  # seqs that are lost on the way, once each
        self.runs: dict[str, Run] = {}
        self.threads: dict[str, Frame] = {}
        self._by_message: dict[str, Run] = {}
        self._sockets: set[WebSocket] = set()
        self._pauses: dict[str, asyncio.Event] = {}
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    # --- in the test's hands

    def release(self, name: str) -> None:
        """Let the runs go on that stand, or will stand, at `Pause(name)`."""
        self._pause(name).set()

    def frames(self, frame_type: str) -> list[Frame]:
        """Return the payloads of the frames of a type that clients sent."""
        payloads = [frame["payload"] for frame in self.received if frame["type"] == frame_type]
        return [payload for payload in payloads if isinstance(payload, dict)]

    async def drop(self, code: int) -> None:
        """Close every socket."""
        for client in list(self._sockets):
            with contextlib.suppress(RuntimeError):
                await client.close(code)

    async def tell(self, frame: Frame) -> None:
        """Send a frame to every socket."""
        for client in list(self._sockets):
            await client.send_json(frame)

    async def start(self) -> None:
        """Listen: at first on any free port, later on the same one."""
        listener = socket.create_server(("127.0.0.1", self._port), backlog=64)
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app(), log_level="error", lifespan="off", timeout_graceful_shutdown=1, ws="websockets-sansio"
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve([listener]))
        await self._server.ready.wait()

    async def stop(self) -> None:
        """Close everything; runs play on, as they would in the service."""
        await self.drop(1012)
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving

    # --- what the page sees

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.middleware("http")
        async def headers(request: Request, call_next: Callable[[Request], "asyncio.Future[Response]"]) -> Response:
            response = await call_next(request)
            response.headers["content-security-policy"] = CSP
            return response

        app.mount("/static", StaticFiles(directory=STATIC))
        for method, path, handler in (
            ("GET", "/", lambda: FileResponse(STATIC / "index.html")),
            ("POST", "/auth/dev-token", self._token),
            ("GET", "/api/v1/threads", self._list_threads),
            ("PATCH", "/api/v1/threads/{thread_id}", self._rename),
            ("DELETE", "/api/v1/threads/{thread_id}", self._delete),
            ("GET", "/api/v1/threads/{thread_id}/messages", self._list_messages),
            ("GET", "/api/v1/runs", self._list_runs),
            ("GET", "/api/v1/runs/{run_id}/events", self._list_events),
            ("POST", "/api/v1/files", self._upload),
            ("GET", "/api/v1/files/{file_id}/content", lambda file_id: self.contents[file_id]),
            ("GET", "/api/v1/files", lambda: {"files": [], "next_page_token": ""}),
        ):
            app.add_api_route(path, handler, methods=[method], response_model=None)
        app.add_api_websocket_route("/ws", self._socket)
        return app

    def _token(self) -> Frame:
        expires = datetime.fromtimestamp(time.time() + 3600, UTC).isoformat()
        return {"token": "e30.e30.e30", "token_type": "bearer", "expires_at": expires, "user_id": "dev"}

    def _list_threads(self, query: str = "") -> Frame:
        rows = [row for row in self.threads.values() if query.lower() in str(row["title"]).lower()]
        newest_first = sorted(rows, key=lambda row: str(row["update_time"]), reverse=True)
        return {"threads": newest_first, "next_page_token": ""}

    async def _rename(self, thread_id: str, request: Request) -> Frame:
        self.threads[thread_id]["title"] = (await request.json())["title"]
        return self.threads[thread_id]

    def _delete(self, thread_id: str) -> Frame:
        del self.threads[thread_id]
        return {}

    def _list_messages(self, thread_id: str) -> Response:
        if thread_id not in self.threads:
            payload = {"code": "NOT_FOUND", "message": "There is no such conversation.", "retryable": False}
            return JSONResponse({"type": "error", "payload": payload}, status_code=404)
        runs = [run for run in self.runs.values() if run.thread_id == thread_id]
        return JSONResponse({"messages": [row for run in runs for row in run.messages()], "next_page_token": ""})

    def _list_runs(self, thread_id: str) -> Frame:
        rows = [run.row() for run in self.runs.values() if run.thread_id == thread_id]
        return {"runs": list(reversed(rows)), "next_page_token": ""}

    def _list_events(self, run_id: str, after_seq: int = 0) -> Frame:
        return {"events": list(self.runs[run_id].events[after_seq:])}

    async def _upload(self, file: UploadFile) -> Response:
        content = await file.read()
        if not content:
            payload = {"code": "UNSUPPORTED_FILE", "message": "The file is empty.", "retryable": False}
            return JSONResponse({"type": "error", "payload": payload}, status_code=415)
        row = {
            "file_id": str(uuid.uuid4()),
            "name": file.filename,
            "media_type": "text/csv",
            "size_bytes": len(content),
        }
        return JSONResponse({**row, "sha256": "", "create_time": now()}, status_code=201)

    async def _socket(self, client: WebSocket) -> None:
        await client.accept(subprotocol="apex.v1")
        self._sockets.add(client)
        streams: dict[str, asyncio.Task[None]] = {}
        try:
            await client.send_json({"type": "connection_established", "payload": self._established()})
            while True:
                frame = await client.receive_json()
                self.received.append(frame)
                await self._handle(client, streams, frame["type"], frame["payload"])
        except (WebSocketDisconnect, RuntimeError):
            pass  # the other side is gone
        finally:
            self._sockets.discard(client)
            for stream in streams.values():
                stream.cancel()

    def _established(self) -> Frame:
        active = [run.row() for run in self.runs.values() if run.status in {"queued", "running"}]
        return {
            "connection_id": str(uuid.uuid4()),
            "user_id": "dev",
            "server_time": now(),
            "protocol": "apex.v1",
            "heartbeat_interval_ms": 45000,
            "max_frame_bytes": 8192,
            "token_expires_at": now(),
            "active_runs": active,
        }

    async def _handle(
        self, client: WebSocket, streams: dict[str, asyncio.Task[None]], frame_type: str, payload: dict[str, str]
    ) -> None:
        match frame_type:
            case "user_message" if self.refusals:
                refusal = {**self.refusals.pop(0), "message_id": payload["message_id"], "request_type": frame_type}
                await client.send_json({"type": "error", "payload": refusal})
            case "user_message":
                existed = payload["message_id"] in self._by_message
                run = self._by_message.get(payload["message_id"]) or self._accept(payload)
                ids = {"run_id": run.run_id, "thread_id": run.thread_id, "user_message_id": run.message_id}
                ack = {"message_id": payload["message_id"], **ids, "already_existed": existed}
                await client.send_json({"type": "ack", "payload": ack})
                self._stream(client, streams, run, 0)
            case "resume":
                run = self.runs[payload["run_id"]]
                self._stream(client, streams, run, int(payload["after_seq"]))
            case "resolve_approval" if self.refusals:
                refusal = {**self.refusals.pop(0), "run_id": payload["run_id"], "request_type": frame_type}
                await client.send_json({"type": "error", "payload": refusal})
            case "resolve_approval":
                self.release("decided")
            case "stop_agent":
                self._cancel(self.runs.get(payload.get("run_id", "")) or self._by_message[payload["message_id"]])
            case "ping":
                await client.send_json({"type": "pong", "payload": payload})
            case _:
                pass

    def _accept(self, payload: dict[str, str]) -> Run:
        thread_id = payload.get("thread_id") or str(uuid.uuid4())
        title = payload["content"][:60]
        thread = self.threads.setdefault(thread_id, {"thread_id": thread_id, "title": title, "create_time": now()})
        thread["update_time"] = now()
        run = Run(str(uuid.uuid4()), thread_id, str(uuid.uuid4()), payload["content"], now())
        self.runs[run.run_id] = self._by_message[payload["message_id"]] = run
        begun: Frame = {"agent_id": "a", "message": "Taken.", "user_message_id": run.message_id}
        run.append(Event("agent_started", begun))
        run.player = asyncio.create_task(self._play(run))
        return run

    async def _play(self, run: Run) -> None:
        for item in self.script(run.content):
            if isinstance(item, Pause):
                await self._pause(item.name).wait()
            else:
                run.append(item)

    def _cancel(self, run: Run) -> None:
        if run.player is not None and run.events[-1]["type"] not in TERMINAL:
            run.player.cancel()
            ended: Frame = {
                "agent_id": "a",
                "status": "cancelled",
                "message": "",
                "execution_time_ms": 900,
                "usage": None,
            }
            run.append(Event("agent_completed", ended))

    def _stream(self, client: WebSocket, streams: dict[str, asyncio.Task[None]], run: Run, after_seq: int) -> None:
        if run.run_id in streams:
            streams[run.run_id].cancel()
        streams[run.run_id] = asyncio.create_task(self._send_events(client, run, after_seq))

    async def _send_events(self, client: WebSocket, run: Run, cursor: int) -> None:
        while True:
            grown = run.grown
            for event in run.events[cursor:]:
                cursor += 1
                if cursor in self.skipped:
                    self.skipped.discard(cursor)
                else:
                    await client.send_json(event)
                if event["type"] in TERMINAL:
                    return
            await grown.wait()

    def _pause(self, name: str) -> asyncio.Event:
        return self._pauses.setdefault(name, asyncio.Event())


@contextlib.asynccontextmanager
async def serving(script: Script) -> AsyncIterator[ScriptedBridge]:
    """A bridge that serves until the end of the block."""
    bridge = ScriptedBridge(script)
    await bridge.start()
    try:
        yield bridge
    finally:
        await bridge.stop()
        for run in bridge.runs.values():
            if run.player is not None:
                run.player.cancel()
