"""What happens in the process of one mutant: put its sources in the way, run the tests, say what came of each."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.mutation.loading import ChangedModules, node_options
from tests.mutation.mutants import ROOT, Edit, changed

SUITE: Final = "tests/mission_critical/test_websocket_agent_events_suite.py"
PRODUCT: Final = ("agent_service", "storage", "ws_bridge")
TEST_TIMEOUT_S: Final = 25

#: A mutant often shows by an event that never comes. The tests are no more patient with the unchanged product, when it
#: is shown that they pass.
IMPATIENCE: Final = (
    Edit("tests/support/waiting.py", "DEFAULT_TIMEOUT_S", "10.0", "4.0"),
    Edit("tests/support/gates.py", "TIMEOUT_S", "10.0", "4.0"),
)


class Reporter:
    """A plugin that writes one JSON line per outcome, as soon as it is known."""

    def __init__(self, report_fd: int) -> None:
        self._fd = report_fd

    def say(self, **what: object) -> None:
        """Write one line."""
        os.write(self._fd, json.dumps(what).encode() + b"\n")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Say that a test cannot even be found."""
        if report.failed:
            self.say(test=report.nodeid, when="collect", outcome="failed", reason=_last_line(str(report.longrepr)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Say what came of one phase of a test."""
        reason = _last_line(str(report.longrepr)) if report.longrepr else ""
        self.say(test=report.nodeid, when=report.when, outcome=report.outcome, reason=reason)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Tests to be run over changed sources, path → text: up to the first that fails, or all of them."""

    sources: Mapping[str, str]
    tests: Sequence[str]
    all_of_them: bool = False


def run(job: Job, folder: Path, report_fd: int, test_run: str) -> None:
    """Do a job, then end this process: a fresh fork that has imported nothing of the product.

    `folder` takes what the tests write; `test_run` names the run of all mutants, which may share a server.
    """
    os.setsid()
    os.chdir(ROOT)
    with (folder / "output.log").open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    reporter = Reporter(report_fd)
    early = [name for name in sys.modules if name.partition(".")[0] in PRODUCT]
    if early:
        reporter.say(test="", when="import", outcome="failed", reason=f"imported before the fork: {early}")
        os._exit(1)
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(folder / "hypothesis")
    if any(path.endswith(".js") for path in job.sources):
        os.environ["NODE_OPTIONS"] = node_options(job.sources, folder)
    modules = ChangedModules({**changed(IMPATIENCE), **job.sources})
    modules.install()
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", f"--basetemp={folder / 't'}"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # plug-ins are imported before the fork
    options += [f"--testrunuid={test_run}", f"--timeout={TEST_TIMEOUT_S}", "--timeout-method=signal"]
    plugins: list[object] = [reporter]
    if any(test.startswith(SUITE) for test in job.tests):
        from tests.mutation.hosting import Hosting

        plugins.append(Hosting())
    pytest.main([*options, *([] if job.all_of_them else ["-x"]), *job.tests], plugins=plugins)
    reporter.say(test="", when="loaded", outcome="passed", reason=modules.loaded)
    sys.stdout.flush()
    os._exit(0)


def _last_line(text: str) -> str:
    """Return the line of a traceback that says what was wrong."""
    said = [line for line in text.splitlines() if line.startswith("E ")] or text.splitlines() or [""]
    return said[0].removeprefix("E ").strip()[:200]
