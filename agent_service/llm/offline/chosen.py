"""The computed options that a plan and an answer are about, as the optimization tools give them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agent_service.engine.events import JsonObject
from agent_service.llm.offline.conversation import Exchange, child, children, number, text

OPTIMIZATIONS: Final = "optimizations"

MAX_CHOSEN: Final = 4
"""Options that one plan carries out."""

MAX_LISTED: Final = 10
"""Options that one answer lists."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option, and the call that computed it."""

    tool_call_id: str
    data: JsonObject

    @property
    def id(self) -> str:
        """Its id in the call."""
        return text(self.data, "id")

    @property
    def title(self) -> str:
        """What it is."""
        return text(self.data, "title") or self.id

    @property
    def part_ids(self) -> list[str]:
        """The options that a combination is made of; none for a single one."""
        return [text(part, "option_id") for part in children(self.data, "parts")]

    @property
    def name(self) -> str:
        """What to call it in a sentence: a combination by how many it joins."""
        count = len(self.part_ids)
        return f"the combination of {count} options" if count > 1 else self.title

    @property
    def saving_usd(self) -> float:
        """Over the span of the data; negative where it costs more."""
        return number(self.data, "saving_usd") or 0.0

    @property
    def citation(self) -> JsonObject:
        """How tools take it."""
        return {"tool_call_id": self.tool_call_id, "option_id": self.id}

    @property
    def has_rules(self) -> bool:
        """Tell whether a router could put it into force."""
        return bool(child(self.data, "how"))


def options(evidence: Sequence[Exchange]) -> list[Option]:
    """Return every single option whose saving could be computed, each once, the largest saving first."""
    found: dict[str, Option] = {}
    for exchange in evidence:
        for data in children(exchange.result, "options"):
            if "saving_usd" in data and _is_priced(data):
                option = Option(exchange.tool_call_id, data)
                found.setdefault(option.id, option)
    return sorted(found.values(), key=lambda option: (-option.saving_usd, option.id))


def combination(evidence: Sequence[Exchange]) -> tuple[Option | None, bool]:
    """Return the last combination that was computed, and whether it meets every goal."""
    for exchange in reversed(evidence):
        for key in ("best", "nearest"):
            data = child(exchange.result, key)
            if isinstance(data, Mapping) and _is_priced(data):
                return Option(exchange.tool_call_id, data), key == "best"
    return None, False


def _is_priced(data: JsonObject) -> bool:
    """False where the cost is not known: nothing can be saved of it, and nothing be said about that."""
    return number(data, "cost_before_usd") != 0


def chosen(evidence: Sequence[Exchange]) -> list[Option]:
    """Return what to carry out: the parts of the combination; without one the best option of each kind that saves."""
    every = options(evidence)
    together, _ = combination(evidence)
    if together is not None:
        parts = [option for name in together.part_ids for option in every if option.id == name]
        return parts[:MAX_CHOSEN] or [together]
    return list(_best_of_each_kind(every))[:MAX_CHOSEN]


def _best_of_each_kind(every: Sequence[Option]) -> Iterator[Option]:
    kinds: set[str] = set()
    for option in every:
        kind = text(option.data, "kind") or option.id
        if option.saving_usd > 0 and kind not in kinds:
            kinds.add(kind)
            yield option
