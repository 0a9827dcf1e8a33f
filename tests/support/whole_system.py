"""Everything between a client and the storage in one process: a real worker, the gRPC face, and a bridge to it.

Sockets, HTTP and gRPC are real. Storage is in memory, behind a line that a test can cut; the supervisor plays scripts,
which may be the shipped supervisor's own.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import grpc.aio
import httpx
from prometheus_client import CollectorRegistry

from agent_service.api.auth import KeySource, SecretKey, TokenIssuer, TokenVerifier
from agent_service.api.options import ApiOptions
from agent_service.api.server import ApiServer, Engine
from agent_service.engine.clock import SystemClock, SystemIds
from agent_service.engine.files import Files
from agent_service.engine.registry import Registry
from generated.apex.agent.v1 import agent_pb2 as pb
from generated.apex.agent.v1.agent_pb2_grpc import (
    AgentServiceStub,
    FileServiceStub,
    SessionServiceStub,
    ThreadServiceStub,
)
from storage.memory import MemoryStorage
from tests.support.bridge_server import RunningBridge, SocketClient, running_bridge
from tests.support.face import SECRET, make_token, signed_in
from tests.support.workshop import AGENT, Workshop
from ws_bridge.app import Bounds

if TYPE_CHECKING:  # they exist in the stubs only
    from generated.apex.agent.v1.agent_pb2_grpc import (
        AgentServiceAsyncStub,
        FileServiceAsyncStub,
        SessionServiceAsyncStub,
        ThreadServiceAsyncStub,
    )

CALL_TIMEOUT_S: Final = 20.0
#: A stream that nobody reads holds little: without them the client would take megabytes that nobody has asked for.
SMALL_WINDOWS: Final = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536))


def options(
    *, dev_tokens: bool = True, max_messages_per_minute: int = 1_000, max_upload_bytes: int = 1 << 20
) -> ApiOptions:
    """Return what the gRPC face is told, with what a test varies most."""
    return ApiOptions(
        "127.0.0.1:0",
        dev_tokens=dev_tokens,
        max_messages_per_minute=max_messages_per_minute,
        max_upload_bytes=max_upload_bytes,
    )


@dataclass(frozen=True, slots=True)
class Setup:
    """How a system is set up. `bridge` are settings of the bridge, by name."""

    options: ApiOptions = field(default_factory=options)
    keys: KeySource = field(default_factory=lambda: SecretKey(SECRET))
    bounds: Bounds = field(default_factory=Bounds)
    bridge: Mapping[str, object] = field(default_factory=dict)
    run_timeout_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class WholeSystem:
    """A running system. `http` calls the bridge; its callers and those of `start` are `ann` unless it is said."""

    shop: Workshop
    server: ApiServer
    port: int
    channel: grpc.aio.Channel
    bridge: RunningBridge
    http: httpx.AsyncClient
    metrics: CollectorRegistry

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

    async def start(self, content: str = "hello", user: str = "ann", **fields: object) -> pb.StartRunResponse:
        """Start a run with `StartRun`."""
        request = pb.StartRunRequest(run=run_request(content, **fields))
        return await self.agents.StartRun(request, metadata=signed_in(user), timeout=CALL_TIMEOUT_S)

    @asynccontextmanager
    async def socket(self, user: str = "ann") -> AsyncIterator[SocketClient]:
        """Open a socket of this user and take its first frame."""
        async with self.bridge.socket(token=make_token(user)) as client:
            await client.expect("connection_established")
            yield client

    def sample(self, name: str) -> float:
        """Return a number that the service counts."""
        return self.metrics.get_sample_value(name) or 0


def run_request(content: str, **fields: object) -> pb.RunAgentRequest:
    """Return a message to be run; `fields` are the request's own, enums and messages included."""
    request = pb.RunAgentRequest(content=content)
    for name, value in fields.items():
        if isinstance(value, pb.RunSettings):
            request.settings.CopyFrom(value)
        else:
            setattr(request, name, value)
    return request


def bearer(user: str = "ann", *, lifetime_s: float = 3_600) -> dict[str, str]:
    """Return the header of a caller."""
    return {"Authorization": f"Bearer {make_token(user, lifetime_s=lifetime_s)}"}


@asynccontextmanager
async def open_system(setup: Setup | None = None) -> AsyncIterator[WholeSystem]:
    """Serve on free ports until the body ends."""
    setup = setup or Setup()
    async with AsyncExitStack() as stack:
        storage = MemoryStorage(lambda: datetime.now(UTC))
        stack.push_async_callback(storage.close)
        shop = await stack.enter_async_context(Workshop(storage, run_timeout_ms=setup.run_timeout_ms))
        metrics = CollectorRegistry()
        server = _server(setup, shop, metrics)
        port = await server.start()
        stack.push_async_callback(server.stop, 0)
        target = f"127.0.0.1:{port}"
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, SMALL_WINDOWS))
        bridge = await stack.enter_async_context(running_bridge(target, bounds=setup.bounds, **setup.bridge))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=bridge.url, timeout=CALL_TIMEOUT_S))
        yield WholeSystem(shop, server, port, channel, bridge, http, metrics)


def _server(setup: Setup, shop: Workshop, metrics: CollectorRegistry) -> ApiServer:
    clock, ids = SystemClock(), SystemIds()
    max_upload_bytes = setup.options.max_upload_bytes
    engine = Engine(
        runs=shop.runs,
        threads=shop.threads,
        files=Files(shop.storage.files, clock, ids, max_upload_bytes=max_upload_bytes),
        broadcast=shop.broadcast,
        registry=Registry([AGENT], ()),
        clock=clock,
        ids=ids,
    )
    return ApiServer(
        setup.options,
        engine,
        verifier=TokenVerifier(setup.keys, issuer="apex", audience="apex", clock=clock),
        issuer=TokenIssuer(SECRET, issuer="apex", audience="apex", clock=clock, ids=ids),
        metrics=metrics,
    )
