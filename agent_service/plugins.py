"""Agents and tools of other packages, found by their entry points and loaded once, at start.

An entry point of `apex.tools` or `apex.agents` is a `Tool` or an `Agent`, several of them, or a function that returns
either. One that is broken is left out as a whole: the service starts without it and says so.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Final, TypeVar

from pydantic import BaseModel

from agent_service.engine.agent import Agent
from agent_service.engine.registry import LeftOut
from agent_service.engine.tool import Tool

AGENTS_GROUP: Final = "apex.agents"
TOOLS_GROUP: Final = "apex.tools"

NAME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,63}")
"""Of a tool, as every provider takes it; of an agent likewise."""

MAX_REASON_CHARACTERS: Final = 500
"""Of what an operator is told about one plug-in."""

PartT = TypeVar("PartT", Agent, Tool[BaseModel])


class _BrokenError(Exception):
    """The plug-in cannot be used. The text says why."""


@dataclass(frozen=True, slots=True)
class Plugins:
    """What was found, and what was left out."""

    agents: tuple[Agent, ...]
    tools: tuple[Tool[BaseModel], ...]
    left_out: tuple[LeftOut, ...]


def load_plugins(agents: Iterable[Agent], tools: Iterable[Tool[BaseModel]], *, step_timeout_ms: int) -> Plugins:
    """Load every plug-in. `agents` and `tools` are there already: their names are taken, the tools may be used.

    A tool must take less time than a step, `step_timeout_ms`. What it returns may change by itself, for all that is
    known of it: no answer made of it is given again.
    """
    left_out: list[LeftOut] = []

    def check_tool(tool: Tool[BaseModel]) -> None:
        if not 0 < tool.timeout_ms < step_timeout_ms:
            text = f"its tool {tool.name!r} may take {tool.timeout_ms} ms, but must take less than a step"
            raise _BrokenError(f"{text}, {step_timeout_ms} ms")
        tool.args.model_json_schema()

    known_tools = {tool.name: tool for tool in tools}
    found_tools = _load(TOOLS_GROUP, Tool, set(known_tools), check_tool, left_out)
    known_tools |= {tool.name: tool for tool in found_tools}

    def check_agent(agent: Agent) -> None:
        unknown = [name for name in agent.tools if name not in known_tools]
        if unknown:
            raise _BrokenError(f"its agent {agent.name!r} wants the tool {unknown[0]!r}, which does not exist")

    found_agents = _load(AGENTS_GROUP, Agent, {agent.name for agent in agents}, check_agent, left_out)
    live_tools = tuple(replace(tool, is_live=True) for tool in found_tools)
    return Plugins(tuple(found_agents), live_tools, tuple(left_out))


def _load(
    group: str, kind: type[PartT], taken: set[str], check: Callable[[PartT], None], left_out: list[LeftOut]
) -> list[PartT]:
    """Return the parts of every entry point of the group, in the order of their names; note what is broken."""
    found: list[PartT] = []
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
        try:
            parts = _parts(point.load(), kind)
            _check_names([part.name for part in parts], taken)
            for part in parts:
                check(part)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - other people's code may do anything
            reason = str(error) if isinstance(error, _BrokenError) else f"{type(error).__name__}: {error}"
            left_out.append(LeftOut(_source(point), reason[:MAX_REASON_CHARACTERS]))
        else:
            found += parts
            taken.update(part.name for part in parts)
    return found


def _parts(value: object, kind: type[PartT]) -> list[PartT]:
    """Return what an entry point gives: one part, several, or what its function returns. Raises `_BrokenError`."""
    if callable(value):
        value = value()
    given = [value] if isinstance(value, kind) else value
    parts = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping) else []
    fitting = [part for part in parts if isinstance(part, kind)]
    if not fitting or len(fitting) != len(parts):
        raise _BrokenError(f"it gives {type(value).__name__}, not {kind.__name__} or several of them")
    return fitting


def _check_names(names: Sequence[str], taken: set[str]) -> None:
    for number, name in enumerate(names):
        if not NAME.fullmatch(name):
            raise _BrokenError(f"the name {name!r} must be 1 to 64 of a-z, A-Z, 0-9, _ and -")
        if name in taken or name in names[:number]:
            raise _BrokenError(f"the name {name!r} is taken")


def _source(point: EntryPoint) -> str:
    package = point.dist.name if point.dist is not None else "a package without a name"
    return f"plug-in {point.name!r} of {package} ({point.group})"
