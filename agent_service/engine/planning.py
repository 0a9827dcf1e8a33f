"""From a request to a plan: what is asked, how sure that is, whether it was answered before, who works on it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from agent_service.engine.agent import Agent
from agent_service.engine.answer_cache import AnswerCache
from agent_service.engine.checkpoint import EarlierAnswer, Plan, RunProgress
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.events import (
    AgentHandoff,
    AgentProgress,
    AgentThinking,
    Body,
    JsonObject,
    PlannedStep,
    ProgressStage,
)
from agent_service.engine.intents import INTENT_RULES, SPECIALTIES, TRIAGE, Triage, is_confident
from agent_service.engine.pipeline import Pipeline
from agent_service.engine.ports import Clock
from agent_service.engine.run import SUPERVISOR
from agent_service.engine.stages import ending_in_words, route, writer
from agent_service.engine.step import StepPlace
from agent_service.engine.work import Work

QUESTION: Final = "I am not sure what you need: what your AI costs, how fast it is, or what another model would cost?"
"""Asked when triage is unsure and has no question of its own."""

_TRIAGE: Final = StepPlace(TRIAGE, 0, 0)


class Planner:
    """Makes the plan of one run. `larger_model` is asked where triage is unsure; empty: there is none."""

    def __init__(
        self,
        work: Work,
        progress: RunProgress,
        pipeline: Pipeline,
        *,
        agents: Mapping[str, Agent],
        cache: AnswerCache | None,
        clock: Clock,
        larger_model: str,
    ) -> None:
        self._work = work
        self._progress = progress
        self._pipeline = pipeline
        self._agents = agents
        self._cache = cache
        self._clock = clock
        self._larger_model = larger_model

    async def plan(self) -> Plan:
        """Decide, tell the user, and save the decision with the event that tells it."""
        named = self._work.command.agent
        plan = await self._plan_from(await self._triage()) if named in {"", SUPERVISOR} else self._plan_for(named)
        message = self._words_of(plan)
        self._progress.decide(plan)
        self._pipeline.save()
        steps = tuple(PlannedStep(name, self._agents[name].description) for name in plan.agents)
        await self._say(AgentProgress(ProgressStage.PLANNED, message, total_steps=len(steps), planned_steps=steps))
        return plan

    async def _triage(self) -> Triage | None:
        """Run triage, unless it already has, and tell the user what it understood. None: it failed."""
        if self._progress.triage is None:
            if _TRIAGE.number in self._progress.findings:
                return None
            if not self._progress.loops:
                await self._say(AgentThinking("I read your request: what it needs, and which data there is."))
                await self._say(AgentHandoff(SUPERVISOR, TRIAGE, "Understand the request and look at the data."))
            failure = await self._pipeline.run(
                _TRIAGE, notes=notes_of(self._agents, None, self._progress), writes_answer=False
            )
            if failure is not None:
                return None
        triage = Triage.model_validate(self._progress.triage)
        if not is_confident(triage) and self._may_escalate():
            triage = await self._escalate(triage)
        if self._progress.told_triage:
            return triage
        self._progress.told_triage = True
        self._pipeline.save()
        await self._say(
            AgentProgress(
                ProgressStage.CLASSIFIED,
                f"{triage.category.words.capitalize()}: {triage.summary}",
                intent=triage.category.value,
                confidence=triage.confidence,
            )
        )
        return triage

    def _may_escalate(self) -> bool:
        """Return whether there is a larger model to ask: not where the person chose the model, and only once."""
        chosen = self._work.command.settings.model
        return bool(self._larger_model) and not chosen and not self._progress.escalated

    async def _escalate(self, triage: Triage) -> Triage:
        """Let the larger model have a look. Where it fails, what triage understood before stands."""
        threshold = INTENT_RULES[triage.category].threshold
        if not self._progress.loops:
            thought = f"I am {triage.confidence:.0%} sure; {threshold:.0%} are needed. A larger model has a look."
            await self._say(AgentThinking(thought))
            await self._work.dispatcher.restart(TRIAGE, afresh=True)
        notes = notes_of(self._agents, None, self._progress)
        await self._pipeline.run(_TRIAGE, notes=notes, writes_answer=False, model=self._larger_model)
        self._progress.escalated = True
        self._pipeline.save()
        return Triage.model_validate(self._progress.triage)

    async def _plan_from(self, triage: Triage | None) -> Plan:
        """Return what triage's result leads to: a question, an answer that is there already, or agents to ask.

        Where nobody understood the request, somebody says so and helps on.
        """
        if triage is None:
            return Plan("", "Nobody could look at the request.", ((writer(self._agents),),), level="guidance")
        intent, suggestions = triage.category.value, tuple(triage.suggestions)
        if not is_confident(triage):
            question = triage.question or QUESTION
            return Plan(intent, triage.summary, (), question=question, suggestions=suggestions)
        key = await self._cache.key_of(self._work, triage) if self._cache else ""
        answer = await self._cache.find(key, self._work.run.user_id, triage.category) if self._cache else None
        if answer is not None:
            return Plan(intent, triage.summary, (), answer=answer)
        found = route(triage, self._agents)
        return Plan(
            intent=intent,
            reason=triage.summary,
            stages=found.stages,
            absent=found.absent,
            level=found.level,
            suggestions=suggestions,
            cache_key=key,
        )

    def _plan_for(self, agent_name: str) -> Plan:
        """Return the plan of a run that names its agent. Raises `ApexError(INVALID_ARGUMENT)` for an unknown one."""
        if agent_name not in self._agents:
            known = ", ".join(sorted(self._agents))
            raise ApexError(ErrorReason.INVALID_ARGUMENT, f"There is no agent {agent_name!r}. There are: {known}.")
        return Plan("", "You asked for this agent.", ending_in_words(((agent_name,),), self._agents))

    def _words_of(self, plan: Plan) -> str:
        """Return the plan in words: who works, and on less than it takes where the data lacks something."""
        if plan.answer is not None:
            age = _age(plan.answer, self._clock.now())
            return f"I answered this {age} ago from the same data: that answer is used again."
        if plan.question:
            return "Ask one question first."
        stages = (" and ".join(self._agents[name].title for name in stage) for stage in plan.stages)
        lacks = "" if plan.level == "full" else ", ".join(self._progress.missing)
        return " → ".join(stages) + (f". The data lacks: {lacks}." if lacks else "")

    async def _say(self, body: Body) -> None:
        await self._work.emitter.emit(SUPERVISOR, body)


def notes_of(agents: Mapping[str, Agent], plan: Plan | None, progress: RunProgress) -> JsonObject:
    """Return what the supervisor tells a step: how whole the answer can be, who can do what, what nobody here can do.

    `level` is `full`, `partial` or `guidance`; `missing` are sentences about what the data lacks; `failed` maps agents
    to why their steps failed. Before there is a plan they are empty.
    """
    available = [
        {"agent": agent.name, "does": agent.description, "tools": list(agent.tools)}
        for agent in agents.values()
        if agent.name not in {TRIAGE, SUPERVISOR}
    ]
    absent = plan.absent if plan else SPECIALTIES.keys() - agents.keys()
    failed = {f.agent_name: f.output["failed"] for f in progress.findings.values() if "failed" in f.output}
    level = plan.level if plan else ""
    return {
        "intent": plan.intent if plan else "",
        "level": "partial" if failed and level == "full" else level,
        "missing": list(progress.missing.values()) if plan else [],
        "failed": failed,
        "available": available,
        "not_available": [{"agent": name, "does": SPECIALTIES.get(name, name)} for name in sorted(absent)],
    }


def _age(answer: EarlierAnswer, now: datetime) -> str:
    seconds = max(0, round(now.timestamp() - answer.computed_ms / 1000))
    minutes = seconds // 60
    if not minutes:
        return f"{seconds} second{'' if seconds == 1 else 's'}"
    return f"{minutes} minute{'' if minutes == 1 else 's'}"
