"""The tool simulate_prompt_trim: shorter inputs."""

from typing import Final

from pydantic import Field, model_validator

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.analysis import PricedArgs, Workbench
from agent_service.tools.optimization.bench import Ready, ready
from agent_service.tools.optimization.options import Level, Lever, option_of, ranked
from agent_service.tools.optimization.policy import MAX_TOKENS, Names, Policy, Rule, TrimRule
from agent_service.tools.optimization.words import best_of, names
from agent_service.tools.roles import Role

TRIED_PERCENTILES: Final = (99.0, 95.0, 90.0)
"""Percentiles of the input tokens that are tried as a limit where nobody names one."""

LOW_RISK_TO: Final = 0.02
"""Up to this share of requests, from 0 to 1, a cut is a low risk."""

HIGH_RISK_FROM: Final = 0.5
"""From this share of requests on, a cut is a high risk."""


class SimulatePromptTrimArgs(PricedArgs):
    """Arguments of simulate_prompt_trim. At most one of the three ways; none: several percentiles are tried."""

    max_input_tokens: int | None = Field(default=None, ge=0, le=MAX_TOKENS, description="Cut longer inputs to this.")
    percentile: float | None = Field(
        default=None, ge=1, le=99.9, description="Cut inputs that are longer than this percentile to it."
    )
    percent: float | None = Field(default=None, gt=0, lt=100, description="Shorten every input by so many percent.")
    trim_features: Names = Field(default=[], description="Only these features; none: all.")
    trim_models: Names = Field(default=[], description="Only these models; none: all.")

    @model_validator(mode="after")
    def _one_way(self) -> "SimulatePromptTrimArgs":
        if sum(way is not None for way in (self.max_input_tokens, self.percentile, self.percent)) > 1:
            raise ValueError("give at most one of max_input_tokens, percentile and percent")
        return self


async def simulate_prompt_trim(bench: Workbench, context: ToolContext, args: SimulatePromptTrimArgs) -> ToolOutput:
    """Simulate shorter inputs."""
    async with ready(bench, context, args) as it:
        options = await _options(it, args) if it.has(Role.INPUT_TOKENS) else []
        parts: JsonObject = {"options": ranked(options)}
        result = it.result(args, it.facts.missing(Role.INPUT_TOKENS), parts)
    return ToolOutput(best_of(options, "Shorter inputs", it.opened.session.name), result)


async def _options(it: Ready, args: SimulatePromptTrimArgs) -> list[JsonObject]:
    if args.percent is not None:
        title = f"Shorten every input by {args.percent:g} %"
        return [await _option(it, args, f"trim-by-{args.percent:g}", title, percent=args.percent)]
    if args.max_input_tokens is not None:
        title = f"Cut inputs to {args.max_input_tokens:,} tokens"
        return [await _option(it, args, "trim-to-limit", title, limit=args.max_input_tokens)]
    rows = Rule(models=args.trim_models, features=args.trim_features)
    found: list[JsonObject] = []
    for percentile in (args.percentile,) if args.percentile is not None else TRIED_PERCENTILES:
        limit = await it.simulation.input_quantile(rows, percentile / 100)
        title = f"Cut inputs longer than the {percentile:g}th percentile to its {limit:,} tokens"
        found.append(await _option(it, args, f"trim-to-p{percentile:g}", title, limit=limit))
    return found


async def _option(
    it: Ready,
    args: SimulatePromptTrimArgs,
    id_: str,
    title: str,
    *,
    limit: int | None = None,
    percent: float | None = None,
) -> JsonObject:
    rule = TrimRule(models=args.trim_models, features=args.trim_features, max_input_tokens=limit, percent=percent)
    policy = Policy(trims=[rule])
    outcome = await it.simulation.outcome(policy)
    share = outcome.touched / it.simulation.baseline.requests
    risk: Level = "low" if share <= LOW_RISK_TO else "high" if share >= HIGH_RISK_FROM else "medium"
    whom = f" of {names([*args.trim_features, *args.trim_models])}" if args.trim_features or args.trim_models else ""
    lever = Lever(
        id=id_,
        kind="trimming",
        title=title + whom,
        policy=policy,
        risk=risk,
        risk_reason=f"{share:.1%} of the requests lose a part of their input; the data cannot tell if it matters",
        effort="M",
        effort_reason="somebody has to decide what may be left out: history, retrieved passages, examples",
        rollback="Take the limit away: inputs are sent in full again.",
        assumptions=("a shorter input gets an answer of the same length", "cached tokens shrink with the input"),
    )
    return option_of(it.simulation, lever, outcome)
