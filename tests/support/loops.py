"""Agent loops of tests, in place of language models: scripted, and without waiting."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from agent_service.engine.agent import Agent
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.intents import Intent, Sufficiency, Triage
from agent_service.engine.ports import Step, StepResult, StepSink

Part: TypeAlias = Callable[[Step, StepSink], Awaitable[StepResult]]

SPECIALISTS: Final = tuple(
    Agent(name, name.replace("_", " ").capitalize(), f"Does {name}.", "Do it.", ("usage_summary",))
    for name in ("optimizations", "actions", "reporting", "corpus_admin", "synthetic_data")
)
"""Agents as others bring them."""


async def no_wait(_: float) -> None:
    """Do not wait."""


class OneModelOnly:
    """The part of `AgentLoop` that says what to go on with where a model is down: nothing."""

    def fallbacks(self, model: str = "") -> tuple[str, ...]:
        """Return no model."""
        return ()


def triaged(
    intent: Intent = Intent.OPTIMIZATION,
    *next_agents: str,
    sufficiency: Sufficiency = "sufficient",
    confidence: float = 0.95,
    question: str = "",
) -> Triage:
    """Return what triage finds."""
    return Triage(
        category=intent,
        confidence=confidence,
        summary="It is asked.",
        sufficiency=sufficiency,
        next_agents=list(next_agents),
        question=question,
    )


async def says_its_name(step: Step, sink: StepSink) -> StepResult:
    """Find one's own name; as the last one, say it."""
    words = f"{step.agent.name} found it."
    if step.writes_answer:
        await sink.text(words)
    return StepResult(words)


def down(reason: ErrorReason = ErrorReason.MODEL_UNAVAILABLE) -> Part:
    """Return a part that never answers."""

    async def part(_step: Step, _sink: StepSink) -> StepResult:
        raise ApexError(reason, f"It ended with {reason}.")

    return part


class ScriptedLoop:
    """Implements `AgentLoop`: each agent plays its part, or says its name. `fallback` is asked after every model.

    A part may be meant for one model: its name is then `agent@model`, the run's own model is empty.
    """

    def __init__(self, triage: Triage, parts: Mapping[str, Part] | None = None, *, fallback: str = "") -> None:
        self.triage = triage
        self.parts = dict(parts or {})
        self.steps: list[Step] = []
        self._fallback = fallback

    @property
    def played(self) -> list[str]:
        """The agents in the order in which they were asked, with the model where it was not the run's own."""
        return [step.agent.name + (f"@{step.settings.model}" if step.settings.model else "") for step in self.steps]

    def fallbacks(self, model: str = "") -> tuple[str, ...]:
        """Return the fallback, unless it is the one that is down."""
        return (self._fallback,) if self._fallback and model != self._fallback else ()

    async def run(self, step: Step, sink: StepSink) -> StepResult:
        """Play."""
        self.steps.append(step)
        name, model = step.agent.name, step.settings.model
        part = self.parts.get(f"{name}@{model}") or self.parts.get(name)
        if part is not None:
            return await part(step, sink)
        return StepResult(self.triage) if name == "triage" else await says_its_name(step, sink)
