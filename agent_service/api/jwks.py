"""Public keys of a token issuer, fetched from its JWKS address."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import httpx2
import jwt
import structlog

from agent_service.api.auth import VerificationKey
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.ports import Clock

FETCH_TIMEOUT_S: Final = 5.0
"""Of one fetch, from the first byte sent to the last one read: an issuer that trickles gets no more of it."""

MAX_DOCUMENT_BYTES: Final = 256 * 1024
"""Of the key document."""

FRESH_MS: Final = 300_000
"""How long a fetched document is used without another look."""

STALE_MS: Final = 3_600_000
"""How long it is used when the issuer does not answer."""

MIN_INTERVAL_MS: Final = 10_000
"""Between two fetches, whatever tokens say: this also is how long an unknown key stays unknown."""

Fetch = Callable[[str], Awaitable[bytes]]


async def fetch_document(url: str, *, timeout_s: float = FETCH_TIMEOUT_S) -> bytes:
    """Fetch a key document. Raises `OSError`: too late, too large, or any other answer than 200."""
    try:
        async with asyncio.timeout(timeout_s):
            # The system's authorities: operators add theirs there. Reading them takes its time.
            trusted = await asyncio.to_thread(ssl.create_default_context)
            async with httpx2.AsyncClient(verify=trusted, follow_redirects=True, timeout=None) as client:
                return await _document(client, url)
    except TimeoutError:
        raise OSError(f"the issuer did not send its keys within {timeout_s:g} s") from None
    except httpx2.HTTPError as error:
        raise OSError(str(error) or type(error).__name__) from error


async def _document(client: httpx2.AsyncClient, url: str) -> bytes:
    document = b""
    async with client.stream("GET", url) as response:
        response.raise_for_status()
        async for piece in response.aiter_bytes():
            document += piece
            if len(document) > MAX_DOCUMENT_BYTES:
                raise OSError(f"the key document is larger than {MAX_DOCUMENT_BYTES} bytes")
    return document


class JwksKeys:
    """Finds keys by id, cached. An unknown key id makes it look again, at most every `MIN_INTERVAL_MS`.

    One fetch serves all who ask meanwhile, and goes on when the one who asked first has left. A key is used with the
    algorithm that it names (or that its type implies), and only if that is permitted.
    """

    def __init__(self, url: str, *, algorithms: Sequence[str], clock: Clock, fetch: Fetch = fetch_document) -> None:
        self._url = url
        self._algorithms = frozenset(algorithms)
        self._clock = clock
        self._fetch = fetch
        self._keys: Mapping[str | None, VerificationKey] = {}
        self._fetched_ms: int | None = None
        self._tried_ms: int | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._logger = structlog.get_logger("apex.auth")

    async def find(self, key_id: str | None) -> VerificationKey | None:
        if self._age_ms(self._fetched_ms) < FRESH_MS and key_id in self._keys:
            return self._keys[key_id]
        if self._fetching is None and self._age_ms(self._tried_ms) >= MIN_INTERVAL_MS:
            self._tried_ms = self._clock.monotonic_ms()
            self._fetching = asyncio.create_task(self._refresh(), name="jwks-fetch")
        if self._fetching is not None:
            await asyncio.shield(self._fetching)
        if self._age_ms(self._fetched_ms) < STALE_MS:
            return self._keys.get(key_id)
        text = "Tokens cannot be verified just now: the issuer's keys are out of reach. Try again."
        raise ApexError(ErrorReason.SERVICE_UNAVAILABLE, text, retry_after_ms=MIN_INTERVAL_MS)

    async def _refresh(self) -> None:
        try:
            self._keys = self._usable(_parsed(await self._fetch(self._url)))
            self._fetched_ms = self._clock.monotonic_ms()
        except (OSError, ValueError, jwt.PyJWTError) as error:
            self._logger.warning("jwks_unavailable", error=str(error))
        finally:
            self._fetching = None

    def _usable(self, found: jwt.PyJWKSet) -> Mapping[str | None, VerificationKey]:
        return {
            key.key_id: VerificationKey(key, key.algorithm_name)
            for key in found.keys
            if key.algorithm_name in self._algorithms and key.public_key_use in {None, "sig"}
        }

    def _age_ms(self, since_ms: int | None) -> float:
        return float("inf") if since_ms is None else self._clock.monotonic_ms() - since_ms


def _parsed(document: bytes) -> jwt.PyJWKSet:
    keys = json.loads(document)
    if not isinstance(keys, dict):
        raise jwt.PyJWKSetError("the key document is no JSON object")
    return jwt.PyJWKSet.from_dict(keys)
