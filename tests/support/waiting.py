"""Wait for a condition with a deadline, in place of sleeping and hoping.

The pause between two looks only bounds how late the test notices; no result depends on it.
"""

import asyncio
import time
from collections.abc import Callable

DEFAULT_TIMEOUT_S = 10.0
PAUSE_S = 0.01


class DeadlinePassedError(AssertionError):
    """The condition did not come true in time."""


def _passed(what: str, timeout_s: float) -> DeadlinePassedError:
    return DeadlinePassedError(f"not within {timeout_s:g} s: {what}")


def wait_until(condition: Callable[[], bool], *, what: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
    """Block until the condition holds. For synchronous tests.

    Raises:
        DeadlinePassedError: it does not within `timeout_s` seconds; `what` names it.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise _passed(what, timeout_s)
        time.sleep(PAUSE_S)


async def eventually(condition: Callable[[], bool], *, what: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
    """Let other tasks run until the condition holds. For asynchronous tests.

    Raises:
        DeadlinePassedError: it does not within `timeout_s` seconds; `what` names it.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise _passed(what, timeout_s)
        await asyncio.sleep(PAUSE_S)
