"""What a workload is like: everything that rows are made from, and nothing that identifies a person or a prompt.

Quantiles stand at the levels of `LEVELS`. Shares and weights are relative: they need not add up to 1.
"""

from typing import Final

import msgspec

LEVELS: Final = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
"""The probabilities at which a profile keeps the values of a measure."""

MEASURES: Final = ("input_tokens", "output_tokens", "latency_ms")
"""The measures whose dependence on each other is kept, in the order of `Profile.correlation`."""

HOURS: Final = 24
WEEKDAYS: Final = 7

MAX_SEGMENTS: Final = 40
"""Pairs of model and feature with values of their own; the rest share those of one segment."""

MAX_USERS: Final = 200
"""Users with weights of their own."""


class Segment(msgspec.Struct, frozen=True):
    """Requests of one model and feature. None: the source does not have that measure.

    `cached_share` are quantiles of cached input tokens as a share of the input tokens, `error_rate` is a share.
    """

    model: str
    feature: str
    weight: float
    input_tokens: tuple[float, ...] | None = None
    output_tokens: tuple[float, ...] | None = None
    latency_ms: tuple[float, ...] | None = None
    cached_share: tuple[float, ...] | None = None
    error_rate: float | None = None


class Profile(msgspec.Struct, frozen=True):
    """A workload.

    `correlation` are Spearman's coefficients within segments of the pairs input/output, input/latency and
    output/latency. `hours` and `weekdays` (Monday first) weigh the time, `users` the users, heaviest first (empty:
    none). `prompts` is how many different prompts there are for each request (0: no prompts), `errors` are the words
    of failed requests.
    """

    name: str
    rows: int
    days: int
    segments: tuple[Segment, ...]
    correlation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    hours: tuple[float, ...] = (1.0,) * HOURS
    weekdays: tuple[float, ...] = (1.0,) * WEEKDAYS
    users: tuple[float, ...] = ()
    prompts: float = 0.0
    errors: tuple[str, ...] = ("error",)
    has_time: bool = True
