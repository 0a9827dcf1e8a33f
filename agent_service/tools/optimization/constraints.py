"""Goals that have to hold at once, judged for a simulated policy at the traffic that is expected."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from agent_service.engine.events import JsonObject
from agent_service.tools.facts import UNITS_PER_USD
from agent_service.tools.measures import rounded
from agent_service.tools.optimization.options import LEVELS, money
from agent_service.tools.optimization.simulation import Baseline, Outcome

Metric: TypeAlias = Literal["cost", "monthly_cost", "latency", "quality"]


class Goals(BaseModel):
    """What has to hold, all at once. Null or false: no such goal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cost_change_percent: float | None = Field(
        default=None, ge=-100, le=1_000, description="The whole bill, at the grown traffic, against today's: -20."
    )
    max_cost_usd_per_month: float | None = Field(default=None, ge=0, description="The whole bill of a month at most.")
    latency_change_percent: float | None = Field(
        default=None, ge=-100, le=1_000, description="Latency against today's: -50 for twice as fast."
    )
    max_latency_ms: float | None = Field(default=None, gt=0, description="Latency at most, in milliseconds: 2000.")
    latency_percentile: Literal["p50", "p95"] = Field(default="p50", description="Which latency is meant.")
    keep_quality: bool = Field(default=False, description="The quality of the answers must hold.")
    growth_percent: float = Field(
        default=0.0, ge=-99, le=10_000, description="How much more traffic to expect: 30. All goals hold at that."
    )

    @property
    def growth(self) -> float:
        """The factor of the traffic."""
        return 1 + self.growth_percent / 100


@dataclass(frozen=True, slots=True)
class Verdict:
    """One goal. `met` is None where it cannot be judged; `gap` is how far it is missed, as a share of its limit."""

    metric: Metric
    goal: str
    limit: float | None
    value: float | None
    unit: str
    met: bool | None
    gap: float
    note: str

    def part(self) -> JsonObject:
        """Return it as a part of a result."""
        return {
            "metric": self.metric,
            "goal": self.goal,
            "limit": self.limit,
            "value": self.value,
            "unit": self.unit,
            "met": self.met,
            "gap_percent": rounded(100 * self.gap, 2),
            "note": self.note,
        }


def judge(goals: Goals, baseline: Baseline, outcome: Outcome, latency_note: str, risk: str) -> list[Verdict]:
    """Judge every goal. `latency_note` says why latency is not known, where it is not; `risk` is that to quality."""
    found: list[Verdict] = []
    if goals.cost_change_percent is not None:
        limit = baseline.units * (1 + goals.cost_change_percent / 100)
        value = (baseline.units - outcome.saved) * goals.growth
        words = f"cost {goals.cost_change_percent:+g} %{_grown(goals)}"
        found.append(_bounded("cost", words, limit / UNITS_PER_USD, value / UNITS_PER_USD, "USD over the data's span"))
    if goals.max_cost_usd_per_month is not None:
        words = f"at most {goals.max_cost_usd_per_month:,.2f} USD a month{_grown(goals)}"
        monthly = baseline.per_month(round((baseline.units - outcome.saved) * goals.growth))
        if monthly is None:
            note = "cannot be judged: the data spans less than a day, or has no times, so no month is computed"
            found.append(Verdict("monthly_cost", words, goals.max_cost_usd_per_month, None, "USD", None, 0.0, note))
        else:
            found.append(_bounded("monthly_cost", words, goals.max_cost_usd_per_month, money(monthly), "USD a month"))
    if goals.latency_change_percent is not None:
        found.append(_latency(goals, goals.latency_change_percent, outcome, latency_note))
    if goals.max_latency_ms is not None:
        found.append(_latency_limit(goals, goals.max_latency_ms, outcome, latency_note))
    if goals.keep_quality:
        kept = risk == "none"
        note = "no answer changes" if kept else f"risk {risk}: usage logs do not tell quality; compare answers first"
        found.append(Verdict("quality", "quality unchanged", None, None, "", True if kept else None, 0.0, note))
    return found


def _grown(goals: Goals) -> str:
    return f" at {goals.growth_percent:+g} % traffic" if goals.growth_percent else ""


def _latency(goals: Goals, change: float, outcome: Outcome, note: str) -> Verdict:
    name = goals.latency_percentile
    words = f"{name} latency {change:+g} %"
    before, after = outcome.speed_before, outcome.speed
    if before is None or after is None or outcome.speed_unknown:
        return Verdict("latency", words, None, None, "ms", None, 0.0, note)
    now, then = (before.p50, after.p50) if name == "p50" else (before.p95, after.p95)
    return _bounded("latency", words, now * (1 + change / 100), then, "ms")


def _latency_limit(goals: Goals, limit: float, outcome: Outcome, note: str) -> Verdict:
    words = f"{goals.latency_percentile} latency of at most {limit:,.0f} ms"
    if outcome.speed is None or outcome.speed_unknown:
        return Verdict("latency", words, rounded(limit, 6), None, "ms", None, 0.0, note)
    value = outcome.speed.p50 if goals.latency_percentile == "p50" else outcome.speed.p95
    return _bounded("latency", words, limit, value, "ms")


def _bounded(metric: Metric, goal: str, limit: float, value: float, unit: str) -> Verdict:
    met = value <= limit
    gap = 0.0 if met else (value - limit) / limit if limit else 1.0
    return Verdict(metric, goal, rounded(limit, 6), rounded(value, 6), unit, met, gap, "")


def is_feasible(verdicts: Sequence[Verdict]) -> bool:
    """Return whether every goal is met; quality that only a comparison of answers can tell does not count."""
    return all(v.met is True or (v.metric == "quality" and v.met is None) for v in verdicts)


def preference(verdicts: Sequence[Verdict], baseline: Baseline, saved: int, risk: str) -> tuple[int, float, int, int]:
    """Return the sort key of a policy: fewest goals missed, the smallest gaps, least risk, most saved.

    A goal that cannot be judged counts as missed by all of it: nobody can say that it is near. Without a goal to reach,
    what is saved comes before the risk. Gaps and savings count in whole percents: nobody makes a change for less.
    """
    numbers = [v for v in verdicts if v.metric != "quality"]
    missed = sum(v.met is not True for v in numbers)
    gaps = sum(1.0 if v.met is None else v.gap for v in numbers)
    level = LEVELS.index(risk) if risk in LEVELS else len(LEVELS)
    percents = 100 * saved // baseline.units if baseline.units else 0
    if not verdicts:
        return 0, 0.0, -percents, level
    return missed, round(gaps, 2), level, -percents
