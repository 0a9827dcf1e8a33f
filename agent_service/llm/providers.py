"""Models of providers, over HTTP clients of our own: every wait is bounded, and nothing is repeated below us."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic_ai.models import Model

if TYPE_CHECKING:
    import httpx2

OPENAI: Final = "openai"
ANTHROPIC: Final = "anthropic"
PROVIDERS: Final = (OPENAI, ANTHROPIC)
"""What may stand before the colon of a model's name."""

MAX_CONNECTIONS: Final = 100
"""To one provider, at once."""

NO_KEY: Final = "none"
"""Sent to servers that ask for no key, because the protocol's client wants one."""


class ProviderSetupError(Exception):
    """A provider cannot be used as it is set up. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """Where a provider is, and who we are there. Empty: the provider's own address; no key."""

    base_url: str = ""
    api_key: str = ""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a provider may keep us waiting, in seconds.

    `connect` is for a connection, also for one of the pool; `first_byte` from the request to the beginning of the
    answer; `between_bytes` for every further piece of it.
    """

    connect: float = 5.0
    first_byte: float = 25.0
    between_bytes: float = 15.0


class Provider:
    """One provider's models, which share a pool of connections. Raises `ProviderSetupError`."""

    def __init__(self, name: str, account: Account, waits: Waits) -> None:
        if name not in PROVIDERS:
            known = " or ".join(f"'{provider}:…'" for provider in PROVIDERS)
            raise ProviderSetupError(f"there is no provider {name!r}: write 'offline', {known}")
        if not account.api_key and not (name == OPENAI and account.base_url):
            raise ProviderSetupError(f"set {name.upper()}_API_KEY")
        self._name = name
        self._account = account
        self._client = _http_client(waits, plain=account.base_url.startswith("http://"))

    def model(self, model_name: str) -> Model:
        """Return the model that the provider calls so. Raises `ImportError` without the provider's package."""
        return (_openai if self._name == OPENAI else _anthropic)(model_name, self._account, self._client)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()


def _openai(model_name: str, account: Account, client: "httpx2.AsyncClient") -> Model:
    """Return a model of chat completions, the protocol that Ollama, vLLM and many others speak, too."""
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    sdk = AsyncOpenAI(
        api_key=account.api_key or NO_KEY,
        base_url=account.base_url or "https://api.openai.com/v1",
        http_client=client,
        timeout=client.timeout,
        max_retries=0,
    )
    # An answer that ends without saying so was cut.
    whole = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True)
    provider = (
        OpenAICompatibleProvider(OPENAI, openai_client=sdk) if account.base_url else OpenAIProvider(openai_client=sdk)
    )
    return OpenAIChatModel(model_name, provider=provider, profile=whole)


def _anthropic(model_name: str, account: Account, client: "httpx2.AsyncClient") -> Model:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    sdk = AsyncAnthropic(
        api_key=account.api_key,
        base_url=account.base_url or "https://api.anthropic.com",
        http_client=client,
        timeout=client.timeout,
        max_retries=0,
    )
    return AnthropicModel(model_name, provider=AnthropicProvider(anthropic_client=sdk))


def _http_client(waits: Waits, *, plain: bool) -> "httpx2.AsyncClient":
    """Return a client; for a plain address one without certificates, whose reading takes 50 ms."""
    import httpx2

    return httpx2.AsyncClient(
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True,
        timeout=httpx2.Timeout(connect=waits.connect, pool=waits.connect, write=waits.connect, read=waits.first_byte),
        limits=httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
        event_hooks={"response": [_paced(waits.between_bytes)]},
    )


def _paced(between_bytes_s: float) -> "Callable[[httpx2.Response], Awaitable[None]]":
    """Return a hook that bounds the wait for each piece of an answer: the client knows one bound for all waits."""
    import httpx2

    class Paced(httpx2.AsyncByteStream):
        def __init__(self, stream: httpx2.AsyncByteStream) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            pieces = aiter(self._stream)
            while True:
                try:
                    async with asyncio.timeout(between_bytes_s):
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise httpx2.ReadTimeout(f"no more of the answer within {between_bytes_s:g} s") from error
                yield piece

        async def aclose(self) -> None:
            await self._stream.aclose()

    async def pace(response: httpx2.Response) -> None:
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = Paced(response.stream)

    return pace
