"""The databases that may be looked at: only those that the deployment names, known by their names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from agent_service.engine.tool import ToolError

_KINDS: Final[Mapping[str, str]] = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "postgresql+asyncpg": "postgresql",
    "sqlite": "sqlite",
    "sqlite+aiosqlite": "sqlite",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A database. `kind` is postgresql or sqlite; `address` may hold a password and is never shown."""

    name: str
    kind: str
    address: str = field(repr=False)


def targets(addresses: Mapping[str, str]) -> dict[str, Target]:
    """Return the targets of these addresses (name → URL). Raises `ValueError` for another kind of database."""
    found: dict[str, Target] = {}
    for name, url in addresses.items():
        scheme, _, rest = url.partition("://")
        if scheme not in _KINDS:
            raise ValueError(f"the target {name!r} is neither PostgreSQL nor SQLite")
        kind = _KINDS[scheme]
        # sqlite:///relative, sqlite:////absolute, as SQLAlchemy writes them.
        place = unquote(urlsplit(url).path[1:]) if kind == "sqlite" else f"postgresql://{rest}"
        found[name] = Target(name, kind, place)
    return found


def choose(known: Mapping[str, Target], asked: str, message: str) -> Target:
    """Return the target that is meant: asked for, named in the message, or the only one. Raises `ToolError`."""
    if not known:
        raise ToolError(
            "No database may be looked at here. Whoever runs this service can name some in APEX_ANALYZER_TARGETS, "
            "for example orders=postgresql://reader@db.example.com/orders."
        )
    names = ", ".join(sorted(known))
    if asked:
        found = [target for name, target in known.items() if name.casefold() == asked.strip().casefold()]
        if not found:
            raise ToolError(f"There is no database target of that name. There are: {names}.")
        return found[0]
    words = message.casefold()
    named = [target for name, target in known.items() if name.casefold() in words]
    candidates = named or list(known.values())
    if len(candidates) > 1:
        raise ToolError(f"There are several databases: {names}. Say which one to look at.")
    return candidates[0]
