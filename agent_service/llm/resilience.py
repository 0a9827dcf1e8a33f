"""Requests to a provider: repeated while nothing of the answer has come, within a bounded number and time."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic_ai import RunContext
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelConnectionError,
    ModelHTTPError,
    ModelQuotaExceededError,
    ModelTimeoutError,
)
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from agent_service.llm.circuits import Circuit, CircuitOpenError
from agent_service.llm.failures import busy, resting

ResultT = TypeVar("ResultT")

REPEATED_STATUSES: Final = frozenset({429, 500, 502, 503, 529})
"""HTTP answers after which the same request is sent again."""

REQUEST_TIME_S: Final = 30.0
"""For one request and its repetitions, where the settings of the request name no `request_timeout`."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how fast a request is sent again. Waits double from the first, with jitter on top; seconds."""

    attempts: int = 3
    first_wait_s: float = 0.5
    longest_wait_s: float = 4.0
    jitter_s: float = 0.5


class _AgainError(Exception):
    """A failed attempt, without the provider's words: the retrying library logs what it repeats."""

    def __init__(self, error: ModelAPIError) -> None:
        super().__init__(f"HTTP {error.status_code}" if isinstance(error, ModelHTTPError) else type(error).__name__)
        self.error = error


class ResilientModel(WrapperModel):
    """A provider's model. Once its answer has begun to stream, an error ends the request.

    The setting `request_timeout` is what is left for the request and its repetitions, in seconds: a provider that
    wants a longer pause is not waited for. Raises `ModelError` for that, and while the provider is left alone;
    otherwise what the last attempt raised.
    """

    def __init__(self, wrapped: Model, circuit: Circuit, retries: Retries) -> None:
        super().__init__(wrapped)
        self._circuit = circuit
        self._retries = retries

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        async with self._guarded():
            return await self._repeating(
                lambda: super(ResilientModel, self).request(messages, model_settings, model_request_parameters),
                _time_of(model_settings),
            )

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[None] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        async with self._guarded(), AsyncExitStack() as stack:

            async def open_stream() -> StreamedResponse:
                stream = super(ResilientModel, self).request_stream(
                    messages, model_settings, model_request_parameters, run_context
                )
                return await stack.enter_async_context(stream)

            stream = await self._repeating(open_stream, _time_of(model_settings))
            yield stream
            answer = stream.get()
            if answer.finish_reason is None and "finish_reason" not in (answer.provider_details or {}):
                # Some protocols end a stream like a file: a connection that was lost looks like the end.
                raise ModelConnectionError(self.model_name, "the answer was cut", phase="read")

    @asynccontextmanager
    async def _guarded(self) -> AsyncGenerator[None]:
        try:
            async with self._circuit.request():
                yield
        except CircuitOpenError as error:
            raise resting(self.model_name, error.retry_after_s) from None

    async def _repeating(self, attempt: Callable[[], Awaitable[ResultT]], time_s: float) -> ResultT:
        import stamina

        clock = asyncio.get_running_loop().time
        deadline = clock() + time_s

        def wait(error: Exception) -> bool | float:
            if not isinstance(error, _AgainError):
                return False
            asked_s = error.error.retry_after
            return asked_s is None or (asked_s if asked_s < deadline - clock() else False)

        try:
            async for trial in stamina.retry_context(
                on=wait,
                attempts=self._retries.attempts,
                timeout=time_s,
                wait_initial=self._retries.first_wait_s,
                wait_max=self._retries.longest_wait_s,
                wait_jitter=self._retries.jitter_s,
            ):
                with trial:
                    try:
                        return await attempt()
                    except ModelAPIError as error:
                        if _is_worth_repeating(error):
                            raise _AgainError(error) from error
                        raise
        except _AgainError as last:
            asked_s = last.error.retry_after
            if asked_s is not None and asked_s >= deadline - clock():
                raise busy(self.model_name, asked_s) from last.error
            raise last.error from None
        raise AssertionError("the last attempt returns or raises")


def _is_worth_repeating(error: ModelAPIError) -> bool:
    """Tell whether the same request may go well a moment later. One that was timed out has had its time."""
    if isinstance(error, ModelQuotaExceededError):
        return False
    if isinstance(error, ModelHTTPError):
        return error.status_code in REPEATED_STATUSES and error.provider_retry_hint is not False
    if isinstance(error, ModelTimeoutError):
        return error.phase in {"connect", "pool"}
    return isinstance(error, ModelConnectionError)


def _time_of(settings: ModelSettings | None) -> float:
    return (settings or {}).get("request_timeout") or REQUEST_TIME_S
