"""The tool simulate_batching: requests that may wait, at the price of the provider's batch interface."""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.analysis import PricedArgs, Workbench
from agent_service.tools.measures import clip
from agent_service.tools.optimization.bench import Ready, ready
from agent_service.tools.optimization.options import Lever, option, ranked
from agent_service.tools.optimization.policy import MAX_NAME_CHARACTERS, BatchRule, Names, Policy
from agent_service.tools.optimization.words import best_of, names
from agent_service.tools.pricing import KnownModel
from agent_service.tools.roles import Role

MAX_FEATURES: Final = 5
"""Features, those that cost most, that are asked about where nobody says which requests may wait."""


class SimulateBatchingArgs(PricedArgs):
    """Arguments of simulate_batching."""

    batch_features: Names = Field(default=[], description="Features whose requests may wait, as the person says.")
    batch_models: Names = Field(default=[], description="Only requests of these models.")
    batch_hours: list[Annotated[int, Field(ge=0, le=23)]] = Field(
        default=[], max_length=24, description="Only requests of these hours of the day, UTC."
    )


async def simulate_batching(bench: Workbench, context: ToolContext, args: SimulateBatchingArgs) -> ToolOutput:
    """Simulate batching."""
    async with ready(bench, context, args) as it:
        tariffs = it.simulation.tariffs
        await tariffs.know_batch(tariffs.known)
        priced = [name for name, found in tariffs.batch.items() if isinstance(found, KnownModel)]
        levers = []
        if priced:
            chosen = bool(args.batch_features or args.batch_hours or args.batch_models)
            levers = [_given(args)] if chosen else await _asked(it)
        options = [await option(it.simulation, lever) for lever in levers]
        options = [one for one in options if _touched(one)]
        parts: JsonObject = {
            "options": ranked(options),
            "batch_prices": [
                {
                    "model": clip(name),
                    "known": isinstance(found, KnownModel),
                    "why": found if isinstance(found, str) else "",
                }
                for name, found in list(tariffs.batch.items())[:20]
            ],
            "question": ""
            if args.batch_features or not priced
            else "Which of these features may wait for their answers?",
        }
        result = it.result(args, it.facts.missing(Role.FEATURE, *([Role.TIMESTAMP] if args.batch_hours else [])), parts)
    if not priced:
        return ToolOutput(_no_price(tariffs.batch, it.opened.session.name), result)
    return ToolOutput(best_of(options, "Batching", it.opened.session.name), result)


def _touched(one: JsonObject) -> bool:
    affected = one["affected"]
    return isinstance(affected, Mapping) and bool(affected["requests"])


def _no_price(found: dict[str, KnownModel | str], dataset: str) -> str:
    whys = dict.fromkeys(why for why in found.values() if isinstance(why, str))
    return f"Batching is not computed for {dataset}: {'; '.join(whys) or 'no model is known'}"


def _given(args: SimulateBatchingArgs) -> Lever:
    rule = BatchRule(models=args.batch_models, features=args.batch_features, hours=sorted(set(args.batch_hours)))
    whom = [f"requests of {names(args.batch_features)}" if args.batch_features else "all requests"]
    if args.batch_models:
        whom.append(f"to {names(args.batch_models)}")
    if args.batch_hours:
        whom.append(f"at {', '.join(f'{hour}:00' for hour in rule.hours)} UTC")
    return _lever("batch-chosen", f"Send {' '.join(whom)} in batches", rule, "")


async def _asked(it: Ready) -> list[Lever]:
    """Return an option for each of the most expensive features, with the question whether it may wait."""
    if not it.has(Role.FEATURE):
        question = "May all of these requests wait for their answers? If only some: add a feature column."
        return [_lever("batch-all", "Send all requests in batches", BatchRule(), question)]
    rows = await it.facts.session.run(
        f"SELECT feature FROM sim WHERE length(feature) <= {MAX_NAME_CHARACTERS} AND cost > 0 GROUP BY 1 "
        f"ORDER BY sum(cost) DESC, 1 LIMIT {MAX_FEATURES}"
    )
    found: list[Lever] = []
    for number, row in enumerate(rows.rows, start=1):
        name = str(row[0])
        question = f"May requests of {clip(name)} wait for their answers?"
        found.append(
            _lever(f"batch-{number}", f"Send requests of {clip(name)} in batches", BatchRule(features=[name]), question)
        )
    return found


def _lever(id_: str, title: str, rule: BatchRule, question: str) -> Lever:
    return Lever(
        id=id_,
        kind="batching",
        title=title,
        policy=Policy(batches=[rule]),
        risk="none",
        risk_reason="the same model gives the answers; they only come later",
        effort="M",
        effort_reason="callers must hand requests in and fetch the answers later",
        rollback="Send the requests one by one again.",
        assumptions=(
            "batch prices are those that the catalogue has now, also for earlier requests",
            "nobody waits for these answers: a batch may take as long as the provider's batch terms allow",
        ),
        question=question,
    )
