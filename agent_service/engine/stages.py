"""Who works on a request, and in which order: stages of agents, of which the last one writes the answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from agent_service.engine.agent import Agent
from agent_service.engine.intents import (
    ACTIONS,
    DATA,
    INTENT_RULES,
    OPTIMIZATIONS,
    REPORTING,
    TRIAGE,
    Intent,
    Triage,
)
from agent_service.engine.run import SUPERVISOR

Stages: TypeAlias = tuple[tuple[str, ...], ...]
"""The agents of one stage work at the same time. The last stage is exactly one agent, which writes the answer."""

Level: TypeAlias = Literal["full", "partial", "guidance"]
"""What an answer can be: whole; what there is, with what is missing; or how to get there."""

VOICES: Final = frozenset({REPORTING, SUPERVISOR})
"""The agents that can write an answer from whatever the others found, however little that is."""

_MEASURED: Final = frozenset({Intent.OPTIMIZATION, Intent.REPORTING})
"""The intents whose pipeline depends on how much the data holds. The others ask their specialist, who says it."""

_LEVELS: Final[Mapping[str, Level]] = {"sufficient": "full", "partial": "partial", "insufficient": "guidance"}

_DEPENDENT: Final = frozenset({TRIAGE, OPTIMIZATIONS, ACTIONS, REPORTING, SUPERVISOR})
"""What triage cannot add to a request of another kind: they work on what others found, or not on requests at all."""


@dataclass(frozen=True, slots=True)
class Route:
    """Who works on a request. `absent` are agents that it would need and that are not installed here."""

    stages: Stages
    absent: tuple[str, ...]
    level: Level = "full"


def route(triage: Triage, agents: Mapping[str, Agent]) -> Route:
    """Return the stages that answer a request; `agents` are those that are installed.

    Specialists that triage names beyond the intent's own join the first stage where they depend on nobody: data,
    corpus_admin, synthetic_data, and whatever a plug-in brings.
    """
    rule = INTENT_RULES[triage.category]
    level = _LEVELS[triage.sufficiency] if triage.category in _MEASURED else "full"
    if level == "guidance" and REPORTING not in agents:
        level = "partial"  # nobody gives guidance here: whoever measures says what is missing
    wanted = _wanted(triage, level)
    own = [name for name in wanted if name in agents]
    others = [
        name
        for name in dict.fromkeys(triage.next_agents)
        if name in agents and name not in {*rule.agents, *rule.optional, *_DEPENDENT}
    ]
    first = [name for name in own if name not in _DEPENDENT]
    then = tuple((name,) for name in own if name in _DEPENDENT)
    stages = ((*first, *others), *then) if first or others else then
    return Route(
        # Where nobody measures or makes anything, nobody has anything to report either.
        stages=ending_in_words(stages, agents) if stages else ((SUPERVISOR,),),
        absent=tuple(name for name in wanted if name not in agents),
        level=level,
    )


def _wanted(triage: Triage, level: Level) -> tuple[str, ...]:
    """Return the intent's own agents, as far as the data carries them."""
    rule = INTENT_RULES[triage.category]
    if triage.category is Intent.OPTIMIZATION and tuple(triage.next_agents) == (ACTIONS,):
        return (ACTIONS,)  # it is about a plan that exists: nothing is to be measured or computed
    if triage.category not in _MEASURED:
        return (*rule.agents, *(name for name in rule.optional if name in triage.next_agents))
    match level, triage.category:
        case "guidance", _:
            return (REPORTING,)
        case "partial", Intent.REPORTING:
            return (DATA, REPORTING)
        case "partial", _:
            return (DATA, OPTIMIZATIONS, REPORTING)
        case _:
            return rule.agents


def ending_in_words(stages: Stages, agents: Mapping[str, Agent]) -> Stages:
    """Return the stages with somebody at the end who writes text for people: one agent, with all findings at hand."""
    if stages and len(stages[-1]) == 1 and agents[stages[-1][0]].output is None:
        return stages
    return (*stages, (writer(agents),))


def writer(agents: Mapping[str, Agent]) -> str:
    """Return who writes an answer from what others found: reporting, or the supervisor where that is not installed."""
    return REPORTING if REPORTING in agents and agents[REPORTING].output is None else SUPERVISOR
