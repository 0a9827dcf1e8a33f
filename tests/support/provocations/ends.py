"""Errors as the end of a run: `agent_error`, the same over gRPC, on the socket and in REST."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, FunctionModel

from agent_service.agents.triage import TRIAGE
from agent_service.engine.clock import SystemClock
from agent_service.engine.events import FinalResponse, Usage
from agent_service.engine.intents import Intent, Triage
from agent_service.engine.ports import AgentLoop, Step, StepResult, StepSink
from agent_service.engine.registry import Registry
from agent_service.engine.retry import Backoff
from agent_service.engine.supervisor import Supervisor
from agent_service.engine.work import Work
from agent_service.llm.loop import ModelLoop
from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.canned_tools import CannedTools
from tests.support.claims import stop_claiming
from tests.support.conversations import AGENTS
from tests.support.cuttable_storage import INTERNALS
from tests.support.face import signed_in
from tests.support.gates import Gate
from tests.support.loops import OneModelOnly, no_wait
from tests.support.provocations.registry import Provocations, Told, Transport
from tests.support.whole_system import Setup, WholeSystem, bearer
from tests.support.workshop import Script, Workshop, held, think

ASKED: Final = "costs"
"""The message of these runs."""

ENDS: Final = Provocations(Transport.RUN)


async def told_by_its_end(
    system: WholeSystem, script: Script, *, agent: str = "", settings: pb.RunSettings | None = None
) -> Told:
    """Run a message by this script and return what its end says, which must be the same on every way."""
    system.shop.supervisor.scripts[ASKED] = script
    started = await system.start(ASKED, agent=agent, settings=settings or pb.RunSettings())
    return await told_at_the_end_of(system, started.run_id)


async def told_at_the_end_of(system: WholeSystem, run_id: str) -> Told:
    """Watch a run to its end over gRPC, on a socket and by REST."""
    stream = system.agents.WatchRun(pb.WatchRunRequest(run_id=run_id), metadata=signed_in())
    events = [event async for event in stream]
    error = events[-1].agent_error
    reason = pb.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
    async with system.socket() as client:
        await client.send("resume", run_id=run_id)
        frames = await client.receive_until("agent_error", "agent_completed")
    payload = frames[-1]["payload"]
    assert [frame["seq"] for frame in frames] == [event.seq for event in events]
    shown = (payload["reason"], payload["message"], payload["retryable"], payload["error_id"])
    assert shown == (reason, error.message, error.retryable, error.error_id)
    assert payload["recovery_suggestions"] == list(error.recovery_suggestions)
    listed = (await system.http.get(f"/api/v1/runs/{run_id}/events", headers=bearer())).json()
    assert listed["events"] == frames
    run = (await system.http.get(f"/api/v1/runs/{run_id}", headers=bearer())).json()
    assert (run["status"], run["error_reason"]) == ("failed", reason)
    return Told(
        reason=reason,
        message=error.message,
        everything=f"{events} {frames}",
        retryable=error.retryable,
        error_id=error.error_id,
    )


def shipped(loop: AgentLoop, without: Sequence[str] = ()) -> Script:
    """Return the shipped supervisor with this loop in its steps, without some of the shipped agents."""
    agents = [agent for agent in AGENTS if agent.name not in without]
    registry = Registry(agents, CannedTools().make())
    supervisor = Supervisor(
        registry=registry, loop=loop, clock=SystemClock(), step_timeout_ms=10_000, backoff=Backoff(sleep=no_wait)
    )
    return supervisor.run


class CostlyLoop(OneModelOnly):
    """Implements `AgentLoop`: each step asks twice, and pays a cent each time."""

    async def run(self, step: Step, sink: StepSink) -> StepResult:
        for _ in range(2):
            await sink.before_model_request()
            sink.used(Usage(model_requests=1, cost_usd=0.01))
        if step.agent is TRIAGE:
            return StepResult(Triage(category=Intent.COST_ANALYSIS, confidence=0.9, summary="Costs."))
        await sink.text("Paid.")
        return StepResult("Paid.")


class BrokenModels:
    """Implements `ModelSource`: its one model answers with an error of the provider."""

    names = ("broken",)

    def fallbacks(self, name: str = "") -> tuple[str, ...]:
        return ()

    def get(self, name: str = "") -> Model:
        async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
            if messages:
                raise ModelHTTPError(503, "gpt-9", {"message": f"no answer to {INTERNALS} {info}"})
            yield ""

        return FunctionModel(stream_function=stream)


@ENDS.of("INVALID_ARGUMENT")
async def agent_that_the_worker_does_not_have(system: WholeSystem) -> Told:
    # It was there when the message was accepted: another version of the service did that.
    return await told_by_its_end(system, shipped(CostlyLoop(), without=["data"]), agent="data")


@ENDS.of("DEADLINE_EXCEEDED", Setup(run_timeout_ms=100))
async def run_that_takes_too_long(system: WholeSystem) -> Told:
    return await told_by_its_end(system, held(Gate(is_open=False)))


@ENDS.of("BUDGET_EXCEEDED")
async def run_that_costs_too_much(system: WholeSystem) -> Told:
    return await told_by_its_end(system, shipped(CostlyLoop()), settings=pb.RunSettings(budget_usd=0.01))


@ENDS.of("MODEL_UNAVAILABLE")
async def model_that_does_not_answer(system: WholeSystem) -> Told:
    return await told_by_its_end(system, shipped(ModelLoop(BrokenModels())))


@ENDS.of("WORKER_LOST")
async def run_that_three_workers_died_of(system: WholeSystem) -> Told:
    await stop_claiming(system.shop)
    run_id = (await system.start(ASKED)).run_id
    for number in range(3):
        gate = Gate(is_open=False)
        doomed = Workshop(system.shop.inner, worker_id=f"doomed-{number}")
        doomed.supervisor.scripts[ASKED] = held(gate)
        async with doomed:
            await gate.reached()
            await doomed.crash()
    await system.shop.inner.runs.release_all()
    system.shop.storage.gates["claim"].open()
    return await told_at_the_end_of(system, run_id)


@ENDS.of("INTERNAL")
async def run_that_meets_a_defect(system: WholeSystem) -> Told:
    async def script(work: Work) -> FinalResponse:
        await think(work)
        raise LookupError(f"no such thing in {INTERNALS}")

    return await told_by_its_end(system, script)
