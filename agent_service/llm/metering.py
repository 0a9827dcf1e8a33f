"""What a step's requests to a model may take, and what they took."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager
from typing import Final

from pydantic_ai import RunContext
from pydantic_ai.exceptions import AgentRunError, UnexpectedModelBehavior
from pydantic_ai.messages import AgentStreamEvent, ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from agent_service.engine.errors import ApexError
from agent_service.engine.events import Usage
from agent_service.engine.ports import StepSink
from agent_service.llm import failures
from agent_service.llm.prices import cost_usd

MIN_REQUEST_TIME_S: Final = 0.1
"""A request to a model has at least this long, in seconds: the step's own end is not ours to declare."""


class MeteredModel(WrapperModel):
    """Asks the budget before each request and reports what it consumed, also when it was cut short.

    Each request may take what is left until `deadline`, on the clock of the event loop. A filtered answer is none,
    also when a part of it came.
    """

    def __init__(self, wrapped: Model, sink: StepSink, deadline: float) -> None:
        super().__init__(wrapped)
        self._sink = sink
        self._deadline = deadline
        self._broken_by: Exception | None = None
        self.was_cut = False
        """True when the last response ended because it used up its output tokens."""

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        await self._sink.before_model_request()
        response = await super().request(messages, self._timed(model_settings), model_request_parameters)
        self._sink.used(_usage_of(response))
        self._check(response)
        return response

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[None] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        await self._sink.before_model_request()
        settings = self._timed(model_settings)
        async with super().request_stream(messages, settings, model_request_parameters, run_context) as response:
            try:
                yield response
            except Exception as error:
                self._broken_by = error
                raise
            finally:
                self._sink.used(_usage_of(response.get()))
            self._check(response.get())

    async def readable(self, events: AsyncIterable[AgentStreamEvent]) -> AsyncGenerator[AgentStreamEvent]:
        """Yield the events. Raises `UnexpectedModelBehavior` for an answer over which the library stumbles.

        Only what broke the model's own stream is meant: while tools run, it is for others to say what went wrong.
        """
        iterator = aiter(events)
        while True:
            try:
                event = await anext(iterator)
            except StopAsyncIteration:
                return
            except (AgentRunError, ApexError):
                raise
            except Exception as error:
                if error is not self._broken_by:
                    raise
                raise UnexpectedModelBehavior("the answer cannot be read") from error
            yield event

    def _timed(self, settings: ModelSettings | None) -> ModelSettings:
        left_s = self._deadline - asyncio.get_running_loop().time()
        timed = ModelSettings(**(settings or {}))
        timed["request_timeout"] = max(left_s, MIN_REQUEST_TIME_S)
        return timed

    def _check(self, response: ModelResponse) -> None:
        self.was_cut = response.finish_reason == "length"
        if response.finish_reason == "content_filter":
            raise failures.refused(self.model_name)


def _usage_of(response: ModelResponse) -> Usage:
    used = response.usage
    return Usage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cached_tokens=used.cache_read_tokens,
        model_requests=1,
        cost_usd=cost_usd(response) or 0.0,  # a budget is refused for a model without a price
    )
