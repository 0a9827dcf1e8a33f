"""What goes wrong, whoever hears of it."""

import asyncio
from typing import Final

from agent_service.api.jwks import JwksKeys
from agent_service.api.options import ApiOptions, Deadlines
from agent_service.engine.clock import SystemClock
from agent_service.engine.events import FinalResponse
from agent_service.engine.runs import MAX_OPEN_RUNS
from agent_service.engine.work import Work
from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.gates import Gate
from tests.support.whole_system import Setup, WholeSystem
from tests.support.workshop import answer, held, think
from ws_bridge.app import Bounds

UNKNOWN: Final = "0197f000-0000-7000-8000-0000000000ff"
"""An id that nothing has."""

MAX_CONTENT_BYTES: Final = 65_536
"""Of a message, by the contract."""

BIG: Final = "big"
"""The message whose run says megabytes, once its gate lets it."""

THOUGHTS: Final = 200
"""Of that run, each as large as a thought may be: more than a watcher's queue and the windows on the way hold."""

THOUGHT: Final = "y" * 16_000

BOUNDS: Final = Bounds(open_ms=2_000, retry_ms=2_000)
"""How long a bridge tries what may still come right, in milliseconds: longer than anything here takes."""

NOT_FOR_LONG: Final = Setup(bounds=BOUNDS)
"""A bridge that gives up soon."""

IMPATIENT: Final = Setup(options=ApiOptions("127.0.0.1:0", deadlines=Deadlines(unary_ms=200)), bounds=BOUNDS)
"""A service whose calls have little time, and such a bridge."""

WITHOUT_ISSUER: Final = Setup(
    # Nobody listens on the port of `discard`.
    keys=JwksKeys("http://127.0.0.1:9/jwks.json", algorithms=("RS256",), clock=SystemClock()),
    bounds=BOUNDS,
)
"""A service that cannot reach those who make its tokens."""


async def busy(system: WholeSystem, content: str = "busy") -> pb.StartRunResponse:
    """Start a run that works until the system is closed."""
    gate = Gate(is_open=False)
    system.shop.supervisor.scripts[content] = held(gate)
    started = await system.start(content)
    await gate.reached()
    return started


async def stubborn(system: WholeSystem) -> tuple[pb.StartRunResponse, Gate]:
    """Start a run that does not listen to its cancellation until the gate is opened."""
    gate = Gate(is_open=False)

    async def script(work: Work) -> FinalResponse:
        await think(work)
        await _passed(gate)
        return await answer(work)

    system.shop.supervisor.scripts["stubborn"] = script
    started = await system.start("stubborn")
    await gate.reached()
    return started, gate


async def _passed(gate: Gate) -> None:
    while not gate.is_open:
        try:
            await gate.passage()
        except asyncio.CancelledError:
            continue


async def all_places_taken(system: WholeSystem) -> None:
    """Start as many runs as a user may have; none of them ends."""
    await busy(system)
    for _ in range(MAX_OPEN_RUNS - 1):
        await system.start("busy")


async def big_run(system: WholeSystem) -> tuple[pb.StartRunResponse, Gate]:
    """Start a run that says megabytes once its gate is open."""
    gate = Gate(is_open=False)

    async def script(work: Work) -> FinalResponse:
        await think(work)
        await gate.passage()
        for _ in range(THOUGHTS):
            await think(work, THOUGHT)
        return await answer(work)

    system.shop.supervisor.scripts[BIG] = script
    started = await system.start(BIG)
    await gate.reached()
    return started, gate


async def run_by_steps(system: WholeSystem) -> tuple[pb.StartRunResponse, asyncio.Semaphore]:
    """Start a run that has thought once, and thinks again, as much as a thought may hold, for each step it is given."""
    begun, steps = asyncio.Event(), asyncio.Semaphore(0)

    async def script(work: Work) -> FinalResponse:
        await think(work)
        begun.set()
        while True:
            await steps.acquire()
            await think(work, THOUGHT)

    system.shop.supervisor.scripts["steps"] = script
    started = await system.start("steps")
    await begun.wait()
    return started, steps
