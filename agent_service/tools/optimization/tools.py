"""The optimization tools. All of them only read."""

from functools import partial

from pydantic import BaseModel

from agent_service.engine.tool import Tool, define_tool
from agent_service.tools.analysis import Workbench
from agent_service.tools.optimization.batching import SimulateBatchingArgs, simulate_batching
from agent_service.tools.optimization.caching import SimulateCachingArgs, simulate_caching
from agent_service.tools.optimization.capacity import ForecastCapacityArgs, forecast_capacity
from agent_service.tools.optimization.change import EvaluateChangeArgs, evaluate_change
from agent_service.tools.optimization.combination import CombineOptionsArgs, combine_options
from agent_service.tools.optimization.comparison import CompareModelsArgs, compare_models
from agent_service.tools.optimization.prices import PriceLookupArgs, price_lookup
from agent_service.tools.optimization.routing import SimulateRoutingArgs, simulate_routing
from agent_service.tools.optimization.trimming import SimulatePromptTrimArgs, simulate_prompt_trim


def optimization_tools(bench: Workbench) -> tuple[Tool[BaseModel], ...]:
    """Return the optimization tools. The bench's clock dates prices of requests without a time, and of batches."""
    return (
        define_tool(
            "price_lookup",
            "Look up what models cost on a day: input, output, cached and batch prices, by the price catalogue.",
            PriceLookupArgs,
            partial(price_lookup, bench),
        ),
        define_tool(
            "simulate_routing",
            "Simulate sending some requests to other models, by size, feature or model, over the user's rows.",
            SimulateRoutingArgs,
            partial(simulate_routing, bench),
        ),
        define_tool(
            "simulate_caching",
            "Simulate a cache for exactly repeated prompts, and the provider's prompt cache, over the user's rows.",
            SimulateCachingArgs,
            partial(simulate_caching, bench),
        ),
        define_tool(
            "simulate_batching",
            "Simulate sending requests that may wait through the provider's batch interface, at its prices.",
            SimulateBatchingArgs,
            partial(simulate_batching, bench),
        ),
        define_tool(
            "simulate_prompt_trim",
            "Simulate shorter inputs: cut to a limit or a percentile, or shortened by a share.",
            SimulatePromptTrimArgs,
            partial(simulate_prompt_trim, bench),
        ),
        define_tool(
            "forecast_capacity",
            "Forecast cost and peaks of requests and tokens per minute at a growth, against limits.",
            ForecastCapacityArgs,
            partial(forecast_capacity, bench),
        ),
        define_tool(
            "compare_models",
            "Price the same traffic with several models, beside the latency that was measured of them.",
            CompareModelsArgs,
            partial(compare_models, bench),
        ),
        define_tool(
            "evaluate_change",
            "Compare before and after a date: cost, latency, errors and tokens, and whether chance explains it.",
            EvaluateChangeArgs,
            partial(evaluate_change, bench),
        ),
        define_tool(
            "combine_options",
            "Simulate options of earlier calls together, and judge the combinations against all goals at once.",
            CombineOptionsArgs,
            partial(combine_options, bench),
        ),
    )
