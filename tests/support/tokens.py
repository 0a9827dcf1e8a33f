"""Tokens as an issuer would make them, and as nobody should accept them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import jwt

from agent_service.engine.clock import SystemIds

LIFETIME_S: Final = 3_600


def make_token(
    user: str, *, secret: str, lifetime_s: float = LIFETIME_S, claims: Mapping[str, object] | None = None
) -> str:
    """Return a signed token; a claim that is None is left out."""
    now = datetime.now(UTC)
    payload = {
        "sub": user,
        "iss": "apex",
        "aud": "apex",
        "iat": int(now.timestamp()),
        "exp": (now + timedelta(seconds=lifetime_s)).timestamp(),
        "jti": SystemIds().new(),
        **(claims or {}),
    }
    return jwt.encode({name: value for name, value in payload.items() if value is not None}, secret, algorithm="HS256")
