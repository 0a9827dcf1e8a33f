import asyncio
import base64
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from agent_service.api.auth import (
    CLOCK_SKEW_S,
    MAX_SCOPES,
    MAX_TOKEN_BYTES,
    SecretKey,
    TokenIssuer,
    TokenVerifier,
    bearer,
)
from agent_service.api.jwks import FRESH_MS, MIN_INTERVAL_MS, STALE_MS, JwksKeys
from agent_service.engine.clock import SystemIds
from agent_service.engine.errors import ApexError, ErrorReason
from tests.support.face import SECRET, make_token
from tests.support.gates import Gate


class HandClock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)
        self.span_ms = 0

    def now(self) -> datetime:
        return self.time

    def monotonic_ms(self) -> int:
        return self.span_ms


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def verifier(clock: HandClock) -> TokenVerifier:
    return TokenVerifier(SecretKey(SECRET), issuer="apex", audience="apex", clock=clock)


async def refused(verifier: TokenVerifier, token: str) -> ErrorReason:
    with pytest.raises(ApexError) as failure:
        await verifier.verify(token, "request")
    assert token not in failure.value.message
    return failure.value.reason


async def test_a_good_token_gives_the_caller(verifier: TokenVerifier, clock: HandClock) -> None:
    user = await verifier.verify(make_token("ann", {"scope": "admin databases:read", "jti": "t-1"}), "request")
    assert (user.user_id, user.scopes, user.token_id) == ("ann", frozenset({"admin", "databases:read"}), "t-1")
    assert user.request_id == "request"
    assert clock.now() < user.expire_time <= clock.now() + timedelta(hours=1, seconds=1)


@pytest.mark.parametrize("claim", ["sub", "exp", "iat", "iss", "aud", "jti"])
async def test_every_claim_is_required(verifier: TokenVerifier, claim: str) -> None:
    assert await refused(verifier, make_token("ann", {claim: None})) is ErrorReason.UNAUTHENTICATED


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "other"},
        {"aud": "other"},
        {"sub": ""},
        {"sub": "a b"},
        {"sub": "x" * 129},
        {"sub": "line\nbreak"},
        {"jti": ""},
        {"jti": 7},
        {"exp": "soon"},
        {"exp": 1e30},
        {"iat": 4_000_000_000},
        {"nbf": 4_000_000_000},
        {"scope": " ".join(f"s{number}" for number in range(MAX_SCOPES + 1))},
    ],
    ids=lambda claims: next(iter(claims)),
)
async def test_claims_that_do_not_fit_are_refused(verifier: TokenVerifier, claims: Mapping[str, object]) -> None:
    assert await refused(verifier, make_token("ann", claims)) is ErrorReason.UNAUTHENTICATED


async def test_claims_at_their_edge_are_fine(verifier: TokenVerifier) -> None:
    scope = " ".join(f"s{number}" for number in range(MAX_SCOPES))
    user = await verifier.verify(make_token("x" * 128, {"scope": scope, "aud": ["other", "apex"]}), "request")
    assert len(user.scopes) == MAX_SCOPES


async def test_the_end_of_a_token_is_exact(verifier: TokenVerifier, clock: HandClock) -> None:
    end = clock.time + timedelta(seconds=100)
    token = make_token("ann", {"exp": end.timestamp()})
    clock.time = end - timedelta(milliseconds=10)
    await verifier.verify(token, "request")
    clock.time = end
    assert await refused(verifier, token) is ErrorReason.TOKEN_EXPIRED


async def test_an_issuers_clock_may_be_a_little_ahead(verifier: TokenVerifier) -> None:
    now = datetime.now(UTC).timestamp()
    await verifier.verify(make_token("ann", {"iat": now + CLOCK_SKEW_S - 2}), "request")
    assert await refused(verifier, make_token("ann", {"iat": now + CLOCK_SKEW_S + 60})) is ErrorReason.UNAUTHENTICATED


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b.c",
        "nonsense",
        "é",
        make_token(secret="another secret that is long enough, too"),
        make_token()[:-4] + "AAAA",
        jwt.encode({"sub": "ann"}, "", algorithm="none"),
        jwt.encode({"sub": "ann"}, SECRET * 2, algorithm="HS512"),
    ],
    ids=range(8),
)
async def test_hostile_tokens_are_refused(verifier: TokenVerifier, token: str) -> None:
    with pytest.raises(ApexError) as failure:
        await verifier.verify(token, "request")
    assert failure.value.reason is ErrorReason.UNAUTHENTICATED


async def test_a_token_has_a_bounded_length(verifier: TokenVerifier) -> None:
    overhead = len(make_token("ann", {"pad": ""})) % 4
    token = make_token("ann", {"pad": "x" * (MAX_TOKEN_BYTES * 3 // 4 - 350 + overhead)})
    assert len(token) <= MAX_TOKEN_BYTES
    await verifier.verify(token, "request")
    assert await refused(verifier, token + "x" * MAX_TOKEN_BYTES) is ErrorReason.UNAUTHENTICATED


async def test_what_is_issued_is_accepted(verifier: TokenVerifier, clock: HandClock) -> None:
    issuer = TokenIssuer(SECRET, issuer="apex", audience="apex", clock=clock, ids=SystemIds())
    token, expire_time = issuer.issue("dev", "admin", 60_000)
    user = await verifier.verify(token, "request")
    assert (user.user_id, user.scopes, user.expire_time) == ("dev", frozenset({"admin"}), expire_time)


@pytest.mark.parametrize("value", ["", "token", "Basic x", "Bearertoken"])
def test_an_authorization_that_is_no_bearer_token(value: str) -> None:
    with pytest.raises(ApexError):
        bearer(value)


def test_the_scheme_is_case_insensitive() -> None:
    assert bearer("bEARER  abc ") == "abc"


class Issuer:
    """Signs with RSA and publishes its keys; counts how often they are fetched."""

    def __init__(self, *key_ids: str) -> None:
        self.private = {key_id: rsa.generate_private_key(public_exponent=65537, key_size=2048) for key_id in key_ids}
        self.published = list(key_ids)
        self.fetches = 0
        self.broken = False

    async def fetch(self, url: str) -> bytes:
        self.fetches += 1
        if self.broken:
            raise OSError("out of reach")
        keys = [
            {**jwt.algorithms.RSAAlgorithm.to_jwk(self.private[key_id].public_key(), as_dict=True), "kid": key_id}
            for key_id in self.published
        ]
        return json.dumps({"keys": keys}).encode()

    def sign(self, key_id: str, algorithm: str = "RS256") -> str:
        claims = jwt.decode(make_token(), options={"verify_signature": False})
        return jwt.encode(claims, self.private[key_id], algorithm=algorithm, headers={"kid": key_id})


@pytest.fixture(scope="module")
def pair() -> Issuer:
    return Issuer("old", "new")


@pytest.fixture
def issuer(pair: Issuer) -> Issuer:
    pair.published, pair.fetches, pair.broken = ["old"], 0, False
    return pair


@pytest.fixture
def remote(issuer: Issuer, clock: HandClock) -> TokenVerifier:
    keys = JwksKeys("https://issuer.test/keys", algorithms=["RS256"], clock=clock, fetch=issuer.fetch)
    return TokenVerifier(keys, issuer="apex", audience="apex", clock=clock)


async def test_keys_are_fetched_once_and_used_while_fresh(
    remote: TokenVerifier, issuer: Issuer, clock: HandClock
) -> None:
    for _ in range(3):
        assert (await remote.verify(issuer.sign("old"), "request")).user_id == "ann"
    assert issuer.fetches == 1
    clock.span_ms += FRESH_MS
    await remote.verify(issuer.sign("old"), "request")
    assert issuer.fetches == 2


async def test_an_unknown_key_is_looked_for_but_not_too_often(
    remote: TokenVerifier, issuer: Issuer, clock: HandClock
) -> None:
    await remote.verify(issuer.sign("old"), "request")
    for _ in range(5):
        assert await refused(remote, issuer.sign("new")) is ErrorReason.UNAUTHENTICATED
    assert issuer.fetches == 1
    issuer.published = ["old", "new"]
    clock.span_ms += MIN_INTERVAL_MS
    await remote.verify(issuer.sign("new"), "request")
    assert issuer.fetches == 2


async def test_one_fetch_serves_all_and_outlives_the_one_who_asked_first(issuer: Issuer, clock: HandClock) -> None:
    gate = Gate(is_open=False)

    async def fetch(url: str) -> bytes:
        await gate.passage()
        return await issuer.fetch(url)

    keys = JwksKeys("https://issuer.test/keys", algorithms=["RS256"], clock=clock, fetch=fetch)
    first, second = (asyncio.create_task(keys.find("old")) for _ in range(2))
    await gate.reached()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.open()
    assert await second is not None
    assert issuer.fetches == 1


async def test_an_issuer_out_of_reach_is_borne_for_a_while(
    remote: TokenVerifier, issuer: Issuer, clock: HandClock
) -> None:
    await remote.verify(issuer.sign("old"), "request")
    issuer.broken = True
    clock.span_ms += STALE_MS - 1
    await remote.verify(issuer.sign("old"), "request")
    clock.span_ms += 1
    assert await refused(remote, issuer.sign("old")) is ErrorReason.SERVICE_UNAVAILABLE


def base64url(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_a_key_is_used_with_its_own_algorithm_only(remote: TokenVerifier, issuer: Issuer) -> None:
    public = issuer.private["old"].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    header = base64url({"alg": "HS256", "kid": "old"})
    signed = f"{header}.{make_token().split('.')[1]}"
    signature = hmac.digest(pem, signed.encode(), "sha256")
    forged = f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    for token in (forged, issuer.sign("old", "RS512"), make_token()):
        assert await refused(remote, token) is ErrorReason.UNAUTHENTICATED


@pytest.mark.parametrize("document", [b"not json", b"[]", b"{}", b'{"keys": [{"kty": "unknown"}]}'])
async def test_a_document_that_is_no_key_set_is_as_good_as_none(clock: HandClock, document: bytes) -> None:
    async def fetch(url: str) -> bytes:
        assert url == "https://issuer.test/keys"
        return document

    keys = JwksKeys("https://issuer.test/keys", algorithms=["RS256"], clock=clock, fetch=fetch)
    with pytest.raises(ApexError) as failure:
        await keys.find("old")
    assert failure.value.reason is ErrorReason.SERVICE_UNAVAILABLE
