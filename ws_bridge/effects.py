"""What a session wants done. The endpoint does it, in order, and decides nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from generated.apex.agent.v1 import agent_pb2 as pb
from ws_bridge.close_codes import CloseCode
from ws_bridge.frames import ServerFrame


@dataclass(frozen=True, slots=True)
class Send:
    """Send a frame."""

    frame: ServerFrame


@dataclass(slots=True)
class SendEvents:
    """Send the frames of a run's events, which are UTF-8 text already."""

    texts: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class SendPing:
    """Send a ping of the WebSocket protocol; its pong comes back with the same number."""

    number: int


@dataclass(frozen=True, slots=True)
class Close:
    """Send what is queued, then close. `at_once`: drop the queue, the peer does not read."""

    code: CloseCode
    reason: str
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class TokenBrought:
    """The socket has brought its token, and no longer counts among those that have not signed in.

    Whether the service is there to judge it is not the socket's affair.
    """


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Open the session at the service, or renew its token."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CloseSession:
    """Close the session at the service, with its watches."""


@dataclass(frozen=True, slots=True)
class AnswerProbe:
    """Tell the service that the socket has answered."""


@dataclass(frozen=True, slots=True)
class WatchRun:
    """Start the stream of a run's events after a cursor."""

    watch_id: str
    run_id: str
    after_seq: int


@dataclass(frozen=True, slots=True)
class Unwatch:
    """End a stream."""

    watch_id: str


@dataclass(frozen=True, slots=True)
class StartRun:
    """Call StartRun; the answer goes to `Session.on_answer`."""

    token: str = field(repr=False)
    request: pb.RunAgentRequest


@dataclass(frozen=True, slots=True)
class CancelRun:
    """Call CancelRun; the answer goes to `Session.on_answer`."""

    token: str = field(repr=False)
    request: pb.CancelRunRequest


@dataclass(frozen=True, slots=True)
class ResolveApproval:
    """Call ResolveApproval; the answer goes to `Session.on_answer`."""

    token: str = field(repr=False)
    request: pb.ResolveApprovalRequest


Effect: TypeAlias = (
    Send
    | SendEvents
    | SendPing
    | Close
    | TokenBrought
    | OpenSession
    | CloseSession
    | AnswerProbe
    | WatchRun
    | Unwatch
    | StartRun
    | CancelRun
    | ResolveApproval
)
