"""Knowledge bases for tests of storage, and of what stands on it."""

import hashlib
from typing import TypedDict

from storage.records import CorpusRecord, NewDocument, Passage
from tests.support.storage import at, new_id


class Room(TypedDict):
    """How much a corpus may hold, as `Corpora.add_document` takes it."""

    max_documents: int
    max_passages: int


PLENTY: Room = {"max_documents": 1_000, "max_passages": 10_000}


def a_corpus(user_id: str = "ada", name: str = "Runbooks", *, at_s: float = 0) -> CorpusRecord:
    """Return a corpus to be made."""
    return CorpusRecord(new_id(), user_id, name, "How we run things.", at(at_s), at(at_s))


def a_document(
    corpus: CorpusRecord | str,
    *texts: str,
    title: str = "Guide",
    heading: str = "",
    user_id: str = "ada",
    document_id: str = "",
    at_s: float = 0,
) -> NewDocument:
    """Return a document with a passage for each text."""
    whole = "\n".join(texts)
    return NewDocument(
        document_id=document_id or new_id(),
        corpus_id=corpus if isinstance(corpus, str) else corpus.corpus_id,
        user_id=user_id if isinstance(corpus, str) else corpus.user_id,
        title=title,
        source="guide.md",
        sha256=hashlib.sha256(whole.encode()).hexdigest(),
        size_bytes=len(whole.encode()),
        passages=[Passage(heading, text) for text in texts],
        time=at(at_s),
    )
