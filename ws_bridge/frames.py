"""The frames of the socket as values: what clients say, and what they are told (run events excepted).

`wire` makes the first from JSON text and JSON text from the second. Nothing here decides anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from generated.apex.agent.v1 import agent_pb2 as pb
from ws_bridge.close_codes import meaning_of


@dataclass(frozen=True, slots=True)
class Violation:
    """One invalid field: `field` is its path in the request."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something did not work, in a form that is safe to show. `reason` is one of the contract's."""

    reason: str
    message: str
    error_id: str = ""
    retry_after_ms: int | None = None
    violations: tuple[Violation, ...] = ()


# --- what clients say


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Sign in, or renew the token of a live socket."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a `pong` with the same nonce."""

    nonce: str | int | None = None


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers our `ping`. It needs no answer."""


@dataclass(frozen=True, slots=True)
class UserMessage:
    """A message to be run: valid, and with a `client_message_id` (the client's, or one that the bridge made)."""

    request_type: str
    request: pb.RunAgentRequest


@dataclass(frozen=True, slots=True)
class StopAgent:
    """Asks to cancel a run."""

    request: pb.CancelRunRequest


@dataclass(frozen=True, slots=True)
class DecideApproval:
    """Decides about a call that waits for a person."""

    request: pb.ResolveApprovalRequest


@dataclass(frozen=True, slots=True)
class Resume:
    """Starts a run's stream, or starts it again, after the cursor."""

    run_id: str
    after_seq: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A frame that cannot be handled, with what to answer. `fatal`: the peer does not speak this protocol."""

    failure: Failure
    request_type: str | None = None
    message_id: str | None = None
    run_id: str | None = None
    fatal: bool = False


ClientFrame: TypeAlias = Authenticate | Ping | Pong | UserMessage | StopAgent | DecideApproval | Resume | Refused


# --- what clients are told


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """An open run of the user."""

    run_id: str
    thread_id: str
    last_seq: int
    status: str


@dataclass(frozen=True, slots=True)
class ConnectionEstablished:
    """The socket is signed in. Times are RFC 3339."""

    type: ClassVar[str] = "connection_established"
    connection_id: str
    user_id: str
    server_time: str
    protocol: str
    heartbeat_interval_ms: int
    max_frame_bytes: int
    token_expires_at: str
    active_runs: tuple[ActiveRun, ...]


@dataclass(frozen=True, slots=True)
class Ack:
    """The message is durable."""

    type: ClassVar[str] = "ack"
    message_id: str
    run_id: str
    thread_id: str
    user_message_id: str
    already_existed: bool


@dataclass(frozen=True, slots=True)
class ErrorFrame:
    """A request failed. The REST errors have the same body."""

    type: ClassVar[str] = "error"
    code: str
    message: str
    retryable: bool
    retry_after_ms: int | None
    violations: tuple[Violation, ...]
    message_id: str | None
    run_id: str | None
    request_type: str | None
    error_id: str


@dataclass(frozen=True, slots=True)
class PongFrame:
    """Answers a client's `ping`."""

    type: ClassVar[str] = "pong"
    nonce: str | int | None


@dataclass(frozen=True, slots=True)
class PingFrame:
    """Shows a browser, which cannot see protocol pings, that the line lives."""

    type: ClassVar[str] = "ping"


@dataclass(frozen=True, slots=True)
class AuthExpiring:
    """The token ends soon."""

    type: ClassVar[str] = "auth_expiring"
    expires_in_ms: int


@dataclass(frozen=True, slots=True)
class ThreadFrame:
    """Something happened to a thread; `thread` has the fields of the contract's Thread."""

    type: str
    thread: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The service went away (`degraded`) or is back (`recovered`)."""

    type: ClassVar[str] = "server_status"
    status: str
    message: str


@dataclass(frozen=True, slots=True)
class ServerDraining:
    """This bridge is about to end: reconnect and resume."""

    type: ClassVar[str] = "server_draining"
    reconnect_after_ms: int


ServerFrame: TypeAlias = (
    ConnectionEstablished
    | Ack
    | ErrorFrame
    | PongFrame
    | PingFrame
    | AuthExpiring
    | ThreadFrame
    | ServerStatus
    | ServerDraining
)


def error_frame(
    failure: Failure,
    error_id: str,
    *,
    request_type: str | None = None,
    message_id: str | None = None,
    run_id: str | None = None,
) -> ErrorFrame:
    """Return the frame for a failure. `error_id` is used when the failure has none of its own."""
    return ErrorFrame(
        code=failure.reason,
        message=failure.message,
        retryable=meaning_of(failure.reason).retryable,
        retry_after_ms=failure.retry_after_ms,
        violations=failure.violations,
        message_id=message_id,
        run_id=run_id,
        request_type=request_type,
        error_id=failure.error_id or error_id,
    )
