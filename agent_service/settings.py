"""The service's settings: environment variables with the prefix `APEX_`, frozen, checked all at once."""

import argparse
import contextlib
import ipaddress
import secrets
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

PREFIX: Final = "APEX_"
"""Of every variable."""

MIN_SECRET_BYTES: Final = 32
"""Of a token secret: HS256 needs a key as long as its digest."""

SECRET_FILE: Final = "dev-jwt-secret"  # noqa: S105 - a file name
"""In the data directory: the development secret, made at the first start."""

_MESSAGES_PER_MINUTE: Final = MappingProxyType({"test": 1000, "development": 300, "staging": 100, "production": 30})


class Environment(StrEnum):
    """Where this process runs. The first two are for one machine: loopback only, development secrets allowed."""

    TEST = "test"
    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"

    @property
    def is_local(self) -> bool:
        """True where development secrets, reflection and development tokens are allowed."""
        return self in {Environment.TEST, Environment.DEVELOPMENT}


class SettingsError(Exception):
    """The settings do not hold. `problems` names every one of them, values included, secrets hidden."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Settings(BaseModel):
    """Settings of `python -m agent_service`. Names, defaults and units stand in the README."""

    model_config = ConfigDict(frozen=True)

    environment: Environment = Environment.DEVELOPMENT
    data_dir: Path = Path("var")
    database_url: str = ""
    grpc_address: str = "127.0.0.1:50051"
    grpc_tls_cert: Path | None = None
    grpc_tls_key: Path | None = None
    grpc_tls_client_ca: Path | None = None
    service_admin_address: str = ""
    jwt_secret: SecretStr | None = None
    jwks_url: str = ""
    jwt_issuer: str = Field("apex", min_length=1)
    jwt_audience: str = Field("apex", min_length=1)
    jwt_algorithms: str = "HS256"
    model: str = Field("offline", min_length=1)
    max_messages_per_minute: int = Field(0, ge=0, le=100_000, description="0: by environment")
    max_connections_per_user: int = Field(3, ge=1, le=1_000)
    max_upload_bytes: int = Field(64 * 1024 * 1024, ge=1, le=64 * 1024 * 1024)
    max_concurrent_agents: int = Field(10, ge=1, le=1_000)
    agent_execution_timeout_s: float = Field(30, gt=0, le=3_600)
    run_timeout_s: float = Field(240, gt=0, le=24 * 3_600)
    max_history_size: int = Field(100, ge=0, le=100)

    @field_validator("grpc_address", "service_admin_address")
    @classmethod
    def _address(cls, value: str) -> str:
        if value:
            split_address(value)
        return value

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        if value and urlsplit(value).scheme not in {"postgresql+asyncpg", "sqlite+aiosqlite"}:
            raise ValueError("must begin with postgresql+asyncpg:// or sqlite+aiosqlite://")
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"must be at least {MIN_SECRET_BYTES} bytes long")
        return value

    @model_validator(mode="after")
    def _together(self) -> Self:
        checks = (
            (
                self.run_timeout_s <= self.agent_execution_timeout_s,
                "APEX_RUN_TIMEOUT_S must be greater than APEX_AGENT_EXECUTION_TIMEOUT_S",
            ),
            (
                (self.grpc_tls_cert is None) is not (self.grpc_tls_key is None),
                "APEX_GRPC_TLS_CERT and APEX_GRPC_TLS_KEY must be set together",
            ),
            (
                self.grpc_tls_client_ca is not None and self.grpc_tls_cert is None,
                "APEX_GRPC_TLS_CLIENT_CA needs APEX_GRPC_TLS_CERT and APEX_GRPC_TLS_KEY",
            ),
            (
                self.jwt_secret is not None and bool(self.jwks_url),
                "APEX_JWT_SECRET and APEX_JWKS_URL exclude each other",
            ),
            (
                self.environment.is_local and not is_loopback(self.grpc_address),
                f"APEX_GRPC_ADDRESS={self.grpc_address!r} must be on loopback in {self.environment}",
            ),
            (
                self.environment.is_local
                and bool(self.service_admin_address)
                and not is_loopback(self.service_admin_address),
                f"APEX_SERVICE_ADMIN_ADDRESS={self.service_admin_address!r} must be on loopback in {self.environment}",
            ),
            (
                not self.environment.is_local and self.jwt_secret is None and not self.jwks_url,
                f"APEX_JWT_SECRET or APEX_JWKS_URL must be set in {self.environment}",
            ),
        )
        problems = [text for wrong, text in checks if wrong]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def messages_per_minute(self) -> int:
        """How many messages a user may send within 60 s."""
        return self.max_messages_per_minute or _MESSAGES_PER_MINUTE[self.environment]

    @property
    def is_embedded(self) -> bool:
        """True with SQLite: this process alone uses the data directory."""
        return not self.database_url or self.database_url.startswith("sqlite")

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The permitted signature algorithms of tokens."""
        return tuple(name.strip() for name in self.jwt_algorithms.split(",") if name.strip())


def load_settings(environ: Mapping[str, str], env_file: Path | None = None) -> Settings:
    """Read `environ`, and `env_file` beneath it; variables of others are ignored. Raises `SettingsError`."""
    if env_file is not None and not env_file.is_file():
        raise SettingsError((f"--env-file: there is no file {str(env_file)!r}",))
    variables = {**(dotenv_values(env_file) if env_file else {}), **environ}
    names = {f"{PREFIX}{field.upper()}": field for field in Settings.model_fields}
    values = {names[name]: value for name, value in variables.items() if name in names and value}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(tuple(line for item in error.errors() for line in _problem(item).splitlines())) from None


def _problem(item: ErrorDetails) -> str:
    message = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return message
    name = f"{PREFIX}{str(item['loc'][0]).upper()}"
    value = "(hidden)" if "secret" in name.lower() or "url" in name.lower() else repr(item["input"])
    return f"{name}={value}: {message[0].lower()}{message[1:]}"


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[v6]:port`. Raises `ValueError`."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65_535:  # noqa: PLR2004 - the largest port there is
        raise ValueError("must be host:port, for example 127.0.0.1:50051")
    return host, int(port)


def is_loopback(address: str) -> bool:
    """Return whether nobody outside this machine can reach the address."""
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def development_secret(data_dir: Path) -> str:
    """Return the data directory's development secret; make it at the first call, readable by the owner only."""
    path = data_dir / SECRET_FILE
    data_dir.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Written aside and linked, so that a racing process sees the whole secret or none.
        draft = data_dir / f"{SECRET_FILE}.{secrets.token_hex(8)}"
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_hex(MIN_SECRET_BYTES))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
        draft.unlink()
    return path.read_text().strip()


def env_file_argument(arguments: Sequence[str]) -> Path | None:
    """Return the file of `--env-file FILE` on the command line. Leaves with exit code 2 for anything else."""
    parser = argparse.ArgumentParser(prog="python -m agent_service")
    parser.add_argument("--env-file", type=Path, help="a file of NAME=value lines beneath the environment")
    given: Path | None = parser.parse_args(arguments).env_file
    return given
