"""What a server of Anthropic's messages says."""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from agent_service.llm.providers import Account
from tests.support.provider_server import SECRET, Call, Dialect, Piece, Reply


class Anthropic:
    """Implements `Dialect`."""

    provider = "anthropic"
    model = "anthropic:claude-sonnet-4-6"

    def account(self, url: str) -> Account:
        return Account(url, "a-key")

    def answer(self, *pieces: str, calls: Sequence[Call] = (), thought: str = "", end: Piece | None = None) -> Reply:
        sent: list[Piece] = [_start()]
        blocks: list[list[bytes]] = []
        if thought:
            deltas = [{"type": "thinking_delta", "thinking": part} for part in _in_pieces(thought)]
            signed = [*deltas, {"type": "signature_delta", "signature": "c2lnbmVk"}]
            blocks.append(_block(0, {"type": "thinking", "thinking": "", "signature": ""}, signed))
        if pieces:
            texts = [{"type": "text_delta", "text": piece} for piece in pieces]
            blocks.append(_block(len(blocks), {"type": "text", "text": ""}, texts))
        if end is not None:
            begun = [part for block in blocks for part in block][:-1]
            return Reply([*sent, *begun, end])
        for call in calls:
            args = [{"type": "input_json_delta", "partial_json": part} for part in _in_pieces(call.args)]
            head = {"type": "tool_use", "id": call.call_id, "name": call.name, "input": {}}
            blocks.append(_block(len(blocks), head, args))
        sent += [part for block in blocks for part in block]
        return Reply([*sent, *_stop("tool_use" if calls else "end_turn")])

    def refusal(self, *pieces: str) -> Reply:
        texts = [{"type": "text_delta", "text": piece} for piece in pieces]
        block = _block(0, {"type": "text", "text": ""}, texts) if pieces else []
        return Reply([_start(), *block, *_stop("refusal")])

    def cut(self, *pieces: str) -> Reply:
        texts = [{"type": "text_delta", "text": piece} for piece in pieces]
        return Reply([_start(), *_block(0, {"type": "text", "text": ""}, texts), *_stop("max_tokens")])

    def failure(self, status: int, **headers: str) -> Reply:
        return _error(status, "api_error", f"failed for {SECRET}", **headers)

    def too_long(self) -> Reply:
        return _error(400, "invalid_request_error", f"prompt is too long: 250000 tokens > 200000 maximum {SECRET}")


ANTHROPIC: Final[Dialect] = Anthropic()


def event(kind: str, **fields: object) -> bytes:
    """Return one event of a stream."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n".encode()


def _start() -> bytes:
    message: dict[str, object] = {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1000, "output_tokens": 1},
    }
    return event("message_start", message=message)


def _block(number: int, head: Mapping[str, object], deltas: Sequence[dict[str, str]]) -> list[bytes]:
    begun = event("content_block_start", index=number, content_block=head)
    parts = [event("content_block_delta", index=number, delta=delta) for delta in deltas]
    return [begun, event("ping"), *parts, event("content_block_stop", index=number)]


def _stop(reason: str) -> list[bytes]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [event("message_delta", delta=delta, usage={"output_tokens": 500}), event("message_stop")]


def _in_pieces(text: str) -> list[str]:
    return [text[start : start + 7] for start in range(0, len(text), 7)]


def _error(status: int, kind: str, message: str, **headers: str) -> Reply:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
    return Reply([body], status, "application/json", {name.replace("_", "-"): value for name, value in headers.items()})
