"""Who acts: immutable, made once at the border and handed down."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class UserExecutionContext:
    """The verified caller. `expire_time` is when the token ends; `token_id` its `jti`. Never holds the token."""

    user_id: str
    scopes: frozenset[str]
    token_id: str
    expire_time: datetime
    request_id: str
