"""Language models by name: `offline`, or `provider:name` where the provider's package is installed."""

from collections.abc import Sequence
from typing import Final, Protocol

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model

from agent_service.engine.errors import ApexError, ErrorReason, Violation
from agent_service.llm.offline.model import OfflineModel

OFFLINE: Final = "offline"


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
    """Implements `ModelSource`: the first name is the default. Made at start: raises `ModelSetupError`."""

    def __init__(self, names: Sequence[str] = (OFFLINE,)) -> None:
        self._models = {name: _make(name) for name in (*names, OFFLINE)}
        self._default = names[0]
        self._offered = tuple(dict.fromkeys(names))

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
        return () if (name or self._default) == OFFLINE else (OFFLINE,)


def _make(name: str) -> Model:
    if name == OFFLINE:
        return OfflineModel()
    provider, separator, _ = name.partition(":")
    if not separator:
        raise ModelSetupError(f"{name!r} is no model: write 'offline' or 'provider:name', such as 'openai:gpt-4o'.")
    try:
        return infer_model(name)
    except ImportError as error:
        raise ModelSetupError(
            f"The model {name!r} needs a package that is not installed: pip install 'apex-agents[providers]'."
        ) from error
    except (UserError, ValueError) as error:
        raise ModelSetupError(f"The model {name!r} cannot be used ({provider}): {error}") from error
