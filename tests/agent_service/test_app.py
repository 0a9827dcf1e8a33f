"""What the composition root makes of the settings."""

from pathlib import Path
from typing import Final

import pytest
from prometheus_client import CollectorRegistry

from agent_service.app import analyzed_databases, api_options, counted_in
from agent_service.settings import load_settings

SECRET: Final = "a secret of the tests, with more than 32 bytes"


@pytest.mark.parametrize(
    ("environment", "is_local"), [("test", True), ("development", True), ("staging", False), ("production", False)]
)
def test_only_a_local_service_makes_tokens_and_shows_its_methods(
    environment: str, tmp_path: Path, *, is_local: bool
) -> None:
    environ = {"APEX_ENVIRONMENT": environment, "APEX_JWT_SECRET": SECRET, "APEX_DATA_DIR": str(tmp_path)}
    options = api_options(load_settings(environ))
    assert (options.dev_tokens, options.reflection) == (is_local, is_local)


@pytest.mark.parametrize(
    ("environment", "is_local"), [("test", True), ("development", True), ("staging", False), ("production", False)]
)
def test_our_own_database_is_looked_at_in_development_and_test_only(
    environment: str, tmp_path: Path, *, is_local: bool
) -> None:
    environ = {"APEX_ENVIRONMENT": environment, "APEX_JWT_SECRET": SECRET, "APEX_DATA_DIR": str(tmp_path)}
    own = {"apex": f"sqlite+aiosqlite:///{tmp_path}/apex.db"} if is_local else {}
    assert analyzed_databases(load_settings(environ)) == own
    server = {**environ, "APEX_DATABASE_URL": "postgresql+asyncpg://db/apex"}
    assert analyzed_databases(load_settings(server)) == ({"apex": "postgresql+asyncpg://db/apex"} if is_local else {})
    named = {**environ, "APEX_ANALYZER_TARGETS": "shop=postgresql://db/shop"}
    assert analyzed_databases(load_settings(named)) == {"shop": "postgresql://db/shop"}
    assert analyzed_databases(load_settings({**environ, "APEX_ANALYZER_TARGETS": "{}"})) == {}


def test_degraded_steps_are_counted_by_agent() -> None:
    metrics = CollectorRegistry()
    count = counted_in(metrics)
    for agent_name in ("data", "data", "triage"):
        count(agent_name)
    found = [metrics.get_sample_value("apex_degraded_steps_total", {"agent": name}) for name in ("data", "triage")]
    assert found == [2, 1]
