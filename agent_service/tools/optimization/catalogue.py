"""What the price catalogue offers beside the price of a known model: near names, cheaper relatives, batch prices."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from agent_service.tools.pricing import KnownModel, find, look_up

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

BATCH: Final[Mapping[str, str]] = MappingProxyType({"processing": "batch"})
"""The catalogue's name for the prices of batch interfaces."""

NEAR_NAMES: Final = 3
"""Names that are suggested for an unknown one."""

OTHER_PURPOSES: Final = frozenset(
    (
        *("audio", "realtime", "transcribe", "tts", "image", "search", "embedding", "embeddings", "moderation"),
        *("preview", "instruct", "vision", "codex", "safeguard", "oss", "live", "exp", "ft:gpt", "computer"),
    )
)
"""Words in the names of models that do something else, or are not meant to stay."""


@dataclass(frozen=True, slots=True)
class Relative:
    """A cheaper model of the same provider and family. `likeness` is the share of words that both names have."""

    name: str
    likeness: float
    input_usd_per_mtok: Decimal
    output_usd_per_mtok: Decimal


def near_names(model: str) -> list[str]:
    """Return the catalogue's names that are most like this one, best first."""
    from genai_prices.data_snapshot import get_snapshot

    ids = dict.fromkeys(info.id for provider in get_snapshot().providers for info in provider.models)
    return difflib.get_close_matches(model.strip().lower(), list(ids), n=NEAR_NAMES, cutoff=0.5)


def unknown_model(model: str, why: str) -> str:
    """Say that a model cannot be priced, and what else may have been meant."""
    near = near_names(model)
    hint = f" Did you mean {' or '.join(near)}?" if near else " Name one such as gpt-4o or claude-sonnet-4-5."
    return f"The model {model!r} cannot be priced: {why}.{hint}"


def context_window(model: str) -> int | None:
    """Return how many tokens a request to this model may have, where the catalogue tells."""
    entry = find(model)
    return entry[1].context_window if entry else None


def batch_price(model: str, moment: datetime) -> KnownModel | str:
    """Return what the provider's batch interface costs at this moment; else why that is not known."""
    entry = find(model)
    if entry is None:
        return "the price catalogue does not know this model"
    info = entry[1]
    starts = [
        getattr(variant.constraint, "start_date", None)
        for variant in info.price_variants or ()
        if dict(variant.when) == dict(BATCH)
    ]
    if not starts:
        return "the price catalogue has no batch price for this model"
    later = [start for start in starts if start is not None and start > moment.date()]
    if len(later) == len(starts):
        return f"the price catalogue has a batch price for this model only from {min(later)} on"
    return look_up(model, moment, moment, BATCH)


def cheaper_relative(model: str, moment: datetime) -> Relative | None:
    """Return the model of the same provider and family that is most like this one, and whose tokens cost less.

    Among equally like ones the cheaper; deterministic. None where there is none.
    """
    entry = find(model)
    if entry is None:
        return None
    provider, info = entry
    price = _price(info.get_prices(moment))
    words = _words(info.id)
    if price is None:
        return None
    found: list[Relative] = []
    for other in provider.models:
        theirs, own = _words(other.id), _price(other.get_prices(moment))
        if other.deprecated or own is None or theirs[0] != words[0] or OTHER_PURPOSES & (set(theirs) - set(words)):
            continue
        if own[0] < price[0] and own[1] < price[1] and _is_found(other):
            likeness = len(set(words) & set(theirs)) / len(set(words) | set(theirs))
            found.append(Relative(other.id, round(likeness, 3), *own))
    return min(found, key=lambda r: (-r.likeness, r.input_usd_per_mtok + r.output_usd_per_mtok, r.name), default=None)


def _is_found(info: "ModelInfo") -> bool:
    """Return whether the catalogue finds the model by its own name: some names mean another provider's."""
    entry = find(info.id)
    return entry is not None and entry[1].id == info.id


def _words(name: str) -> list[str]:
    return re.split(r"[-._/]", name.lower())


def _price(price: "ModelPrice") -> tuple[Decimal, Decimal] | None:
    """Return US dollars per million input and output tokens of small requests; None where either is missing."""
    first, second = _base(price.input_mtok), _base(price.output_mtok)
    return (first, second) if first and second else None


def _base(price: "Decimal | TieredPrices | None") -> Decimal | None:
    return price if price is None or isinstance(price, Decimal) else price.base
