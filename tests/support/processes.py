"""Child processes of a test: their own environment, awaited without blind sleeps, ended by their own id."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from types import TracebackType
from typing import Final, Self

from tests.support.waiting import DeadlinePassedError, wait_until

READY_TIMEOUT_S = 20.0
TERMINATE_TIMEOUT_S = 15.0
#: All that a child inherits: settings of the developer's shell must not decide a test.
INHERITED_VARIABLES = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ")


class ProcessFailedError(AssertionError):
    """A child ended, or was not ready in time; the message holds what it printed."""


OWN_PORTS: Final = range(20_000, 32_000)
"""Below those that the system gives to outgoing connections: nobody takes one by chance before it is listened on."""


def free_ports(count: int) -> list[int]:
    """Return `count` different TCP ports of 127.0.0.1 on which nothing listens now."""
    found: list[int] = []
    while len(found) < count:
        port = SystemRandom().choice(OWN_PORTS)
        with suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 on which nothing listens now."""
    return free_ports(1)[0]


def is_listening(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a TCP connection to the port is accepted."""
    with suppress(OSError), socket.create_connection((host, port), timeout=1.0):
        return True
    return False


class ChildProcess:
    """A running child. Standard output and error go to one file, in the order in which they are written.

    The child leads a process group of its own, so that what it starts itself ends with it. Use as a context manager:
    leaving it ends the group, and waits for the child.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        output_file: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start the command; `env` comes on top of `INHERITED_VARIABLES`."""
        inherited = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
        self._argv = list(argv)
        self._output_file = output_file
        with output_file.open("wb") as output:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**inherited, "PYTHONUNBUFFERED": "1", **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.terminate()

    @property
    def pid(self) -> int:
        """The child's process id, which is also that of its group."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, negative for the signal that ended the child, or None while it runs."""
        return self._process.poll()

    @property
    def output(self) -> str:
        """All that the child has written so far."""
        return self._output_file.read_text(encoding="utf-8", errors="replace")

    def wait_until_ready(self, condition: Callable[[], bool], *, what: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until the condition holds.

        Raises:
            ProcessFailedError: the child ended first, or the condition does not hold in time.
        """

        def holds_or_ended() -> bool:
            return self.poll() is not None or condition()

        try:
            wait_until(holds_or_ended, what=what, timeout_s=timeout_s)
        except DeadlinePassedError as error:
            raise self._failure(str(error)) from error
        exit_code = self.poll()
        if exit_code is not None:
            raise self._failure(f"ended with exit code {exit_code} before: {what}")

    def wait_until_listening(self, port: int, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until the child accepts connections on a port of 127.0.0.1."""
        self.wait_until_ready(lambda: is_listening(port), what=f"listening on port {port}", timeout_s=timeout_s)

    def wait_for_output(self, pattern: str, *, timeout_s: float = READY_TIMEOUT_S) -> re.Match[str]:
        """Wait until what the child has written matches the regular expression; return the match."""
        compiled = re.compile(pattern)
        self.wait_until_ready(
            lambda: compiled.search(self.output) is not None, what=f"output like {pattern!r}", timeout_s=timeout_s
        )
        match = compiled.search(self.output)
        if match is None:
            raise self._failure(f"its output no longer matches {pattern!r}")
        return match

    def wait(self, *, timeout_s: float = TERMINATE_TIMEOUT_S) -> int:
        """Wait for the child's own end; return the exit code.

        Raises:
            ProcessFailedError: it does not end within `timeout_s` seconds.
        """
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise self._failure(f"did not end within {timeout_s:g} s") from error

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the child alone. Nothing happens if it has ended."""
        self._process.send_signal(number)

    def terminate(self, *, timeout_s: float = TERMINATE_TIMEOUT_S) -> int:
        """Ask the child to end (SIGTERM), end its group by force after `timeout_s` seconds; return the exit code."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self.kill()

    def kill(self) -> int:
        """End the child and all that it started, at once (SIGKILL); return the exit code."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()

    def _failure(self, reason: str) -> ProcessFailedError:
        return ProcessFailedError(f"{' '.join(self._argv)}: {reason}\n--- its output ---\n{self.output}")
