"""Models by name, checked at start."""

import sys

import pytest

from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.llm.models import Models, ModelSetupError
from agent_service.llm.providers import PROVIDERS, Account


def test_the_first_name_is_the_default() -> None:
    models = Models()
    assert models.get() is models.get("offline")


def test_a_model_that_is_not_offered_is_refused_with_what_is() -> None:
    with pytest.raises(ApexError, match="It offers: offline") as caught:
        Models().get("openai:gpt-4o")
    assert caught.value.reason is ErrorReason.INVALID_ARGUMENT
    assert caught.value.violations[0].field == "settings.model"


def test_a_name_without_a_provider_is_refused_at_start() -> None:
    with pytest.raises(ModelSetupError, match="openai:gpt-4o"):
        Models(["gpt-4o"])


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_whose_package_is_absent_is_refused_at_start_with_the_cure(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, provider, None)
    with pytest.raises(ModelSetupError, match=r"pip install 'apex-agents\[providers\]'"):
        Models([f"{provider}:x"], accounts={provider: Account("", "a-key")})


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_without_a_key_is_refused_at_start(provider: str) -> None:
    with pytest.raises(ModelSetupError, match=f"set {provider.upper()}_API_KEY"):
        Models([f"{provider}:x"])


async def test_a_local_server_needs_no_key() -> None:
    models = Models(["openai:llama3"], accounts={"openai": Account("http://127.0.0.1:11434/v1")})
    assert models.get().base_url == "http://127.0.0.1:11434/v1/"
    await models.aclose()


async def test_what_goes_on_when_a_model_is_down() -> None:
    accounts = {provider: Account("", "a-key") for provider in PROVIDERS}
    models = Models(["openai:a", "openai:b"], fallback="anthropic:c", larger="openai:d", accounts=accounts)
    assert models.names == ("openai:a", "openai:b")
    assert models.fallbacks() == models.fallbacks("openai:b") == ("anthropic:c", "offline")
    assert models.fallbacks("anthropic:c") == ("offline",)
    assert models.fallbacks("offline") == ()
    for name in (*models.names, *models.fallbacks(), "openai:d"):
        assert models.get(name).model_name in {name, name.partition(":")[2]}
    await models.aclose()


def test_the_offline_model_has_nothing_to_go_on_with() -> None:
    assert Models().fallbacks() == ()


def test_an_unknown_provider_is_refused_at_start() -> None:
    with pytest.raises(ModelSetupError, match="nobody:x"):
        Models(["nobody:x"])
