"""An event loop without IO and without real time: chance decides who goes next, and nothing else does.

Time stands still while anything can run, and jumps to the next timer when nothing can. Every callback belongs to the
machine in whose context it was made; a machine can be held up, and it can die without a word: what belongs to a dead
machine is never called again, not even its `finally` blocks.
"""

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine, Generator
from random import Random
from typing import Any, Final, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_STEPS_AT_ONCE: Final = 200_000
"""Callbacks without any time passing: more is a loop that waits for nothing."""


class LivelockError(AssertionError):
    """Time does not go on, because something always runs."""


class DeadlockError(AssertionError):
    """Nothing is left that could ever run, and the simulation has not ended."""


class Machine:
    """What dies as a whole: one simulated process. `None` stands for the world outside, which never does."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.is_held = False
        self.context = contextvars.copy_context()
        self.context.run(_MACHINE.set, self)
        #: In the order in which they were made.
        self.tasks: list[asyncio.Task[Any]] = []

    def __repr__(self) -> str:
        return self.name


_MACHINE: contextvars.ContextVar[Machine | None] = contextvars.ContextVar("machine", default=None)


def here() -> Machine | None:
    """Return the machine on which the caller runs."""
    return _MACHINE.get()


class SimulatedLoop(asyncio.BaseEventLoop):
    """With `disorder` (0 to 1) as probability any ready callback goes next, else the one that waits longest."""

    def __init__(self, chance: Random, disorder: float) -> None:
        super().__init__()
        self.set_debug(False)
        self.steps = 0
        #: Called before each step; may raise to end the simulation.
        self.before_step: Callable[[], None] = lambda: None
        self._chance = chance
        self._disorder = disorder
        self._now = 0.0
        self._steps_at_once = 0
        self._timers_made = 0
        self._in_turn: list[tuple[Machine | None, asyncio.Handle]] = []
        self._held: list[tuple[Machine | None, asyncio.Handle]] = []
        self._later: list[tuple[float, int, Machine | None, asyncio.TimerHandle]] = []

    def time(self) -> float:
        return self._now

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        machine = _MACHINE.get() if context is None else context.get(_MACHINE)
        handle = asyncio.Handle(callback, args, self, context)
        self._in_turn.append((machine, handle))
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        machine = _MACHINE.get() if context is None else context.get(_MACHINE)
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_made += 1
        heapq.heappush(self._later, (when, self._timers_made, machine, timer))
        return timer

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        task = super().create_task(coro, name=name, context=context)
        machine = _MACHINE.get() if context is None else context.get(_MACHINE)
        if machine is not None:
            # Kept: a task that is dropped half-way would be closed whenever memory is cleaned up.
            machine.tasks.append(task)
        return task

    def hold(self, machine: Machine) -> None:
        """Let nothing of this machine run until `go_on`, as when it swaps, or is suspended."""
        machine.is_held = True

    def go_on(self, machine: Machine) -> None:
        """Let a held machine run again: all its timers have passed meanwhile."""
        machine.is_held = False
        self._in_turn += [item for item in self._held if item[0] is machine]
        self._held = [item for item in self._held if item[0] is not machine]

    def kill(self, machine: Machine) -> None:
        """End a machine at once."""
        machine.is_dead = True

    async def bury(self, machine: Machine) -> None:
        """End what is left of a machine's tasks, once it does not matter any more what they do."""
        machine.is_dead = machine.is_held = False
        self.go_on(machine)
        while left := [task for task in machine.tasks if not task.done()]:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=1)
        machine.is_dead = True

    def _run_once(self) -> None:
        self.before_step()
        while True:
            machine, handle = self._take()
            if handle.cancelled():
                continue
            if machine is not None and (machine.is_dead or machine.is_held):
                self._held.append((machine, handle))
                continue
            break
        self.steps += 1
        self._steps_at_once += 1
        if self._steps_at_once > MAX_STEPS_AT_ONCE:
            raise LivelockError(f"{MAX_STEPS_AT_ONCE} steps at {self._now:.3f} s, the next is {handle!r}")
        handle._run()  # noqa: SLF001 - what an event loop does with a handle; asyncio has no other name for it

    def _take(self) -> tuple[Machine | None, asyncio.Handle]:
        if not self._in_turn:
            self._wait()
        ready = len(self._in_turn)
        if ready > 1 and self._disorder and self._chance.random() < self._disorder:
            return self._in_turn.pop(self._chance.randrange(ready))
        return self._in_turn.pop(0)

    def _wait(self) -> None:
        """Let time pass until a timer is due."""
        while self._later and self._later[0][3].cancelled():
            heapq.heappop(self._later)
        if not self._later:
            raise DeadlockError(f"at {self._now:.3f} s nothing can run any more")
        if self._later[0][0] > self._now:
            self._now = self._later[0][0]
            self._steps_at_once = 0
        while self._later and self._later[0][0] <= self._now:
            _, _, machine, timer = heapq.heappop(self._later)
            self._in_turn.append((machine, timer))
