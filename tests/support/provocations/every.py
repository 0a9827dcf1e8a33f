"""All provocations, and what has none: the matrix of reasons and transports without a hole."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from typing import Final

from tests.support.provocations.calls import CALLS
from tests.support.provocations.closes import CLOSES
from tests.support.provocations.ends import ENDS
from tests.support.provocations.frames import FRAMES
from tests.support.provocations.items import ITEMS
from tests.support.provocations.registry import Provocation, Transport
from tests.support.provocations.rest import REST
from tests.support.reasons import REASONS

ALL: Final[Sequence[Provocation]] = (*CALLS, *ITEMS, *ENDS, *FRAMES, *CLOSES, *REST)

Cell = tuple[str, Transport]
"""A reason on a transport."""

LATER: Final[Mapping[Cell, str]] = {
    **dict.fromkeys(
        product(["TOKEN_REVOKED"], [Transport.CALL, Transport.ITEM, Transport.CLOSE, Transport.HTTP]),
        "nobody can revoke a token yet: RevokeTokens is not there",
    ),
    ("TOOL_FAILED", Transport.RUN): "nothing raises it: the model hears of a call that failed, and goes on",
}
"""What can be told one day, and why not today. It must shrink."""

OF_RUNS: Final = ("BUDGET_EXCEEDED", "MODEL_UNAVAILABLE", "TOOL_FAILED", "WORKER_LOST")
"""Reasons that only a run can fail for, which is told as its end."""

NEVER: Final[Sequence[tuple[str, Collection[Transport], Collection[str]]]] = (
    (
        "only a run can fail for it",
        [Transport.CALL, Transport.ITEM, Transport.FRAME, Transport.HTTP],
        OF_RUNS,
    ),
    (
        "it is told before a run begins, or instead of one; what befalls a run at work has reasons of its own",
        [Transport.RUN],
        REASONS.keys()
        - {*OF_RUNS, "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "INTERNAL"}
        - {"STORAGE_UNAVAILABLE", "DRAINING"},
    ),
    (
        "nothing could be written into the log; the run goes on when the database is back, or at another worker",
        [Transport.RUN],
        ["STORAGE_UNAVAILABLE", "DRAINING"],
    ),
    ("gRPC carries no JSON", [Transport.CALL, Transport.ITEM], ["MALFORMED_JSON"]),
    ("calls open no sessions", [Transport.CALL], ["TOO_MANY_CONNECTIONS"]),
    (
        "items carry neither messages nor files",
        [Transport.ITEM],
        ["EMPTY_MESSAGE", "MESSAGE_TOO_LARGE", "UNSUPPORTED_FILE", "TOO_MANY_RUNS", "RUN_CONFLICT"],
    ),
    ("sessions and watches have no deadline", [Transport.ITEM, Transport.CLOSE], ["DEADLINE_EXCEEDED"]),
    (
        "it ends the socket",
        [Transport.FRAME],
        ["UNAUTHENTICATED", "TOKEN_EXPIRED", "TOKEN_REVOKED", "PERMISSION_DENIED", "TOO_MANY_CONNECTIONS"],
    ),
    ("files go by REST", [Transport.FRAME], ["UNSUPPORTED_FILE"]),
    ("the bridge resumes the run by itself", [Transport.FRAME], ["SLOW_CONSUMER"]),
    ("REST takes no messages", [Transport.HTTP], ["EMPTY_MESSAGE", "TOO_MANY_RUNS"]),
    ("the bridge reads what it answers with as fast as it comes", [Transport.HTTP], ["SLOW_CONSUMER"]),
)
"""Why a transport has no way to tell a reason. A reason without a close code needs none to end no socket."""


def cells() -> Iterator[Cell]:
    """Return every reason on every transport; a socket is closed only with those that have a close code."""
    for reason, transport in product(REASONS, Transport):
        if transport is not Transport.CLOSE or REASONS[reason].closes is not None:
            yield reason, transport


def never() -> Iterator[Cell]:
    """Return the cells of `NEVER`, as often as they stand there."""
    for _, transports, reasons in NEVER:
        yield from product(reasons, transports)
