"""The simulated loop: virtual time, chance, machines that stop and die."""

import asyncio
from random import Random

import pytest

from tests.simulation.loop import DeadlockError, LivelockError, Machine, SimulatedLoop, here


def a_loop(seed: int = 0, disorder: float = 0.0) -> SimulatedLoop:
    return SimulatedLoop(Random(seed), disorder)


def test_time_passes_only_when_nothing_can_run() -> None:
    loop, seen = a_loop(), list[tuple[str, float]]()

    async def wait(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, loop.time()))

    async def live() -> None:
        await asyncio.gather(wait("year", 31_536_000), wait("hour", 3_600), wait("none", 0))

    loop.run_until_complete(live())
    loop.close()
    assert seen == [("none", 0.0), ("hour", 3_600.0), ("year", 31_536_000.0)]


def order(seed: int, disorder: float) -> list[int]:
    loop, seen = a_loop(seed, disorder), list[int]()

    async def live() -> None:
        for number in range(8):
            loop.call_soon(seen.append, number)
        await asyncio.sleep(1)

    loop.run_until_complete(live())
    loop.close()
    return seen


def test_who_goes_next_is_in_order_or_left_to_a_seeded_chance() -> None:
    assert order(0, 0.0) == list(range(8))
    assert order(1, 1.0) == order(1, 1.0)
    assert order(1, 1.0) != order(2, 1.0)
    assert sorted(order(1, 1.0)) == list(range(8))


def test_a_dead_machine_runs_nothing_more_not_even_to_clean_up() -> None:
    loop, machine, seen = a_loop(), Machine("m"), list[object]()

    async def work() -> None:
        seen.append(here())
        try:
            await asyncio.sleep(2)
        finally:
            seen.append("cleaned up")

    async def live() -> None:
        task = loop.create_task(work(), context=machine.context.copy())
        await asyncio.sleep(1)
        loop.kill(machine)
        await asyncio.sleep(9)
        assert seen == [machine]
        await loop.bury(machine)
        assert task.done()

    loop.run_until_complete(live())
    loop.close()


def test_a_held_machine_goes_on_later() -> None:
    loop, machine, seen = a_loop(), Machine("m"), list[float]()

    async def work() -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            seen.append(loop.time())

    async def live() -> None:
        task = loop.create_task(work(), context=machine.context.copy())
        await asyncio.sleep(1.5)
        loop.hold(machine)
        await asyncio.sleep(6)
        loop.go_on(machine)
        await task

    loop.run_until_complete(live())
    loop.close()
    assert seen == [1.0, 7.5, 8.5]


def test_a_loop_that_cannot_go_on_says_so() -> None:
    loop = a_loop()
    waiting = loop.create_future()

    async def live() -> None:
        await waiting

    with pytest.raises(DeadlockError):
        loop.run_until_complete(live())
    loop.close()


def test_a_loop_in_which_no_time_passes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.simulation.loop.MAX_STEPS_AT_ONCE", 100)
    loop = a_loop()

    async def live() -> None:
        for _ in range(1_000):
            await asyncio.sleep(0)

    with pytest.raises(LivelockError):
        loop.run_until_complete(live())
    loop.close()
