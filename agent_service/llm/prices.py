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


def are_priced(models: ModelSource, *, larger: str = "") -> dict[str, bool]:
    """Return of each model, the default first, whether its price is known: without it no budget can hold.

    Those that stand in for it count, too, and so does the `larger` one that is asked beside the default.
    """
    default = models.names[0]
    asked = {name: {name, *models.fallbacks(name)} for name in models.names}
    if larger:
        asked[default].add(larger)
    return {name: all(_is_priced(models.get(other)) for other in others) for name, others in asked.items()}


def _is_priced(model: Model) -> bool:
    asked = ModelResponse(
        parts=[],
        model_name=model.model_name,
        provider_name=model.system,
        provider_url=model.base_url,
        usage=RequestUsage(input_tokens=1, output_tokens=1),
    )
    return isinstance(model, OfflineModel) or cost_usd(asked) is not None
