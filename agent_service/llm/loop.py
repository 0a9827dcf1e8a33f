"""Runs one step of an agent against a language model, through pydantic-ai."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, Sequence
from typing import Final

import pydantic_ai
from pydantic import BaseModel, ValidationError
from pydantic_ai import Agent as ModelAgent
from pydantic_ai import RunContext, ToolDefinition, UsageLimits
from pydantic_ai.exceptions import AgentRunError
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
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool
from pydantic_core import SchemaValidator, core_schema

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.ports import Step, StepResult, StepSink, ToolCall
from agent_service.engine.tool import Tool
from agent_service.llm import failures
from agent_service.llm.metering import MeteredModel
from agent_service.llm.models import ModelSource
from agent_service.llm.offline.model import OfflineModel
from agent_service.llm.transcript import MAX_EVIDENCE_TOKENS, dump_state, history_of, load_state, prompt_of

MAX_MODEL_REQUESTS: Final = 16
"""Requests to the model in one step, over all attempts."""

MAX_CORRECTIONS: Final = 2
"""How often a model may correct arguments, an unknown tool, or an invalid output, in one step."""

DEFAULT_STEP_TIMEOUT_MS: Final = 30_000
"""The time of a step, where the loop is not told another."""

CUT_NOTICE: Final = "\n\n*The answer was cut here: the model has used up its output tokens.*"

MIN_THOUGHT_CHARACTERS: Final = 24
"""A shorter sentence is shown together with the next."""

SENTENCE_ENDS: Final = (".", "!", "?", "…", ":", "\n")


class ModelLoop:
    """Implements `ports.AgentLoop`. `step_timeout_ms` is what a step has in all: no provider is waited for longer."""

    def __init__(self, models: ModelSource, *, step_timeout_ms: int = DEFAULT_STEP_TIMEOUT_MS) -> None:
        self._models = models
        self._step_timeout_s = step_timeout_ms / 1000
        # The library greets on stderr at the first run of a process in a terminal.
        pydantic_ai.BANNER_ENABLED = False

    async def run(self, step: Step, sink: StepSink) -> StepResult:
        deadline = asyncio.get_running_loop().time() + self._step_timeout_s
        model = MeteredModel(self._models.get(step.settings.model), sink, deadline)
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
            async for event in model.readable(events):
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
            raise failures.of_run(error, model.wrapped.model_name, MAX_MODEL_REQUESTS) from error
        output = result.output
        if isinstance(output, str) and model.was_cut:
            output += CUT_NOTICE
            if step.writes_answer:
                await sink.text(CUT_NOTICE)
        return StepResult(output)

    def fallbacks(self, model: str = "") -> tuple[str, ...]:
        """Return the models to go on with, in this order, when this one (empty: the default) is down."""
        return self._models.fallbacks(model)


class _DispatchedTools(AbstractToolset[None]):
    """Our tools as the model sees them. Arguments are checked by the dispatcher, which answers with an outcome.

    `own_from` is where the step's own messages begin: what comes before is the thread's history. A tool whose
    arguments the model got wrong once more than it may correct them is not offered again in this step.
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
        wrong = _wrong_calls(ctx.messages[self._own_from :], self._tools)
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
            if wrong[tool.name] <= MAX_CORRECTIONS
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


def _wrong_calls(messages: Sequence[ModelMessage], tools: Sequence[Tool[BaseModel]]) -> Counter[str]:
    """Count the calls whose arguments do not fit, by tool: from the messages, so that a new worker counts on."""
    by_name = {tool.name: tool for tool in tools}
    wrong: Counter[str] = Counter()
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolCallPart) and part.tool_name in by_name:
                try:
                    by_name[part.tool_name].args.model_validate(part.args_as_dict())
                except (ValidationError, ValueError, AssertionError):
                    wrong[part.tool_name] += 1
    return wrong


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
