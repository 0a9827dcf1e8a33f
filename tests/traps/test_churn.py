"""Sockets that come and go in every way, and streams that are cancelled at any moment, leave nothing behind.

A first churn fills caches and pools; a second one like it must add nothing to what both processes hold. `make soak`
does it with ten and twenty times as many.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc.aio
import pytest

from agent_service.engine.clock import SystemIds
from generated.apex.agent.v1 import agent_pb2 as pb
from generated.apex.agent.v1.agent_pb2_grpc import AgentServiceStub, SessionServiceStub
from tests.support.manual_socket import CLOSE, ManualSocket, manual_socket
from tests.support.watched_deployment import Holding, WatchedDeployment
from ws_bridge.channels import attach_channel, call_channel

LONG: Final = "APEX_SOAK" in os.environ
CONNECTIONS: Final = 1_000 if LONG else 100
STREAMS: Final = 10_000 if LONG else 500
"""Of each of two equal churns."""

AT_ONCE: Final = 8
"""Below the bridge's bound for sockets of one address that have not signed in."""

EVENTS: Final = 12
"""That each run has said before."""

SETTLE_S: Final = 20.0
"""The longest pause after which a part lets go of what it closed is 5 s."""

MAX_OBJECTS: Final = 2_000
"""About twice what comes and goes in the service's caches of statements; one per stream of the long form is more."""

MAX_OF_A_CLASS: Final = 8
"""What was there last may still be held, a run's last append for one; fewer than come and go in each way."""

MAX_GROWTH_KIB: Final = 8_192
"""Pages that the allocator takes now and then; 1 KiB kept per stream of the long form is more."""


@dataclass(frozen=True)
class Place:
    """A deployment, and one open run of each worker's user."""

    apex: WatchedDeployment
    port: int
    run_ids: Sequence[str]

    def token(self, worker: int) -> str:
        return self.apex.token(f"user-{worker}")

    def metadata(self, worker: int) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token(worker)}"),)

    @asynccontextmanager
    async def socket(self, worker: int) -> AsyncIterator[ManualSocket]:
        """Open a socket that is signed in."""
        async with manual_socket(self.port, self.token(worker)) as client:
            await client.next_text("connection_established")
            yield client


async def closes(place: Place, worker: int) -> None:
    async with place.socket(worker) as client:
        await client.send(CLOSE, (1000).to_bytes(2))
        await client.ended()


async def vanishes(place: Place, worker: int) -> None:
    async with place.socket(worker):
        pass


async def breaks(place: Place, worker: int) -> None:
    async with place.socket(worker) as client:
        client.reset()


async def breaks_in_a_run(place: Place, worker: int) -> None:
    async with place.socket(worker) as client:
        await client.say("resume", run_id=place.run_ids[worker])
        await client.next_text("agent_started")
        client.reset()


async def breaks_before_the_sign_in(place: Place, _worker: int) -> None:
    async with manual_socket(place.port, "") as client:
        client.reset()


async def is_refused(place: Place, _worker: int) -> None:
    async with manual_socket(place.port, "no token") as client:
        await client.next_text("error")
        await client.ended()


async def starts_and_stops_a_run(place: Place, worker: int) -> None:
    async with place.socket(worker) as client:
        await client.say("user_message", content="Hello")
        started = await client.next_text("agent_started")
        await client.say("stop_agent", run_id=started["run_id"])
        await client.next_text("agent_completed")
        client.reset()


WAYS: Final[Sequence[Callable[[Place, int], Awaitable[None]]]] = (
    closes,
    vanishes,
    breaks,
    breaks_in_a_run,
    breaks_before_the_sign_in,
    is_refused,
    starts_and_stops_a_run,
)


async def connections(place: Place) -> None:
    async def work(worker: int) -> None:
        for number in range(worker, CONNECTIONS, AT_ONCE):
            await WAYS[number % len(WAYS)](place, worker)

    await asyncio.gather(*map(work, range(AT_ONCE)))


async def cancelled_streams(place: Place) -> None:
    async with call_channel(place.apex.grpc_target) as channel:
        agents = AgentServiceStub(channel)
        moments = random.Random(0)

        async def work(worker: int) -> None:
            request = pb.WatchRunRequest(run_id=place.run_ids[worker])
            for _ in range(worker, STREAMS, AT_ONCE):
                call = agents.WatchRun(request, metadata=place.metadata(worker))
                for _ in range(moments.randrange(EVENTS)):
                    await call.read()
                call.cancel()

        await asyncio.gather(*map(work, range(AT_ONCE)))


async def given_up_watches(place: Place) -> None:
    session_id, moments = SystemIds().new(), random.Random(0)
    async with attach_channel(place.apex.grpc_target) as channel:
        call = SessionServiceStub(channel).Attach()
        await call.write(pb.AttachRequest(open_session=pb.OpenSession(session_id=session_id, token=place.token(0))))

        async def read() -> None:
            while isinstance(await call.read(), pb.AttachResponse):
                pass

        reading = asyncio.create_task(read())
        for number in range(STREAMS):
            watch = pb.WatchRunItem(session_id=session_id, watch_id=str(number), run_id=place.run_ids[0])
            await call.write(pb.AttachRequest(watch_run=watch))
            if moments.random() < 1 / 2:
                await asyncio.sleep(0)
            await call.write(pb.AttachRequest(unwatch=pb.Unwatch(session_id=session_id, watch_id=str(number))))
        await call.done_writing()
        await reading


async def churn(place: Place) -> None:
    """Let everything come and go, and wait until both processes say that it has gone."""
    await connections(place)
    await cancelled_streams(place)
    await given_up_watches(place)
    await settled(place.apex)


async def settled(apex: WatchedDeployment) -> None:
    """Wait until both processes say that nothing is open but the bridge's one call."""
    service, bridge = (apex.processes[name].metrics for name in ("tests.support.scripted_service_main", "ws_bridge"))
    await bridge.becomes("apex_bridge_sockets", 0, timeout_s=SETTLE_S)
    await service.becomes("apex_sessions", 0, timeout_s=SETTLE_S)
    await service.becomes("apex_watches", 0, timeout_s=SETTLE_S)
    await service.becomes("apex_grpc_open_calls", 1, timeout_s=SETTLE_S)


def grown(before: Holding, after: Holding) -> dict[str, int]:
    """Return what there is more of than before, beyond what may be."""
    ours = {
        kind: count - before.census.ours.get(kind, 0)
        for kind, count in after.census.ours.items()
        if count > before.census.ours.get(kind, 0) + MAX_OF_A_CLASS
    }
    limits = {
        "tasks": (after.census.tasks - before.census.tasks, 0),
        "descriptors": (after.descriptors - before.descriptors, 0),
        "objects": (after.census.objects - before.census.objects, MAX_OBJECTS),
        "memory_kib": (after.memory_kib - before.memory_kib, MAX_GROWTH_KIB),
    }
    return {**ours, **{name: growth for name, (growth, limit) in limits.items() if growth > limit}}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    with WatchedDeployment(tmp_path) as apex:
        apex.wait_until_attached()
        port = int(apex.url.rpartition(":")[2])
        async with call_channel(apex.grpc_target) as channel:
            run_ids = [await open_run(apex, channel, worker) for worker in range(AT_ONCE)]
        yield Place(apex, port, run_ids)


async def open_run(apex: WatchedDeployment, channel: grpc.aio.Channel, worker: int) -> str:
    """Start a run that has said a few events and then goes on no further."""
    agents, user = AgentServiceStub(channel), f"user-{worker}"
    run = pb.RunAgentRequest(content=user)
    metadata = (("authorization", f"Bearer {apex.token(user)}"),)
    started = await agents.StartRun(pb.StartRunRequest(run=run), metadata=metadata)
    apex.say(user, EVENTS)
    call = agents.WatchRun(pb.WatchRunRequest(run_id=started.run_id), metadata=metadata)
    for _ in range(EVENTS):
        await call.read()
    call.cancel()
    return started.run_id


async def growth(apex: WatchedDeployment, before: dict[str, Holding]) -> dict[str, dict[str, int]]:
    """Return what each process holds more than before; what it lets go of a moment later does not count."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        found = {name: grown(before[name], process.holding()) for name, process in apex.processes.items()}
        if not any(found.values()) or time.monotonic() > deadline:
            return found
        await asyncio.sleep(1)


@pytest.mark.slow
@pytest.mark.timeout(1_200 if LONG else 240)
async def test_what_comes_and_goes_leaves_nothing_behind(place: Place) -> None:
    await churn(place)
    before = {name: process.holding() for name, process in place.apex.processes.items()}
    await churn(place)

    for name, process in place.apex.processes.items():
        after, first = process.holding(), before[name]
        print(  # noqa: T201 - what a soak has found
            f"{name}: tasks {first.census.tasks} -> {after.census.tasks}, "
            f"objects {first.census.objects} -> {after.census.objects}, "
            f"descriptors {first.descriptors} -> {after.descriptors}, KiB {first.memory_kib} -> {after.memory_kib}"
        )
    assert await growth(place.apex, before) == {name: {} for name in place.apex.processes}
