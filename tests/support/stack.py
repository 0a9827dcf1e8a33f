"""The service and the bridge in this process: everything as it is but the agents, whose words are the test's."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio

from agent_service.app import App, open_app
from agent_service.settings import load_settings
from generated.apex.agent.v1 import agent_pb2 as pb
from generated.apex.agent.v1.agent_pb2_grpc import AgentServiceStub, FileServiceStub, SessionServiceStub
from tests.support.bridge_server import RunningBridge, SocketClient, running_bridge
from tests.support.metrics import Metrics
from tests.support.processes import free_port
from tests.support.speaker import Speaker, Talk
from tests.support.tokens import make_token
from ws_bridge.app import Bounds
from ws_bridge.channels import call_channel

if TYPE_CHECKING:  # they exist in the stubs only
    from generated.apex.agent.v1.agent_pb2_grpc import (
        AgentServiceAsyncStub,
        FileServiceAsyncStub,
        SessionServiceAsyncStub,
    )

SECRET: Final = "a secret of the tests, with more than 32 bytes"


@dataclass(frozen=True)
class Service:
    """A service that listens on `target`, and one channel to it with the options of the bridge's own."""

    app: App
    speaker: Speaker
    target: str
    metrics: Metrics
    channel: grpc.aio.Channel

    @property
    def agents(self) -> "AgentServiceAsyncStub":
        return AgentServiceStub(self.channel)

    @property
    def files(self) -> "FileServiceAsyncStub":
        return FileServiceStub(self.channel)

    @property
    def sessions(self) -> "SessionServiceAsyncStub":
        return SessionServiceStub(self.channel)

    def token(self, user: str = "ann") -> str:
        """Return a token that this service accepts."""
        return make_token(user, secret=SECRET)

    def metadata(self, user: str = "ann") -> tuple[tuple[str, str], ...]:
        """Return the metadata of a caller."""
        return (("authorization", f"Bearer {self.token(user)}"),)

    async def start(self, user: str = "ann") -> Talk:
        """Start a run and return it when it is at work."""
        request = pb.StartRunRequest(run=pb.RunAgentRequest(content="Speak"))
        started = await self.agents.StartRun(request, metadata=self.metadata(user))
        return await self.speaker.talk(started.run_id)

    async def open_calls(self, method: str) -> float:
        """Return how many calls of a method are at work."""
        return await self.metrics.value("apex_grpc_open_calls", method=method)

    async def no_open_calls(self, method: str, *, timeout_s: float) -> None:
        """Wait until no call of a method is at work any more. Raises `DeadlinePassedError`."""
        await self.metrics.becomes("apex_grpc_open_calls", 0, method=method, timeout_s=timeout_s)


@contextlib.asynccontextmanager
async def open_service(folder: Path, **settings: str) -> AsyncIterator[Service]:
    """Serve on free ports until the block is left. Settings are environment variables without their prefix."""
    admin = f"127.0.0.1:{free_port()}"
    environ = {
        "ENVIRONMENT": "test",
        "DATA_DIR": str(folder / "data"),
        "GRPC_ADDRESS": "127.0.0.1:0",
        "JWT_SECRET": SECRET,
        "SERVICE_ADMIN_ADDRESS": admin,
        **settings,
    }
    speaker = Speaker()
    loaded = load_settings({f"APEX_{name}": value for name, value in environ.items()})
    async with open_app(loaded, supervisor=speaker) as app:
        target = f"127.0.0.1:{app.port}"
        async with call_channel(target) as channel:
            yield Service(app, speaker, target, Metrics(admin), channel)


@dataclass(frozen=True)
class Stack:
    """A service, and a bridge that is attached to it."""

    service: Service
    bridge: RunningBridge

    @contextlib.asynccontextmanager
    async def signed_in(self, user: str = "ann") -> AsyncIterator[SocketClient]:
        """Open a socket and take its first frame."""
        async with self.bridge.socket(token=self.service.token(user)) as client:
            await client.expect("connection_established")
            yield client


@contextlib.asynccontextmanager
async def open_stack(folder: Path, *, bounds: Bounds | None = None, **bridge_settings: object) -> AsyncIterator[Stack]:
    """Serve both until the block is left."""
    async with (
        open_service(folder) as service,
        running_bridge(service.target, bounds=bounds, **bridge_settings) as bridge,
    ):
        yield Stack(service, bridge)
