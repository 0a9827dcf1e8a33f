"""Runs mutants: each in a fork of this process, which has imported what is heavy and nothing of the product."""

import importlib
import json
import os
import selectors
import shutil
import signal
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import pytest

from tests.mutation import child
from tests.mutation.child import Job
from tests.mutation.mutants import Mutant, StaleAnchorError
from tests.support.postgres import find_server

HEAVY: Final = (
    "alembic.command",
    "asyncpg",
    "aiosqlite",
    "fastapi",
    "genai_prices",
    "generated.apex.agent.v1.agent_pb2_grpc",
    "google.protobuf.json_format",
    "grpc.aio",
    "grpc_health.v1.health",
    "grpc_reflection.v1alpha.reflection",
    "httpx",
    "hypothesis",
    "hypothesis.stateful",
    "jwt",
    "limits.aio.strategies",
    "msgspec",
    "prometheus_client",
    "protovalidate",
    "pydantic_ai.models.function",
    "rich.console",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "sqlalchemy.ext.asyncio",
    "starlette.testclient",
    "structlog",
    "uvicorn",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "uvloop",
    "websockets.asyncio.client",
)
"""What every test needs and no mutant changes."""

MALFORMED: Final = ("NameError", "UnboundLocalError", "SyntaxError", "syntax error", "ProgrammingError")
"""Signs of a mutant that is wrong itself, as far as a test shows them."""

LIMIT_S: Final = 90
"""A process that has not told its outcome by then is ended."""

OUTPUT_CHARACTERS: Final = 4_000
"""How much of a process's output is kept."""

GRACE_S: Final = 10
"""A process that has told its outcome has this long to clean up, its database for example."""


class Verdict(StrEnum):
    """What came of a mutant."""

    KILLED = "killed"
    SURVIVED = "SURVIVED"
    SKIPPED = "skipped"
    STALE = "STALE"
    BROKEN = "BROKEN"


@dataclass(frozen=True, slots=True)
class Result:
    """`test` is the one that noticed; `reason` is what it said, or what was wrong; `output` the end of its output."""

    mutant: Mutant
    verdict: Verdict
    seconds: float
    test: str = ""
    reason: str = ""
    output: str = ""


@dataclass(slots=True)
class _Process:
    pid: int
    pipe: int
    folder: Path
    job: Job
    started: float
    told: bytes = b""
    output: str = ""

    @property
    def reports(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.told.split(b"\n")[:-1]]

    @property
    def failed(self) -> bool:
        return any(report["outcome"] == "failed" for report in self.reports)


@dataclass(slots=True)
class Runner:
    """`jobs` mutants at once. Runs every test without a mutant first: one that fails then proves nothing."""

    jobs: int
    test_run: str = field(default_factory=lambda: f"mutation-{os.getpid()}")
    passing: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)

    def run(self, mutants: Sequence[Mutant]) -> Iterator[Result]:
        """Yield a result for each mutant, as they come."""
        for name in (*HEAVY, *(plugin.module for plugin in entry_points(group="pytest11"))):
            importlib.import_module(name)
        jobs: dict[Job, Mutant] = {}
        for mutant in mutants:
            try:
                jobs[Job(mutant.sources(), mutant.tests)] = mutant
            except StaleAnchorError as error:
                yield Result(mutant, Verdict.STALE, 0, reason=str(error))
        tests = {test for job in jobs for test in job.tests}
        if any("postgres" in test for test in tests):
            # The embedded one, where there is no other, is this process's: each fork would start and stop its own.
            with suppress(pytest.skip.Exception):
                find_server(self.test_run)
        self._try_unchanged(tests)
        for process, seconds in self._all(list(jobs)):
            yield self._judged(process, jobs[process.job], seconds)

    def _try_unchanged(self, tests: Collection[str]) -> None:
        files: dict[str, list[str]] = {}
        for test in sorted(tests):
            files.setdefault(test.partition("::")[0], []).append(test)
        for process, _ in self._all([Job({}, named, all_of_them=True) for named in files.values()]):
            bad = {report["test"]: report["reason"] for report in process.reports if report["outcome"] == "failed"}
            for test in process.job.tests:
                about = [report for report in process.reports if _is_of(report["test"], test)]
                if wrong := next((bad[report["test"]] for report in about if report["test"] in bad), None):
                    self.problems[test] = wrong
                elif any((report["when"], report["outcome"]) == ("call", "passed") for report in about):
                    self.passing.add(test)
                elif any(report["outcome"] == "skipped" for report in about):
                    self.skipped.add(test)
                else:
                    self.problems[test] = "; ".join(bad.values()) or f"no test ran:\n{process.output}"

    def _judged(self, process: _Process, mutant: Mutant, seconds: float) -> Result:
        failure = next((report for report in process.reports if report["outcome"] == "failed"), None)
        if problem := self._problem(process, mutant, failure):
            return Result(mutant, Verdict.BROKEN, seconds, reason=problem, output=process.output)
        if failure is not None:
            return Result(mutant, Verdict.KILLED, seconds, failure["test"], failure["reason"])
        if self.skipped.issuperset(mutant.tests):
            return Result(mutant, Verdict.SKIPPED, seconds, reason="its tests cannot run here")
        return Result(mutant, Verdict.SURVIVED, seconds, reason="no test failed", output=process.output)

    def _problem(self, process: _Process, mutant: Mutant, failure: Mapping[str, str] | None) -> str:
        """Return why this proves nothing, or an empty text."""
        for test in mutant.tests:
            if test in self.problems:
                return f"{test} fails without the mutant: {self.problems[test]}"
        if failure is not None:
            if any(sign in failure["reason"] for sign in MALFORMED):
                return f"it does not work at all: {failure['reason']}"
            return "" if failure["when"] == "call" else f"not the test failed, but its {failure['when']}"
        loaded = next((report["reason"] for report in process.reports if report["when"] == "loaded"), None)
        if loaded is None:
            return "its process ended without a word, or hung"
        if not any(report["when"] == "call" for report in process.reports) and not self.skipped.issuperset(
            mutant.tests
        ):
            return "no test ran"
        unread = [path for path in process.job.sources if path.endswith(".py") and path not in loaded]
        return f"its tests never import {', '.join(unread)}" if unread else ""

    def _all(self, jobs: Sequence[Job]) -> Iterator[tuple[_Process, float]]:
        waiting, selector = list(reversed(jobs)), selectors.DefaultSelector()
        running = 0
        while waiting or running:
            while waiting and running < self.jobs:
                process = _start(waiting.pop(), self.test_run)
                selector.register(process.pipe, selectors.EVENT_READ, process)
                running += 1
            for key, _ in selector.select(timeout=1):
                process = key.data
                piece = os.read(process.pipe, 65_536)
                process.told += piece
                if not piece or (process.failed and not process.job.all_of_them):
                    yield self._finished(selector, process)
                    running -= 1
            for key in list(selector.get_map().values()):
                if time.monotonic() - key.data.started > LIMIT_S * max(1, len(key.data.job.tests) // 8):
                    yield self._finished(selector, key.data)
                    running -= 1

    def _finished(self, selector: selectors.BaseSelector, process: _Process) -> tuple[_Process, float]:
        seconds = time.monotonic() - process.started
        selector.unregister(process.pipe)
        _end(process)
        return process, seconds


def _start(job: Job, test_run: str) -> _Process:
    folder = Path(tempfile.mkdtemp(prefix="apex-m-"))
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            child.run(job, folder, writing, test_run)
        finally:
            os._exit(1)
    os.close(writing)
    return _Process(pid, reading, folder, job, time.monotonic())


def _end(process: _Process) -> None:
    """Wait for the process to clean up, not too long; then nothing of it is left."""
    deadline = time.monotonic() + GRACE_S
    while os.waitpid(process.pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)
            break
        time.sleep(0.01)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    os.close(process.pipe)  # not before: what it still says must not end it
    process.output = (process.folder / "output.log").read_text("utf-8", "replace")[-OUTPUT_CHARACTERS:]
    shutil.rmtree(process.folder, ignore_errors=True)


def _is_of(reported: str, named: str) -> bool:
    """Tell whether a reported test is the named one, or one of its parameters."""
    return reported == named or reported.startswith(f"{named}[")
