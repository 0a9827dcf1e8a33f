"""Language models by name: `offline`, or `provider:name` where the provider's package is installed."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from pydantic_ai.models import Model

from agent_service.engine.errors import ApexError, ErrorReason, Violation
from agent_service.llm.circuits import Circuit
from agent_service.llm.offline.model import OfflineModel
from agent_service.llm.providers import Account, Provider, ProviderSetupError, Waits
from agent_service.llm.resilience import ResilientModel, Retries

OFFLINE: Final = "offline"

NO_ACCOUNTS: Final[Mapping[str, Account]] = MappingProxyType({})


class ModelSetupError(Exception):
    """A model that the settings name cannot be used. The text says why and what to do."""


class ModelSource(Protocol):
    """Where the loop gets its models from."""

    @property
    def names(self) -> tuple[str, ...]:
        """What a run may ask for, the default first."""
        ...

    def get(self, name: str = "") -> Model:
        """Return the model; an empty name means the default. Raises `ApexError(INVALID_ARGUMENT)` for another name."""
        ...

    def fallbacks(self, name: str = "") -> tuple[str, ...]:
        """Return the names to go on with, in this order, when the model (empty: the default) is down."""
        ...


class Models:
    """Implements `ModelSource`: the first name is the default. Made at start: raises `ModelSetupError`.

    `fallback` stands in for any other model that is down, and the offline model for that; `larger` is what the service
    itself asks when it is unsure. They are at hand beside `names`, without being on offer. `accounts` are by provider.
    """

    def __init__(
        self,
        names: Sequence[str] = (OFFLINE,),
        *,
        fallback: str = "",
        larger: str = "",
        accounts: Mapping[str, Account] = NO_ACCOUNTS,
        waits: Waits | None = None,
        retries: Retries | None = None,
    ) -> None:
        self._default = names[0]
        self._fallback = fallback
        self._providers: dict[str, Provider] = {}
        self._circuits: dict[str, Circuit] = {}
        self._models: dict[str, Model] = {}
        for name in _once([*names, fallback, larger, OFFLINE]):
            self._models[name] = (
                OfflineModel()
                if name == OFFLINE
                else self._make(name, accounts, waits or Waits(), retries or Retries())
            )
        self._offered = _once(names)

    @property
    def names(self) -> tuple[str, ...]:
        """What a run may ask for, the default first."""
        return self._offered

    def get(self, name: str = "") -> Model:
        model = self._models.get(name or self._default)
        if model is None:
            offered = ", ".join(self._offered)
            raise ApexError(
                ErrorReason.INVALID_ARGUMENT,
                f"This service does not offer the model {name!r}. It offers: {offered}.",
                violations=(Violation("settings.model", f"must be empty or one of: {offered}"),),
            )
        return model

    def fallbacks(self, name: str = "") -> tuple[str, ...]:
        name = name or self._default
        return () if name == OFFLINE else tuple(other for other in _once([self._fallback, OFFLINE]) if other != name)

    @property
    def circuits(self) -> Mapping[str, Circuit]:
        """The circuit breakers, by provider."""
        return self._circuits

    async def aclose(self) -> None:
        """Close the connections to providers."""
        await asyncio.gather(*(provider.close() for provider in self._providers.values()))

    def _make(self, name: str, accounts: Mapping[str, Account], waits: Waits, retries: Retries) -> Model:
        provider_name, _, model_name = name.partition(":")
        if not model_name:
            raise ModelSetupError(f"{name!r} is no model: write 'offline' or 'provider:name', such as 'openai:gpt-4o'.")
        try:
            if provider_name not in self._providers:
                account = accounts.get(provider_name, Account())
                self._providers[provider_name] = Provider(provider_name, account, waits)
                self._circuits[provider_name] = Circuit(provider_name)
            model = self._providers[provider_name].model(model_name)
        except ImportError as error:
            raise ModelSetupError(
                f"The model {name!r} needs a package that is not installed: pip install 'apex-agents[providers]'."
            ) from error
        except ProviderSetupError as error:
            raise ModelSetupError(f"The model {name!r} cannot be used: {error}.") from error
        return ResilientModel(model, self._circuits[provider_name], retries)


def _once(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names that are not empty, each once, in their order."""
    return tuple(dict.fromkeys(name for name in names if name))
