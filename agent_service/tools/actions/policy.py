"""The router configuration file, made of computed options: the shape that `docs/router_policy.md` documents.

Rules are tried in order and the first one that matches decides; an empty `match` matches every request. What no rule
matches goes to the fallback: the model that the request asks for. JSON is also YAML: the file can be read as either.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolError
from agent_service.tools.citations import Option, child, number, objects, text

FORMAT: Final = "apex.policy/1"

REQUESTED: Final = "requested"
"""Stands for the model that a request asks for."""

MAX_RULES: Final = 100
"""Of each kind in one policy."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Match(_Part):
    """Which requests are meant: all that fit everything that is set. Bounds are inclusive."""

    models: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    min_input_tokens: int | None = None
    max_input_tokens: int | None = None
    min_output_tokens: int | None = None
    max_output_tokens: int | None = None


class Target(_Part):
    """The model that answers; `requested` is the one that the request asks for."""

    model: str = Field(min_length=1)


class Rule(_Part):
    """Requests that match go to the target."""

    id: str
    match: Match
    target: Target


class Fallback(_Part):
    """Where everything else goes."""

    target: Target = Target(model=REQUESTED)


class Cache(_Part):
    """Exactly repeated prompts are answered from a cache. `ttl_s`: seconds after the last use."""

    id: str
    match: Match
    key: Literal["exact_prompt"] = "exact_prompt"
    ttl_s: int | None = None


class PromptCache(_Part):
    """The provider's own prompt cache keeps the first tokens that prompts share."""

    id: str
    match: Match
    prefix_tokens: int
    ttl_s: int


class Trim(_Part):
    """Inputs are shortened: to a limit, or by a share in percent."""

    id: str
    match: Match
    max_input_tokens: int | None = None
    percent: float | None = None


class Batch(_Part):
    """Requests that may wait go through the provider's batch interface."""

    id: str
    match: Match
    hours_utc: tuple[int, ...] = ()


class Source(_Part):
    """The computed option that a part comes from. Savings are over the span of the measured data."""

    option_id: str
    title: str
    tool_call_id: str
    tool_name: str
    saving_usd: float | None
    saving_percent: float | None
    quality_risk: str


class RouterPolicy(_Part):
    """The whole file."""

    format: Literal["apex.policy/1"] = FORMAT
    name: str
    rules: tuple[Rule, ...] = Field(max_length=MAX_RULES)
    fallback: Fallback = Fallback()
    cache: tuple[Cache, ...] = Field(default=(), max_length=MAX_RULES)
    prompt_cache: tuple[PromptCache, ...] = Field(default=(), max_length=MAX_RULES)
    trim: tuple[Trim, ...] = Field(default=(), max_length=MAX_RULES)
    batch: tuple[Batch, ...] = Field(default=(), max_length=MAX_RULES)
    sources: tuple[Source, ...]

    def document(self) -> bytes:
        """Return the file."""
        import json

        return (json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=2) + "\n").encode()


def policy_of(name: str, options: Sequence[Option]) -> RouterPolicy:
    """Return the policy that puts these options into force, in their order.

    Raises `ToolError` for an option without a rule that a router could apply, and for one that is no rule we know.
    """
    parts: dict[str, list[JsonObject]] = {"routes": [], "cache": [], "prefix": [], "trims": [], "batches": []}
    for option in options:
        found = _parts_of(option)
        for kind, rules in found.items():
            parts[kind] += [rule for rule in rules if rule not in parts[kind]]
    try:
        return RouterPolicy(
            name=name,
            rules=tuple(
                Rule(id=f"route-{n}", match=_match(rule), target=Target(model=text(rule, "target")))
                for n, rule in enumerate(parts["routes"], start=1)
            ),
            cache=tuple(
                Cache(id=f"cache-{n}", match=_match(rule), ttl_s=_whole(rule, "ttl_s"))
                for n, rule in enumerate(parts["cache"], start=1)
            ),
            prompt_cache=tuple(
                PromptCache(
                    id=f"prompt-cache-{n}",
                    match=_match(rule),
                    prefix_tokens=_whole(rule, "tokens") or 0,
                    ttl_s=_whole(rule, "ttl_s") or 0,
                )
                for n, rule in enumerate(parts["prefix"], start=1)
            ),
            trim=tuple(
                Trim(
                    id=f"trim-{n}",
                    match=_match(rule, limits=False),
                    max_input_tokens=_whole(rule, "max_input_tokens"),
                    percent=number(rule, "percent"),
                )
                for n, rule in enumerate(parts["trims"], start=1)
            ),
            batch=tuple(
                Batch(id=f"batch-{n}", match=_match(rule), hours_utc=_hours(rule))
                for n, rule in enumerate(parts["batches"], start=1)
            ),
            sources=tuple(_source(option) for option in options),
        )
    except ValidationError:
        raise ToolError("These options do not make a policy: one of their rules has no target or no limit.") from None


def read_policy(document: bytes) -> RouterPolicy | None:
    """Return the policy that a file holds, None where it holds something else."""
    try:
        return RouterPolicy.model_validate_json(document)
    except ValidationError:
        return None


def is_exportable(option: JsonObject) -> bool:
    """Tell whether an option has rules that a router could apply."""
    how = child(option, "how")
    return isinstance(how, Mapping) and any(_listed(how, kind) for kind in _KINDS)


_KINDS: Final = ("routes", "cache", "prefix", "trims", "batches")
"""What the rule of an option may hold, as the optimization tools give it."""


def _parts_of(option: Option) -> dict[str, list[JsonObject]]:
    how = child(option.data, "how")
    if not isinstance(how, Mapping) or not is_exportable(option.data):
        raise ToolError(
            f"The option {option.id!r} has no rule that a router could apply. Cite options of routing, caching, "
            "trimming or batching."
        )
    unknown = sorted(how.keys() - set(_KINDS))
    if unknown:
        raise ToolError(f"The option {option.id!r} has rules that a policy cannot hold: {', '.join(unknown)}.")
    return {kind: _listed(how, kind) for kind in _KINDS}


def _listed(how: JsonObject, kind: str) -> list[JsonObject]:
    """Return the rules of a kind: a list of them, or the only one."""
    found = how.get(kind)
    return [found] if isinstance(found, Mapping) else objects(how, kind)


def _match(rule: JsonObject, *, limits: bool = True) -> Match:
    """Return which requests a rule is for. `limits`: its token bounds say which, and not what is done to them."""
    names: dict[str, tuple[str, ...]] = {key: _names(rule, key) for key in ("models", "features")}
    if not limits:
        return Match(models=names["models"], features=names["features"])
    return Match(
        models=names["models"],
        features=names["features"],
        min_input_tokens=_whole(rule, "min_input_tokens"),
        max_input_tokens=_whole(rule, "max_input_tokens"),
        min_output_tokens=_whole(rule, "min_output_tokens"),
        max_output_tokens=_whole(rule, "max_output_tokens"),
    )


def _names(rule: JsonObject, key: str) -> tuple[str, ...]:
    found = rule.get(key)
    return tuple(name for name in found if isinstance(name, str)) if isinstance(found, list | tuple) else ()


def _hours(rule: JsonObject) -> tuple[int, ...]:
    found = rule.get("hours")
    return tuple(hour for hour in found if isinstance(hour, int)) if isinstance(found, list | tuple) else ()


def _whole(rule: JsonObject, key: str) -> int | None:
    value: JsonValue = rule.get(key)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _source(option: Option) -> Source:
    return Source(
        option_id=option.id,
        title=option.title,
        tool_call_id=option.record.tool_call_id,
        tool_name=option.record.tool_name,
        saving_usd=number(option.data, "saving_usd"),
        saving_percent=number(option.data, "saving_percent"),
        quality_risk=text(option.data, "quality_risk", "level"),
    )
