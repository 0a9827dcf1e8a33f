"""Reading English as people type it: lower case, one spelling of quotes and dashes, typos mended."""

import re
from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files
from typing import Final

from agent_service.llm.offline import data

_TRANSLATION: Final = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2013": "-",
        "\u2014": " - ",
        "\u2212": "-",
        "\u00a0": " ",
    }
)
"""Typographic quotes, dashes and spaces as the keyboard has them."""

_TOKEN: Final = re.compile(r"[a-z][a-z']*|[^a-z]+")
"""Runs of letters, and everything between them. (Numbers and names with digits are never mended.)"""

READ_CHARACTERS: Final = 2_000
"""Of a message: what comes after them is not understood. It bounds the time that the rules take."""

MIN_MENDED: Final = 5
"""Shorter words are taken as they are: one letter makes another word of them."""

TWO_TYPOS_FROM: Final = 8
"""From this length on a word may hold two mistakes."""


_ENDINGS: Final = ("s", "es", "ed", "d", "ing", "er", "ly")


def read_words(name: str) -> list[str]:
    """Return the words of a list in `data`."""
    return files(data).joinpath(name).read_text("utf-8").split()


def _inflected(words: Iterable[str]) -> frozenset[str]:
    known = set(words)
    for word in tuple(known):
        known |= {word + ending for ending in _ENDINGS}
        if word.endswith("e"):
            known.add(word[:-1] + "ing")
        if word.endswith("y"):
            known.add(word[:-1] + "ies")
    return frozenset(known)


KNOWN: Final = _inflected(read_words("known_words.txt"))
"""The words that the rules know: typos are mended towards them."""

_BY_LETTER: Final = {
    letter: tuple(sorted(word for word in KNOWN if word[0] == letter)) for letter in "abcdefghijklmnopqrstuvwxyz"
}

COMMON: Final = frozenset(read_words("common_words.txt"))
"""The small words of English: they tell English from other languages, and nothing else."""


def normalise(message: str) -> str:
    """Return the message in lower case, with plain quotes and dashes, single spaces and typos mended."""
    return "".join(_mend(token) for token in _TOKEN.findall(plain(message).lower()))


def plain(message: str) -> str:
    """Return the message as it was written, with plain quotes and dashes and single spaces."""
    return " ".join(message[:READ_CHARACTERS].translate(_TRANSLATION).split())


def as_written(message: str, start: int, end: int) -> str:
    """Return what stands at this place of the normalised message as the person wrote it: a name is never mended."""
    written, pieces, position = plain(message), [], 0
    lower = written.lower()
    if len(lower) != len(written):
        # Some letters are two in lower case: then there is no telling what stands where.
        return normalise(message)[start:end]
    read = 0
    for token in _TOKEN.findall(lower):
        mended = len(_mend(token))
        first, last = max(start - position, 0), min(end - position, mended)
        if first < last:
            whole = mended != len(token)
            pieces.append(written[read : read + len(token)] if whole else written[read + first : read + last])
        position, read = position + mended, read + len(token)
    return "".join(pieces)


def tokens(normalised: str) -> list[str]:
    """Return the words of a normalised message."""
    return re.findall(r"[^\W\d_][\w']*", normalised)


@lru_cache(maxsize=4096)
def _mend(token: str) -> str:
    if len(token) < MIN_MENDED or not (token.isascii() and token.isalpha()) or token in KNOWN or token in COMMON:
        return token
    allowed = 2 if len(token) >= TWO_TYPOS_FROM else 1
    best, best_distance = token, allowed + 1
    for word in _BY_LETTER[token[0]]:
        if abs(len(word) - len(token)) < best_distance:
            distance = _distance(token, word, best_distance)
            if distance < best_distance:
                best, best_distance = word, distance
    return best


def _distance(left: str, right: str, limit: int) -> int:
    """Return how many letters are missing, extra, wrong or swapped; any number from `limit` on means too many."""
    before: list[int] = []
    previous = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        current = [i]
        for j, b in enumerate(right, start=1):
            cost = min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            current.append(cost)
        if min(current) >= limit:
            return limit
        before, previous = previous, current
    return previous[-1]
