"""The stems of English words, by Porter's algorithm (1980): retry, retries and retried become one word."""

import re
from functools import lru_cache
from typing import Final

MAX_WORD_CHARACTERS: Final = 40
"""A longer run of letters is no English word, and stays as it is."""

_MIN_WORD_CHARACTERS: Final = 3

# A word is [C](VC)^m[V]: C runs of consonants, V runs of vowels, and m is what Porter calls its measure.
_CONSONANTS: Final = "[^aeiou][^aeiouy]*"
_VOWELS: Final = "[aeiouy][aeiou]*"
_SOME: Final = re.compile(f"^(?:{_CONSONANTS})?{_VOWELS}{_CONSONANTS}")
_ONE: Final = re.compile(f"^(?:{_CONSONANTS})?{_VOWELS}{_CONSONANTS}(?:{_VOWELS})?$")
_MANY: Final = re.compile(f"^(?:{_CONSONANTS})?{_VOWELS}{_CONSONANTS}{_VOWELS}{_CONSONANTS}")
_HAS_VOWEL: Final = re.compile(f"^(?:{_CONSONANTS})?[aeiouy]")
_SHORT: Final = re.compile(f"^{_CONSONANTS}[aeiouy][^aeiouwxy]$")
_DOUBLE: Final = re.compile(r"([^aeiouylsz])\1$")

_STEP_2: Final = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble", "logi": "log",
}  # fmt: skip
_STEP_3: Final = {
    "icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": "",
}  # fmt: skip
_STEP_4: Final = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ou", "ism", "ate", "iti", "ous",
    "ive", "ize",
)  # fmt: skip


def _any_of(endings: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(endings, key=len, reverse=True)
    return re.compile(f"^(.+?)({'|'.join(longest_first)})$")


_ENDS_2: Final = _any_of(tuple(_STEP_2))
_ENDS_3: Final = _any_of(tuple(_STEP_3))
_ENDS_4: Final = _any_of(_STEP_4)
_ENDS_ION: Final = re.compile("^(.+?[st])ion$")


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Return the stem of a word in lower case. What is not made of the letters a to z stays as it is."""
    if not (_MIN_WORD_CHARACTERS <= len(word) <= MAX_WORD_CHARACTERS and word.isascii() and word.isalpha()):
        return word
    # A y that begins a word is a consonant: no vowel is a capital.
    begun = f"Y{word[1:]}" if word.startswith("y") else word
    for step in (_plural, _past, _y, _suffixes, _adjectives, _nouns, _final_e):
        begun = step(begun)
    return begun.lower()


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _SOME.match(word[:-3]) else word
    for ending in ("ed", "ing"):
        if word.endswith(ending):
            base = word.removesuffix(ending)
            return _mended(base) if _HAS_VOWEL.match(base) else word
    return word


def _mended(base: str) -> str:
    if base.endswith(("at", "bl", "iz")) or _SHORT.match(base):
        return base + "e"
    return base[:-1] if _DOUBLE.search(base) else base


def _y(word: str) -> str:
    return f"{word[:-1]}i" if word.endswith("y") and _HAS_VOWEL.match(word[:-1]) else word


def _suffixes(word: str) -> str:
    match = _ENDS_2.match(word)
    return match[1] + _STEP_2[match[2]] if match and _SOME.match(match[1]) else word


def _adjectives(word: str) -> str:
    match = _ENDS_3.match(word)
    return match[1] + _STEP_3[match[2]] if match and _SOME.match(match[1]) else word


def _nouns(word: str) -> str:
    match = _ENDS_4.match(word)
    if match:
        return match[1] if _MANY.match(match[1]) else word
    ion = _ENDS_ION.match(word)
    return ion[1] if ion and _MANY.match(ion[1]) else word


def _final_e(word: str) -> str:
    if word.endswith("e"):
        base = word[:-1]
        if _MANY.match(base) or (_ONE.match(base) and not _SHORT.match(base)):
            word = base
    return word[:-1] if word.endswith("ll") and _MANY.match(word) else word
