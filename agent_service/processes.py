"""`apex up`: both processes as children of this one, started in order, kept alive, stopped together."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

READY_TIMEOUT_S: Final = 60
"""How long a child may take to say where it listens."""

STOP_TIMEOUT_S: Final = 35
"""How long a child may take to stop when asked; then it is killed. The service itself takes at most 30 s."""

MAX_RESTARTS: Final = 5
"""Restarts of a child that was killed, within `RESTART_WINDOW_S`."""

RESTART_WINDOW_S: Final = 60

_LEASH: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, "-m", sys.argv[2]])
"""
"""Run before a child's own code: PR_SET_PDEATHSIG (1) makes Linux stop it should this process be killed."""


@dataclass(slots=True)
class Child:
    """A child process. `address` is what it printed after "listening on "."""

    module: str
    env: Mapping[str, str]
    process: asyncio.subprocess.Process | None = None
    address: str = ""
    restarts: list[float] = field(default_factory=list)

    async def start(self) -> None:
        """Start it and wait until it listens. Raises `ChildFailedError` when it ends, or takes too long, instead."""
        self.process = await asyncio.create_subprocess_exec(
            *self._command(),
            env=self.env,
            stdout=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C goes to the parent, which stops the children in order
        )
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                self.address = await self._ready_line()
        except TimeoutError:
            raise ChildFailedError(f"{self.module} does not listen after {READY_TIMEOUT_S} s", 1) from None

    def _command(self) -> Sequence[str]:
        if sys.platform != "linux":
            return (sys.executable, "-m", self.module)
        return (sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), self.module)

    async def _ready_line(self) -> str:
        process = self._running()
        if process.stdout is None:
            raise ChildFailedError(f"{self.module} has no output", 1)
        while line := (await process.stdout.readline()).decode(errors="replace").strip():
            _, found, address = line.partition(" listening on ")
            if found:
                return address
        raise _ended(self.module, await process.wait())

    async def wait(self) -> int:
        """Return the exit code; negative for a signal."""
        return await self._running().wait()

    async def stop(self) -> None:
        """Ask it to stop, and see to it that it does."""
        if self.process is None or self.process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self.process.wait()
        except TimeoutError:
            self.kill()
            await self.process.wait()

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def may_restart(self, code: int) -> bool:
        """Return whether a child that ended with `code` is started again: one that was killed, not too often."""
        now = time.monotonic()
        self.restarts = [at for at in self.restarts if now - at < RESTART_WINDOW_S]
        if code >= 0 or len(self.restarts) >= MAX_RESTARTS:
            return False
        self.restarts.append(now)
        return True

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.process is not None:
                self.process.send_signal(number)

    def _running(self) -> asyncio.subprocess.Process:
        if self.process is None:
            raise ChildFailedError(f"{self.module} was not started", 1)
        return self.process


class ChildFailedError(Exception):
    """A child ended before it listened, or ended for good. It has said why on standard error."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code if code > 0 else 1


def _ended(module: str, code: int) -> ChildFailedError:
    return ChildFailedError(f"{module} ended with exit code {code}", code)


async def run_both(environ: Mapping[str, str], ready: Callable[[str], None], warn: Callable[[str], None]) -> int:
    """Run the service and the bridge until a signal comes or one fails for good; return the exit code.

    `ready` is called once with the chat's address, `warn` with what people should know about the children. A child
    that is killed is started again: the other one and every browser wait for it and go on where they were. A second
    signal ends both at once.
    """
    stopping = asyncio.Event()
    service, bridge = Child("agent_service", environ), Child("ws_bridge", environ)
    _stop_on_signals(stopping, (service, bridge))
    stopped = asyncio.create_task(stopping.wait())
    try:
        await _unless(stopped, service.start())
        if not stopping.is_set():
            bridge.env = {"APEX_AGENT_TARGET": service.address, **environ}
            await _unless(stopped, bridge.start())
        if not stopping.is_set():
            _fix_ports(service, bridge, environ)
            ready(bridge.address)
        while not stopping.is_set():
            await _keep_alive(stopped, (service, bridge), warn)
    except ChildFailedError as error:
        warn(str(error))
        return error.code
    finally:
        stopped.cancel()
        await bridge.stop()
        await service.stop()
    return 0


def _stop_on_signals(stopping: asyncio.Event, children: tuple[Child, ...]) -> None:
    """Stop in order at the first signal (a closed terminal sends one too), at once at the second."""

    def stop() -> None:
        if stopping.is_set():
            for child in children:
                child.kill()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)


def _fix_ports(service: Child, bridge: Child, environ: Mapping[str, str]) -> None:
    """A child that is started again listens where it did before, also when the system had chosen the port."""
    service.env = {**environ, "APEX_GRPC_ADDRESS": service.address}
    bridge.env = {**bridge.env, "APEX_HTTP_ADDRESS": bridge.address.removeprefix("http://")}


async def _unless(stopped: asyncio.Task[bool], work: Coroutine[None, None, None]) -> None:
    """Do `work`, but give up as soon as `stopped` is done."""
    task = asyncio.create_task(work)
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return
    task.result()


async def _keep_alive(stopped: asyncio.Task[bool], children: tuple[Child, ...], warn: Callable[[str], None]) -> None:
    """Wait until a child ends, and start it again. Raises `ChildFailedError` when it is not to be."""
    waits = {asyncio.create_task(child.wait()): child for child in children}
    done, pending = await asyncio.wait({stopped, *waits}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending - {stopped}:
        task.cancel()
    if stopped in done:
        return
    for task, child in waits.items():
        if task not in done:
            continue
        code = task.result()
        if not child.may_restart(code):
            raise _ended(child.module, code)
        warn(f"{child.module} was killed (signal {-code}); starting it again")
        await _unless(stopped, child.start())
