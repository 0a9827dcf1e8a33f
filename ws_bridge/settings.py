"""The bridge's settings: environment variables with the prefix `APEX_`, frozen, checked all at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from configuration.addresses import Address, exposed, is_loopback, split_address
from configuration.environment import Environment
from configuration.variables import Conflict, read_settings
from ws_bridge.origins import DEFAULT_PORTS, LOOPBACK_HOSTS, Origins, origins_of

MAX_UPLOAD_BYTES: Final = 64 * 1024 * 1024
"""The contract's limit for one file; settings may only lower it."""
MAX_FRAME_BYTES: Final = 8192
"""The contract's limit for a plain frame; settings may only lower it."""
MAX_MESSAGE_BYTES: Final = 65_536
"""A larger WebSocket message closes the socket with 1009 before anybody reads it."""
MIN_HEARTBEAT_TIMEOUT_S: Final = 5.0
"""How long a peer has at least to answer a ping, in seconds; tests may be quicker."""


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


class Settings(BaseModel):
    """Settings of `python -m ws_bridge`. None means: by environment."""

    model_config = ConfigDict(frozen=True)

    environment: Environment = Environment.DEVELOPMENT
    http_address: Address = "127.0.0.1:8000"
    public_url: str = ""
    allowed_origins: str = ""
    agent_target: str = Field("127.0.0.1:50051", min_length=1)
    bridge_admin_address: Address = ""
    max_frames_per_minute: int | None = Field(None, ge=1, le=1_000_000)
    connection_timeout_s: float | None = Field(None, gt=0, le=86_400)
    heartbeat_interval_s: float | None = Field(None, gt=0, le=3_600)
    heartbeat_timeout_s: float | None = Field(None, gt=0, le=3_600)
    max_frame_bytes: int = Field(MAX_FRAME_BYTES, ge=256, le=MAX_FRAME_BYTES)
    max_upload_bytes: int = Field(MAX_UPLOAD_BYTES, ge=1, le=MAX_UPLOAD_BYTES)

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
        _, port = split_address(self.http_address)
        if self.environment.is_local or (not self.public_url and is_loopback(self.http_address)):
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
    """Read `environ`, and `env_file` beneath it. Raises `SettingsError` with every problem."""
    return read_settings(Settings, environ, env_file, _conflicts)


def _conflicts(settings: Settings) -> Iterator[Conflict]:
    """Yield what is wrong between settings that are fine one by one."""
    addresses = {"http_address": settings.http_address, "bridge_admin_address": settings.bridge_admin_address}
    yield from exposed(settings.environment, addresses)
    if not settings.environment.is_local and not settings.public_url and not is_loopback(settings.http_address):
        why = f"because APEX_HTTP_ADDRESS={settings.http_address!r} is not a loopback address"
        text = (
            f"APEX_PUBLIC_URL is not set: must be the address that people use, such as https://apex.example.com, {why}"
        )
        yield ("environment", "http_address", "public_url"), text
    timeout_s = settings.heartbeat_timeout_s
    if settings.environment is not Environment.TEST and timeout_s is not None and timeout_s < MIN_HEARTBEAT_TIMEOUT_S:
        why = "or living peers on slow lines lose their connection"
        least = f"must be at least {MIN_HEARTBEAT_TIMEOUT_S:g} s, {why}"
        text = (
            f"APEX_HEARTBEAT_TIMEOUT_S={timeout_s:g}: {least}; the default is {settings.defaults.heartbeat_timeout_s:g}"
        )
        yield ("environment", "heartbeat_timeout_s"), text


def split_list(value: str) -> tuple[str, ...]:
    """Return the entries of a comma-separated list."""
    return tuple(entry.strip() for entry in value.split(",") if entry.strip())


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
