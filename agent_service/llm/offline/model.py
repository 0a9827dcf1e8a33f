"""The offline model: a `Model` of pydantic-ai that answers by rules. It ships as product; it costs nothing."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec
from pydantic_ai import RunContext
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponsePart,
    ModelResponseStreamEvent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from agent_service.engine.events import JsonObject
from agent_service.llm.offline.conversation import (
    Call,
    Conversation,
    Exchange,
    Saying,
    Thought,
    Words,
    child,
    children,
    text,
)
from agent_service.llm.offline.facts import SUCCESS
from agent_service.llm.offline.replies import reply

NAME: Final = "offline"

CHARACTERS_PER_TOKEN: Final = 4
"""The offline model has no tokens: usage is estimated by length, so that totals mean something."""

_PIECE: Final = re.compile(r"(?:[^\S\n]*\S+[^\S\n]*){1,4}\n*|\s+")
"""Up to four words of one line, with all the space around them: the pieces join to exactly the text."""


class OfflineModel(Model):
    """Decides by rules over the conversation so far. The same conversation gives the same answer and the same ids."""

    def __init__(self) -> None:
        super().__init__()

    @property
    def model_name(self) -> str:
        return NAME

    @property
    def system(self) -> str:
        return NAME

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        parts = _parts(messages, model_request_parameters)
        return ModelResponse(parts=parts, model_name=NAME, provider_name=NAME, usage=_usage(messages, parts))

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[None] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        parts = _parts(messages, model_request_parameters)
        yield _OfflineStream(model_request_parameters, parts, _usage(messages, parts), datetime.now(UTC))


@dataclass
class _OfflineStream(StreamedResponse):
    """Streams a response that is decided already, in the pieces in which a person would read it."""

    parts: Sequence[ModelResponsePart]
    whole_usage: RequestUsage
    begun: datetime

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        for index, part in enumerate(self.parts):
            for event in self._events(index, part):
                yield event
                # Not a delay: whoever shows this piece gets its turn before the next one is made.
                await asyncio.sleep(0)
        self._usage = self.whole_usage
        self.finish_reason = "stop"

    def _events(self, index: int, part: ModelResponsePart) -> Iterator[ModelResponseStreamEvent]:
        manager = self._parts_manager
        if isinstance(part, TextPart):
            for piece in pieces(part.content):
                yield from manager.handle_text_delta(vendor_part_id=index, content=piece)
        elif isinstance(part, ThinkingPart):
            yield from manager.handle_thinking_delta(vendor_part_id=index, content=part.content)
        else:
            yield manager.handle_part(vendor_part_id=index, part=part)

    async def close_stream(self) -> None:
        """Nothing to close: there is no connection."""

    @property
    def model_name(self) -> str:
        return NAME

    @property
    def provider_name(self) -> str:
        return NAME

    @property
    def provider_url(self) -> None:
        return None

    @property
    def timestamp(self) -> datetime:
        return self.begun


def pieces(content: str) -> list[str]:
    """Cut text into pieces of a few words; joined they are the text."""
    return _PIECE.findall(content)


def _parts(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> list[ModelResponsePart]:
    """Return the next response. Raises `UnexpectedModelBehavior` for a typed output that the rules do not know."""
    conversation = _conversation(messages, parameters)
    try:
        sayings = reply(conversation)
    except ValueError as error:
        raise UnexpectedModelBehavior(str(error)) from error
    calls_before = sum(isinstance(part, ToolCallPart) for message in messages for part in message.parts)
    parts: list[ModelResponsePart] = []
    for saying in sayings:
        parts.append(_part(saying, calls_before + 1))
        calls_before += isinstance(saying, Call)
    return parts


def _part(saying: Saying, call_number: int) -> ModelResponsePart:
    match saying:
        case Thought(said):
            return ThinkingPart(said)
        case Words(said):
            return TextPart(said)
        case Call(tool_name, args):
            return ToolCallPart(tool_name, msgspec.json.encode(args).decode(), tool_call_id=f"c{call_number}")


def _conversation(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> Conversation:
    prompts = [
        part.content
        for message in messages
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, UserPromptPart)
    ]
    request, facts = _split_prompt(prompts[-1] if prompts else "")
    output = parameters.output_tools[0] if parameters.output_tools else None
    fields = output.parameters_json_schema.get("properties", {}) if output else {}
    return Conversation(
        request=request,
        earlier=tuple(_split_prompt(prompt)[0] for prompt in prompts[:-1]),
        now=_now(facts),
        findings=_findings(facts),
        evidence=_evidence(facts),
        exchanges=tuple(_exchanges(messages)),
        tools=frozenset(tool.name for tool in parameters.function_tools),
        output_tool=output.name if output else "",
        output_fields=frozenset(fields),
    )


def _split_prompt(content: str | Sequence[object]) -> tuple[str, JsonObject]:
    """Return the person's words and the facts beside them. Only a second part holds facts: words cannot forge it."""
    if isinstance(content, str):
        return content, {}
    parts = [part for part in content if isinstance(part, str)]
    if len(parts) < 2:  # noqa: PLR2004 - the words, the facts
        return "".join(parts), {}
    decoded = json.loads(parts[1].partition("\n")[2])
    return parts[0], decoded if isinstance(decoded, Mapping) else {}


def _now(facts: JsonObject) -> datetime:
    said = text(facts, "now")
    return datetime.fromisoformat(said) if said else datetime.now(UTC)


def _findings(facts: JsonObject) -> dict[str, JsonObject]:
    return {
        text(entry, "agent"): output
        for entry in children(facts, "findings")
        if isinstance(output := child(entry, "found"), Mapping)
    }


def _evidence(facts: JsonObject) -> dict[str, tuple[Exchange, ...]]:
    return {
        text(entry, "agent"): tuple(_cited(record) for record in children(entry, "evidence"))
        for entry in children(facts, "findings")
    }


def _cited(record: JsonObject) -> Exchange:
    args, result = child(record, "args"), child(record, "result")
    return Exchange(
        tool_name=text(record, "tool_name"),
        args=args if isinstance(args, Mapping) else {},
        status=SUCCESS,
        summary=text(record, "summary"),
        result=result if isinstance(result, Mapping) else None,
        error="",
        tool_call_id=text(record, "tool_call_id"),
    )


def _exchanges(messages: Sequence[ModelMessage]) -> Iterator[Exchange]:
    """Yield this step's tool calls that have an outcome, in order."""
    calls: dict[str, ToolCallPart] = {}
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolCallPart):
                calls[part.tool_call_id] = part
            elif isinstance(part, ToolReturnPart) and part.tool_call_id in calls:
                yield _exchange(calls[part.tool_call_id], part)


def _exchange(call: ToolCallPart, returned: ToolReturnPart) -> Exchange:
    content = returned.content if isinstance(returned.content, Mapping) else {}
    result = child(content, "result")
    return Exchange(
        tool_name=call.tool_name,
        args=call.args_as_dict(),
        status=text(content, "status"),
        summary=text(content, "summary"),
        result=result if isinstance(result, Mapping) else None,
        error=text(content, "error"),
    )


def _usage(messages: Sequence[ModelMessage], parts: Sequence[ModelResponsePart]) -> RequestUsage:
    read = sum(len(str(getattr(part, "content", ""))) for message in messages for part in message.parts)
    said = sum(len(str(getattr(part, "content", "") or getattr(part, "args", ""))) for part in parts)
    return RequestUsage(input_tokens=read // CHARACTERS_PER_TOKEN, output_tokens=max(1, said // CHARACTERS_PER_TOKEN))
