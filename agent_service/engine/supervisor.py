"""The chat orchestrator: understand the request, decide who works on it, run them, answer."""

from typing import Final

from agent_service.engine.budget import Budget
from agent_service.engine.checkpoint import Plan, RunProgress, decode
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.events import (
    AgentHandoff,
    AgentProgress,
    AgentThinking,
    Body,
    FinalResponse,
    JsonObject,
    PartialResult,
    PlannedStep,
    ProgressStage,
    Usage,
)
from agent_service.engine.intents import SPECIALTIES, TRIAGE, Triage, is_confident, route
from agent_service.engine.pipeline import Pipeline
from agent_service.engine.ports import AgentLoop, Clock
from agent_service.engine.registry import Registry
from agent_service.engine.run import SUPERVISOR
from agent_service.engine.step import StepPlace
from agent_service.engine.work import Work

QUESTION: Final = "I am not sure what you need: what your AI costs, how fast it is, or what another model would cost?"
"""Asked when triage is unsure and has no question of its own."""


class Supervisor:
    """Runs a claimed run up to its final response. The registry must hold `triage` and `supervisor`."""

    def __init__(self, *, registry: Registry, loop: AgentLoop, clock: Clock, step_timeout_ms: int) -> None:
        self._registry = registry
        self._loop = loop
        self._clock = clock
        self._step_timeout_ms = step_timeout_ms

    async def run(self, work: Work) -> FinalResponse:
        """Emit everything between `agent_started` and the answer; return the answer, which the worker commits.

        Goes on from the run's checkpoint: finished steps are not run again. Raises `ApexError` for the user;
        `FencedError`, `HandoverError` and cancellation pass through.
        """
        progress, spent = decode(work.checkpoint)
        work.emitter.add_usage(spent)
        return await _Conversation(work, progress, self._pipeline(work, progress, spent), self._registry).answer()

    def _pipeline(self, work: Work, progress: RunProgress, spent: Usage) -> Pipeline:
        return Pipeline(
            work,
            progress,
            Budget(work.command.settings.budget_usd, spent),
            registry=self._registry,
            loop=self._loop,
            clock=self._clock,
            step_timeout_ms=self._step_timeout_ms,
        )


class _Conversation:
    """One run on its way to an answer."""

    def __init__(self, work: Work, progress: RunProgress, pipeline: Pipeline, registry: Registry) -> None:
        self._work = work
        self._progress = progress
        self._pipeline = pipeline
        self._agents = registry.agents

    async def answer(self) -> FinalResponse:
        plan = self._progress.plan or await self._make_plan()
        if plan.question:
            await self._say(PartialResult(self._work.message_id, plan.question))
        else:
            await self._follow(plan)
        content = self._work.emitter.state.text
        if not content.strip():
            raise ApexError(ErrorReason.MODEL_UNAVAILABLE, "The language model gave no answer. Try again.")
        return FinalResponse(
            message_id=self._work.message_id,
            content=content,
            missing_data=tuple(self._progress.missing.values()),
            suggestions=plan.suggestions,
            artifact_ids=tuple(self._work.emitter.state.artifact_ids),
        )

    async def _make_plan(self) -> Plan:
        """Decide, tell the user, and save the decision with the event that tells it."""
        named = self._work.command.agent
        plan = self._plan_from(await self._triage()) if named in {"", SUPERVISOR} else self._plan_for(named)
        self._progress.decide(plan)
        self._pipeline.save()
        steps = tuple(PlannedStep(name, self._agents[name].description) for name in plan.agents)
        message = " → ".join(self._agents[name].title for name in plan.agents) or "Ask one question first."
        await self._say(AgentProgress(ProgressStage.PLANNED, message, total_steps=len(steps), planned_steps=steps))
        return plan

    async def _triage(self) -> Triage:
        """Run triage, unless it already has, and tell the user what it understood."""
        if self._progress.triage is None:
            if self._progress.loop_state is None:
                await self._say(AgentThinking("I read your request: what it needs, and which data there is."))
                await self._say(AgentHandoff(SUPERVISOR, TRIAGE, "Understand the request and look at the data."))
            await self._pipeline.run(StepPlace(TRIAGE, 0, 0), notes=self._notes(None), writes_answer=False)
        triage = Triage.model_validate(self._progress.triage)
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

    def _plan_from(self, triage: Triage) -> Plan:
        """Return what triage's result leads to: a question below the intent's threshold, else the agents to ask."""
        suggestions = tuple(triage.suggestions)
        if not is_confident(triage):
            return Plan(triage.category.value, triage.summary, (), (), triage.question or QUESTION, suggestions)
        found = route(triage, frozenset(self._agents))
        agents = self._ending_in_words(found.agents)
        return Plan(triage.category.value, triage.summary, agents, found.absent, suggestions=suggestions)

    def _plan_for(self, agent_name: str) -> Plan:
        """Return the plan of a run that names its agent. Raises `ApexError(INVALID_ARGUMENT)` for an unknown one."""
        if agent_name not in self._agents:
            known = ", ".join(sorted(self._agents))
            raise ApexError(ErrorReason.INVALID_ARGUMENT, f"There is no agent {agent_name!r}. There are: {known}.")
        return Plan("", "You asked for this agent.", self._ending_in_words((agent_name,)))

    def _ending_in_words(self, agents: tuple[str, ...]) -> tuple[str, ...]:
        """Let the supervisor speak where nobody else writes text for people."""
        writes = bool(agents) and self._agents[agents[-1]].output is None
        return agents if writes else (*agents, SUPERVISOR)

    async def _follow(self, plan: Plan) -> None:
        """Run the plan's steps that are not finished yet; the last one streams the answer."""
        total = len(plan.agents)
        for number, name in enumerate(plan.agents, start=1):
            if number <= self._progress.steps_done:
                continue
            place = StepPlace(name, number, total)
            if self._progress.told_steps < number:
                await self._announce(plan, place)
            await self._pipeline.run(place, notes=self._notes(plan), writes_answer=number == total)

    async def _announce(self, plan: Plan, place: StepPlace) -> None:
        """Tell who goes on, and with what."""
        before = plan.agents[place.number - 2] if place.number > 1 else TRIAGE if self._progress.triage else SUPERVISOR
        if before != place.agent_name:
            await self._say(AgentHandoff(before, place.agent_name, plan.reason))
        agent = self._agents[place.agent_name]
        self._progress.told_steps = place.number
        self._pipeline.save()
        fraction = (place.number - 1) / place.total
        await self._say(AgentProgress(ProgressStage.STEP, agent.title, place.number, place.total, fraction=fraction))

    def _notes(self, plan: Plan | None) -> JsonObject:
        """Return what the supervisor tells a step: who can do what, and what nobody here can do."""
        available = [
            {"agent": agent.name, "does": agent.description, "tools": list(agent.tools)}
            for agent in self._agents.values()
            if agent.name not in {TRIAGE, SUPERVISOR}
        ]
        absent = plan.absent if plan else SPECIALTIES.keys() - self._agents.keys()
        not_available = [{"agent": name, "does": SPECIALTIES.get(name, name)} for name in sorted(absent)]
        return {"intent": plan.intent if plan else "", "available": available, "not_available": not_available}

    async def _say(self, body: Body) -> None:
        await self._work.emitter.emit(SUPERVISOR, body)
