"""A provider that fails is left alone for a while, and then tried with one request."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
)

if TYPE_CHECKING:
    from purgatory.domain.model import Context

OPENED: Final = "opened"
HALF_OPENED: Final = "half-opened"
CLOSED: Final = "closed"
"""The states, as the library calls them."""

MAX_FAILURES: Final = 3
"""Requests in a row, each with its repetitions, that fail before a provider is left alone."""

REST_S: Final = 60.0
"""How long a provider is left alone, in seconds."""


PROBE_S: Final = 5.0
"""After which to come back while the one request that finds out is under way, in seconds."""


class CircuitOpenError(Exception):
    """The provider is not asked now. `retry_after_s` is when it will be: seconds from now."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"open for another {retry_after_s:g} s")
        self.retry_after_s = retry_after_s


class Circuit:
    """One provider's circuit breaker, shared by all of its models.

    A request that the provider answers, if only to reject it, says that the provider is there.
    """

    def __init__(self, provider: str, *, max_failures: int = MAX_FAILURES, rest_s: float = REST_S) -> None:
        from purgatory import AsyncCircuitBreakerFactory

        self._provider = provider
        self._rest_s = rest_s
        self._is_probing = False
        self._context: Context | None = None
        self._breakers = AsyncCircuitBreakerFactory(
            default_threshold=max_failures,
            default_ttl=rest_s,
            exclude=[(BaseException, lambda error: not _is_down(error))],
        )

    @property
    def is_closed(self) -> bool:
        """False while the provider is left alone, and until a request has found that it is back."""
        return self._context is None or self._context.state == CLOSED

    @asynccontextmanager
    async def request(self) -> AsyncGenerator[None]:
        """Make one request in the body, and count how it ends. Raises `CircuitOpenError` instead while it is open.

        After the rest one request goes through, alone: the library would let all of them.
        """
        breaker = await self._breakers.get_breaker(self._provider)
        self._context = context = breaker.context
        if context.state == OPENED:
            left_s = min((context.opened_at or 0.0) + self._rest_s - time.time(), self._rest_s)
            if left_s >= 0:
                raise CircuitOpenError(left_s)
        probes = context.state in {OPENED, HALF_OPENED}
        if probes and self._is_probing:
            raise CircuitOpenError(PROBE_S)
        self._is_probing = self._is_probing or probes
        try:
            await breaker.__aenter__()
            yield
        except (asyncio.CancelledError, GeneratorExit):
            raise  # somebody else's wish: it says nothing about the provider
        except BaseException as error:
            await breaker.__aexit__(type(error), error, error.__traceback__)
            raise
        else:
            await breaker.__aexit__(None, None, None)
        finally:
            if probes:
                self._is_probing = False


def _is_down(error: BaseException) -> bool:
    """Tell whether an error says something about the provider: not one of ours, and not about the request."""
    of_the_request = (ModelRequestRejectedError, ModelRateLimitError, ModelQuotaExceededError)
    return isinstance(error, ModelAPIError) and not isinstance(error, of_the_request)
