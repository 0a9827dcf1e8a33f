"""Options: a policy simulated over the rows, with everything that a decision about it needs. All have one shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Final, Literal, TypeAlias

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.tools.measures import clip, rounded
from agent_service.tools.optimization.policy import Policy
from agent_service.tools.optimization.simulation import DAYS_PER_MONTH, MIN_PACED, Baseline, Outcome, Simulation, Speed
from agent_service.tools.pricing import usd

Level: TypeAlias = Literal["none", "low", "medium", "high"]
Size: TypeAlias = Literal["S", "M", "L"]
Kind: TypeAlias = Literal["routing", "caching", "prompt_caching", "batching", "trimming", "combination"]

LEVELS: Final[tuple[Level, ...]] = ("none", "low", "medium", "high")
SIZES: Final[tuple[Size, ...]] = ("S", "M", "L")

ONE_SIDED_95: Final = Decimal("1.645")
"""The 95 % quantile of the normal distribution: how rarely a worse model may pass for an equal one."""

POWER_80: Final = Decimal("0.842")
"""The 80 % quantile: how often an equal model is to be seen as equal."""

QUALITY_MARGIN: Final = Decimal("0.05")
"""The loss in the share of good answers, from 0 to 1, that a comparison of two samples is to notice."""


@dataclass(frozen=True, slots=True)
class Lever:
    """An option before it is simulated: the change, and what is known of it beforehand.

    `question` is what a person must decide first, empty where nothing.
    """

    id: str
    kind: Kind
    title: str
    policy: Policy
    risk: Level
    risk_reason: str
    effort: Size
    effort_reason: str
    rollback: str
    assumptions: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    question: str = ""


def sample_per_arm(margin: Decimal = QUALITY_MARGIN) -> int:
    """Return how many answers of each model to judge before its quality counts as kept.

    (z₀.₉₅ + z₀.₈₀)² · 2 · p(1 - p) / margin², with p = 0.5, which asks for most.
    """
    exact = (ONE_SIDED_95 + POWER_80) ** 2 * 2 * Decimal("0.25") / margin**2
    return int(exact.to_integral_value(ROUND_CEILING))


async def option(simulation: Simulation, lever: Lever) -> JsonObject:
    """Simulate a lever, and return it as an option."""
    return option_of(simulation, lever, await simulation.outcome(lever.policy))


def option_of(simulation: Simulation, lever: Lever, outcome: Outcome) -> JsonObject:
    """Return a simulated lever as an option. Its saving is negative where it costs more."""
    return {
        "id": lever.id,
        "kind": lever.kind,
        "title": lever.title,
        "how": lever.policy.as_data(),
        **savings(simulation.baseline, outcome),
        "affected": affected(simulation.baseline, outcome),
        "quality_risk": {"level": lever.risk, "reason": lever.risk_reason},
        "effort": {"size": lever.effort, "reason": lever.effort_reason},
        "rollback": lever.rollback,
        "latency": latency(outcome, lever.policy),
        "validation": validation(lever.risk),
        "question": lever.question,
        "assumptions": list(assumptions(simulation, lever.assumptions)),
        "missing": [*lever.missing, *unsimulated(outcome)],
    }


def savings(baseline: Baseline, outcome: Outcome) -> JsonObject:
    """Return what a policy saves over the data and in a month; a negative saving is an increase."""
    share = Decimal(100 * outcome.saved) / baseline.units if baseline.units else Decimal(0)
    return {
        "saving_usd": money(outcome.saved),
        "saving_percent": float(round(share, 2)),
        "saving_usd_per_month": _optional(baseline.per_month(outcome.saved)),
        "is_increase": outcome.saved < 0,
        "cost_before_usd": money(baseline.units),
        "cost_after_usd": money(baseline.units - outcome.saved),
    }


def baseline_part(baseline: Baseline) -> JsonObject:
    """Return what is now. `month_basis` says how months are computed, or why none is."""
    monthly = baseline.per_month(baseline.units)
    if monthly is not None:
        basis = f"{DAYS_PER_MONTH} days at the mean of the {baseline.days:,} calendar days in the data"
    elif baseline.days is None:
        basis = "no month is computed: the data has no times"
    else:
        basis = "no month is computed: the data spans less than a day"
    return {
        "requests": baseline.requests,
        "requests_priced": baseline.priced,
        "cost_usd": money(baseline.units) if baseline.priced else None,
        "cost_usd_per_month": _optional(monthly) if baseline.priced else None,
        "month_basis": basis,
        "latency_ms": _speed(baseline.speed),
    }


def latency(outcome: Outcome, policy: Policy) -> JsonObject:
    """Return what happens to the measured latency (ms); `note` says what it rests on, or why it is not known."""
    before, after = outcome.speed_before, outcome.speed
    if before is None and outcome.batched:
        return _unmeasured(before, "not measurable: nobody waits for any measured request any more")
    if before is None:
        return _unmeasured(before, "not measurable: the data has no latency; add a column such as latency_ms")
    if outcome.speed_unknown:
        targets = ", ".join(dict.fromkeys(clip(rule.target) for rule in policy.routes))
        return _unmeasured(
            before,
            f"not measurable: of {targets} the data does not hold {MIN_PACED} requests with latency and output tokens "
            "for every model involved; try it with a small part of the traffic and log its latency",
        )
    notes = []
    if policy.routes:
        notes.append("moved requests are scaled by both models' median ms per output token in this data")
    if outcome.hits:
        notes.append("answers from the cache count as 0 ms, for the data does not tell how fast that cache would be")
    if outcome.batched:
        notes.append("batched requests are left out, before and after: nobody waits for them")
    if policy.trims or policy.prefix:
        notes.append("what fewer or cached input tokens do to latency is not measurable here, and counts as nothing")
    return {"measurable": True, "before": _speed(before), "after": _speed(after), "note": "; ".join(notes)}


def _unmeasured(before: Speed | None, note: str) -> JsonObject:
    return {"measurable": False, "before": _speed(before), "after": None, "note": note}


def _speed(speed: Speed | None) -> JsonObject | None:
    if speed is None:
        return None
    return {"measured": speed.measured, "p50": rounded(speed.p50), "p95": rounded(speed.p95)}


def affected(baseline: Baseline, outcome: Outcome) -> JsonObject:
    """Return whom it touches; `share` is of all requests, from 0 to 1."""
    whom = outcome.affected
    return {
        "requests": outcome.touched,
        "share": rounded(outcome.touched / baseline.requests, 6) if baseline.requests else 0.0,
        "features": [clip(name) for name in whom.features],
        "features_total": whom.feature_count,
        "models": [clip(name) for name in whom.models],
        "models_total": whom.model_count,
        "users": whom.user_count,
    }


def validation(risk: str) -> JsonObject | None:
    """Return how to find out whether the quality holds; None where nothing changes in the answers."""
    if risk == "none":
        return None
    size, margin = sample_per_arm(), f"{QUALITY_MARGIN * 100:g}"
    return {
        "sample_per_arm": size,
        "how": f"Judge {size:,} answers with the change and {size:,} without, blind. That notices a loss of {margin} "
        f"points in the share of good answers (one-sided 95 %, power 80 %).",
    }


def assumptions(simulation: Simulation, own: Sequence[str]) -> list[str]:
    """Return what a saving rests on."""
    source = simulation.pricing.source
    said = ["same requests and the same answer lengths", "catalogue prices of each request's own day"]
    if source in {"column", "mixed"}:
        said.append("recorded costs are scaled by the ratio of catalogue prices after and before, so discounts stay")
    if simulation.pricing.assumed_model:
        said.append(f"requests without a model count as {simulation.pricing.assumed_model}")
    return list(dict.fromkeys([*said, *own]))


def unsimulated(outcome: Outcome) -> list[str]:
    """Say of how many requests the new cost could not be computed."""
    if not outcome.unsimulated:
        return []
    why = "have a recorded cost, but no model and tokens with a catalogue price: they count as unchanged"
    return [f"{outcome.unsimulated:,} requests {why}. Supply model, input_tokens and output_tokens for them."]


def is_worth_it(one: JsonObject) -> bool:
    """Return whether an option saves something, or makes the usual request faster."""
    return float(str(one["saving_usd"])) > 0 or faster_ms(one) > 0


def faster_ms(one: JsonObject) -> float:
    """Return by how many ms the median falls, as far as it is known."""
    speed = one.get("latency")
    before, after = (speed.get("before"), speed.get("after")) if isinstance(speed, Mapping) else (None, None)
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return 0.0
    return float(str(before["p50"])) - float(str(after["p50"]))


def ranked(found: Sequence[JsonObject]) -> list[JsonValue]:
    """Return options with the largest saving first, ties by id."""
    ordered = sorted(found, key=lambda one: (-float(str(one["saving_usd"])), str(one["id"])))
    return list[JsonValue](ordered)


def money(units: int) -> float:
    """Return US dollars with 6 decimals."""
    return float(usd(units))


def _optional(units: int | None) -> float | None:
    return None if units is None else money(units)
