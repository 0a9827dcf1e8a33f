"""The crashing service as a fork of a process that has imported everything: a real process, up in a moment.

Starting Python and importing takes longer than all the rest of a start. Where a service is started again and again,
that time says nothing about the product. Each child leads a process group of its own, as every `ChildProcess` does.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import uvloop

from agent_service import app
from tests.support.crashing_service_main import main
from tests.support.deployment import ROOT, Deployment
from tests.support.processes import INHERITED_VARIABLES, TERMINATE_TIMEOUT_S, ChildProcess

FORKS: Final = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["__main__", __name__])


class ForkedService(ChildProcess):
    """A running service. As a `ChildProcess`, but no program of its own."""

    def __init__(self, *, output_file: Path, env: Mapping[str, str]) -> None:  # no super(): that starts a program
        self._argv = [__name__]
        self._output_file = output_file
        output_file.touch()
        inherited = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
        self._fork = FORKS.Process(target=_serve, args=(str(output_file), {**inherited, **env}), daemon=True)
        self._fork.start()

    @property
    def pid(self) -> int:
        assert self._fork.pid is not None
        return self._fork.pid

    def poll(self) -> int | None:
        return self._fork.exitcode

    def wait(self, *, timeout_s: float = TERMINATE_TIMEOUT_S) -> int:
        self._fork.join(timeout_s)
        code = self._fork.exitcode
        if code is None:
            raise self._failure(f"did not end within {timeout_s:g} s")
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self, *, timeout_s: float = TERMINATE_TIMEOUT_S) -> int:
        self._fork.terminate()
        self._fork.join(timeout_s)
        return self.kill()

    def kill(self) -> int:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return self.wait()


class ForkedDeployment(Deployment):
    """A deployment whose service is a fork. The bridge is a program, as ever."""

    def start_service(self) -> None:
        self._starts += 1
        output_file = self._folder / f"service-{self._starts}.log"
        self.service = ForkedService(output_file=output_file, env=self._env)
        self.service.wait_for_output(" listening on ")


def _serve(output_file: str, env: Mapping[str, str]) -> None:
    """Be the service: what `python -m tests.support.crashing_service_main` is with this environment and output."""
    os.setsid()
    os.chdir(ROOT)
    output = os.open(output_file, os.O_WRONLY | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.environ.clear()
    os.environ.update(env)
    sys.setswitchinterval(app.SWITCH_INTERVAL_S)
    uvloop.run(main())
