"""How text is searched, the same way whatever the database: which words it has, and which passage fits a query best.

The words are made here and not by the databases, whose own readers differ: both index exactly these, so that a query is
a handful of plain words, whatever people or documents write. The databases find and bring the likeliest passages first;
which of those is best is computed here.
"""

import math
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from storage.records import HEADING_SEPARATOR
from storage.stemming import stem

MAX_QUERY_TERMS: Final = 16
"""Different words of a query that are looked for; further ones are left out."""

MAX_TERM_CHARACTERS: Final = 64
"""Of one word; what comes after them does not tell words apart."""

MIN_BEGINNING_CHARACTERS: Final = 3
"""A shorter word is not taken as the beginning of longer ones."""

CANDIDATES: Final = 200
"""Passages that the database brings, the likeliest by its own measure; the best of them are found here."""

# Okapi BM25's usual parameters: how soon repeating a word stops to help, and how much length matters.
_K1: Final = 1.2
_B: Final = 0.75

# Chinese, Japanese and Korean are written without spaces: there each character is a word.
_UNSPACED: Final = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD: Final = re.compile(rf"[{_UNSPACED}]|(?:[^\W_{_UNSPACED}]|[\u0300-\u036f])+")

STOP_WORDS: Final = frozenset(
    """
    a about after all am an and any are as at be because been before being but by can could did do does doing for from
    had has have having he her here his how i if in into is it its just may me might must my no nor not of on or our
    out over own shall she should so some such than that the their them then there these they this those to too under
    until up us very was we were what when where which while who whom why will with would you your
    """.split()  # noqa: SIM905 - a list of words is read as words
)
"""Words that every text has: in a query they say nothing."""


def words_of(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield each word's place in the text (start, and end exclusive) and its stem, in order."""
    for match in _WORD.finditer(text):
        for word in _folded(match[0]):
            yield match.start(), match.end(), stem(word)[:MAX_TERM_CHARACTERS]


def index_words(title: str, heading: str, text: str) -> str:
    """Return what is indexed of a passage: stems with single spaces between them, nothing else.

    What it stands under directly counts twice; title and outer headings, which others share, once.
    """
    parts = (title, heading, heading.rpartition(HEADING_SEPARATOR)[2], text)
    return " ".join(word for part in parts for _, _, word in words_of(part))


def query_terms(query: str) -> tuple[str, ...]:
    """Return the stems that a query looks for, each once; words that say nothing only where there are no others."""
    plain = [word for match in _WORD.finditer(query) for word in _folded(match[0])]
    telling = [word for word in plain if word not in STOP_WORDS] or plain
    return tuple(dict.fromkeys(stem(word)[:MAX_TERM_CHARACTERS] for word in telling))[:MAX_QUERY_TERMS]


def beginnings(terms: Sequence[str]) -> tuple[str, ...]:
    """Return those of the terms that are long enough to stand for the words that begin with them."""
    return tuple(term for term in terms if len(term) >= MIN_BEGINNING_CHARACTERS)


def spans(text: str, terms: Collection[str], *, as_beginnings: bool) -> tuple[tuple[int, int], ...]:
    """Return where the text has one of the terms: start, and end exclusive, in order."""
    found = [(start, end) for start, end, word in words_of(text) if _is_one_of(word, terms, as_beginnings)]
    return tuple(dict.fromkeys(found))


def bm25(texts: Sequence[str], terms: Sequence[str], *, total: int, as_beginnings: bool) -> list[float]:
    """Return how well each text fits: Okapi BM25, above 0 where it has a term.

    Args:
        texts: what `index_words` made of passages: all that have a term, or the likeliest of them.
        terms: the stems that are looked for.
        total: how many passages there are in all, those without any term included.
        as_beginnings: whether a term stands for every word that begins with it.
    """
    split = [text.split(" ") for text in texts]
    counts = [[sum(_is_one_of(word, (term,), as_beginnings) for word in words) for term in terms] for words in split]
    mean = sum(map(len, split)) / len(split) if split else 1.0
    weights = []
    for place in range(len(terms)):
        having = sum(row[place] > 0 for row in counts)
        weights.append(math.log(1 + (max(total, len(texts)) - having + 0.5) / (having + 0.5)))
    return [
        sum(
            weight * often * (_K1 + 1) / (often + _K1 * (1 - _B + _B * len(words) / mean))
            for weight, often in zip(weights, row, strict=True)
        )
        for words, row in zip(split, counts, strict=True)
    ]


def _folded(word: str) -> Sequence[str]:
    """Return the word without case and accents: one word, or several where one character stands for a phrase."""
    if word.isascii():
        return (word.lower(),)
    apart = unicodedata.normalize("NFKD", word.casefold())
    return _WORD.findall("".join(character for character in apart if not unicodedata.combining(character)))


def _is_one_of(word: str, terms: Collection[str], as_beginnings: bool) -> bool:  # noqa: FBT001 - inner loop
    return any(map(word.startswith, terms)) if as_beginnings else word in terms
