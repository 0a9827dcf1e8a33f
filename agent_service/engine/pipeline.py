"""The steps of one run, one after the other: findings handed on, time bounded, finished steps not run again."""

import asyncio
from dataclasses import replace
from typing import Final

from pydantic import BaseModel

from agent_service.engine.agent import Agent
from agent_service.engine.budget import Budget
from agent_service.engine.checkpoint import RunProgress
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.events import JsonObject
from agent_service.engine.intents import TRIAGE
from agent_service.engine.ports import AgentLoop, Clock, Finding, Step
from agent_service.engine.registry import Registry
from agent_service.engine.run import SUPERVISOR
from agent_service.engine.step import RunStepSink, StepPlace
from agent_service.engine.work import Work

NARROWER: Final = ("Ask a narrower question, for example one time range or one model.", "Try again.")


class Pipeline:
    """Runs the steps of one run. `step_timeout_ms` bounds each step, tools included."""

    def __init__(
        self,
        work: Work,
        progress: RunProgress,
        budget: Budget,
        *,
        registry: Registry,
        loop: AgentLoop,
        clock: Clock,
        step_timeout_ms: int,
    ) -> None:
        self._work = work
        self._progress = progress
        self._budget = budget
        self._registry = registry
        self._loop = loop
        self._clock = clock
        self._step_timeout_ms = step_timeout_ms

    async def run(self, place: StepPlace, *, notes: JsonObject, writes_answer: bool) -> None:
        """Run one step and add what it found to the progress. `notes` are the supervisor's, for this step.

        A saved loop state is the state of exactly this step. Raises `ApexError`: DEADLINE_EXCEEDED after the step's
        time, and whatever the loop and the tools' limits raise.
        """
        agent = self._registry.agents[place.agent_name]
        step = self._step(agent, notes, writes_answer=writes_answer)
        sink = RunStepSink(self._work, place, frozenset(tool.name for tool in step.tools), self._progress, self._budget)
        deadline = asyncio.timeout(self._step_timeout_ms / 1000)
        try:
            async with deadline:
                result = await self._loop.run(step, sink)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise ApexError(
                ErrorReason.DEADLINE_EXCEEDED,
                f"{agent.title} did not finish within {self._step_timeout_ms / 1000:g} seconds.",
                recovery_suggestions=NARROWER,
            ) from error
        self._progress.finish_step(Finding(agent.name, _as_json(result.output)))
        self.save()

    def save(self) -> None:
        """Save the progress with the next event."""
        self._work.emitter.save_checkpoint(self._progress.encode(self._budget.spent))

    def _step(self, agent: Agent, notes: JsonObject, *, writes_answer: bool) -> Step:
        command = self._work.command
        triage = () if self._progress.triage is None else (Finding(TRIAGE, self._progress.triage),)
        records = self._work.dispatcher.records()
        found = [
            replace(finding, evidence=tuple(record for record in records if record.agent_name == finding.agent_name))
            for finding in self._progress.findings
        ]
        return Step(
            agent=agent,
            tools=self._registry.tools_of(agent),
            prompt=command.content,
            history=self._work.history,
            findings=(*triage, *found, Finding(SUPERVISOR, notes)),
            references=command.references,
            context=command.context,
            settings=command.settings,
            now=self._clock.now(),
            writes_answer=writes_answer,
            resume=self._progress.loop_state,
        )


def _as_json(output: BaseModel | str) -> JsonObject:
    """Return a step's output as the next steps get it."""
    return {"text": output} if isinstance(output, str) else output.model_dump(mode="json")
