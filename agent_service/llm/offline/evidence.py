"""The rules of `data/evidence.toml`: what speaks for which intent, and what kind of look is asked for."""

import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import TypeAlias

from agent_service.engine.intents import Intent
from agent_service.llm.offline import data

_Rules: TypeAlias = Mapping[Intent, tuple[tuple[re.Pattern[str], float], ...]]


def _load() -> tuple[_Rules, Mapping[str, re.Pattern[str]]]:
    tables = tomllib.loads(files(data).joinpath("evidence.toml").read_text("utf-8"))
    facets = {name: re.compile(pattern) for name, pattern in tables.pop("facets").items()}
    rules = {
        Intent(name): tuple((re.compile(pattern), float(weight)) for pattern, weight in table["evidence"])
        for name, table in tables.items()
    }
    return MappingProxyType(rules), MappingProxyType(facets)


_RULES, _FACETS = _load()


def scores(text: str) -> dict[Intent, float]:
    """Return how much in a normalised message, with MODEL for models' names, speaks for each intent."""
    return {intent: sum(weight for rule, weight in rules if rule.search(text)) for intent, rules in _RULES.items()}


def facet_names(text: str) -> list[str]:
    """Return the facets whose words the message has."""
    return [name for name, rule in _FACETS.items() if rule.search(text)]
