"""What a server of OpenAI's chat completions says, as Ollama and vLLM say it, too."""

import json
from collections.abc import Sequence
from typing import Final

from agent_service.llm.providers import Account
from tests.support.provider_server import SECRET, Call, Dialect, Piece, Reply

USAGE: Final = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
DONE: Final = b"data: [DONE]\n\n"


class OpenAi:
    """Implements `Dialect`."""

    provider = "openai"
    model = "openai:gpt-4o"

    def account(self, url: str) -> Account:
        return Account(f"{url}/v1", "a-key")

    def answer(self, *pieces: str, calls: Sequence[Call] = (), thought: str = "", end: Piece | None = None) -> Reply:
        deltas: list[dict[str, object]] = [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning_content": part} for part in _in_pieces(thought)]
        deltas += [{"content": piece} for piece in pieces]
        sent: list[Piece] = [chunk(delta) for delta in deltas]
        if end is not None:
            return Reply([*sent, end])
        sent += [chunk({"tool_calls": [part]}) for number, call in enumerate(calls) for part in _call(number, call)]
        sent += [chunk({}, finish="tool_calls" if calls else "stop"), chunk(None, usage=USAGE), DONE]
        return Reply(sent)

    def refusal(self, *pieces: str) -> Reply:
        parts = [*(chunk({"content": piece}) for piece in pieces), chunk({"refusal": f"No. {SECRET}"})]
        return Reply([*parts, chunk({}, finish="content_filter"), chunk(None, usage=USAGE), DONE])

    def cut(self, *pieces: str) -> Reply:
        parts = [chunk({"content": piece}) for piece in pieces]
        return Reply([*parts, chunk({}, finish="length"), chunk(None, usage=USAGE), DONE])

    def failure(self, status: int, **headers: str) -> Reply:
        return _error(status, "server_error", f"failed for {SECRET}", **headers)

    def too_long(self) -> Reply:
        return _error(400, "context_length_exceeded", f"maximum context length is 128000 tokens, not {SECRET}")


OPENAI: Final[Dialect] = OpenAi()


def chunk(delta: dict[str, object] | None, *, finish: str | None = None, usage: dict[str, int] | None = None) -> bytes:
    """Return one chunk of a stream; without a delta, one without choices."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    head = {"id": "r1", "object": "chat.completion.chunk", "created": 1750000000, "model": "gpt-4o"}
    return f"data: {json.dumps({**head, 'choices': choices, 'usage': usage}, ensure_ascii=False)}\n\n".encode()


def _call(number: int, call: Call) -> list[dict[str, object]]:
    name: dict[str, object] = {"name": call.name, "arguments": ""}
    begun: dict[str, object] = {"index": number, "id": call.call_id, "type": "function", "function": name}
    return [begun, *({"index": number, "function": {"arguments": part}} for part in _in_pieces(call.args))]


def _in_pieces(text: str) -> list[str]:
    return [text[start : start + 7] for start in range(0, len(text), 7)]


def _error(status: int, code: str, message: str, **headers: str) -> Reply:
    body = json.dumps({"error": {"message": message, "type": "error", "code": code}}).encode()
    return Reply([body], status, "application/json", {name.replace("_", "-"): value for name, value in headers.items()})
