"""The `apex` command, and `python -m`, as a person runs them: real processes with an environment of their own."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.processes import INHERITED_VARIABLES

APEX: Final = str(Path(sys.executable).with_name("apex"))
TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended. What is for people must never be a traceback."""

    code: int
    out: str
    err: str


def run_command(argv: Sequence[str], *, env: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> Finished:
    """Run a command to its end; `env` comes on top of `INHERITED_VARIABLES`."""
    inherited = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    done = subprocess.run(
        argv,
        env={**inherited, **env},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Finished(done.returncode, done.stdout, done.stderr)


def run_apex(*arguments: str, **env: str) -> Finished:
    """Run the `apex` command to its end."""
    return run_command([APEX, *arguments], env=env)


def run_service(*arguments: str, **env: str) -> Finished:
    """Run `python -m agent_service` to its end."""
    return run_command([sys.executable, "-m", "agent_service", *arguments], env=env)


def children_of(pid: int) -> dict[int, str]:
    """Return the processes that a process has started, and those that they have: id and command line."""
    found: dict[int, str] = {}
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        found |= {child: command, **children_of(child)}
    return found


def is_running(pid: int) -> bool:
    """Tell whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def run_on_terminal(argv: Sequence[str], *, rows: int, columns: int, **env: str) -> tuple[int, str]:
    """Run a command on a terminal of that size; return its exit code and all that it wrote, control codes included."""
    return _on_terminal(argv, rows, columns, [], env)


def talk_on_terminal(argv: Sequence[str], answers: Sequence[tuple[str, str]], **env: str) -> tuple[int, str]:
    """Run a command on a terminal and type each answer when its prompt has come; return what `run_on_terminal` does."""
    return _on_terminal(argv, 50, 200, answers, env)


def _on_terminal(
    argv: Sequence[str], rows: int, columns: int, answers: Sequence[tuple[str, str]], env: Mapping[str, str]
) -> tuple[int, str]:
    leader, follower = pty.openpty()
    waiting = list(answers)
    answer_s = 10.0 if answers else TIMEOUT_S
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    inherited = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    with subprocess.Popen(
        argv, env={**inherited, "TERM": "xterm", **env}, stdin=follower, stdout=follower, stderr=follower
    ) as process:
        os.close(follower)
        written = answered = b""
        with suppress(OSError):  # how Linux says that the last one has left the terminal
            while select.select([leader], [], [], answer_s)[0] and (piece := os.read(leader, 65_536)):
                written += piece
                if waiting and waiting[0][0].encode() in written[len(answered) :]:
                    answered = written
                    os.write(leader, waiting.pop(0)[1].encode())
        with suppress(subprocess.TimeoutExpired):
            process.wait(answer_s)
        process.kill()
        os.close(leader)
        assert not waiting, f"never asked {waiting[0][0]!r}: {written.decode()}"
        return process.wait(TIMEOUT_S), written.decode()
