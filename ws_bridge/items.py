"""What the service says about one socket, as values. `wire.items` makes them from the contract's items."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ws_bridge.frames import ActiveRun, Failure, ThreadFrame


@dataclass(slots=True)
class RunEvents:
    """Events of a watched run that follow each other. `texts` are their frames in UTF-8, the same for every watcher.

    `terminal`: the last of them is the run's last.
    """

    watch_id: str
    first_seq: int
    texts: Sequence[bytes]
    terminal: bool


@dataclass(frozen=True, slots=True)
class SessionReady:
    """The session is open, or its token was renewed. `token_expires_at` is RFC 3339."""

    user_id: str
    token_expires_at: str
    active_runs: tuple[ActiveRun, ...]


@dataclass(frozen=True, slots=True)
class SessionExpiring:
    """The token ends soon."""

    expires_in_ms: int


@dataclass(frozen=True, slots=True)
class SessionProbe:
    """The service asks whether the socket is alive."""


@dataclass(frozen=True, slots=True)
class ThreadChanged:
    """Something happened to a thread of the user."""

    frame: ThreadFrame


@dataclass(frozen=True, slots=True)
class WatchEnded:
    """A watch is over; without a failure the run's stream is complete."""

    watch_id: str
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The session is over, or could not begin; without a failure we closed it ourselves."""

    failure: Failure | None


Item: TypeAlias = RunEvents | SessionReady | SessionExpiring | SessionProbe | ThreadChanged | WatchEnded | SessionEnded


@dataclass(frozen=True, slots=True)
class Started:
    """The service took a message."""

    run_id: str
    thread_id: str
    user_message_id: str
    already_existed: bool


@dataclass(frozen=True, slots=True)
class Stopped:
    """The service took a cancellation."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The service took a decision; the event that follows says so to everybody."""


Answer: TypeAlias = Started | Stopped | Decided | Failure
