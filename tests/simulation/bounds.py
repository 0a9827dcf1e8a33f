"""Bounds of the product, so small that they are met all the time."""

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Final
from unittest import mock

from agent_service.engine import broadcast, folding, journal, runs

MAX_WATCH_EVENTS: Final = 12
REPLAY_EVENTS: Final = 5

_SMALL: Final[tuple[tuple[ModuleType, str, int], ...]] = (
    (broadcast, "MAX_WATCH_EVENTS", MAX_WATCH_EVENTS),
    (broadcast, "REPLAY_EVENTS", REPLAY_EVENTS),
    (journal, "MAX_PENDING_EVENTS", 6),
    (journal, "MAX_COMMIT_EVENTS", 20),
    (folding, "FOLD_EVENTS", 7),
    (runs, "MAX_OPEN_RUNS", 10),
)


@contextlib.contextmanager
def small_bounds() -> Iterator[None]:
    """Let the product work with these bounds."""
    with contextlib.ExitStack() as stack:
        for module, name, bound in _SMALL:
            stack.enter_context(mock.patch.object(module, name, bound))
        yield
