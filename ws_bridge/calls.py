"""The unary calls of sockets, with the user's own token, made again while their outcome is unknown."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import grpc

from generated.apex.agent.v1 import agent_pb2 as pb
from generated.apex.agent.v1.agent_pb2_grpc import (
    AgentServiceStub,
    FileServiceStub,
    SessionServiceStub,
    ThreadServiceStub,
)
from ws_bridge.close_codes import Reason
from ws_bridge.frames import Failure
from ws_bridge.items import Answer, Decided, Stopped
from ws_bridge.wire.errors import UNREACHABLE, failure_of, in_frame_terms, said_by_service
from ws_bridge.wire.items import started_of

if TYPE_CHECKING:  # exist for the type checker only
    from generated.apex.agent.v1.agent_pb2_grpc import (
        AgentServiceAsyncStub,
        FileServiceAsyncStub,
        SessionServiceAsyncStub,
        ThreadServiceAsyncStub,
    )

Response = TypeVar("Response")

ATTEMPT_MS: Final = 10_000
"""How long one attempt may take, in milliseconds."""
PAUSE_MS: Final = 200
"""About how long to wait between two attempts, in milliseconds."""

#: After these nobody knows whether the service has done it. The calls may be made again: StartRun carries an
#: idempotency key, CancelRun is idempotent, and so is ResolveApproval for the same decision.
OUTCOME_UNKNOWN = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata that carries a user's token."""
    return (("authorization", f"Bearer {token}"),)


class Calls:
    """The stubs on one channel, once it is open. `retry_ms` bounds how long a call of unknown outcome is repeated."""

    agents: "AgentServiceAsyncStub"
    threads: "ThreadServiceAsyncStub"
    files: "FileServiceAsyncStub"
    sessions: "SessionServiceAsyncStub"

    def __init__(self, retry_ms: int) -> None:
        self._retry_s = retry_ms / 1000

    def open(self, channel: grpc.aio.Channel) -> None:
        """Make the stubs: a channel belongs to a running event loop."""
        self.agents = AgentServiceStub(channel)
        self.threads = ThreadServiceStub(channel)
        self.files = FileServiceStub(channel)
        self.sessions = SessionServiceStub(channel)

    async def start_run(self, token: str, request: pb.RunAgentRequest) -> Answer:
        """Call StartRun; a call of unknown outcome is repeated under the same `client_message_id`."""
        start = pb.StartRunRequest(run=request)

        def attempt(timeout_s: float) -> Awaitable[pb.StartRunResponse]:
            return self.agents.StartRun(start, metadata=bearer(token), timeout=timeout_s, wait_for_ready=True)

        response = await self._repeat(attempt)
        return in_frame_terms(response) if isinstance(response, Failure) else started_of(response)

    async def cancel_run(self, token: str, request: pb.CancelRunRequest) -> Answer:
        """Call CancelRun; likewise."""

        def attempt(timeout_s: float) -> Awaitable[pb.CancelRunResponse]:
            return self.agents.CancelRun(request, metadata=bearer(token), timeout=timeout_s, wait_for_ready=True)

        response = await self._repeat(attempt)
        return in_frame_terms(response) if isinstance(response, Failure) else Stopped()

    async def resolve_approval(self, token: str, request: pb.ResolveApprovalRequest) -> Answer:
        """Call ResolveApproval; likewise."""

        def attempt(timeout_s: float) -> Awaitable[pb.ResolveApprovalResponse]:
            return self.agents.ResolveApproval(request, metadata=bearer(token), timeout=timeout_s, wait_for_ready=True)

        response = await self._repeat(attempt)
        return response if isinstance(response, Failure) else Decided()

    async def _repeat(self, attempt: Callable[[float], Awaitable[Response]]) -> Response | Failure:
        """Return the outcome, or when time is up what the service said last: it may be there, and its database not."""
        last = Failure(Reason.SERVICE_UNAVAILABLE, UNREACHABLE)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._retry_s
        while True:
            try:
                return await attempt(min(ATTEMPT_MS / 1000, max(deadline - loop.time(), 0.001)))
            except grpc.aio.AioRpcError as error:
                if error.code() not in OUTCOME_UNKNOWN:
                    return failure_of(error)
                last = said_by_service(error) or last
            pause_s = random.uniform(0.5, 1.5) * PAUSE_MS / 1000  # noqa: S311 - spreads load, keeps no secret
            if loop.time() + pause_s >= deadline:
                return last
            await asyncio.sleep(pause_s)
