"""Which pages may talk to the bridge, and under which names it answers. Decided by settings, never by the request."""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origins:
    """`origins` as a browser sends them (`https://host[:port]`), `hosts` as in a Host header."""

    origins: frozenset[str]
    hosts: frozenset[str]

    def permits_socket(self, origin: str | None, *, bearer: bool) -> bool:
        """Tell whether a WebSocket may be opened. Without an Origin only programs may: they bring a header."""
        return bearer if origin is None else self.permits(origin)

    def permits(self, origin: str) -> bool:
        """Tell whether a page of this origin may send requests."""
        return origin.lower() in self.origins

    def answers_to(self, host: str) -> bool:
        """Tell whether the bridge is known under this Host header."""
        return host.lower() in self.hosts


def origins_of(urls: Iterable[str]) -> Origins:
    """Return the origins and hosts of these URLs, with and without the scheme's own port."""
    origins: set[str] = set()
    hosts: set[str] = set()
    for url in urls:
        parts = urlsplit(url)
        scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
        name = f"[{host}]" if ":" in host else host
        default = DEFAULT_PORTS.get(scheme)
        port = parts.port or default
        forms = {f"{name}:{port}"} | ({name} if port == default else set())
        hosts |= forms
        origins |= {f"{scheme}://{form}" for form in forms}
    return Origins(frozenset(origins), frozenset(hosts))
