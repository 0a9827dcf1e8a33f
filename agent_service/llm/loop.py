"""Runs one step of an agent against a language model, through pydantic-ai."""

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager
from typing import Final

import pydantic_ai
from pydantic import BaseModel
from pydantic_ai import Agent as ModelAgent
from pydantic_ai import RunContext, ToolDefinition, UsageLimits
from pydantic_ai.exceptions import AgentRunError, ModelHTTPError, UsageLimitExceeded
from pydantic_ai.messages import (
    AgentStreamEvent,
    ModelMessage,
    ModelResponse,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool
from pydantic_core import SchemaValidator, core_schema

from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.events import JsonObject, JsonValue, Usage
from agent_service.engine.ports import Step, StepResult, StepSink, ToolCall
from agent_service.engine.tool import Tool
from agent_service.llm.models import ModelSource
from agent_service.llm.offline.model import OfflineModel
from agent_service.llm.prices import cost_usd
from agent_service.llm.transcript import MAX_EVIDENCE_TOKENS, dump_state, history_of, load_state, prompt_of

MAX_MODEL_REQUESTS: Final = 16
"""Requests to the model in one step, over all attempts."""

MAX_CORRECTIONS: Final = 2
"""How often a model may correct arguments that are not JSON, an unknown tool, or an invalid output."""

MIN_THOUGHT_CHARACTERS: Final = 24
"""A shorter sentence is shown together with the next."""

SENTENCE_ENDS: Final = (".", "!", "?", "…", ":", "\n")


class ModelLoop:
    """Implements `ports.AgentLoop`."""

    def __init__(self, models: ModelSource) -> None:
        self._models = models
        # The library greets on stderr at the first run of a process in a terminal.
        pydantic_ai.BANNER_ENABLED = False

    async def run(self, step: Step, sink: StepSink) -> StepResult:
        model = _MeteredModel(self._models.get(step.settings.model), sink)
        earlier = history_of(step.history)
        resumed = load_state(step.resume)
        toolset = _DispatchedTools(step.tools, sink, own_from=len(earlier))
        output_type: type[BaseModel | str] = step.agent.output or str
        agent: ModelAgent[None, BaseModel | str] = ModelAgent(
            model,
            deps_type=type(None),
            name=step.agent.name,
            instructions=step.agent.instructions,
            output_type=output_type,
            toolsets=[toolset],
            retries=MAX_CORRECTIONS,
            model_settings=_model_settings(step),
        )

        async def show(_: RunContext[None], events: AsyncIterable[AgentStreamEvent]) -> None:
            response = _ShownResponse(sink, streams=step.writes_answer)
            async for event in events:
                await response.take(event)
            await response.end()

        requests_left = MAX_MODEL_REQUESTS - sum(isinstance(message, ModelResponse) for message in resumed)
        try:
            result = await agent.run(
                None if resumed else prompt_of(step, max_evidence_tokens=_max_evidence_tokens(model.wrapped)),
                message_history=[*earlier, *resumed],
                event_stream_handler=show,
                usage_limits=UsageLimits(request_limit=requests_left),
            )
        except AgentRunError as error:
            raise _unavailable(error, model.wrapped.model_name) from error
        return StepResult(result.output)

    def fallbacks(self, model: str = "") -> tuple[str, ...]:
        """Return the models to go on with, in this order, when this one (empty: the default) is down."""
        return self._models.fallbacks(model)


class _MeteredModel(WrapperModel):
    """Asks the budget before each request and reports what it consumed, also when it was cut short."""

    def __init__(self, wrapped: Model, sink: StepSink) -> None:
        super().__init__(wrapped)
        self._sink = sink

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        await self._sink.before_model_request()
        response = await super().request(messages, model_settings, model_request_parameters)
        self._sink.used(_usage_of(response))
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
        async with super().request_stream(messages, model_settings, model_request_parameters, run_context) as response:
            try:
                yield response
            finally:
                self._sink.used(_usage_of(response.get()))


class _DispatchedTools(AbstractToolset[None]):
    """Our tools as the model sees them. Arguments are checked by the dispatcher, which answers with an outcome.

    `own_from` is where the step's own messages begin: what comes before is the thread's history.
    """

    def __init__(self, tools: tuple[Tool[BaseModel], ...], sink: StepSink, *, own_from: int) -> None:
        self._tools = tools
        self._sink = sink
        self._own_from = own_from
        self._saved_messages = 0

    @property
    def id(self) -> str:
        return "apex"

    async def get_tools(self, ctx: RunContext[None]) -> dict[str, ToolsetTool[None]]:
        return {
            tool.name: ToolsetTool(
                toolset=self,
                tool_def=ToolDefinition(
                    name=tool.name,
                    description=tool.description,
                    parameters_json_schema=tool.args.model_json_schema(),
                ),
                max_retries=MAX_CORRECTIONS,
                args_validator=SchemaValidator(core_schema.dict_schema(core_schema.str_schema())),
            )
            for tool in self._tools
        }

    async def call_tool(
        self, name: str, tool_args: dict[str, JsonValue], ctx: RunContext[None], tool: ToolsetTool[None]
    ) -> JsonObject:
        if len(ctx.messages) != self._saved_messages:
            # The first call of a response: from here a new worker goes on with exactly these calls.
            self._saved_messages = len(ctx.messages)
            self._sink.save(dump_state(ctx.messages[self._own_from :]))
        outcome = await self._sink.call_tool(ToolCall(ctx.tool_call_id or name, name, tool_args))
        return {
            "status": outcome.status.value,
            "summary": outcome.summary,
            "result": outcome.result,
            "error": outcome.error,
        }


class _ShownResponse:
    """One response of the model as it arrives: thoughts by the sentence, text by the piece.

    Text beside a tool call is no answer: it is taken back and shown as a thought. Text that is not streamed (another
    step writes the answer) becomes a thought only then, too.
    """

    def __init__(self, sink: StepSink, *, streams: bool) -> None:
        self._sink = sink
        self._streams = streams
        self._thought = ""
        self._text = ""
        self._calls_tools = False

    async def take(self, event: AgentStreamEvent) -> None:
        match event:
            case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                await self._take_text(text)
            case (
                PartStartEvent(part=ThinkingPart(content=text))
                | PartDeltaEvent(delta=ThinkingPartDelta(content_delta=str(text)))
            ):
                await self._take_thought(text)
            case PartStartEvent(part=ToolCallPart()):
                await self._take_call()
            case PartEndEvent():
                await self._show_thought()
            case _:
                pass

    async def end(self) -> None:
        await self._show_thought()
        if self._calls_tools:
            await self._sink.thought(self._text)

    async def _take_text(self, text: str) -> None:
        self._text += text
        if text and self._streams and not self._calls_tools:
            await self._sink.text(text)

    async def _take_thought(self, text: str) -> None:
        self._thought += text
        if len(self._thought) >= MIN_THOUGHT_CHARACTERS and self._thought.rstrip(" ").endswith(SENTENCE_ENDS):
            await self._show_thought()

    async def _take_call(self) -> None:
        self._calls_tools = True
        text, self._text = self._text, ""
        if text and self._streams:
            await self._sink.discard_text()
        await self._sink.thought(text)

    async def _show_thought(self) -> None:
        thought, self._thought = self._thought, ""
        await self._sink.thought(thought)


def _max_evidence_tokens(model: Model) -> int | None:
    """Return how much of earlier results a model reads: the offline model reads all, for it computes from them."""
    return None if isinstance(model, OfflineModel) else MAX_EVIDENCE_TOKENS


def _model_settings(step: Step) -> ModelSettings:
    settings = ModelSettings()
    if step.settings.temperature is not None:
        settings["temperature"] = step.settings.temperature
    if step.settings.max_output_tokens is not None:
        settings["max_tokens"] = step.settings.max_output_tokens
    return settings


def _usage_of(response: ModelResponse) -> Usage:
    used = response.usage
    return Usage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cached_tokens=used.cache_read_tokens,
        model_requests=1,
        cost_usd=cost_usd(response) or 0.0,  # a budget is refused for a model without a price
    )


def _unavailable(error: AgentRunError, model_name: str) -> ApexError:
    """Return the error for the user. A provider's own words stay in the log: they may quote the request."""
    if isinstance(error, UsageLimitExceeded):
        what = f"The language model {model_name!r} did not come to an answer within {MAX_MODEL_REQUESTS} requests."
    elif isinstance(error, ModelHTTPError):
        what = f"The language model {model_name!r} could not answer (HTTP {error.status_code})."
    else:
        what = f"The language model {model_name!r} could not answer ({type(error).__name__})."
    return ApexError(
        ErrorReason.MODEL_UNAVAILABLE,
        what,
        recovery_suggestions=("Try again in a moment.", "Choose another model in the settings of the request."),
    )
