"""What an upgrade request says about who is there: `Authorization`, a `jwt.…` subprotocol, or neither (yet)."""

import base64
import binascii
from dataclasses import dataclass, field
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

SUBPROTOCOL: Final = "apex.v1"
TOKEN_PREFIX: Final = "jwt."  # noqa: S105 - a prefix, no secret
_BEARER: Final = "bearer "


@dataclass(frozen=True, slots=True)
class SignIn:
    """`token` is None if the first frame has to bring it. `subprotocol` is what the upgrade is answered with."""

    token: str | None = field(repr=False)
    by_header: bool
    origin: str | None
    subprotocol: str | None


def sign_in_of(scope: Scope) -> SignIn:
    """Return how a socket signs in: the first way that is present counts."""
    headers = Headers(scope=scope)
    offered: list[str] = scope.get("subprotocols", [])
    carriers = [offer for offer in offered if offer.startswith(TOKEN_PREFIX)]
    subprotocol = None
    if SUBPROTOCOL in offered:
        subprotocol = SUBPROTOCOL
    elif len(offered) == 1 and carriers:
        subprotocol = carriers[0]  # a browser fails the upgrade if its only offer is not taken
    origin = headers.get("origin")
    authorization = headers.get("authorization", "")
    if authorization[: len(_BEARER)].lower() == _BEARER:
        return SignIn(authorization[len(_BEARER) :].strip(), by_header=True, origin=origin, subprotocol=subprotocol)
    token = _decoded(carriers[0]) if carriers else None
    return SignIn(token, by_header=False, origin=origin, subprotocol=subprotocol)


def _decoded(carrier: str) -> str:
    """Return the token of `jwt.<base64url>`; one that is broken stays as it is, and the service refuses it."""
    encoded = carrier.removeprefix(TOKEN_PREFIX)
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return encoded
