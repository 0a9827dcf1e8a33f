"""Fixtures and settings for every test."""

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.support.chaos_report import read_notes, summary
from tests.support.postgres import PostgresServer, find_server, fresh_database

# A busy machine is slow now and then; time limits belong to pytest-timeout, not to single examples.
settings.register_profile("apex", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("apex")

# Structlog's own default draws every traceback with all locals: thousands of lines for one failure.
structlog.configure(
    processors=[structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Scenario files hold inputs and the full expected trace; the flag rewrites the traces, to be read in the diff."""
    parser.addoption("--update-scenarios", action="store_true", help="rewrite the traces in the scenario files")
    parser.addoption("--update-transcripts", action="store_true", help="rewrite the transcripts of whole runs")
    parser.addoption(
        "--chaos-repeats",
        type=int,
        default=0,
        metavar="N",
        help="in tests/chaos, die at every commit point, N times, in place of a few",
    )


@pytest.fixture(scope="session")
def postgres_server(testrun_uid: str) -> PostgresServer:
    """A running PostgreSQL; skips the test with a reason where there is none."""
    return find_server(testrun_uid)


@pytest.fixture(scope="module")
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The address (SQLAlchemy, asyncpg) of an empty database of this test module's own.

    A test that needs one to itself uses `fresh_database(postgres_server)`.
    """
    with fresh_database(postgres_server) as url:
        yield url


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the rounds of `tests/chaos` amount to."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    notes = [note for report in reports if report.when == "call" for note in read_notes(report.user_properties)]
    if notes:
        terminalreporter.section("kill -9")
        for line in summary(notes):
            terminalreporter.line(line)
