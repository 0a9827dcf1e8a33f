"""A real gRPC server on a real port, over storage in memory, with a stage in place of the worker.

The stage plays runs: a test says which events come next, and they are committed and broadcast as a worker's would be.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import grpc.aio
import jwt
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from agent_service.api.auth import SecretKey, TokenIssuer, TokenVerifier
from agent_service.api.options import ApiOptions
from agent_service.api.server import ApiServer, Engine
from agent_service.api.wire import ProtoCodec
from agent_service.engine.agent import Agent
from agent_service.engine.approvals import Verdict
from agent_service.engine.broadcast import Broadcast
from agent_service.engine.clock import SystemClock, SystemIds
from agent_service.engine.context import UserExecutionContext
from agent_service.engine.events import (
    AgentCompleted,
    AgentError,
    ApprovalDecision,
    Body,
    CompletionStatus,
    Effect,
    Event,
    FinalResponse,
)
from agent_service.engine.files import Files
from agent_service.engine.registry import Registry
from agent_service.engine.runs import Runs
from agent_service.engine.threads import Threads
from agent_service.engine.tool import Tool, ToolContext, ToolOutput
from agent_service.engine.translation import translated
from generated.apex.agent.v1.agent_pb2_grpc import (
    AgentServiceStub,
    FileServiceStub,
    SessionServiceStub,
    ThreadServiceStub,
)
from storage.memory import MemoryStorage
from storage.records import Append, AppendOutcome, Ending, MessageRecord, MessageRole, RunRecord, RunStatus, StoredEvent
from tests.support.gates import Gate

if TYPE_CHECKING:  # they exist in the stubs only
    from generated.apex.agent.v1.agent_pb2_grpc import (
        AgentServiceAsyncStub,
        FileServiceAsyncStub,
        SessionServiceAsyncStub,
        ThreadServiceAsyncStub,
    )

SECRET: Final = "a secret that is long enough for HS256, in tests only"
LEASE_MS: Final = 60_000


class NoArguments(BaseModel):
    """The arguments of a tool that takes none."""


async def _nothing(_context: ToolContext, _arguments: BaseModel) -> ToolOutput:
    return ToolOutput("nothing", {})


def small_registry() -> Registry:
    """Return a catalogue with one agent and one tool."""
    tool: Tool[BaseModel] = Tool(
        "look", "Looks. Changes nothing.", NoArguments, Effect.READ_ONLY, 1_000, _nothing, frozenset({"eyes"})
    )
    return Registry([Agent("data", "Data", "Measures.", "Measure.", ("look",))], [tool])


class Stage:
    """Implements `engine.runs.Workforce`: works on no run by itself."""

    def __init__(self, storage: MemoryStorage) -> None:
        self.is_busy = False
        self.deaf = False
        self.broadcast = Broadcast(storage.events, storage.runs)
        self._storage = storage
        self._codec = ProtoCodec()
        self._held: dict[str, RunRecord] = {}
        self.cancelled: list[str] = []
        #: Where a cancellation waits before it does anything.
        self.cancelling = Gate()
        self.decided: list[tuple[str, str, str, Verdict]] = []

    def wake(self) -> None:
        """Do nothing: the test says when."""

    async def cancel(self, run: RunRecord, reason: str) -> None:
        await self.cancelling.passage()
        self.cancelled.append(run.run_id)
        if self.deaf:
            return
        await self.emit(run, AgentCompleted("a", CompletionStatus.CANCELLED, reason))

    async def decide(
        self, user: UserExecutionContext, run_id: str, approval_id: str, verdict: Verdict
    ) -> ApprovalDecision:
        with translated():
            await self._storage.runs.get(user.user_id, run_id)
        self.decided.append((user.user_id, run_id, approval_id, verdict))
        return verdict.decision

    async def emit(self, run: RunRecord, *bodies: Body) -> Sequence[Event]:
        """Commit the next events of a run and broadcast them."""
        held = self._held.get(run.run_id) or await self._claim(run)
        position = (await self._storage.events.positions([run.run_id]))[run.run_id]
        events = [
            Event(run.run_id, run.thread_id, position.last_seq + offset, 1, datetime.now(UTC), "data", body)
            for offset, body in enumerate(bodies, 1)
        ]
        stored = [StoredEvent(run.run_id, e.seq, self._codec.encode(e), e.terminal) for e in events]
        append = Append(run.run_id, held.epoch, position.last_seq, stored, ending=self._ending(run, bodies))
        assert await self._storage.events.append([append]) == [AppendOutcome.APPENDED]
        self.broadcast.publish(run.run_id, stored)
        return events

    async def answer(self, run: RunRecord, content: str = "Done.") -> Sequence[Event]:
        """End a run well."""
        response = FinalResponse(SystemIds().new(), content)
        return await self.emit(run, response, AgentCompleted("a", CompletionStatus.SUCCESS))

    async def _claim(self, run: RunRecord) -> RunRecord:
        held = await self._storage.runs.claim_run(run.user_id, run.run_id, "stage", lease_ms=LEASE_MS)
        assert held is not None
        self._held[run.run_id] = held
        return held

    def _ending(self, run: RunRecord, bodies: Sequence[Body]) -> Ending | None:
        now = datetime.now(UTC)
        match bodies[-1]:
            case AgentCompleted(status=CompletionStatus.SUCCESS):
                final = next(body for body in bodies if isinstance(body, FinalResponse))
                message = MessageRecord(
                    final.message_id, run.thread_id, run.run_id, run.user_id, MessageRole.ASSISTANT, final.content, now
                )
                return Ending(RunStatus.COMPLETED, now, message)
            case AgentCompleted():
                return Ending(RunStatus.CANCELLED, now)
            case AgentError(reason=reason):
                return Ending(RunStatus.FAILED, now, error_reason=reason.value)
            case _:
                return None


def make_token(
    user_id: str = "ann",
    claims: Mapping[str, object] = MappingProxyType({}),
    *,
    lifetime_s: float = 3_600,
    secret: str = SECRET,
) -> str:
    """Return a signed token with these claims beside the usual ones; a claim that is None is left out."""
    now = datetime.now(UTC)
    payload = {
        "sub": user_id,
        "iss": "apex",
        "aud": "apex",
        "iat": int(now.timestamp()),
        "exp": (now + timedelta(seconds=lifetime_s)).timestamp(),
        "jti": SystemIds().new(),
        **claims,
    }
    return jwt.encode({key: value for key, value in payload.items() if value is not None}, secret, algorithm="HS256")


def signed_in(user_id: str = "ann", *, lifetime_s: float = 3_600) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a caller."""
    return (("authorization", f"Bearer {make_token(user_id, lifetime_s=lifetime_s)}"),)


def user_of(user_id: str) -> UserExecutionContext:
    """Return a caller as the engine sees one."""
    now = datetime.now(UTC)
    return UserExecutionContext(user_id, frozenset(), "token", now + timedelta(hours=1), "request")


@dataclass(frozen=True)
class Face:
    """A running server and one client channel."""

    server: ApiServer
    stage: Stage
    storage: MemoryStorage
    engine: Engine
    port: int
    channel: grpc.aio.Channel
    metrics: CollectorRegistry = field(default_factory=CollectorRegistry)

    @property
    def agents(self) -> "AgentServiceAsyncStub":
        return AgentServiceStub(self.channel)

    @property
    def threads(self) -> "ThreadServiceAsyncStub":
        return ThreadServiceStub(self.channel)

    @property
    def files(self) -> "FileServiceAsyncStub":
        return FileServiceStub(self.channel)

    @property
    def sessions(self) -> "SessionServiceAsyncStub":
        return SessionServiceStub(self.channel)

    async def run(self, run_id: str, user_id: str = "ann") -> RunRecord:
        """Return a run as storage has it."""
        return await self.storage.runs.get(user_id, run_id)


def make_engine(storage: MemoryStorage, stage: Stage, *, max_upload_bytes: int) -> Engine:
    """Put the engine's parts together as the service does, with the stage as its worker."""
    clock, ids, registry = SystemClock(), SystemIds(), small_registry()
    runs = Runs(
        storage=storage,
        broadcast=stage.broadcast,
        workforce=stage,
        registry=registry,
        models={"offline": True},
        codec=ProtoCodec(),
        clock=clock,
        ids=ids,
    )
    return Engine(
        runs=runs,
        threads=Threads(storage.threads, runs, stage.broadcast, clock, ids),
        files=Files(storage.files, clock, ids, max_upload_bytes=max_upload_bytes),
        broadcast=stage.broadcast,
        registry=registry,
        clock=clock,
        ids=ids,
    )


@asynccontextmanager
async def open_face(options: ApiOptions | None = None) -> AsyncIterator[Face]:
    """Serve on a free port until the body ends."""
    options = options or ApiOptions("127.0.0.1:0", reflection=True, dev_tokens=True, max_messages_per_minute=1_000)
    storage = MemoryStorage(lambda: datetime.now(UTC))
    stage = Stage(storage)
    engine = make_engine(storage, stage, max_upload_bytes=options.max_upload_bytes)
    metrics = CollectorRegistry()
    server = ApiServer(
        options,
        engine,
        verifier=TokenVerifier(SecretKey(SECRET), issuer="apex", audience="apex", clock=engine.clock),
        issuer=TokenIssuer(SECRET, issuer="apex", audience="apex", clock=engine.clock, ids=engine.ids),
        metrics=metrics,
    )
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Face(server, stage, storage, engine, port, channel, metrics)
    finally:
        await server.stop(0)
        await storage.close()
