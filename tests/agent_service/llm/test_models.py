"""Models by name, checked at start."""

import importlib.util

import pytest

from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.llm.models import Models, ModelSetupError


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


@pytest.mark.skipif(importlib.util.find_spec("openai") is not None, reason="the package is installed")
def test_a_provider_whose_package_is_absent_is_refused_at_start_with_the_cure() -> None:
    with pytest.raises(ModelSetupError, match="providers"):
        Models(["openai:gpt-4o"])


def test_an_unknown_provider_is_refused_at_start() -> None:
    with pytest.raises(ModelSetupError, match="nobody:x"):
        Models(["nobody:x"])
