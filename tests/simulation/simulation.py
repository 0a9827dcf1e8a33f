"""A whole life of the service from one seed: users, services that come and go, a line that fails, and the judgement.

    outcome = simulate(seed=7)

The same seed and steps give the same life, callback by callback. `BrokenPromiseError` carries the seed and the trace.
"""

import asyncio
import contextlib
import contextvars
import logging
import sys
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final
from unittest import mock

import structlog
from structlog.typing import EventDict, WrappedLogger

from agent_service.api.wire import ProtoCodec
from agent_service.engine import broadcast
from storage.errors import StorageUnavailableError
from storage.memory import MemoryStorage
from tests.simulation.bounds import small_bounds
from tests.simulation.bugs import BUGS
from tests.simulation.clients import Clients
from tests.simulation.database import SimulatedDatabase, state_of
from tests.simulation.final_checks import check_runs
from tests.simulation.ledger import Ledger
from tests.simulation.loop import Machine, SimulatedLoop, here
from tests.simulation.scripts import FATAL, KINDS, Effects, PlannedDefectError, ScriptedAgents
from tests.simulation.service import ConnectionLostError, LoopClock, Service
from tests.simulation.verdict import BrokenPromiseError, Verdict
from tests.simulation.weather import weather_of

STEPS: Final = 200
"""What users and misfortune do in one simulation, unless told otherwise."""

LAST_CALL_S: Final = 3_600.0
"""Once everything works, every run ends within this time."""

CANCEL_S: Final = 20.0
"""Once everything works, a run that was told to end does so within this time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulation came to. `callbacks` is how many the loop ran, `virtual_s` its length in its own time."""

    seed: int
    weather: str
    digest: str
    runs: int
    events: int
    callbacks: int
    virtual_s: float
    lines: tuple[str, ...]


def simulate(seed: int, *, steps: int = STEPS, trace: bool = False, bug: str = "") -> Outcome:
    """Live through one life, with a bug planted in the product if one is named. Raises `BrokenPromiseError`.

    `trace` keeps all lines in place of the last ones.
    """
    planted = BUGS[bug] if bug else contextlib.nullcontext
    with small_bounds(), _watches_in_order(), planted():
        life = _Life(seed, steps, bug, whole_trace=trace)
        with _logs_judged_by(life):
            return life.run()


def first_failure(bug: str, seeds: Iterable[int], *, steps: int = STEPS) -> str | None:
    """Return what the first seed says that finds the bug; None when none does."""
    for seed in seeds:
        try:
            simulate(seed, steps=steps, bug=bug)
        except BrokenPromiseError as error:
            return str(error).partition("\n")[0]
    return None


class _Life:
    def __init__(self, seed: int, steps: int, bug: str, *, whole_trace: bool) -> None:
        self._seed = seed
        self._again = f"--seed {seed} --steps {steps}" + (f" --bug '{bug}'" if bug else "")
        self._steps = steps
        self._chance = Random(f"{seed} fate")
        self.weather: Final = weather_of(self._chance)
        self._loop = SimulatedLoop(Random(f"{seed} order"), self._chance.choice([0.0, 0.1, 1.0]))
        self.verdict = Verdict(self._loop.time, whole=whole_trace)
        storage = MemoryStorage(LoopClock(self._loop).now)
        self._ledger = Ledger(state_of(storage), self.verdict)
        self._database = SimulatedDatabase(storage, self.verdict, self._ledger, Random(f"{seed} line"))
        self._effects = Effects()
        self._services: list[Service] = []
        self._all_services: list[Service] = []
        self._arriving: dict[asyncio.Task[None], None] = {}
        self._main: asyncio.Task[None] | None = None
        self._is_fair = False
        kinds = [kind for kind in KINDS if self.weather.has_fatal_messages or kind not in FATAL]
        self._clients = Clients(self.verdict, self._ledger, Random(f"{seed} users"), kinds, self._pick)

    def run(self) -> Outcome:
        """Run the loop to the end, and leave nothing behind."""
        self._loop.set_exception_handler(self._on_stray_error)
        self._loop.before_step = self.verdict.check
        main = self._main = self._loop.create_task(self._live())
        try:
            self._loop.run_until_complete(main)
            self.verdict.check()
        except AssertionError as error:
            # What an assertion of ours, or the loop itself, says is a broken promise too.
            self.verdict.fail(f"{type(error).__name__}: {error}")
            raise BrokenPromiseError(self._story()) from error
        finally:
            self._clean_up()
        return Outcome(
            seed=self._seed,
            weather=self.weather.name,
            digest=self.verdict.digest,
            runs=len(self._ledger.accounts),
            events=sum(len(account.events) for account in self._ledger.accounts.values()),
            callbacks=self._loop.steps,
            virtual_s=self._loop.time(),
            lines=tuple(self.verdict.lines),
        )

    def _story(self) -> str:
        lines = "\n".join(self.verdict.lines)
        again = f'make simulation ARGS="{self._again} --trace"'
        title = f"seed {self._seed}, {self._steps} steps, {self.weather.name}: {self.verdict.broken}"
        return f"{title}\n{lines}\nagain: {again}"

    async def _live(self) -> None:
        for _ in range(self.weather.services):
            await self._arrive(0)
        acts = self.weather.acts
        for step in range(self._steps):
            act = self._chance.choices(list(acts), list(acts.values()))[0]
            self.verdict.note(f"step {step}: {act}")
            self._act(act)
            await asyncio.sleep(self._chance.choice([0, 0, 0.001, 0.01, 0.05, self._chance.expovariate(1)]))
            if self.weather.is_calm:
                self._clients.check_nobody_waits(self._ledger.state.now())
        await self._settle()
        for service in list(self._services):
            await self._depart(service, grace_ms=0)
        check_runs(self._ledger, self._effects, ProtoCodec(), self.verdict)

    def _act(self, act: str) -> None:
        match act:
            case "crash" | "hold" | "cut" | "drain":
                if up := [service for service in self._services if service.is_up]:
                    service = self._chance.choice(up)
                    self.verdict.note(f"{service.machine}: {act}")
                    getattr(self, f"_{act}")(service)
            case _:
                getattr(self._clients, act)()

    # ---- Misfortune ----

    def _crash(self, service: Service) -> None:
        self.verdict.note(f"{service.machine} dies")
        service.crash()
        self._services.remove(service)
        self._succeed(self._chance.uniform(0.01, 10))

    def _kill(self, machine: Machine) -> None:
        """A message took its machine with it."""
        for service in self._services:
            if service.machine is machine:
                self._crash(service)
                return

    def _hold(self, service: Service) -> None:
        self._ledger.trouble(service.machine)
        self._loop.hold(service.machine)
        self._loop.call_later(self._chance.choice([0.3, 3, 7, 9, 14]), self._go_on, service)

    def _go_on(self, service: Service) -> None:
        if service.machine.is_held:
            self.verdict.note(f"{service.machine} goes on")
            self._ledger.trouble(service.machine)
            self._loop.go_on(service.machine)

    def _cut(self, service: Service) -> None:
        service.line.is_cut = True
        self._loop.call_later(self._chance.choice([0.3, 3, 7, 9, 14]), self._mend, service)

    def _mend(self, service: Service) -> None:
        self.verdict.note(f"{service.machine} reaches the database")
        service.line.is_cut = False

    def _drain(self, service: Service) -> None:
        self._background(self._replace(service, self._chance.choice([0, 300, 5_000])))

    async def _replace(self, service: Service, grace_ms: int) -> None:
        try:
            await self._depart(service, grace_ms=grace_ms)
        except ConnectionLostError:
            return  # it died on the way, and has a successor
        await self._arrive(self._chance.uniform(0, 2))

    async def _depart(self, service: Service, *, grace_ms: int) -> None:
        """Stop a service in good order, and see what it leaves behind. Raises `ConnectionLostError`."""
        machine, began = service.machine, self._ledger.state.now()
        await service.stop(grace_ms=grace_ms)
        await asyncio.sleep(0.001)
        held = self._ledger.held_for_nothing(machine)
        self.verdict.require(not held, f"{machine} has stopped, and holds {held}")
        if not self._ledger.in_trouble_since(machine, began):
            left = [task.get_name() for task in service.left_over()]
            self.verdict.require(not left, f"{machine} has stopped, and left {left}")
            self.verdict.require(service.broadcast.open_watches == 0, f"{machine} has stopped, and somebody watches")
        self._loop.kill(machine)
        self._services.remove(service)

    def _succeed(self, after_s: float) -> None:
        self._background(self._arrive(after_s))

    async def _arrive(self, after_s: float) -> None:
        """Start a service."""
        await asyncio.sleep(after_s)
        service = Service(
            f"s{len(self._all_services) + 1}",
            self._loop,
            self._database,
            self._effects.tools(),
            ScriptedAgents(self._ledger.begun, self._kill),
            poll_interval_ms=self.weather.poll_interval_ms,
        )
        self._all_services.append(service)
        if self.weather.embedded:
            # As the service does: whoever held these runs is gone.
            await service.storage.runs.release_all()
        self.verdict.note(f"{service.machine} starts")
        service.line.latency_s = self.weather.latency_s
        if not self._is_fair:
            service.line.slow_rate, service.line.fault_rate = self.weather.slow_rate, self.weather.fault_rate
        self._services.append(service)
        service.start()

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work, context=contextvars.Context())
        self._arriving[task] = None
        task.add_done_callback(self._arrived, context=contextvars.Context())

    def _arrived(self, task: asyncio.Task[None]) -> None:
        del self._arriving[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self.verdict.fail(f"{error!r}")

    def _pick(self) -> Service | None:
        up = [service for service in self._services if service.is_up]
        return self._chance.choice(up) if up else None

    # ---- The end ----

    async def _settle(self) -> None:
        """Let everything work from now on, and wait until all runs have ended and everybody has seen it."""
        self.verdict.note("fair weather from now on")
        self._is_fair = True
        for service in self._services:
            service.line.is_cut = False
            service.line.slow_rate = service.line.fault_rate = 0.0
            self._go_on(service)
        began = self._loop.time()
        while self._arriving or self._clients.busy or self._ledger.open_accounts():
            await asyncio.sleep(0.5)
            since = self._loop.time() - began
            if since > CANCEL_S:
                self._check_cancelled(since)
            if since > LAST_CALL_S:
                open_runs = [account.run.run_id for account in self._ledger.open_accounts()]
                busy = [task.get_name() for task in self._clients.busy]
                self.verdict.fail(f"after an hour: runs {open_runs} are open, and these wait: {busy}")
                return

    def _check_cancelled(self, since_s: float) -> None:
        up = {service.machine for service in self._services}
        for account in self._ledger.open_accounts():
            run_id = account.run.run_id
            claimed_at, now = account.claim_time, self._ledger.state.now()
            long_held = claimed_at is not None and (now - claimed_at).total_seconds() > since_s
            if account.cancel_asked and account.by_queue and account.holder in up and long_held:
                self.verdict.fail(f"{run_id} was told to end, and {account.holder} still works on it after {since_s} s")

    def _on_stray_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An error that nobody took, anywhere."""
        if not isinstance(context.get("exception"), ConnectionLostError):
            self.verdict.fail(f"{context.get('message')}: {context.get('exception')!r}")

    def on_log(self, level: str, line: EventDict) -> None:
        """A line of the product's own log. An error that was not planned is a defect."""
        event, cause = line.get("event"), line.get("exc_info")
        if cause is True:
            cause = sys.exc_info()[1]
        self.verdict.note(f"{here()} {level} {event} {cause!r}" if cause else f"{here()} {level} {event}")
        planned = isinstance(cause, StorageUnavailableError | PlannedDefectError)
        left_behind = event == "runs_left_behind" and not self.weather.is_calm
        if event == "run_fenced":
            self._ledger.left(line["run_id"], line["attempt"], here())
        if level not in {"info", "warning"} and not planned and not left_behind:
            self.verdict.fail(f"{here()} {event}: {cause!r}")

    def _clean_up(self) -> None:
        """End all tasks, whatever state they are in: half a coroutine must not outlive its loop."""
        self._loop.before_step = lambda: None
        self._loop.set_exception_handler(lambda _, __: None)
        self.verdict.broken = self.verdict.broken or "over"
        burying = self._loop.create_task(self._bury_all())
        burying.add_done_callback(lambda _: self._loop.stop())
        while not burying.done():
            # The end of the life that was broken off may stop the loop once more.
            self._loop.run_forever()
        self._loop.close()

    async def _bury_all(self) -> None:
        for service in self._all_services:
            service.is_stopping = service.line.is_cut = True
        while left := [task for task in (self._main, *self._clients.busy, *self._arriving) if task and not task.done()]:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=1)
        for service in self._all_services:
            await self._loop.bury(service.machine)


@contextlib.contextmanager
def _watches_in_order() -> Iterator[None]:
    """Let a set of watches be in the same order in each replay: by default that depends on their addresses."""
    numbers: dict[int, int] = {}
    kept: list[broadcast.Watch] = []

    def number(watch: broadcast.Watch) -> int:
        if id(watch) not in numbers:
            numbers[id(watch)] = len(kept)
            kept.append(watch)
        return numbers[id(watch)]

    with mock.patch.object(broadcast.Watch, "__hash__", number):
        yield


@contextlib.contextmanager
def _logs_judged_by(life: _Life) -> Iterator[None]:
    def judge(_: WrappedLogger, level: str, line: EventDict) -> EventDict:
        life.on_log(level, line)
        raise structlog.DropEvent

    before = structlog.get_config()
    quiet = structlog.make_filtering_bound_logger(logging.WARNING)
    structlog.configure(processors=[judge], wrapper_class=quiet, cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)
