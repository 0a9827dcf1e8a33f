"""One service and one bridge as processes of their own: the floor's two kinds, and the product on each database."""

import asyncio
import contextlib
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from benchmarks.proc import PROC, Watched, children, cpu_s

ROOT: Final = Path(__file__).resolve().parents[1]
START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 15.0
QUIET_TIMEOUT_S: Final = 10.0
QUIET_S: Final = 0.5
POLL_S: Final = 0.05

MAX_AGENTS: Final = 256
"""Runs at work at once: more than any figure needs, so that none waits for a place."""

#: All that a child inherits: settings of the shell must not decide a figure.
INHERITED: Final = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ")


class Mode(StrEnum):
    """What is measured."""

    FLOOR_SINGLE = "floor_single"
    FLOOR = "floor"
    SQLITE = "sqlite"
    POSTGRES = "postgres"

    @property
    def is_floor(self) -> bool:
        """True where nothing of the product runs."""
        return self in {Mode.FLOOR_SINGLE, Mode.FLOOR}


class DeploymentError(Exception):
    """A process did not start; the text holds what it printed."""


@dataclass(frozen=True, slots=True)
class Target:
    """What runs: the bridge's port, the secret that tokens are signed with (none: no sign-in), and its processes."""

    port: int
    secret: str
    watched: Watched


@contextmanager
def deployed(mode: Mode, folder: Path, postgres_url: str) -> Iterator[Target]:
    """Run the processes of a mode, with their data and output in `folder`; `postgres_url` is the server's."""
    with contextlib.ExitStack() as stack:
        if mode.is_floor:
            service = stack.enter_context(_child(folder, ["benchmarks.floor_service"], {}))
            options = ["--multiplexed"] if mode is Mode.FLOOR else []
            arguments = ["benchmarks.floor_bridge", "--target", f"127.0.0.1:{service.port}", *options]
            bridge = stack.enter_context(_child(folder, arguments, {}))
            yield Target(bridge.port, "", Watched({"service": service.pid, "bridge": bridge.pid}))
            return
        secret = secrets.token_hex(32)
        database = ""
        settings = _settings(folder, secret)
        if mode is Mode.POSTGRES:
            database = stack.enter_context(_fresh_database(postgres_url))
            settings["APEX_DATABASE_URL"] = _at(postgres_url, database).replace("postgresql:", "postgresql+asyncpg:")
        service = stack.enter_context(_child(folder, ["benchmarks.scripted_service"], settings))
        settings["APEX_AGENT_TARGET"] = f"127.0.0.1:{service.port}"
        bridge = stack.enter_context(_child(folder, ["ws_bridge"], settings))
        _wait_until_quiet(service.pid)
        yield Target(bridge.port, secret, Watched({"service": service.pid, "bridge": bridge.pid}, database))


def _settings(folder: Path, secret: str) -> dict[str, str]:
    return {
        "APEX_ENVIRONMENT": "test",
        "APEX_DATA_DIR": str(folder / "data"),
        "APEX_GRPC_ADDRESS": "127.0.0.1:0",
        "APEX_HTTP_ADDRESS": "127.0.0.1:0",
        "APEX_JWT_SECRET": secret,
        "APEX_MAX_CONCURRENT_AGENTS": str(MAX_AGENTS),
        "APEX_MAX_MESSAGES_PER_MINUTE": "100000",
        "APEX_MAX_FRAMES_PER_MINUTE": "1000000",
    }


@dataclass(frozen=True, slots=True)
class _Child:
    pid: int
    port: int


@contextmanager
def _child(folder: Path, arguments: Sequence[str], settings: Mapping[str, str]) -> Iterator[_Child]:
    """Run a module until the context ends; its output goes to a file of its name."""
    output = folder / f"{arguments[0]}.log"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], stdout=sink, stderr=subprocess.STDOUT, env=_env(settings), cwd=ROOT
        )
    try:
        yield _Child(process.pid, _port(process, output))
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _env(settings: Mapping[str, str]) -> dict[str, str]:
    return {**{name: os.environ[name] for name in INHERITED if name in os.environ}, **settings}


def _port(process: "subprocess.Popen[bytes]", output: Path) -> int:
    """Return the port that a child says it listens on."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        match = re.search(r" listening on \S*:(\d+)", output.read_text(errors="replace"))
        if match is not None:
            return int(match[1])
        time.sleep(POLL_S)
    raise DeploymentError(f"{output.stem} did not start:\n{output.read_text(errors='replace')}")


def _wait_until_quiet(pid: int) -> None:
    """Wait until a process and its children have done what they do after their start."""
    deadline = time.monotonic() + QUIET_TIMEOUT_S
    before = -1.0
    while time.monotonic() < deadline and (PROC / str(pid)).exists():
        now = cpu_s(pid) + sum(cpu_s(child) for child in children(pid))
        if before >= 0 and now - before <= QUIET_S / 10:
            return
        before = now
        time.sleep(QUIET_S)


def _at(server_url: str, database: str) -> str:
    return urlsplit(server_url)._replace(path=f"/{database}").geturl()


def postgres_answers(url: str) -> bool:
    """Tell whether a PostgreSQL lets us in."""
    try:
        asyncio.run(_execute(url, "SELECT 1"))
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    return True


@contextmanager
def _fresh_database(url: str) -> Iterator[str]:
    """Make an empty database, give its name, and drop it afterwards."""
    name = f"apex_bench_{secrets.token_hex(6)}"
    asyncio.run(_execute(url, f'CREATE DATABASE "{name}" TEMPLATE template0'))
    try:
        yield name
    finally:
        asyncio.run(_execute(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
