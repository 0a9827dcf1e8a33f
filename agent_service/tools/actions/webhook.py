"""The webhook that takes policies: one signed request, sent once."""

import asyncio
import hashlib
import hmac
import ssl
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from agent_service.engine.tool import ToolError

if TYPE_CHECKING:
    import httpx2

TIMEOUT_S: Final = 15.0
"""Of everything: connecting, sending, and reading the answer."""

CONNECT_TIMEOUT_S: Final = 5.0
"""Of one try to connect."""

CONNECT_TRIES: Final = 3
"""Before anything is sent a request may be tried again; after that never."""

MAX_ANSWER_BYTES: Final = 16 * 1024
"""Of the answer; the rest is not read."""

MAX_WORDS_CHARACTERS: Final = 300
"""Of what the other side says."""

SIGNATURE_HEADER: Final = "X-Apex-Signature"
TIMESTAMP_HEADER: Final = "X-Apex-Timestamp"
KEY_HEADER: Final = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where policies are sent, and what signs them."""

    url: str
    secret: bytes

    @property
    def host(self) -> str:
        """The host, for people."""
        return urlsplit(self.url).hostname or self.url

    def __repr__(self) -> str:
        return f"Webhook({self.host})"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side answered. `words` are its own, empty where it said nothing for people."""

    status: int
    words: str


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Return the header: `v1=` and the HMAC-SHA256, hexadecimal, of the timestamp, a full stop, and the body."""
    return f"v1={hmac.new(secret, timestamp.encode() + b'.' + body, hashlib.sha256).hexdigest()}"


async def send(webhook: Webhook, body: bytes, *, key: str, now: datetime) -> Answer:
    """Post the body and return the answer, whatever its status; redirects are not followed.

    Raises `ToolError`: it cannot be reached, and nothing was sent; or it was sent, and nobody knows what came of it.
    """
    import httpx2

    timestamp = str(int(now.timestamp()))
    headers = {
        "Content-Type": "application/json",
        TIMESTAMP_HEADER: timestamp,
        SIGNATURE_HEADER: signature(webhook.secret, timestamp, body),
        KEY_HEADER: key,
    }
    timeout = httpx2.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            # The system's authorities: operators add theirs there. Reading them takes its time.
            trusted = await asyncio.to_thread(ssl.create_default_context)
            async with httpx2.AsyncClient(
                verify=trusted, follow_redirects=False, timeout=timeout, trust_env=False
            ) as client:
                return await _post(client, webhook, body, headers)
    except (TimeoutError, httpx2.HTTPError):
        raise ToolError(
            f"The policy was sent to {webhook.host}, but no answer came back, so nobody knows whether it is in force. "
            f"Look there before anything is sent again; the request's {KEY_HEADER} is {key}."
        ) from None


async def wait(delay_s: float) -> None:
    """Let the other side come up."""
    await asyncio.sleep(delay_s)


async def _post(client: "httpx2.AsyncClient", webhook: Webhook, body: bytes, headers: dict[str, str]) -> Answer:
    import httpx2

    for attempt in range(1, CONNECT_TRIES + 1):
        try:
            async with client.stream("POST", webhook.url, content=body, headers=headers) as response:
                return Answer(response.status_code, _words(await _beginning(response)))
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            if attempt == CONNECT_TRIES:
                break
            await wait(attempt / 5)
    raise ToolError(
        f"{webhook.host} could not be reached, so nothing was sent. See that it is running and that "
        "APEX_POLICY_WEBHOOK_URL is right, then try again."
    )


async def _beginning(response: "httpx2.Response") -> bytes:
    read = b""
    async for piece in response.aiter_bytes():
        read += piece
        if len(read) > MAX_ANSWER_BYTES:
            break
    return read[:MAX_ANSWER_BYTES]


def _words(answer: bytes) -> str:
    """Return what a JSON answer says in one of the usual places."""
    try:
        decoded = msgspec.json.decode(answer)
    except msgspec.DecodeError:
        return ""
    for key in ("message", "detail", "error"):
        said = decoded.get(key) if isinstance(decoded, dict) else None
        if isinstance(said, str):
            return " ".join(said.split())[:MAX_WORDS_CHARACTERS]
    return ""
