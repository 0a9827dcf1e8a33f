"""The bridge's settings: environment variables with the prefix `APEX_`, frozen, checked all at once."""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from ws_bridge.origins import DEFAULT_PORTS, LOOPBACK_HOSTS, Origins, origins_of

PREFIX: Final = "APEX_"
"""Of every variable."""
MAX_PORT: Final = 65_535
MAX_UPLOAD_BYTES: Final = 64 * 1024 * 1024
"""The contract's limit for one file; settings may only lower it."""
MAX_FRAME_BYTES: Final = 8192
"""The contract's limit for a plain frame; settings may only lower it."""
MAX_MESSAGE_BYTES: Final = 65_536
"""A larger WebSocket message closes the socket with 1009 before anybody reads it."""


MIN_HEARTBEAT_TIMEOUT_S: Final = 5.0
"""How long a peer has at least to answer a ping, in seconds; tests may be quicker."""


class Environment(StrEnum):
    """Where this process runs. The first two are for one machine: loopback only, development tokens."""

    TEST = "test"
    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"

    @property
    def is_local(self) -> bool:
        """True where the bridge binds loopback only and hands out development tokens."""
        return self in {Environment.TEST, Environment.DEVELOPMENT}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a limit is if it is not set. Times in seconds."""

    frames_per_minute: int
    connection_timeout_s: float
    heartbeat_interval_s: float
    heartbeat_timeout_s: float


DEFAULTS: Final[Mapping[Environment, Defaults]] = MappingProxyType(
    {
        Environment.TEST: Defaults(6000, 300, 45, 60),
        Environment.DEVELOPMENT: Defaults(600, 300, 45, 60),
        Environment.STAGING: Defaults(600, 600, 30, 90),
        Environment.PRODUCTION: Defaults(600, 900, 25, 75),
    }
)


class SettingsError(Exception):
    """The settings do not hold. `problems` names every one of them, values included."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Settings(BaseModel):
    """Settings of `python -m ws_bridge`. None means: by environment."""

    model_config = ConfigDict(frozen=True)

    environment: Environment = Environment.DEVELOPMENT
    http_address: str = "127.0.0.1:8000"
    public_url: str = ""
    allowed_origins: str = ""
    agent_target: str = Field("127.0.0.1:50051", min_length=1)
    bridge_admin_address: str = ""
    max_frames_per_minute: int | None = Field(None, ge=1, le=1_000_000)
    connection_timeout_s: float | None = Field(None, gt=0, le=86_400)
    heartbeat_interval_s: float | None = Field(None, gt=0, le=3_600)
    heartbeat_timeout_s: float | None = Field(None, gt=0, le=3_600)
    max_frame_bytes: int = Field(MAX_FRAME_BYTES, ge=256, le=MAX_FRAME_BYTES)
    max_upload_bytes: int = Field(MAX_UPLOAD_BYTES, ge=1, le=MAX_UPLOAD_BYTES)

    @field_validator("http_address", "bridge_admin_address")
    @classmethod
    def _address(cls, value: str) -> str:
        if value:
            split_address(value)
        return value

    @field_validator("public_url")
    @classmethod
    def _url(cls, value: str) -> str:
        return _origin(value) if value else ""

    @field_validator("allowed_origins")
    @classmethod
    def _urls(cls, value: str) -> str:
        return ",".join(_origin(url) for url in split_list(value))

    @property
    def base_url(self) -> str:
        """Where people find the bridge."""
        return self.public_url or f"http://{self.http_address}"

    @property
    def origins(self) -> Origins:
        """Which pages may talk to the bridge, and the names under which it answers."""
        urls = [self.base_url, *split_list(self.allowed_origins)]
        host, port = split_address(self.http_address)
        if self.environment.is_local or (not self.public_url and is_loopback(host)):
            urls += [f"http://{name}:{port}" for name in LOOPBACK_HOSTS]
        return origins_of(urls)

    @property
    def defaults(self) -> Defaults:
        """The limits of the environment."""
        return DEFAULTS[self.environment]

    @property
    def limits(self) -> Defaults:
        """The limits that hold: those that are set, else the environment's."""
        defaults = self.defaults
        return Defaults(
            self.max_frames_per_minute or defaults.frames_per_minute,
            self.connection_timeout_s or defaults.connection_timeout_s,
            self.heartbeat_interval_s or defaults.heartbeat_interval_s,
            self.heartbeat_timeout_s or defaults.heartbeat_timeout_s,
        )

    def listening_on(self, port: int) -> "Settings":
        """Return the settings with the port that was bound: port 0 takes a free one."""
        host, _, _ = self.http_address.rpartition(":")
        return self.model_copy(update={"http_address": f"{host}:{port}"})


def load_settings(environ: Mapping[str, str], env_file: Path | None = None) -> Settings:
    """Read `environ`, and `env_file` beneath it; variables of others are ignored.

    Raises:
        SettingsError: with every problem, not only the first.
    """
    if env_file is not None and not env_file.is_file():
        raise SettingsError((f"--env-file: there is no file {str(env_file)!r}",))
    variables = {**(dotenv_values(env_file) if env_file else {}), **environ}
    names = {f"{PREFIX}{field.upper()}": field for field in Settings.model_fields}
    values = {names[name]: value for name, value in variables.items() if name in names and value}
    problems: list[str] = []
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems = [_problem(item) for item in error.errors()]
        wrong = {str(item["loc"][0]) for item in error.errors()}
        settings = Settings.model_validate({name: value for name, value in values.items() if name not in wrong})
    problems += _together(settings)
    if problems:
        raise SettingsError(tuple(problems))
    return settings


def _together(settings: Settings) -> Iterator[str]:
    """Yield what is wrong between settings that are fine one by one."""
    local = settings.environment.is_local
    addresses = {"HTTP_ADDRESS": settings.http_address, "BRIDGE_ADMIN_ADDRESS": settings.bridge_admin_address}
    for name, address in addresses.items():
        if local and address and not is_loopback(split_address(address)[0]):
            yield (
                f"{PREFIX}{name}={address!r}: must be a loopback address such as 127.0.0.1 in {settings.environment};"
                " set APEX_ENVIRONMENT=production to serve a network"
            )
    if not local and not settings.public_url and not is_loopback(split_address(settings.http_address)[0]):
        yield (
            f"{PREFIX}PUBLIC_URL is not set: must be the address that people use, such as https://apex.example.com,"
            f" because {PREFIX}HTTP_ADDRESS={settings.http_address!r} is not a loopback address"
        )
    timeout_s = settings.heartbeat_timeout_s
    if settings.environment is not Environment.TEST and timeout_s is not None and timeout_s < MIN_HEARTBEAT_TIMEOUT_S:
        yield (
            f"{PREFIX}HEARTBEAT_TIMEOUT_S={timeout_s:g}: must be at least {MIN_HEARTBEAT_TIMEOUT_S:g} s, or living"
            f" peers on slow lines lose their connection; the default is {settings.defaults.heartbeat_timeout_s:g}"
        )


def _problem(item: ErrorDetails) -> str:
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{PREFIX}{str(item['loc'][0]).upper()}={item['input']!r}: {message[0].lower()}{message[1:]}"


def split_list(value: str) -> tuple[str, ...]:
    """Return the entries of a comma-separated list."""
    return tuple(entry.strip() for entry in value.split(",") if entry.strip())


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[v6]:port`.

    Raises:
        ValueError: it is neither.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > MAX_PORT:
        raise ValueError("must be host:port, for example 127.0.0.1:8000")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Tell whether nobody outside this machine can reach the host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _origin(url: str) -> str:
    """Return a URL as browsers write it as an origin: lower case, without a path or the scheme's own port.

    Raises:
        ValueError: it is not one URL, or has a path.
    """
    parts = urlsplit(url)
    plain = not (parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc or "," in url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not plain or parts.scheme not in DEFAULT_PORTS or not host or port == 0:
        raise ValueError("must be a URL without a path, for example https://apex.example.com")
    name = f"[{host}]" if ":" in host else host
    return (
        f"{parts.scheme}://{name}" if port in {None, DEFAULT_PORTS[parts.scheme]} else f"{parts.scheme}://{name}:{port}"
    )
