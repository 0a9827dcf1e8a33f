"""What a provocation is, and what a client is told by one."""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

import grpc

from tests.support.whole_system import Setup, WholeSystem


class Transport(StrEnum):
    """How a client hears of an error."""

    CALL = "call"
    """The status of a gRPC call."""
    ITEM = "item"
    """`session_ended` or `watch_ended` of the Attach call."""
    RUN = "run"
    """`agent_error`, the end of a run: the same over gRPC and on the socket."""
    FRAME = "frame"
    """An error frame; the socket stays."""
    CLOSE = "close"
    """The end of a socket, mostly after an error frame."""
    HTTP = "http"
    """The answer of REST, or of an upgrade that is refused."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a client was told: `everything` is all of it as text. None: the transport does not say it.

    `code` is the gRPC code, the HTTP status or the close code.
    """

    reason: str
    message: str
    everything: str
    code: grpc.StatusCode | int | None = None
    retryable: bool | None = None
    retry_after_ms: int | None = None
    violations: Sequence[str] = ()
    error_id: str = ""

    @classmethod
    def by_frame(cls, frame: Mapping[str, object], code: int | None = None) -> Self:
        """Return what an error frame says, or the body of an HTTP error, which is one."""
        assert frame["type"] == "error", frame
        payload = frame["payload"]
        assert isinstance(payload, dict)
        return cls(
            reason=payload["code"],
            message=payload["message"],
            everything=json.dumps(frame),
            code=code,
            retryable=payload["retryable"],
            retry_after_ms=payload["retry_after_ms"],
            violations=[violation["field"] for violation in payload["violations"]],
            error_id=payload["error_id"],
        )


Provoke = Callable[[WholeSystem], Awaitable[Told]]


@dataclass(frozen=True, slots=True)
class Provocation:
    """One way to bring a reason about, and the paths of the violations that it names."""

    reason: str
    transport: Transport
    provoke: Provoke
    setup: Setup
    violations: Sequence[str] = ()

    def __str__(self) -> str:
        return f"{self.reason}-{self.transport}-{self.provoke.__name__}"


@dataclass(slots=True)
class Provocations:
    """The provocations of one transport, in the order in which they are written."""

    transport: Transport
    _all: list[Provocation] = field(default_factory=list)

    def __iter__(self) -> Iterator[Provocation]:
        return iter(self._all)

    def of(self, reason: str, setup: Setup | None = None, *, violations: Sequence[str] = ()) -> "Decorator":
        """Return a decorator: the function provokes this reason."""

        def add(provoke: Provoke) -> Provoke:
            self._all.append(Provocation(reason, self.transport, provoke, setup or Setup(), violations))
            return provoke

        return add


Decorator = Callable[[Provoke], Provoke]
