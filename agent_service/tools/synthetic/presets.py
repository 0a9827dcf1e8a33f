"""Made-up workloads of five trades, as profiles. They are starting points to change, not measurements of anybody."""

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from agent_service.tools.synthetic.profile import LEVELS, Profile, Segment

Preset: TypeAlias = Literal["ecommerce", "financial", "healthcare", "gaming", "research"]
Distribution: TypeAlias = Literal["exponential", "normal", "uniform"]

TAIL: Final = 0.9999
"""The level at which a distribution without an end is cut."""

NORMAL_SPREAD: Final = 0.3
"""The standard deviation of the normal shape, as a share of its mean."""

MIN_SHARE: Final = 0.02
"""The least value of every shape, as a share of its mean: no request is empty."""

_BUSINESS: Final = (1, 1, 1, 1, 1, 2, 4, 8, 14, 18, 19, 17, 14, 17, 19, 18, 16, 12, 8, 6, 5, 4, 3, 2)
_EVENING: Final = (6, 3, 2, 1, 1, 2, 3, 5, 7, 8, 9, 10, 12, 11, 10, 10, 12, 14, 17, 20, 22, 21, 16, 10)
_ALL_DAY: Final = (6, 5, 5, 5, 5, 6, 8, 10, 11, 11, 10, 10, 10, 10, 10, 10, 11, 11, 10, 9, 9, 8, 7, 6)
_OFFICE_WEEK: Final = (1.0, 1.05, 1.05, 1.0, 0.95, 0.25, 0.2)
_SHOP_WEEK: Final = (0.9, 0.9, 0.95, 1.0, 1.15, 1.3, 1.2)
_EVEN_WEEK: Final = (1.0, 1.0, 1.0, 1.0, 1.0, 0.9, 0.9)

_SHAPES: Final[Mapping[Distribution, Callable[[float], float]]] = MappingProxyType(
    {
        "exponential": lambda p: -math.log(1 - min(p, TAIL)),
        "normal": lambda p: 1 + NORMAL_SPREAD * NormalDist().inv_cdf(min(max(p, 1 - TAIL), TAIL)),
        "uniform": lambda p: 0.5 + p,
    }
)
"""Values at a level, for a mean of 1."""


def quantiles(mean: float, distribution: Distribution) -> tuple[float, ...]:
    """Return the values at `LEVELS` of a measure with this mean and shape."""
    shape = _SHAPES[distribution]
    return tuple(round(mean * max(MIN_SHARE, shape(level)), 3) for level in LEVELS)


class _Trade:
    """A preset without its shape: mean tokens and milliseconds of each (model, feature), by weight."""

    def __init__(
        self,
        rows: int,
        days: int,
        distribution: Distribution,
        segments: tuple[tuple[str, str, float, float, float, float], ...],
        *,
        hours: tuple[int, ...],
        weekdays: tuple[float, ...],
        users: int,
        prompts: float,
    ) -> None:
        self.rows = rows
        self.days = days
        self.distribution = distribution
        self.segments = segments
        self.hours = hours
        self.weekdays = weekdays
        self.users = users
        self.prompts = prompts


_TRADES: Final[Mapping[Preset, _Trade]] = MappingProxyType(
    {
        "ecommerce": _Trade(
            *(10_000, 30, "exponential"),
            (
                ("gpt-4o-mini", "product_search", 40, 900, 120, 1100),
                ("gpt-4o-mini", "support_chat", 30, 1400, 220, 1900),
                ("gpt-4o", "support_chat", 15, 1600, 260, 3600),
                ("gemini-2.5-flash", "recommendations", 15, 1100, 90, 700),
            ),
            hours=_EVENING,
            weekdays=_SHOP_WEEK,
            users=150,
            prompts=0.8,
        ),
        "financial": _Trade(
            *(50_000, 90, "normal"),
            (
                ("gpt-4o", "document_review", 30, 5200, 420, 6500),
                ("claude-sonnet-4-5", "risk_summary", 25, 6800, 650, 11500),
                ("gpt-4o-mini", "transaction_labels", 45, 600, 40, 600),
            ),
            hours=_BUSINESS,
            weekdays=_OFFICE_WEEK,
            users=80,
            prompts=0.9,
        ),
        "healthcare": _Trade(
            *(25_000, 60, "uniform"),
            (
                ("claude-sonnet-4-5", "note_summary", 45, 3800, 480, 8600),
                ("gpt-4o", "coding_assist", 30, 2400, 160, 2700),
                ("gpt-4o-mini", "patient_messages", 25, 900, 200, 1800),
            ),
            hours=_ALL_DAY,
            weekdays=_EVEN_WEEK,
            users=60,
            prompts=0.95,
        ),
        "gaming": _Trade(
            *(100_000, 7, "exponential"),
            (
                ("gpt-4o-mini", "npc_dialogue", 60, 700, 80, 900),
                ("gemini-2.5-flash", "moderation", 35, 250, 10, 300),
                ("gpt-4o", "quest_writer", 5, 2200, 700, 10200),
            ),
            hours=_EVENING,
            weekdays=_SHOP_WEEK,
            users=200,
            prompts=0.7,
        ),
        "research": _Trade(
            *(5_000, 180, "normal"),
            (
                ("claude-sonnet-4-5", "paper_analysis", 50, 14000, 900, 16000),
                ("gpt-4o", "literature_search", 35, 4200, 320, 5000),
                ("gpt-4o-mini", "labelling", 15, 800, 30, 500),
            ),
            hours=_BUSINESS,
            weekdays=_OFFICE_WEEK,
            users=25,
            prompts=0.95,
        ),
    }
)

ERROR_RATE: Final = 0.01
"""Of a preset's requests."""

CACHED_SHARE: Final = 0.2
"""The mean share of a preset's input tokens that come from the provider's cache."""


def preset_profile(preset: Preset, distribution: Distribution | None = None) -> Profile:
    """Return a preset as a profile, with its own shape of sizes or another."""
    trade = _TRADES[preset]
    shape = distribution or trade.distribution
    return Profile(
        name=preset,
        rows=trade.rows,
        days=trade.days,
        segments=tuple(
            Segment(
                model=model,
                feature=feature,
                weight=weight,
                input_tokens=quantiles(input_tokens, shape),
                output_tokens=quantiles(output_tokens, shape),
                latency_ms=quantiles(latency_ms, shape),
                cached_share=tuple(round(2 * CACHED_SHARE * level, 4) for level in LEVELS),
                error_rate=ERROR_RATE,
            )
            for model, feature, weight, input_tokens, output_tokens, latency_ms in trade.segments
        ),
        correlation=(0.3, 0.35, 0.8),
        hours=tuple(map(float, trade.hours)),
        weekdays=trade.weekdays,
        users=tuple(round(1 / rank, 6) for rank in range(1, trade.users + 1)),
        prompts=trade.prompts,
        errors=("timeout", "rate_limited", "error"),
    )
