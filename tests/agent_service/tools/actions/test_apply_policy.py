"""Applying a policy over a real HTTP server: signed, once, and never again when nobody knows what came of it."""

import asyncio
import hashlib
import hmac
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from pydantic import BaseModel

from agent_service.engine.approvals import reason_to_ask
from agent_service.engine.commands import RunSettings
from agent_service.engine.events import Effect
from agent_service.engine.tool import Tool, ToolContext, ToolError, ToolOutput
from agent_service.tools.actions import webhook as webhooks
from agent_service.tools.actions.policy import policy_of
from agent_service.tools.actions.tools import action_tools
from agent_service.tools.actions.webhook import Webhook, signature
from agent_service.tools.citations import options_of
from storage.memory import MemoryStorage
from tests.support.datasets import NOW, StoppedClock
from tests.support.evidence import a_record, an_option, citing, options_record
from tests.support.processes import free_port
from tests.support.storage import new_id

SECRET = b"s" * 32
POLICY = policy_of("ours", options_of(options_record(an_option()))).document()


@dataclass
class Router:
    """A plain HTTP server that answers as it is told and keeps what it got."""

    status: str = "200 OK"
    answer: bytes = b"{}"
    headers: str = ""
    hangs_up: bool = False
    port: int = 0
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        self.got.append((headers, await reader.readexactly(int(headers["content-length"]))))
        if not self.hangs_up:
            lines = f"HTTP/1.1 {self.status}\r\nContent-Length: {len(self.answer)}\r\n{self.headers}\r\n"
            writer.write(lines.encode() + self.answer)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def serving(router: Router) -> AsyncIterator[Webhook]:
    server = await asyncio.start_server(router.serve, "127.0.0.1", 0)
    router.port = server.sockets[0].getsockname()[1]
    async with server:
        yield Webhook(f"http://127.0.0.1:{router.port}/policies", SECRET)


async def kept(storage: MemoryStorage, content: bytes, *, run_id: str | None = "run", user_id: str = "ann") -> str:
    upload = storage.files.upload(user_id, new_id(), "router-policy.json", "", max_bytes=1 << 20, run_id=run_id)
    async with upload:
        await upload.write(content)
        return (await upload.commit(NOW)).file_id


Apply = Callable[..., Awaitable[ToolOutput]]


def apply_tool(webhook: Webhook | None, storage: MemoryStorage | None = None) -> Tool[BaseModel]:
    storage = storage or MemoryStorage(lambda: NOW)
    tools = action_tools(storage.plans, storage.files, StoppedClock(), webhook)
    return next(tool for tool in tools if tool.name == "apply_policy")


def applying(storage: MemoryStorage, webhook: Webhook | None) -> Apply:
    tool = apply_tool(webhook, storage)

    async def call(policy: str, context: ToolContext | None = None) -> ToolOutput:
        return await tool.run(context or citing(), tool.args.model_validate({"policy": policy}))

    return call


async def test_the_file_is_posted_once_signed_and_with_its_key() -> None:
    router, storage = Router(answer=b'{"message": "3 rules\\nactive"}'), MemoryStorage(lambda: NOW)
    async with serving(router) as webhook:
        output = await applying(storage, webhook)(await kept(storage, POLICY))
    ((headers, body),) = router.got
    assert body == POLICY
    timestamp = str(int(NOW.timestamp()))
    expected = hmac.new(SECRET, f"{timestamp}.".encode() + POLICY, hashlib.sha256).hexdigest()
    assert headers["x-apex-timestamp"] == timestamp
    assert headers["x-apex-signature"] == f"v1={expected}"
    assert headers["idempotency-key"] == "run.call"
    assert headers["content-type"] == "application/json"
    assert output.result["status"] == 200
    assert output.summary == "127.0.0.1 took the policy “ours” (HTTP 200): “3 rules active”"


async def test_an_export_of_the_run_can_be_cited_by_its_call() -> None:
    router, storage = Router(), MemoryStorage(lambda: NOW)
    artifact = await kept(storage, POLICY)
    export = a_record("export_policy", {"artifact_id": artifact}, call_id="3-actions.c2", agent="actions")
    async with serving(router) as webhook:
        await applying(storage, webhook)("3-actions.c2", citing(export))
    assert [body for _, body in router.got] == [POLICY]


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        ("302 Found", "Location: http://127.0.0.1:9/\r\n", "redirect .*not followed"),
        ("422 Unprocessable", "", "refused the policy .*It says: “no such model”.*not in force"),
        ("503 Unavailable", "", "nobody knows whether the policy is in force"),
    ],
    ids=["redirect", "refused", "failed"],
)
async def test_other_answers_are_said_in_words_and_nothing_is_sent_again(status: str, headers: str, said: str) -> None:
    router = Router(status, b'{"detail": "no such model"}', headers)
    storage = MemoryStorage(lambda: NOW)
    async with serving(router) as webhook:
        with pytest.raises(ToolError, match=said):
            await applying(storage, webhook)(await kept(storage, POLICY))
    assert len(router.got) == 1


async def test_an_unknown_outcome_is_never_repeated() -> None:
    router, storage = Router(hangs_up=True), MemoryStorage(lambda: NOW)
    async with serving(router) as webhook:
        with pytest.raises(ToolError, match=r"nobody knows whether it is in force.*Idempotency-Key is run\.call"):
            await applying(storage, webhook)(await kept(storage, POLICY))
    assert len(router.got) == 1


async def test_a_silent_router_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 0.2)
    storage = MemoryStorage(lambda: NOW)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        webhook = Webhook(f"http://127.0.0.1:{silent.getsockname()[1]}/", SECRET)
        with pytest.raises(ToolError, match="no answer came back"):
            await applying(storage, webhook)(await kept(storage, POLICY))


async def test_who_cannot_be_reached_gets_nothing() -> None:
    storage = MemoryStorage(lambda: NOW)
    webhook = Webhook(f"http://127.0.0.1:{free_port()}/", SECRET)
    with pytest.raises(ToolError, match="could not be reached, so nothing was sent"):
        await applying(storage, webhook)(await kept(storage, POLICY))


async def test_a_refused_connection_is_tried_again_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    router, storage, waits = Router(), MemoryStorage(lambda: NOW), []
    servers: list[asyncio.Server] = []

    async def wait(delay: float) -> None:
        waits.append(delay)
        servers.append(await asyncio.start_server(router.serve, "127.0.0.1", port))

    monkeypatch.setattr(webhooks, "wait", wait)
    await applying(storage, Webhook(f"http://127.0.0.1:{port}/", SECRET))(await kept(storage, POLICY))
    assert (len(waits), len(router.got)) == (1, 1)
    for server in servers:
        server.close()
        await server.wait_closed()


async def test_a_long_answer_is_not_read_to_its_end() -> None:
    router, storage = Router(answer=b'{"message": "' + b"x" * (64 * 1024) + b'"}'), MemoryStorage(lambda: NOW)
    async with serving(router) as webhook:
        output = await applying(storage, webhook)(await kept(storage, POLICY))
    assert output.result["answer"] == ""
    router.answer = b'{"message": "' + b"x" * 400 + b'"}'
    async with serving(router) as webhook:
        output = await applying(storage, webhook)(await kept(storage, POLICY))
    assert output.result["answer"] == "x" * 300


@pytest.mark.parametrize(
    ("content", "run_id", "user_id", "said"),
    [
        (POLICY, None, "ann", "no exported policy"),
        (POLICY, "run", "bob", "no exported policy"),
        (b"{}", "run", "ann", "is no policy that export_policy made"),
        (b" " * (256 * 1024 + 1), "run", "ann", "no exported policy"),
    ],
    ids=["uploaded", "somebody-elses", "other", "large"],
)
async def test_only_what_a_run_of_the_user_exported_is_sent(
    content: bytes, run_id: str | None, user_id: str, said: str
) -> None:
    router, storage = Router(), MemoryStorage(lambda: NOW)
    file_id = await kept(storage, content, run_id=run_id, user_id=user_id)
    async with serving(router) as webhook:
        with pytest.raises(ToolError, match=said):
            await applying(storage, webhook)(file_id)
    assert router.got == []


async def test_without_a_webhook_it_names_the_settings() -> None:
    with pytest.raises(ToolError, match="Set APEX_POLICY_WEBHOOK_URL and APEX_POLICY_WEBHOOK_SECRET"):
        await applying(MemoryStorage(lambda: NOW), None)("x")


def why_asked(tool: Tool[BaseModel]) -> str:
    return reason_to_ask(tool, tool.args.model_validate({"policy": "file-1"}), RunSettings())


def test_a_person_must_approve_it() -> None:
    tool = apply_tool(Webhook("https://router.example.com/x", SECRET))
    assert tool.effect is Effect.UNSAFE
    assert "router.example.com" in why_asked(tool)
    assert "file-1" in why_asked(tool)


def test_nobody_is_asked_about_what_cannot_be_done() -> None:
    assert why_asked(apply_tool(None)) == ""


def test_the_secret_shows_nowhere() -> None:
    webhook = Webhook("https://router.example.com/x?token=1", SECRET)
    assert repr(webhook) == "Webhook(router.example.com)"
    assert signature(SECRET, "1", b"x") != signature(SECRET, "2", b"x") != signature(b"t" * 32, "2", b"x")
    assert replace(webhook, url="https://h/").host == "h"
