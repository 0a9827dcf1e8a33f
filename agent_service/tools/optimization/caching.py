"""The tool simulate_caching: answers kept for repeated prompts, and the provider's own prompt cache."""

from typing import Final

from pydantic import Field

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.analysis import PricedArgs, Workbench
from agent_service.tools.measures import clip, rounded
from agent_service.tools.optimization.bench import Ready, ready
from agent_service.tools.optimization.options import Lever, option, ranked, savings
from agent_service.tools.optimization.policy import MAX_TOKENS, MAX_TTL_S, CacheRule, Names, Policy, PrefixRule
from agent_service.tools.optimization.simulation import Simulation
from agent_service.tools.optimization.words import best_of
from agent_service.tools.pricing import KnownModel, usd
from agent_service.tools.roles import Role

COMPARED_TTLS_S: Final = (3_600, 86_400, 7 * 86_400)
"""Lifetimes of entries, in seconds, that are compared beside the one that was asked for."""

DEFAULT_TTL_S: Final = 86_400
"""The lifetime of entries, in seconds, where nobody names one."""

DEFAULT_PREFIX_TTL_S: Final = 300
"""How long a provider is taken to keep a prompt's beginning, in seconds, where nobody says."""

SHOWN_MODELS: Final = 10
"""Models whose cached tokens are shown."""


class SimulateCachingArgs(PricedArgs):
    """Arguments of simulate_caching."""

    ttl_s: int | None = Field(
        default=None, ge=1, le=MAX_TTL_S, description="Seconds that an entry lives after its last use; null: a day."
    )
    cached_features: Names = Field(default=[], description="Only these features are cached; none: all.")
    prefix_tokens: int | None = Field(
        default=None,
        ge=1,
        le=MAX_TOKENS,
        description="Tokens at the beginning that all prompts of a feature share, as the person says; null: not known.",
    )
    prefix_ttl_s: int = Field(
        default=DEFAULT_PREFIX_TTL_S, ge=1, le=MAX_TTL_S, description="Seconds that the provider keeps that beginning."
    )


async def simulate_caching(bench: Workbench, context: ToolContext, args: SimulateCachingArgs) -> ToolOutput:
    """Simulate caching."""
    async with ready(bench, context, args, repeats=True, idle=args.prefix_tokens is not None) as it:
        levers = []
        if it.has(Role.PROMPT):
            levers.append(_exact(it, args))
        prefix_notes: list[str] = []
        if args.prefix_tokens is None:
            prefix_notes.append(
                "what the provider's prompt cache could save more is not computed: the data does not tell how many "
                "tokens at the beginning your prompts share. Say it, for example: our system prompt has 1,200 tokens"
            )
        elif not it.has(Role.TIMESTAMP):
            prefix_notes.append("what the provider's prompt cache could save is not computed: the data has no times")
        else:
            levers.append(_prefix(args, args.prefix_tokens))
        options = [await option(it.simulation, lever) for lever in levers]
        parts: JsonObject = {
            "options": ranked(options),
            "exact_repeats": await _lifetimes(it, args) if it.has(Role.PROMPT) else None,
            "provider_cache": await _provider_cache(it),
            "notes_on_prefix": list[JsonValue](prefix_notes),
        }
        result = it.result(args, it.facts.missing(Role.PROMPT, Role.TIMESTAMP, Role.CACHED_TOKENS), parts)
    if not it.has(Role.PROMPT):
        return ToolOutput(f"{it.opened.session.name} has no prompt or hash: repeats cannot be found", result)
    return ToolOutput(best_of(options, "Caching", it.opened.session.name), result)


def _exact(it: Ready, args: SimulateCachingArgs) -> Lever:
    ttl = args.ttl_s or DEFAULT_TTL_S
    timed = it.has(Role.TIMESTAMP)
    said = f", kept {duration(ttl)} after the last use" if timed else ""
    return Lever(
        id="cache-exact-repeats",
        kind="caching",
        title=f"Answer exactly repeated prompts from a cache{said}",
        policy=Policy(cache=CacheRule(ttl_s=ttl if timed else None, features=args.cached_features)),
        risk="none",
        risk_reason="the same prompt to the same model gets an answer that this model gave; check that none depends on "
        "the time or on who asks",
        effort="M",
        effort_reason="a store in front of the model, keyed by model and prompt hash, and a rule for what may be kept",
        rollback="Switch the cache off: every request goes to the model again.",
        assumptions=(
            "failed requests leave nothing in the cache",
            "the cache itself costs nothing here: add what your store costs",
            *(() if timed else ("the data has no times: entries count as if they never expired",)),
        ),
    )


def _prefix(args: SimulateCachingArgs, tokens: int) -> Lever:
    return Lever(
        id="cache-prompt-prefix",
        kind="prompt_caching",
        title=f"Let the provider cache the first {tokens:,} tokens of the prompts",
        policy=Policy(prefix=PrefixRule(tokens=tokens, ttl_s=args.prefix_ttl_s, features=args.cached_features)),
        risk="none",
        risk_reason="the model reads the same prompt; only its beginning is not computed again",
        effort="S",
        effort_reason="the part that never changes has to come first, exactly the same each time",
        rollback="Nothing to take back: without a hit the ordinary price counts.",
        assumptions=(
            f"all prompts of a feature share their first {tokens:,} tokens, as you say",
            f"the provider keeps them {duration(args.prefix_ttl_s)} after the last use, and takes a beginning so short",
        ),
    )


async def _lifetimes(it: Ready, args: SimulateCachingArgs) -> JsonObject:
    """Return hits and savings for several lifetimes of entries; without times only the one that never ends."""
    wanted: list[int | None] = [None]
    if it.has(Role.TIMESTAMP):
        wanted = [*sorted({*COMPARED_TTLS_S, args.ttl_s or DEFAULT_TTL_S}), None]
    rows: list[JsonValue] = []
    for ttl in wanted:
        outcome = await it.simulation.outcome(Policy(cache=CacheRule(ttl_s=ttl, features=args.cached_features)))
        found = savings(it.simulation.baseline, outcome)
        rows.append(
            {
                "ttl_s": ttl,
                "hits": outcome.hits,
                "hit_rate": rounded(outcome.hits / it.simulation.baseline.requests, 6),
                "saving_usd": found["saving_usd"],
                "saving_percent": found["saving_percent"],
            }
        )
    return {"lifetimes": rows}


async def _provider_cache(it: Ready) -> JsonObject | None:
    """Return by model what share of the input came from the provider's cache, and what that saved; None: not known."""
    simulation: Simulation = it.simulation
    if not it.has(Role.CACHED_TOKENS) or not it.has(Role.INPUT_TOKENS):
        return None
    rows = (
        await simulation.facts.session.run(
            "SELECT key, sum(input_tokens), sum(cached_tokens), "
            "sum(coalesce(cached_tokens, 0) * (per_input - per_cached)) FROM sim "
            f"LEFT JOIN tariffs ON {simulation.tariffs.joined('key', 'input_tokens')} "
            f"WHERE key IS NOT NULL GROUP BY 1 ORDER BY 2 DESC NULLS LAST, 1 LIMIT {SHOWN_MODELS}"
        )
    ).rows
    models: list[JsonValue] = []
    for key, inputs, cached, saved in rows:
        known = simulation.tariffs.known.get(str(key))
        read = int(str(inputs or 0)) + (0 if simulation.pricing.cached_within else int(str(cached or 0)))
        cheaper = isinstance(known, KnownModel) and known.cached_usd_per_mtok is not None
        models.append(
            {
                "model": clip(str(key)),
                "input_tokens": read,
                "cached_tokens": int(str(cached or 0)),
                "cached_share": rounded(int(str(cached or 0)) / read, 6) if read else 0.0,
                "saved_usd": float(usd(int(str(saved)))) if saved is not None and cheaper else None,
                "has_cached_price": cheaper,
            }
        )
    return {"models": models}


def duration(seconds: int) -> str:
    """Return `1 day`, `2 hours`, `300 seconds`."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds % length == 0:
            count = seconds // length
            return f"{count:,} {unit}{'s' * (count != 1)}"
    return f"{seconds:,} second{'s' * (seconds != 1)}"
