"""The tool compare_models: the same traffic, priced with other models, beside what was measured of them."""

import asyncio
from typing import Final

from pydantic import Field

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolContext, ToolError, ToolOutput
from agent_service.tools.analysis import PricedArgs, Workbench
from agent_service.tools.measures import clip, number, rounded, whole
from agent_service.tools.optimization.bench import Ready, ready
from agent_service.tools.optimization.catalogue import cheaper_relative, unknown_model
from agent_service.tools.optimization.options import money, savings
from agent_service.tools.optimization.policy import Name, Policy, RouteRule
from agent_service.tools.pricing import KnownModel
from agent_service.tools.roles import Role
from agent_service.tools.sandbox_child.sql import sql_text

MAX_CANDIDATES: Final = 8
"""Models that are compared at once."""

MAX_PROPOSED: Final = 3
"""Cheaper models that are tried where nobody names one."""


class CompareModelsArgs(PricedArgs):
    """Arguments of compare_models."""

    candidates: list[Name] = Field(
        default=[],
        max_length=MAX_CANDIDATES,
        description="Models to price the whole traffic with; none: a cheaper one for each of the costliest models.",
    )


async def compare_models(bench: Workbench, context: ToolContext, args: CompareModelsArgs) -> ToolOutput:
    """Compare models."""
    async with ready(bench, context, args) as it:
        names = list(dict.fromkeys(name.strip() for name in args.candidates)) or await _proposed(bench, it)
        await it.simulation.tariffs.know(names)
        unknown = [name for name in names if isinstance(it.simulation.tariffs.known[name], str)]
        if unknown and len(unknown) == len(names):
            why = str(it.simulation.tariffs.known[unknown[0]])
            raise ToolError(await asyncio.to_thread(unknown_model, unknown[0], why))
        said = [await asyncio.to_thread(unknown_model, n, str(it.simulation.tariffs.known[n])) for n in unknown]
        models = [await _candidate(it, name) for name in names if name not in unknown]
        models.sort(key=lambda entry: (float(str(entry["cost_usd"])), str(entry["model"])))
        parts: JsonObject = {
            "models": list[JsonValue](models),
            "unknown": list[JsonValue](said),
            "definition": "each request that has a cost and fits the model's context window is priced with the model; "
            "the rest stays with its own. The same token counts: another tokenizer may count differently",
        }
        lacking = it.facts.missing(Role.LATENCY, *([] if args.assume_model else [Role.MODEL]))
        result = it.result(args, lacking, parts)
    if not models:
        return ToolOutput(f"No cheaper model is known for {it.opened.session.name}: name the ones to compare", result)
    best = models[0]
    change = f" ({best['change_percent']:+.1f} %)" if best["change_percent"] is not None else ""
    return ToolOutput(f"Cheapest of {len(models)}: {best['model']} at {best['cost_usd']:,.2f} USD{change}", result)


async def _proposed(bench: Workbench, it: Ready) -> list[str]:
    rows = await it.facts.session.run(
        "SELECT key FROM sim WHERE key IS NOT NULL AND cost > 0 GROUP BY 1 "
        f"ORDER BY sum(cost) DESC, 1 LIMIT {MAX_PROPOSED}"
    )
    now = bench.clock.now()
    found = [await asyncio.to_thread(cheaper_relative, str(row[0]), now) for row in rows.rows]
    return list(dict.fromkeys(relative.name for relative in found if relative))


async def _candidate(it: Ready, name: str) -> JsonObject:
    outcome = await it.simulation.outcome(Policy(routes=[RouteRule(target=name)]), whom=False)
    known = it.simulation.tariffs.known[name]
    baseline = it.simulation.baseline
    found = savings(baseline, outcome)
    window = it.simulation.tariffs.windows[name]
    price: JsonObject = {}
    if isinstance(known, KnownModel):
        cached = known.cached_usd_per_mtok
        price = {
            "provider": known.provider,
            "input_usd_per_mtok": float(known.input_usd_per_mtok),
            "output_usd_per_mtok": float(known.output_usd_per_mtok),
            "cached_usd_per_mtok": None if cached is None else float(cached),
        }
    return {
        "model": clip(name),
        **price,
        "cost_usd": money(baseline.units - outcome.saved),
        "saving_usd": found["saving_usd"],
        "change_percent": rounded(-float(str(found["saving_percent"])), 2) if baseline.units else None,
        "requests_not_priced": outcome.unsimulated,
        "context_window": window,
        "requests_too_long": await _too_long(it, window) if window else None,
        "measured": await _measured(it, name),
    }


async def _too_long(it: Ready, window: int) -> int:
    rows = await it.facts.session.run(f"SELECT count_if(input_tokens + output_tokens > {window}) FROM sim")
    return whole(rows.rows[0][0]) or 0


async def _measured(it: Ready, name: str) -> JsonObject | None:
    """Return the model's own latency in the data, ms; None where it does not occur with one."""
    if not it.has(Role.LATENCY):
        return None
    pace = "quantile_cont(latency / nullif(output_tokens, 0), 0.5)" if it.has(Role.OUTPUT_TOKENS) else "NULL"
    (row,) = (
        await it.facts.session.run(
            f"SELECT count(latency), quantile_cont(latency, [0.5, 0.95, 0.99]), {pace}, count_if(failed), "
            f"count(failed) FROM sim WHERE lower(key) = lower({sql_text(name)})"
        )
    ).rows
    measured, quantiles, pace_ms, failed, judged = row
    if not whole(measured) or not isinstance(quantiles, list):
        return None
    p50, p95, p99 = (rounded(number(value)) for value in quantiles)
    return {
        "requests": whole(measured),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "ms_per_output_token_p50": None if pace_ms is None else rounded(number(pace_ms)),
        "error_rate": rounded((whole(failed) or 0) / (whole(judged) or 1), 6) if whole(judged) else None,
    }
