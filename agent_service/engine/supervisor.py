"""The chat orchestrator: understand the request, decide who works on it, run them, answer whatever happens."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from agent_service.engine.answer_cache import AnswerCache
from agent_service.engine.budget import Budget
from agent_service.engine.checkpoint import EarlierAnswer, Plan, RunProgress, decode
from agent_service.engine.circuits import Circuits
from agent_service.engine.errors import ApexError, ErrorReason, WaitingError
from agent_service.engine.events import (
    AgentHandoff,
    AgentProgress,
    AnswerSource,
    Body,
    FinalResponse,
    PartialResult,
    ProgressStage,
)
from agent_service.engine.intents import TRIAGE
from agent_service.engine.pipeline import Means, Pipeline
from agent_service.engine.planning import Planner, notes_of
from agent_service.engine.ports import AgentLoop, Clock
from agent_service.engine.registry import Registry
from agent_service.engine.retry import Backoff, Failure
from agent_service.engine.run import SUPERVISOR
from agent_service.engine.stages import writer
from agent_service.engine.step import StepPlace
from agent_service.engine.work import Work

DEFAULT_RUN_TIMEOUT_MS: Final = 240_000
"""Of a run, where nothing else is said."""


def _nobody(_agent_name: str) -> None:
    """Tell nobody."""


@dataclass(kw_only=True, slots=True)
class Supervisor:
    """Runs a claimed run up to its final response. The registry must hold `triage` and `supervisor`.

    `step_timeout_ms` and `run_timeout_ms` bound a step with one model, and a run. `larger_model` is asked where triage
    is unsure; empty: there is none. `degraded` is told the agent of each step that failed or went on with another
    model. All runs share the circuits.
    """

    registry: Registry
    loop: AgentLoop
    clock: Clock
    step_timeout_ms: int
    run_timeout_ms: int = DEFAULT_RUN_TIMEOUT_MS
    larger_model: str = ""
    cache: AnswerCache | None = None
    backoff: Backoff = field(default_factory=Backoff)
    degraded: Callable[[str], None] = _nobody
    _means: Means = field(init=False)

    def __post_init__(self) -> None:
        self._means = Means(
            registry=self.registry,
            loop=self.loop,
            clock=self.clock,
            circuits=Circuits(self.clock),
            backoff=self.backoff,
            step_timeout_ms=self.step_timeout_ms,
            run_timeout_ms=self.run_timeout_ms,
            degraded=self.degraded,
        )

    async def run(self, work: Work) -> FinalResponse:
        """Emit everything between `agent_started` and the answer; return the answer, which the worker commits.

        Goes on from the run's checkpoint: finished steps are not run again. Raises `ApexError` for the user;
        `FencedError`, `HandoverError` and cancellation pass through.
        """
        progress, spent = decode(work.checkpoint)
        work.emitter.add_usage(spent)
        pipeline = Pipeline(work, progress, Budget(work.command.settings.budget_usd, spent), self._means)
        planner = Planner(
            work,
            progress,
            pipeline,
            agents=self.registry.agents,
            cache=self.cache,
            clock=self.clock,
            larger_model=self.larger_model,
        )
        plan = progress.plan or await planner.plan()
        final = await _Answering(work, progress, pipeline, plan, self.registry).answer()
        if self.cache is not None:
            await self.cache.keep(work, plan, final)
        return final


class _Answering:
    """One run with a plan, on its way to an answer."""

    def __init__(self, work: Work, progress: RunProgress, pipeline: Pipeline, plan: Plan, registry: Registry) -> None:
        self._work = work
        self._progress = progress
        self._pipeline = pipeline
        self._plan = plan
        self._agents = registry.agents

    async def answer(self) -> FinalResponse:
        plan, state = self._plan, self._work.emitter.state
        if plan.answer is not None:
            return await self._answer_again(plan.answer)
        if plan.question:
            await self._say(PartialResult(self._work.message_id, plan.question))
        else:
            await self._follow()
        return FinalResponse(
            message_id=self._work.message_id,
            content=state.text,
            degraded=self._progress.degraded,
            missing_data=tuple(self._progress.missing.values()),
            suggestions=plan.suggestions,
            artifact_ids=tuple(state.artifact_ids),
        )

    async def _answer_again(self, earlier: EarlierAnswer) -> FinalResponse:
        """Give an earlier answer, with its files. What of its text is not streamed yet is when it is committed."""
        for artifact in earlier.artifacts:
            if artifact.artifact_id not in self._work.emitter.state.artifact_ids:
                await self._say(artifact)
        return FinalResponse(
            message_id=self._work.message_id,
            content=earlier.content,
            source=AnswerSource.CACHE,
            degraded=self._progress.degraded,
            missing_data=earlier.missing_data,
            suggestions=earlier.suggestions,
            artifact_ids=tuple(artifact.artifact_id for artifact in earlier.artifacts),
        )

    async def _follow(self) -> None:
        """Run the plan's steps that are not finished yet, stage by stage; the last one streams the answer.

        Where it fails, others write the answer from what there is. Raises the error of the last one of them.
        """
        *stages, (last,) = self._plan.stages
        writers = list(dict.fromkeys((last, writer(self._agents), SUPERVISOR)))
        total = len(self._plan.agents)
        before, number = TRIAGE if self._progress.triage else SUPERVISOR, 0
        for stage in stages:
            places = [StepPlace(name, number + offset, total) for offset, name in enumerate(stage, start=1)]
            await self._run_stage(before, places)
            before, number = stage[-1], number + len(stage)
        failure: Failure | None = None
        for name in writers:
            number += 1
            place = StepPlace(name, number, max(number, total))
            reason = failure.words if failure else self._plan.reason
            failure = self._failed_before(place) or await self._run_step(before, place, reason, writes_answer=True)
            if failure is None:
                return
            before = name
        if failure is not None:
            raise failure.error

    async def _run_stage(self, before: str, places: list[StepPlace]) -> None:
        """Run the steps of a stage that are not finished, at the same time.

        What concerns the run stops them all; where one waits for a person, the others come to their end first.
        """
        left = [place for place in places if place.number not in self._progress.findings]
        if len(left) == 1:
            await self._run_step(before, left[0], self._plan.reason, writes_answer=False)
        if len(left) <= 1:
            return
        tasks = {asyncio.create_task(self._run_beside(before, place)) for place in left}
        ended, at_work = set[asyncio.Task[None]](), tasks
        try:
            while at_work and not any(map(_stops_others, ended)):
                done, at_work = await asyncio.wait(at_work, return_when=asyncio.FIRST_EXCEPTION)
                ended |= done
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in sorted(ended, key=_stops_others, reverse=True):
            task.result()

    async def _run_beside(self, before: str, place: StepPlace) -> None:
        """Run a step beside others. That it is done is told at once, so that it stays done if a worker is lost."""
        if await self._run_step(before, place, self._plan.reason, writes_answer=False) is None:
            message = f"{self._agents[place.agent_name].title}: done."
            await self._say(AgentProgress(ProgressStage.STEP, message, place.number, place.total))

    async def _run_step(self, before: str, place: StepPlace, reason: str, *, writes_answer: bool) -> Failure | None:
        """Announce and run a step; return why it failed, if it did."""
        if place.number not in self._progress.told_steps:
            await self._announce(before, place, reason)
        notes = notes_of(self._agents, self._plan, self._progress)
        return await self._pipeline.run(place, notes=notes, writes_answer=writes_answer)

    def _failed_before(self, place: StepPlace) -> Failure | None:
        """Return why a step failed in an earlier attempt at this run."""
        found = self._progress.findings.get(place.number)
        if found is None or not isinstance(words := found.output.get("failed"), str):
            return None
        return Failure(ApexError(ErrorReason.MODEL_UNAVAILABLE, words), words)

    async def _announce(self, before: str, place: StepPlace, reason: str) -> None:
        """Tell who goes on, and with what."""
        if before != place.agent_name:
            await self._say(AgentHandoff(before, place.agent_name, reason))
        agent = self._agents[place.agent_name]
        self._progress.told_steps.add(place.number)
        self._pipeline.save()
        fraction = (place.number - 1) / place.total
        await self._say(AgentProgress(ProgressStage.STEP, agent.title, place.number, place.total, fraction=fraction))

    async def _say(self, body: Body) -> None:
        await self._work.emitter.emit(SUPERVISOR, body)


def _stops_others(task: asyncio.Task[None]) -> bool:
    """Return whether the end of a step is the end of those beside it."""
    if task.cancelled():
        return True
    error = task.exception()
    return error is not None and not isinstance(error, WaitingError)
