"""What may be tried again, how long to wait before that, and in which words a step's failure is told."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from agent_service.engine.errors import ApexError, ErrorReason, FencedError, HandoverError, ModelError, Remedy
from agent_service.engine.run import RETRYABLE_REASONS
from storage.errors import StorageUnavailableError

RETRIES: Final = 2
"""Of one step with one model, after the first try."""

MIN_BACKOFF_S: Final = 0.5
"""Before a retry, at least."""

MAX_BACKOFF_S: Final = 10.0
"""Before a retry, at most."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a step did not come to an end. `words` are for people, beside the agent's name.

    `error` is what ends the run if nobody answers. `remedy` is what may help. `of_model`: the language model is to
    blame, not the request, a tool or time.
    """

    error: Exception
    words: str
    remedy: Remedy = Remedy.AGAIN
    of_model: bool = False


class Backoff:
    """Waits before a retry: longer each time, and by chance, so that many runs do not come back at once.

    `sleep` takes seconds; `chance` returns a number from 0 to 1.
    """

    def __init__(
        self,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._sleep = sleep
        self._chance = chance

    async def wait(self, retry: int) -> None:
        """Wait before the given retry, counted from 1: from `MIN_BACKOFF_S` to twice as much per retry."""
        most = min(MAX_BACKOFF_S, MIN_BACKOFF_S * 2.0**retry)
        await self._sleep(MIN_BACKOFF_S + (most - MIN_BACKOFF_S) * self._chance())


def concerns_the_run(error: Exception) -> bool:
    """Return whether an error of a step is none of the step's: the run ends, moves on or waits because of it."""
    if isinstance(error, ApexError):
        return error.reason not in RETRYABLE_REASONS
    return isinstance(error, FencedError | HandoverError | StorageUnavailableError)


def failure_of(error: Exception) -> Failure:
    """Return a step's failure. What was not foreseen says nothing about itself to people: that is in the log."""
    if isinstance(error, ApexError):
        remedy = error.remedy if isinstance(error, ModelError) else Remedy.AGAIN
        of_model = error.reason is ErrorReason.MODEL_UNAVAILABLE and remedy is not Remedy.NONE
        return Failure(error, error.message, remedy, of_model)
    return Failure(error, "It failed unexpectedly.")
