"""The service's settings: environment variables with the prefix `APEX_`, frozen, checked all at once."""

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from agent_service.mcp_servers import McpServer, read_mcp_servers
from configuration.addresses import Address, exposed
from configuration.environment import Environment
from configuration.variables import Conflict, read_settings

MIN_SECRET_BYTES: Final = MappingProxyType({"HS256": 32, "HS384": 48, "HS512": 64})
"""Of a token secret, by the algorithm that it signs with: the key is as long as the digest."""

PUBLIC_KEY_ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""What keys of an issuer may sign with."""

MIN_WEBHOOK_SECRET_BYTES: Final = 32
"""Of the secret that signs policies: as long as the digest."""

DEVELOPMENT_SECRET_BYTES: Final = 32
"""Of chance in the development secret, which is twice as long in hexadecimal."""

SECRET_FILE: Final = "dev-jwt-secret"  # noqa: S105 - a file name
"""In the data directory: the development secret, made at the first start."""

DATABASE_SCHEMES: Final = frozenset({"postgresql", "postgres", "postgresql+asyncpg", "sqlite", "sqlite+aiosqlite"})
"""Of the databases that may be looked at."""

MAX_ANALYZER_TARGETS: Final = 20
"""Databases that may be looked at."""

_MESSAGES_PER_MINUTE: Final = MappingProxyType({"test": 1000, "development": 300, "staging": 100, "production": 30})


class StartError(Exception):
    """The machine refuses what the service needs. The text is for the person who starts it."""

    exit_code: Final = 1


class Settings(BaseModel):
    """Settings of `python -m agent_service`. Names, defaults and units stand in the README."""

    model_config = ConfigDict(frozen=True)

    environment: Environment = Environment.DEVELOPMENT
    data_dir: Path = Path("var")
    database_url: str = ""
    redis_url: str = ""
    analyzer_targets: SecretStr | None = None
    grpc_address: Address = "127.0.0.1:50051"
    grpc_tls_cert: Path | None = None
    grpc_tls_key: Path | None = None
    grpc_tls_client_ca: Path | None = None
    service_admin_address: Address = ""
    jwt_secret: SecretStr | None = None
    jwks_url: str = ""
    jwt_issuer: str = Field("apex", min_length=1)
    jwt_audience: str = Field("apex", min_length=1)
    jwt_algorithms: str = "HS256"
    model: str = Field("offline", min_length=1)
    policy_webhook_url: str = ""
    policy_webhook_secret: SecretStr | None = None
    fallback_model: str = ""
    larger_model: str = ""
    offered_models: str = ""
    openai_base_url: str = ""
    openai_api_key: SecretStr | None = None
    anthropic_base_url: str = ""
    anthropic_api_key: SecretStr | None = None
    mcp_servers: Mapping[str, McpServer] = Field(default_factory=dict)
    max_messages_per_minute: int = Field(0, ge=0, le=100_000, description="0: by environment")
    max_connections_per_user: int = Field(3, ge=1, le=1_000)
    max_upload_bytes: int = Field(64 * 1024 * 1024, ge=1, le=64 * 1024 * 1024)
    max_concurrent_agents: int = Field(10, ge=1, le=1_000)
    agent_execution_timeout_s: float = Field(30, gt=0, le=3_600)
    run_timeout_s: float = Field(240, gt=0, le=24 * 3_600)
    approval_timeout_s: float = Field(3_600, ge=1, le=3_600)
    max_history_size: int = Field(100, ge=0, le=100)

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        if value and urlsplit(value).scheme not in {"postgresql+asyncpg", "sqlite+aiosqlite"}:
            raise ValueError("must begin with postgresql+asyncpg:// or sqlite+aiosqlite://")
        _ = urlsplit(value).port  # raises what it has to say about it
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str) -> str:
        parts = urlsplit(value)
        located = parts.path if parts.scheme == "unix" else parts.hostname
        if value and not (parts.scheme in {"redis", "rediss", "unix"} and located):
            raise ValueError("must be a URL such as redis://127.0.0.1:6379/0 or unix:///run/redis.sock")
        _ = parts.port  # raises what it has to say about it
        return value

    @field_validator("jwks_url")
    @classmethod
    def _jwks(cls, value: str) -> str:
        if value and not (urlsplit(value).scheme in {"https", "http"} and urlsplit(value).hostname):
            raise ValueError("must be a URL such as https://issuer.example.com/.well-known/jwks.json")
        return value

    @field_validator("policy_webhook_url")
    @classmethod
    def _webhook(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and not (parts.scheme in {"https", "http"} and parts.hostname and parts.username is None):
            raise ValueError("must be a URL without a user name, such as https://router.example.com/policies")
        return value

    @field_validator("model", "fallback_model", "larger_model")
    @classmethod
    def _model(cls, value: str) -> str:
        if value and not _is_model(value):
            raise ValueError("must be 'offline' or 'provider:name', for example openai:gpt-4o")
        return value

    @field_validator("offered_models")
    @classmethod
    def _models(cls, value: str) -> str:
        if not all(_is_model(name) for name in _listed(value)):
            raise ValueError("must be names such as offline or openai:gpt-4o, separated by commas")
        return value

    @field_validator("mcp_servers", mode="before")
    @classmethod
    def _mcp_servers(cls, value: str | Mapping[str, McpServer]) -> Mapping[str, McpServer]:
        return read_mcp_servers(value) if isinstance(value, str) else value

    @field_validator("openai_base_url", "anthropic_base_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        if value and not (urlsplit(value).scheme in {"https", "http"} and urlsplit(value).hostname):
            raise ValueError("must be a URL such as http://127.0.0.1:11434/v1")
        return value

    @field_validator("grpc_tls_cert", "grpc_tls_key", "grpc_tls_client_ca")
    @classmethod
    def _file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("must be a PEM file; there is none")
        return value

    @property
    def messages_per_minute(self) -> int:
        """How many messages a user may send within 60 s."""
        return self.max_messages_per_minute or _MESSAGES_PER_MINUTE[self.environment]

    @property
    def is_embedded(self) -> bool:
        """True with SQLite: this process alone uses the data directory."""
        return not self.database_url or self.database_url.startswith("sqlite")

    @property
    def analyzed_databases(self) -> Mapping[str, str] | None:
        """The databases that may be looked at (name → URL); None: nobody has said."""
        return None if self.analyzer_targets is None else _targets(self.analyzer_targets.get_secret_value())

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The permitted signature algorithms of tokens."""
        return _listed(self.jwt_algorithms)

    @property
    def model_names(self) -> tuple[str, ...]:
        """What a run may ask for, the default first."""
        return tuple(dict.fromkeys((self.model, *_listed(self.offered_models))))


def _listed(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _is_model(name: str) -> bool:
    provider, _, model = name.partition(":")
    return name == "offline" or bool(provider.strip() and model.strip())


def load_settings(environ: Mapping[str, str], env_file: Path | None = None) -> Settings:
    """Read `environ`, and `env_file` beneath it. Raises `SettingsError` with every problem."""
    return read_settings(Settings, environ, env_file, _conflicts)


def _conflicts(settings: Settings) -> Iterator[Conflict]:
    """Yield what is wrong between settings that are fine one by one."""
    if settings.run_timeout_s <= settings.agent_execution_timeout_s:
        step = f"APEX_AGENT_EXECUTION_TIMEOUT_S={settings.agent_execution_timeout_s:g}"
        text = f"APEX_RUN_TIMEOUT_S={settings.run_timeout_s:g}: must be greater than {step}: a run has several steps"
        yield ("run_timeout_s", "agent_execution_timeout_s"), text
    yield from _tls_problems(settings)
    yield from _target_problems(settings)
    yield from _token_problems(settings)
    yield from _webhook_problems(settings)
    addresses = {"grpc_address": settings.grpc_address, "service_admin_address": settings.service_admin_address}
    yield from exposed(settings.environment, addresses)


def _targets(text: str) -> dict[str, str]:
    """Return name → URL of `{"name": "URL"}`, or of `name=URL,name=URL`. Raises `ValueError`."""
    if text.lstrip().startswith("{"):
        found = json.loads(text)
        pairs = [(name, str(url)) for name, url in found.items()]
    else:
        pairs = [(name.strip(), url.strip()) for name, _, url in (one.partition("=") for one in text.split(","))]
    if any(not name or urlsplit(url).scheme not in DATABASE_SCHEMES for name, url in pairs):
        raise ValueError("a name or an address is wrong")
    if len(dict(pairs)) != len(pairs) or len(pairs) > MAX_ANALYZER_TARGETS:
        raise ValueError("too many, or one twice")
    return dict(pairs)


def _target_problems(settings: Settings) -> Iterator[Conflict]:
    try:
        _ = settings.analyzed_databases
    except ValueError:
        text = (
            f"must be name=URL,name=URL or a JSON object of them, up to {MAX_ANALYZER_TARGETS} with different names; "
            "a URL begins with postgresql:// or sqlite:///"
        )
        yield ("analyzer_targets",), f"APEX_ANALYZER_TARGETS=(hidden): {text}"


def _tls_problems(settings: Settings) -> Iterator[Conflict]:
    fields = ("grpc_tls_cert", "grpc_tls_key", "grpc_tls_client_ca")
    if (settings.grpc_tls_cert is None) is not (settings.grpc_tls_key is None):
        yield fields, "APEX_GRPC_TLS_CERT and APEX_GRPC_TLS_KEY must be set together"
    if settings.grpc_tls_client_ca is not None and settings.grpc_tls_cert is None:
        yield fields, "APEX_GRPC_TLS_CLIENT_CA needs APEX_GRPC_TLS_CERT and APEX_GRPC_TLS_KEY"


def _token_problems(settings: Settings) -> Iterator[Conflict]:
    fields = ("environment", "jwt_secret", "jwks_url", "jwt_algorithms")
    if settings.jwt_secret is not None and settings.jwks_url:
        yield fields, "APEX_JWT_SECRET and APEX_JWKS_URL exclude each other: set one of them"
    elif settings.jwks_url:
        if not settings.algorithms or not PUBLIC_KEY_ALGORITHMS.issuperset(settings.algorithms):
            which = f"the algorithms of its keys, of {', '.join(sorted(PUBLIC_KEY_ALGORITHMS))}, separated by commas"
            text = f"APEX_JWT_ALGORITHMS={settings.jwt_algorithms!r}: must name, with APEX_JWKS_URL, {which}"
            yield fields, text
        if not settings.environment.is_local and urlsplit(settings.jwks_url).scheme != "https":
            yield fields, f"APEX_JWKS_URL={settings.jwks_url!r}: must begin with https:// in {settings.environment}"
    elif settings.jwt_algorithms not in MIN_SECRET_BYTES:
        known = ", ".join(MIN_SECRET_BYTES)
        yield fields, f"APEX_JWT_ALGORITHMS={settings.jwt_algorithms!r}: must be one of {known} with a secret"
    elif settings.jwt_secret is not None:
        least = MIN_SECRET_BYTES[settings.jwt_algorithms]
        if len(settings.jwt_secret.get_secret_value().encode()) < least:
            text = f"must be at least {least} bytes long for {settings.jwt_algorithms}"
            yield fields, f"APEX_JWT_SECRET=(hidden): {text}"
    elif not settings.environment.is_local:
        yield fields, f"APEX_JWT_SECRET or APEX_JWKS_URL must be set in {settings.environment}"


def _webhook_problems(settings: Settings) -> Iterator[Conflict]:
    fields = ("environment", "policy_webhook_url", "policy_webhook_secret")
    url, secret = settings.policy_webhook_url, settings.policy_webhook_secret
    if bool(url) is not (secret is not None):
        yield fields, "APEX_POLICY_WEBHOOK_URL and APEX_POLICY_WEBHOOK_SECRET must be set together"
    if secret is not None and len(secret.get_secret_value().encode()) < MIN_WEBHOOK_SECRET_BYTES:
        yield fields, f"APEX_POLICY_WEBHOOK_SECRET=(hidden): must be at least {MIN_WEBHOOK_SECRET_BYTES} bytes long"
    if url and not settings.environment.is_local and urlsplit(url).scheme != "https":
        yield fields, f"APEX_POLICY_WEBHOOK_URL={url!r}: must begin with https:// in {settings.environment}"


def development_secret(data_dir: Path) -> str:
    """Return the data directory's development secret; make it at the first call, readable by the owner only."""
    path = data_dir / SECRET_FILE
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # whoever makes it first makes it private
    if not path.exists():
        # Written aside and linked, so that a racing process sees the whole secret or none.
        draft = data_dir / f"{SECRET_FILE}.{secrets.token_hex(8)}"
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_hex(DEVELOPMENT_SECRET_BYTES))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
        draft.unlink()
    return path.read_text().strip()
