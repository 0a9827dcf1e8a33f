"""Telling other languages from English, by their letters and their small words, and saying so in them."""

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from agent_service.llm.offline import data
from agent_service.llm.offline.words import COMMON, KNOWN, normalise, plain, tokens

FOREIGN_FROM_WORDS: Final = 3
"""Fewer unknown words are taken for a slip of the keyboard, not for another language."""

MIN_SMALL_WORDS: Final = 2
"""Words of a language, and not of English, that tell a message to be in it."""

_NAMES: Final = re.compile(r"\S*[\d_.@/]\w\S*|\b\d\w*")
"""What is a name in any language: gpt-4o, usage.csv, user_id."""


@dataclass(frozen=True, slots=True)
class Language:
    """Another language. `answer` says in it that only English is understood; empty where it is not known which."""

    name: str
    words: frozenset[str] = frozenset()
    letters: re.Pattern[str] | None = None
    answer: str = ""


UNKNOWN: Final = Language("")
"""A language that is not English, and none of those that are told apart."""


def _load() -> tuple[Language, ...]:
    tables = tomllib.loads(files(data).joinpath("languages.toml").read_text("utf-8"))
    return tuple(
        Language(
            name,
            frozenset(table.get("words", "").split()),
            re.compile(table["letters"]) if "letters" in table else None,
            table["answer"],
        )
        for name, table in tables.items()
    )


_LANGUAGES: Final = _load()


def foreign_language(message: str) -> Language | None:
    """Return the language of a message that is not English, `UNKNOWN` where it is none known here; None for English."""
    text = _NAMES.sub(" ", plain(message).lower())
    letters = sum(character.isalpha() for character in text)
    for language in _LANGUAGES:
        if language.letters is not None and len(language.letters.findall(text)) * 2 > letters > 0:
            return language
    words = tokens(text)
    if len(words) < FOREIGN_FROM_WORDS:
        return None
    english = sum(word in COMMON or word in KNOWN for word in tokens(normalise(text)))
    strange = [word for word in words if word not in COMMON and word not in KNOWN]
    counts = [(sum(word in language.words for word in strange), language) for language in _LANGUAGES]
    best, language = max(counts, key=lambda item: item[0])
    if best >= MIN_SMALL_WORDS and best * 2 > len(words) - len(strange):
        return language
    return UNKNOWN if english * 4 < len(words) else None
