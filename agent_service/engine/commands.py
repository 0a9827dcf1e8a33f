"""What callers ask of the engine, validated at the border."""

from dataclasses import dataclass, field

from agent_service.engine.events import JsonObject
from storage.records import ThreadConflict


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Per-run settings; None means the deployment's default. `budget_usd` is in US dollars."""

    model: str = ""
    temperature: float | None = None
    max_output_tokens: int | None = None
    timeout_ms: int | None = None
    budget_usd: float | None = None
    require_approval: bool = False
    use_cache: bool = True


@dataclass(frozen=True, slots=True)
class Reference:
    """Something the message points to: exactly one of the ids is set."""

    file_id: str = ""
    message_id: str = ""
    corpus_id: str = ""


@dataclass(frozen=True, slots=True)
class RunCommand:
    """A message to be run. Empty `thread_id`: a new thread. Empty `agent`: the supervisor decides."""

    content: str
    thread_id: str = ""
    client_message_id: str = ""
    agent: str = ""
    context: JsonObject = field(default_factory=dict)
    settings: RunSettings = field(default_factory=RunSettings)
    references: tuple[Reference, ...] = ()
    conflict: ThreadConflict = ThreadConflict.ENQUEUE
