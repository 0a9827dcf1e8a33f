"""What a model costs, and which models nobody knows a price for."""

import pytest
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RequestUsage

from agent_service.llm.offline.model import OfflineModel
from agent_service.llm.prices import are_priced, cost_usd


class OpenAi(TestModel):
    """A model of a provider in the catalogue, as far as its name goes."""

    @property
    def system(self) -> str:
        return "openai"


class Shelf:
    """Implements `ModelSource`."""

    def __init__(self, *, fallback: str = "", hidden: tuple[str, ...] = (), **models: Model) -> None:
        self._models = models
        self._fallback = fallback
        self.names = tuple(name for name in models if name not in hidden)

    def fallbacks(self, name: str = "") -> tuple[str, ...]:
        return (self._fallback,) if self._fallback not in {"", name} else ()

    def get(self, name: str = "") -> Model:
        return self._models[name or self.names[0]]


def test_only_models_of_the_catalogue_and_the_offline_one_have_a_price() -> None:
    shelf = Shelf(
        offline=OfflineModel(),
        known=OpenAi(model_name="gpt-4o"),
        unheard_of=OpenAi(model_name="gpt-99-nothing"),
        home_made=TestModel(model_name="gpt-4o"),
    )
    assert are_priced(shelf) == {"offline": True, "known": True, "unheard_of": False, "home_made": False}


def test_a_budget_holds_only_where_the_model_that_stands_in_has_a_price() -> None:
    shelf = Shelf(
        fallback="unheard_of",
        hidden=("unheard_of",),
        known=OpenAi(model_name="gpt-4o"),
        unheard_of=OpenAi(model_name="gpt-99-nothing"),
    )
    assert are_priced(shelf) == {"known": False}


def test_a_budget_of_the_default_holds_only_where_the_larger_model_has_a_price() -> None:
    shelf = Shelf(
        hidden=("larger",),
        default=OpenAi(model_name="gpt-4o"),
        other=OpenAi(model_name="gpt-4o-mini"),
        larger=OpenAi(model_name="gpt-99-nothing"),
    )
    assert are_priced(shelf, larger="larger") == {"default": False, "other": True}


def test_a_request_costs_what_the_catalogue_says() -> None:
    used = RequestUsage(input_tokens=1_000_000, output_tokens=1_000_000)
    known = ModelResponse(parts=[], model_name="gpt-4o", provider_name="openai", usage=used)
    assert cost_usd(known) == pytest.approx(2.5 + 10)
    assert cost_usd(ModelResponse(parts=[], model_name="gpt-99", provider_name="openai", usage=used)) is None
