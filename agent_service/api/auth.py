"""Tokens: who a caller is. The service alone verifies them; nothing here logs or returns one, but `TokenIssuer`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import jwt
from jwt.exceptions import InvalidJTIError, InvalidSubjectError

from agent_service.engine.context import UserExecutionContext
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.ports import Clock, Ids

MAX_TOKEN_BYTES: Final = 8_192
"""A longer token is refused unread."""

MAX_SCOPES: Final = 100
"""Scopes of one token."""

CLOCK_SKEW_S: Final = 10
"""How far an issuer's clock may be ahead of ours. `exp` is taken as it is."""

REQUIRED_CLAIMS: Final = ("sub", "exp", "iat", "iss", "aud", "jti")

PRINTABLE: Final = re.compile(r"[!-~]{1,128}")
"""What `sub` and `jti` may be: 1 to 128 printable ASCII characters without spaces."""

BEARER: Final = "bearer "


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key with the one algorithm that it may be used with."""

    key: jwt.PyJWK | str
    algorithm: str


class KeySource(Protocol):
    """Finds the key that a token claims to be signed with."""

    async def find(self, key_id: str | None) -> VerificationKey | None:
        """Return the key, or None if there is none. Raises `ApexError(SERVICE_UNAVAILABLE)` if that cannot be known."""
        ...


class SecretKey:
    """One shared secret for every token."""

    def __init__(self, secret: str, algorithm: str = "HS256") -> None:
        self._key = VerificationKey(secret, algorithm)

    async def find(self, key_id: str | None) -> VerificationKey | None:
        return self._key


class TokenVerifier:
    """Turns tokens into callers. Every failure is an `ApexError` that says no more than the caller may know."""

    def __init__(self, keys: KeySource, *, issuer: str, audience: str, clock: Clock) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    async def verify(self, token: str, request_id: str) -> UserExecutionContext:
        """Return the caller. Raises `ApexError` UNAUTHENTICATED, TOKEN_EXPIRED or SERVICE_UNAVAILABLE."""
        if len(token) > MAX_TOKEN_BYTES:
            raise unauthenticated("The token is too long.")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise unauthenticated("The token cannot be read.") from None
        key = await self._keys.find(_text(header.get("kid")))
        if key is None:
            raise unauthenticated("The token is not signed with a key of this service.")
        return self._caller(self._claims(token, key), request_id)

    def _claims(self, token: str, key: VerificationKey) -> Mapping[str, object]:
        try:
            return jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=CLOCK_SKEW_S,
                options={"require": list(REQUIRED_CLAIMS), "verify_exp": False},
            )
        except (jwt.InvalidIssuerError, jwt.InvalidAudienceError):
            raise unauthenticated("The token was issued for another service.") from None
        except (jwt.MissingRequiredClaimError, InvalidSubjectError, InvalidJTIError):
            raise unauthenticated(f"The token must have the claims {', '.join(REQUIRED_CLAIMS)}.") from None
        except jwt.PyJWTError:
            raise unauthenticated("The token is not valid.") from None

    def _caller(self, claims: Mapping[str, object], request_id: str) -> UserExecutionContext:
        user_id, token_id = _text(claims["sub"]), _text(claims["jti"])
        if not user_id or not token_id or not PRINTABLE.fullmatch(user_id) or not PRINTABLE.fullmatch(token_id):
            raise unauthenticated("The token's sub and jti must be 1 to 128 printable characters.")
        expire_time = _time(claims["exp"])
        if expire_time <= self._clock.now():
            raise token_expired()
        scopes = (_text(claims.get("scope")) or "").split()
        if len(scopes) > MAX_SCOPES:
            raise unauthenticated(f"The token has more than {MAX_SCOPES} scopes.")
        return UserExecutionContext(user_id, frozenset(scopes), token_id, expire_time, request_id)


class TokenIssuer:
    """Makes tokens with the service's own secret: for development, tests and the command line."""

    def __init__(
        self, secret: str, *, issuer: str, audience: str, clock: Clock, ids: Ids, algorithm: str = "HS256"
    ) -> None:
        self._secret = secret
        self._algorithm = algorithm
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._ids = ids

    def issue(self, user_id: str, scope: str, lifetime_ms: int) -> tuple[str, datetime]:
        """Return a token and when it ends (whole seconds, as tokens have them)."""
        now = self._clock.now()
        expire_time = (now + timedelta(milliseconds=lifetime_ms)).replace(microsecond=0)
        claims = {
            "sub": user_id,
            "scope": scope,
            "iss": self._issuer,
            "aud": self._audience,
            "iat": int(now.timestamp()),
            "exp": int(expire_time.timestamp()),
            "jti": self._ids.new(),
        }
        return jwt.encode(claims, self._secret, algorithm=self._algorithm), expire_time


def bearer(authorization: str) -> str:
    """Return the token of an `Authorization` value. Raises `ApexError(UNAUTHENTICATED)`."""
    if authorization[: len(BEARER)].lower() != BEARER:
        raise unauthenticated("A token is needed: send it as `authorization: Bearer TOKEN`.")
    return authorization[len(BEARER) :].strip()


def unauthenticated(message: str) -> ApexError:
    """Return the error for a token that is missing or wrong."""
    return ApexError(ErrorReason.UNAUTHENTICATED, message)


def token_expired(last_seq: int | None = None) -> ApexError:
    """Return the error for a token that has ended."""
    return ApexError(ErrorReason.TOKEN_EXPIRED, "The token has expired. Sign in again.", last_seq=last_seq)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _time(value: object) -> datetime:
    try:
        return datetime.fromtimestamp(float(value) if isinstance(value, int | float) else float("nan"), UTC)
    except (ValueError, OverflowError, OSError):
        raise unauthenticated("The token's exp is not a time.") from None
