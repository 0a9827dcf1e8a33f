"""The tool price_lookup: what models cost by the catalogue, on a day."""

import asyncio
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.analysis import Workbench, time_text
from agent_service.tools.facts import UNITS_PER_USD
from agent_service.tools.measures import clip
from agent_service.tools.optimization.bench import utc
from agent_service.tools.optimization.catalogue import batch_price, context_window, near_names
from agent_service.tools.optimization.policy import Names
from agent_service.tools.pricing import KnownModel, PriceSpan, look_up

_PER_MTOK = UNITS_PER_USD // 10**6


class PriceLookupArgs(BaseModel):
    """Arguments of price_lookup."""

    model_config = ConfigDict(extra="forbid")

    models: Names = Field(min_length=1, description="Models, such as gpt-4o or anthropic/claude-sonnet-4-5.")
    date: datetime | None = Field(default=None, description="The day of the prices, UTC; null: today.")


async def price_lookup(bench: Workbench, _: ToolContext, args: PriceLookupArgs) -> ToolOutput:
    """Look up prices."""
    from genai_prices import __version__

    moment = utc(args.date or bench.clock.now())
    names = list(dict.fromkeys(name.strip() for name in args.models))
    entries = await asyncio.to_thread(lambda: [_entry(name, moment) for name in names])
    found = [entry for entry in entries if entry["found"]]
    result: JsonObject = {
        "catalogue": f"genai-prices {__version__}",
        "date": time_text(moment),
        "unit": "US dollars per million tokens",
        "models": list[JsonValue](entries),
    }
    said = "; ".join(
        f"{e['model']} {e['input_usd_per_mtok']:g} in, {e['output_usd_per_mtok']:g} out" for e in found[:5]
    )
    unknown = [str(entry["model"]) for entry in entries if not entry["found"]]
    rest = f"no price for {', '.join(unknown)}" if unknown else ""
    return ToolOutput("; ".join(part for part in (said and f"USD per million tokens: {said}", rest) if part), result)


def _entry(model: str, moment: datetime) -> JsonObject:
    known = look_up(model, moment, moment)
    if isinstance(known, str):
        return {"model": clip(model), "found": False, "why": known, "near_names": list(near_names(model))}
    batch = batch_price(model, moment)
    small, *larger = known.spans
    return {
        "model": clip(model),
        "found": True,
        "matched": known.matched,
        "provider": known.provider,
        "input_usd_per_mtok": _mtok(small.input),
        "output_usd_per_mtok": _mtok(small.output),
        "cached_usd_per_mtok": _mtok(small.cached) if small.cached != small.input else None,
        "cache_write_usd_per_mtok": _mtok(small.written) if small.written else None,
        "batch": _batch(batch),
        "context_window": context_window(model),
        "larger_requests": [
            {
                "above_input_tokens": span.above,
                "input_usd_per_mtok": _mtok(span.input),
                "output_usd_per_mtok": _mtok(span.output),
            }
            for span in larger
            if span.start_s == small.start_s
        ],
        "note": known.note,
    }


def _batch(batch: KnownModel | str) -> JsonObject:
    if isinstance(batch, str):
        return {"known": False, "why": batch}
    span: PriceSpan = batch.spans[0]
    return {"known": True, "input_usd_per_mtok": _mtok(span.input), "output_usd_per_mtok": _mtok(span.output)}


def _mtok(units: int) -> float:
    return units / _PER_MTOK
