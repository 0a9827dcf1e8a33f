"""A provider that fails is left alone for a while, and then tried with one request."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
)

from agent_service.engine.circuits import Circuits
from agent_service.engine.clock import SystemClock
from agent_service.engine.errors import ModelError
from agent_service.engine.ports import Clock

PROBE_S: Final = 5.0
"""After which to come back while the one request that finds out is under way, in seconds."""


class CircuitOpenError(Exception):
    """The provider is not asked now. `retry_after_s` is when it will be: seconds from now."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"open for another {retry_after_s:g} s")
        self.retry_after_s = retry_after_s


class Circuit:
    """One provider's circuit breaker, shared by all of its models.

    A request, with its repetitions, counts once. One that the provider answers, if only to reject it, says that the
    provider is there.
    """

    def __init__(self, provider: str, clock: Clock | None = None) -> None:
        self._provider = provider
        self._circuits = Circuits(clock or SystemClock())

    @property
    def is_closed(self) -> bool:
        """False while the provider is left alone, and until a request has found that it is back."""
        return self._circuits.is_closed(self._provider)

    @asynccontextmanager
    async def request(self) -> AsyncGenerator[None]:
        """Make one request in the body, and count how it ends. Raises `CircuitOpenError` instead while it is open."""
        if not self._circuits.allows(self._provider):
            raise CircuitOpenError(self._circuits.rest_ms(self._provider) / 1000 or PROBE_S)
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self._circuits.left(self._provider)  # somebody else's wish: it says nothing about the provider
            raise
        except BaseException as error:
            (self._circuits.failed if _is_down(error) else self._circuits.succeeded)(self._provider)
            raise
        self._circuits.succeeded(self._provider)


def _is_down(error: BaseException) -> bool:
    """Tell whether an error says something about the provider: not one of ours, and not about the request.

    In our own words for an error of the provider's it counts as that one.
    """
    of_the_request = (ModelRequestRejectedError, ModelRateLimitError, ModelQuotaExceededError)
    told = error.__cause__ if isinstance(error, ModelError) else error
    return isinstance(told, ModelAPIError) and not isinstance(told, of_the_request)
