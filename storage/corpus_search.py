"""What the storages of knowledge bases share: which names are the same, which passages are best, what a version is."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

from storage import full_text

KeyT = TypeVar("KeyT")

VERSION_CHARACTERS: Final = 16
"""Of a version: hexadecimal digits of a digest."""


def name_key(name: str) -> str:
    """Return what makes two names the same: the words without case."""
    return " ".join(name.casefold().split())


def version_of(revisions: Iterable[tuple[str, int]]) -> str:
    """Return the version of a user's corpora from their ids and revisions, which come sorted."""
    text = ",".join(f"{corpus_id}:{revision}" for corpus_id, revision in revisions)
    return hashlib.sha256(text.encode()).hexdigest()[:VERSION_CHARACTERS]


def best(
    words: Mapping[KeyT, str], terms: Sequence[str], *, total: int, limit: int, as_beginnings: bool
) -> dict[KeyT, float]:
    """Return the `limit` passages that fit best with their scores, best first; of equal ones the earlier in `words`."""
    scores = full_text.bm25(list(words.values()), terms, total=total, as_beginnings=as_beginnings)
    ranked = sorted(zip(words, scores, strict=True), key=lambda entry: -round(entry[1], 9))
    return dict(ranked[:limit])
