"""A policy: which requests go to which model, what is cached, trimmed or batched.

The rules are data, so that a router can be configured with exactly what was simulated.
"""

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent_service.engine.events import JsonObject

MAX_RULES: Final = 20
"""Rules of one kind in a policy."""

MAX_NAMES: Final = 20
"""Models or features that one rule names."""

MAX_TTL_S: Final = 366 * 86_400
"""The longest time, in seconds, that a cache entry may live."""

MAX_TOKENS: Final = 10_000_000
"""The largest limit of tokens that a rule may name."""

MAX_NAME_CHARACTERS: Final = 200
"""Of a model or feature that a rule names: longer ones are no names."""

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)]
Names = Annotated[list[Name], Field(max_length=MAX_NAMES)]
Tokens = Annotated[int, Field(ge=0, le=MAX_TOKENS)]


class Rule(BaseModel):
    """Which requests a rule is about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: Names = Field(default=[], description="Only requests of these models; none: of all.")
    features: Names = Field(default=[], description="Only requests of these features; none: of all.")


class RouteRule(Rule):
    """Requests that match go to `target`."""

    target: Name = Field(description="The model that answers them instead, in catalogue spelling.")
    min_input_tokens: Tokens | None = Field(default=None, description="Only with at least so many input tokens.")
    max_input_tokens: Tokens | None = Field(default=None, description="Only with at most so many input tokens.")
    min_output_tokens: Tokens | None = Field(default=None, description="Only with at least so many output tokens.")
    max_output_tokens: Tokens | None = Field(default=None, description="Only with at most so many output tokens.")


class CacheRule(Rule):
    """Exactly repeated prompts to the same model are answered from a cache of one's own."""

    ttl_s: int | None = Field(
        default=None, ge=1, le=MAX_TTL_S, description="Seconds that an entry lives after its last use; null: for ever."
    )


class PrefixRule(Rule):
    """The provider's prompt cache keeps the beginning that prompts share."""

    tokens: int = Field(ge=1, le=MAX_TOKENS, description="Input tokens at the beginning that requests share.")
    ttl_s: int = Field(ge=1, le=MAX_TTL_S, description="Seconds that the provider keeps it after its last use.")


class TrimRule(Rule):
    """Inputs are shortened: to a limit, or by a share."""

    max_input_tokens: Tokens | None = Field(default=None, description="Longer inputs are cut to so many tokens.")
    percent: float | None = Field(default=None, gt=0, lt=100, description="Every input is shortened by so much.")

    @model_validator(mode="after")
    def _one_way(self) -> "TrimRule":
        if (self.max_input_tokens is None) == (self.percent is None):
            raise ValueError("give either max_input_tokens or percent")
        return self


class BatchRule(Rule):
    """Requests that may wait go through the provider's batch interface."""

    hours: list[Annotated[int, Field(ge=0, le=23)]] = Field(
        default=[], max_length=24, description="Only in these hours of the day, UTC; none: in all."
    )


class Policy(BaseModel):
    """What is changed. The first routing rule that matches counts; every trim rule that matches is applied."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    routes: list[RouteRule] = Field(default=[], max_length=MAX_RULES)
    cache: CacheRule | None = None
    prefix: PrefixRule | None = None
    trims: list[TrimRule] = Field(default=[], max_length=MAX_RULES)
    batches: list[BatchRule] = Field(default=[], max_length=MAX_RULES)

    def as_data(self) -> JsonObject:
        """Return the rules as they were given, without what was left open."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def conflicts(self, other: "Policy") -> bool:
        """Return whether both decide about the same requests, so that only one of them can be chosen."""
        return (
            (self.cache is not None and other.cache is not None)
            or (self.prefix is not None and other.prefix is not None)
            or any(_overlap(one, two) for one in self.routes for two in other.routes)
            or any(_overlap(one, two) for one in self.trims for two in other.trims)
            or any(_overlap(one, two) for one in self.batches for two in other.batches)
        )


def combine(policies: Sequence[Policy]) -> Policy:
    """Return all rules together; the policies must not conflict."""
    return Policy(
        routes=[rule for policy in policies for rule in policy.routes],
        cache=next((policy.cache for policy in policies if policy.cache), None),
        prefix=next((policy.prefix for policy in policies if policy.prefix), None),
        trims=[rule for policy in policies for rule in policy.trims],
        batches=[rule for policy in policies for rule in policy.batches],
    )


def _overlap(one: Rule, two: Rule) -> bool:
    return _meet(one.models, two.models) and _meet(one.features, two.features)


def _meet(one: Sequence[str], two: Sequence[str]) -> bool:
    folded = {name.strip().lower() for name in two}
    return not one or not two or any(name.strip().lower() in folded for name in one)
