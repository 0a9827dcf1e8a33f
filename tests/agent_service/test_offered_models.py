"""What only the composition decides."""

from pathlib import Path

import pytest
from pydantic_ai.models import Model
from pydantic_ai.models.test import TestModel
from structlog.testing import capture_logs

from agent_service.app import open_app
from agent_service.engine.commands import RunCommand, RunSettings
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.llm.models import ModelSetupError
from agent_service.settings import load_settings
from tests.support.workshop import ANN


class OneModel:
    """Implements `ModelSource` with a model that is in no price catalogue."""

    names = ("nameless",)

    def fallbacks(self, name: str = "") -> tuple[str, ...]:
        return ()

    def get(self, name: str = "") -> Model:
        return TestModel()


async def test_a_budget_is_refused_where_the_price_is_not_known(tmp_path: Path) -> None:
    settings = load_settings({"APEX_DATA_DIR": str(tmp_path), "APEX_GRPC_ADDRESS": "127.0.0.1:0"})
    command = RunCommand("hello", settings=RunSettings(budget_usd=1.0))
    async with open_app(settings, models=OneModel()) as app:
        with pytest.raises(ApexError, match="'nameless'") as refused:
            await app.runs.accept(ANN, command)
    assert refused.value.reason is ErrorReason.INVALID_ARGUMENT
    assert refused.value.violations[0].field == "settings.budget_usd"


async def test_the_offline_model_costs_nothing_and_takes_a_budget(tmp_path: Path) -> None:
    settings = load_settings({"APEX_DATA_DIR": str(tmp_path), "APEX_GRPC_ADDRESS": "127.0.0.1:0"})
    command = RunCommand("hello", settings=RunSettings(budget_usd=0.0))
    async with open_app(settings) as app:
        assert not (await app.runs.accept(ANN, command)).already_existed


async def test_the_settings_say_which_models_there_are(tmp_path: Path) -> None:
    environ = {
        "APEX_DATA_DIR": str(tmp_path),
        "APEX_GRPC_ADDRESS": "127.0.0.1:0",
        "APEX_MODEL": "openai:gpt-4o",
        "APEX_OFFERED_MODELS": "offline",
        "APEX_FALLBACK_MODEL": "anthropic:claude-sonnet-4-6",
        "OPENAI_API_KEY": "a-key",
        "ANTHROPIC_API_KEY": "a-key",
    }
    async with open_app(load_settings(environ)) as app:
        with pytest.raises(ApexError, match=r"It offers: openai:gpt-4o, offline\.|openai:gpt-4o, offline") as refused:
            await app.runs.accept(ANN, RunCommand("hello", settings=RunSettings(model="anthropic:claude-sonnet-4-6")))
    assert refused.value.violations[0].field == "settings.model"
    with pytest.raises(ModelSetupError, match="set ANTHROPIC_API_KEY"):
        async with open_app(load_settings({**environ, "ANTHROPIC_API_KEY": ""})):
            pass


async def test_tools_for_an_agent_that_does_not_exist_are_told(tmp_path: Path) -> None:
    environ = {
        "APEX_DATA_DIR": str(tmp_path),
        "APEX_GRPC_ADDRESS": "127.0.0.1:0",
        "APEX_MCP_SERVERS": '{"files": {"command": "/no/such/program", "agents": ["librarian"]}}',
    }
    with capture_logs() as logs:
        async with open_app(load_settings(environ)):
            pass
    told = {entry["source"]: entry["reason"] for entry in logs if entry["event"] == "left_out"}
    assert told["MCP servers for the agent 'librarian'"] == "there is no such agent"
