"""What the gRPC face is told at start; made by `app.py` from the settings."""

from dataclasses import dataclass
from typing import Final

DEFAULT_MAX_UPLOAD_BYTES: Final = 64 * 1024 * 1024
"""The contract's limit; settings may only lower it."""

MAX_CALLS_AT_ONCE: Final = 4_096
"""Of all callers together, streams included; one more is RESOURCE_EXHAUSTED."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files' content. With `client_ca`, callers must show a certificate that it signed (mTLS)."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None = None


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a call may take whose caller names no earlier deadline. Streams of answers end with their token."""

    unary_ms: int = 30_000
    upload_ms: int = 600_000


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """`address` is `host:port`; port 0 takes a free one. `reflection` and `dev_tokens` are for development and test."""

    address: str
    tls: TlsFiles | None = None
    reflection: bool = False
    dev_tokens: bool = False
    max_messages_per_minute: int = 30
    max_connections_per_user: int = 3
    max_upload_bytes: int = DEFAULT_MAX_UPLOAD_BYTES
    max_calls_at_once: int = MAX_CALLS_AT_ONCE
    deadlines: Deadlines = Deadlines()
