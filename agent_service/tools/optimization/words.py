"""One-line summaries of what a simulation found."""

from collections.abc import Sequence

from agent_service.engine.events import JsonObject
from agent_service.tools.measures import clip


def names(found: Sequence[str]) -> str:
    """Return names once each, joined for people."""
    return ", ".join(clip(name) for name in dict.fromkeys(found))


def best_of(options: Sequence[JsonObject], what: str, dataset: str) -> str:
    """Return the summary of a simulation: its best option, or that there is none."""
    if not options:
        return f"{what}: nothing to simulate in {dataset}"
    best = max(options, key=lambda one: float(str(one["saving_usd"])))
    saving = float(str(best["saving_usd"]))
    if best["is_increase"]:
        return f"{what}: no saving in {dataset}; the best option costs {-saving:,.2f} USD more ({best['title']})"
    return f"{what} in {dataset}: up to {saving:,.2f} USD less ({best['saving_percent']:.1f} %): {best['title']}"
