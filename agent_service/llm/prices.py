"""What requests to models cost, by the price catalogue."""

from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.usage import RequestUsage

from agent_service.llm.models import ModelSource
from agent_service.llm.offline.model import OfflineModel


def cost_usd(response: ModelResponse) -> float | None:
    """Return the price in US dollars; None where the catalogue does not know the model."""
    try:
        return float(response.cost().total_price)
    except (LookupError, ValueError):
        return None


def are_priced(models: ModelSource) -> dict[str, bool]:
    """Return of each model, the default first, whether its price is known: without it no budget can hold."""
    return {name: _is_priced(models.get(name)) for name in models.names}


def _is_priced(model: Model) -> bool:
    asked = ModelResponse(
        parts=[],
        model_name=model.model_name,
        provider_name=model.system,
        provider_url=model.base_url,
        usage=RequestUsage(input_tokens=1, output_tokens=1),
    )
    return isinstance(model, OfflineModel) or cost_usd(asked) is not None
