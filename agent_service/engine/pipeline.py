"""The steps of one run: findings handed on, time bounded, failures met, finished steps not run again."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import structlog
from pydantic import BaseModel

from agent_service.engine.agent import Agent
from agent_service.engine.budget import Budget
from agent_service.engine.checkpoint import LoopState, RunProgress
from agent_service.engine.circuits import Circuits
from agent_service.engine.errors import ApexError, ErrorReason, Remedy
from agent_service.engine.events import AgentProgress, JsonObject, ProgressStage
from agent_service.engine.intents import TRIAGE
from agent_service.engine.ports import AgentLoop, Clock, Finding, Step
from agent_service.engine.registry import Registry
from agent_service.engine.retry import RETRIES, Backoff, Failure, concerns_the_run, failure_of
from agent_service.engine.run import SUPERVISOR
from agent_service.engine.stages import VOICES
from agent_service.engine.step import RunStepSink, StepPlace
from agent_service.engine.work import Work

NARROWER: Final = ("Ask a narrower question, for example one time range or one model.", "Try again.")

RESERVED_PART: Final = 5
"""One part of so many of a run's time is kept for whoever writes the answer from what the others found."""


@dataclass(frozen=True, slots=True)
class Means:
    """What every run's steps work with. `step_timeout_ms` bounds a step with one model, tools and retries included.

    `run_timeout_ms` bounds a run, unless it asks for less. `degraded` is told the agent of each step that did not go as
    it should.
    """

    registry: Registry
    loop: AgentLoop
    clock: Clock
    circuits: Circuits
    backoff: Backoff
    step_timeout_ms: int
    run_timeout_ms: int
    degraded: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Turn:
    """A step as the supervisor wants it done. `notes` are the supervisor's, for this step."""

    place: StepPlace
    agent: Agent
    notes: JsonObject
    writes_answer: bool


class Pipeline:
    """Runs the steps of one run. Steps that do not depend on each other may run at the same time."""

    def __init__(self, work: Work, progress: RunProgress, budget: Budget, means: Means) -> None:
        self._work = work
        self._progress = progress
        self._budget = budget
        self._means = means
        self._logger = structlog.get_logger("apex.pipeline").bind(run_id=work.run.run_id)

    async def run(self, place: StepPlace, *, notes: JsonObject, writes_answer: bool, model: str = "") -> Failure | None:
        """Run one step, add what it found to the progress, and return None; or return why it failed.

        `notes` are the supervisor's, for this step. A model that does not answer is asked again, then the next one is;
        `model` names one that is asked alone. A step that fails is found as `{"failed": why}`. What concerns the whole
        run is raised: `ApexError` (the budget is used up, the request is invalid), `FencedError`, `HandoverError`.
        """
        turn = _Turn(place, self._means.registry.agents[place.agent_name], notes, writes_answer)
        left = self._left(place, (model,) if model else self._models())
        saved = self._progress.loops.get(place.number)
        if saved is not None and saved.state is None:
            # It was about to begin afresh with another model when its worker was lost.
            await self._work.dispatcher.restart(place.agent_name, afresh=True)
        while True:
            failure = await self._guarded(turn, left[0], last=len(left) == 1)
            if failure is None:
                return None
            left = left[1:]
            if not left or failure.remedy is Remedy.NONE or self._limit_ms(turn, last=len(left) == 1) <= 0:
                await self._give_up(turn, failure)
                return failure
            await self._fall_back(turn, left[0], failure)

    def save(self) -> None:
        """Save the progress with the next event."""
        self._work.emitter.save_checkpoint(self._progress.encode(self._budget.spent))

    def _models(self) -> tuple[str, ...]:
        """Return the models of this run, in the order in which they are asked."""
        own = self._work.command.settings.model
        return (own, *self._means.loop.fallbacks(own))

    def _left(self, place: StepPlace, chain: tuple[str, ...]) -> tuple[str, ...]:
        """Return the models that an earlier attempt at the run has not given up for this step."""
        saved = self._progress.loops.get(place.number)
        return chain[chain.index(saved.model) :] if saved is not None and saved.model in chain else chain

    async def _guarded(self, turn: _Turn, model: str, *, last: bool) -> Failure | None:
        """Run the step with one model, unless that one has failed too often: the last one is always asked."""
        if last:
            return await self._timed(turn, model, last=last)
        circuits, circuit = self._means.circuits, f"{turn.agent.name} {model}"
        if not circuits.allows(circuit):
            words = "Its language model failed several times within a minute and is left alone for a while."
            return Failure(ApexError(ErrorReason.MODEL_UNAVAILABLE, words), words, Remedy.OTHER_MODEL)
        try:
            failure = await self._timed(turn, model, last=last)
            if failure is None:
                circuits.succeeded(circuit)
            elif failure.of_model:
                circuits.failed(circuit)
            return failure
        finally:
            circuits.left(circuit)

    async def _timed(self, turn: _Turn, model: str, *, last: bool) -> Failure | None:
        """Run the step with one model, within its time."""
        limit_ms = self._limit_ms(turn, last=last)
        if limit_ms <= 0:
            return _late(turn.agent, "There was no time left for it.")
        deadline = asyncio.timeout(limit_ms / 1000)
        try:
            async with deadline:
                return await self._tried(turn, model)
        except TimeoutError:
            if not deadline.expired():
                raise
            in_a_tool = any(call.agent_name == turn.agent.name for call in self._work.emitter.state.open_tools)
            words = f"It did not finish within {limit_ms / 1000:g} seconds."
            return _late(turn.agent, words, of_model=not in_a_tool)

    async def _tried(self, turn: _Turn, model: str) -> Failure | None:
        """Run the step with one model, and again where that may help."""
        retry = 0
        while True:
            step = self._step(turn, model)
            permitted = frozenset(tool.name for tool in step.tools)
            sink = RunStepSink(self._work, turn.place, permitted, self._progress, self._budget, model=model)
            try:
                result = await self._means.loop.run(step, sink)
            except Exception as error:
                if concerns_the_run(error):
                    raise
                failure = self._told_in_log(error, turn.agent)
            else:
                if not turn.writes_answer or self._work.emitter.state.text.strip():
                    self._progress.finish_step(turn.place.number, Finding(turn.agent.name, _as_json(result.output)))
                    self.save()
                    return None
                silent = "The language model gave no answer. Try again."
                failure = failure_of(ApexError(ErrorReason.MODEL_UNAVAILABLE, silent))
            retry += 1
            if retry > RETRIES or failure.remedy is not Remedy.AGAIN:
                return failure
            await self._means.backoff.wait(retry)
            await self._work.dispatcher.restart(turn.agent.name, afresh=False)
            await self._tell(turn, ProgressStage.STEP, f"{failure.words} It is tried again.")

    def _told_in_log(self, error: Exception, agent: Agent) -> Failure:
        """Return the failure that an error is. What was not foreseen stands in the log."""
        if not isinstance(error, ApexError):
            self._logger.error("step_failed", agent=agent.name, exc_info=error)
        return failure_of(error)

    def _limit_ms(self, turn: _Turn, *, last: bool) -> int:
        """Return the time of a step with one model: nobody takes what is kept for those who write the answer.

        Those in turn take half at most while there is another model to be asked.
        """
        asked_ms = self._work.command.settings.timeout_ms or self._means.run_timeout_ms
        run_ms = min(asked_ms, self._means.run_timeout_ms)
        left_ms = run_ms - self._work.emitter.execution_time_ms(self._means.clock.now())
        if turn.agent.name not in VOICES:
            left_ms -= run_ms // RESERVED_PART
        elif not last:
            left_ms //= 2
        return min(self._means.step_timeout_ms, left_ms)

    async def _fall_back(self, turn: _Turn, model: str, failure: Failure) -> None:
        """Begin the step again with another model, and say so. Calls that it repeats get the outcome that they had."""
        await self._work.dispatcher.restart(turn.agent.name, afresh=True)
        self._progress.loops[turn.place.number] = LoopState(model)
        await self._degrade(turn, f"{failure.words} The model {model!r} goes on.")

    async def _give_up(self, turn: _Turn, failure: Failure) -> None:
        """Note that a step failed, and say so; its calls have an end."""
        await self._work.dispatcher.close(turn.agent.name)
        self._progress.fail_step(turn.place.number, turn.agent.name, failure.words)
        await self._degrade(turn, f"{failure.words} The rest goes on without it.")

    async def _degrade(self, turn: _Turn, message: str) -> None:
        self._progress.degraded = True
        self._means.degraded(turn.agent.name)
        self.save()
        await self._tell(turn, ProgressStage.DEGRADED, message)

    async def _tell(self, turn: _Turn, stage: ProgressStage, message: str) -> None:
        """Tell how a step goes on. What it had streamed so far is taken back."""
        discards = bool(self._work.emitter.state.text)
        message = f"{turn.agent.title}: {message}"
        body = AgentProgress(stage, message, turn.place.number, turn.place.total, discard_partial=discards)
        await self._work.emitter.emit(SUPERVISOR, body)

    def _step(self, turn: _Turn, model: str) -> Step:
        command, progress = self._work.command, self._progress
        triage = () if progress.triage is None else (Finding(TRIAGE, progress.triage),)
        records = self._work.dispatcher.records()
        found = [
            replace(finding, evidence=tuple(record for record in records if record.agent_name == finding.agent_name))
            for _, finding in sorted(progress.findings.items())
        ]
        saved = progress.loops.get(turn.place.number)
        return Step(
            agent=turn.agent,
            tools=self._means.registry.tools_of(turn.agent),
            prompt=command.content,
            history=self._work.history,
            findings=(*triage, *found, Finding(SUPERVISOR, turn.notes)),
            references=command.references,
            context=command.context,
            settings=replace(command.settings, model=model),
            now=self._means.clock.now(),
            writes_answer=turn.writes_answer,
            resume=None if saved is None or saved.model != model else saved.state,
        )


def _as_json(output: BaseModel | str) -> JsonObject:
    """Return a step's output as the next steps get it."""
    return {"text": output} if isinstance(output, str) else output.model_dump(mode="json")


def _late(agent: Agent, words: str, *, of_model: bool = False) -> Failure:
    error = ApexError(ErrorReason.DEADLINE_EXCEEDED, f"{agent.title}: {words}", recovery_suggestions=NARROWER)
    return Failure(error, words, of_model=of_model)
