"""What an agent is: a declaration. It has no loop of its own."""

from dataclasses import dataclass

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Agent:
    """A sub-agent. `tools` are names in the registry. `output` is its typed result; None means text (Markdown)."""

    name: str
    title: str
    description: str
    instructions: str
    tools: tuple[str, ...] = ()
    output: type[BaseModel] | None = None
