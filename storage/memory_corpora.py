"""Knowledge bases in memory."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from datetime import datetime

from storage import full_text
from storage.corpus_search import best, name_key, version_of
from storage.errors import CorpusLimitError, DuplicateDocumentError, RecordNotFoundError
from storage.memory_state import MemoryState
from storage.paging import SortKey, cut_page, read_token
from storage.records import (
    CorpusRecord,
    DocumentChange,
    DocumentRecord,
    NewDocument,
    Page,
    PassageRecord,
    SearchHit,
    SearchResult,
)
from storage.schema import to_microseconds


class MemoryCorpora:
    """Implements `storage.interfaces.Corpora`."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    async def create(self, corpus: CorpusRecord, *, max_corpora: int) -> CorpusRecord:
        mine = await self.list(corpus.user_id)
        for known in mine:
            if name_key(known.name) == name_key(corpus.name):
                return known
        if len(mine) >= max_corpora:
            raise CorpusLimitError("knowledge bases", max_corpora)
        self._state.corpora[corpus.corpus_id] = replace(corpus, documents=0, passages=0, size_bytes=0)
        self._state.revisions[corpus.corpus_id] = 1
        return await self.get(corpus.user_id, corpus.corpus_id)

    async def get(self, user_id: str, corpus_id: str) -> CorpusRecord:
        corpus = self._state.corpora.get(corpus_id)
        if corpus is None or corpus.user_id != user_id:
            raise RecordNotFoundError("corpus", corpus_id)
        return self._counted(corpus)

    async def list(self, user_id: str) -> Sequence[CorpusRecord]:
        found = [self._counted(corpus) for corpus in self._state.corpora.values() if corpus.user_id == user_id]
        return sorted(found, key=lambda corpus: name_key(corpus.name))

    async def delete(self, user_id: str, corpus_id: str) -> None:
        await self.get(user_id, corpus_id)
        for document in self._documents(corpus_id):
            del self._state.documents[document.document_id], self._state.passages[document.document_id]
        del self._state.corpora[corpus_id], self._state.revisions[corpus_id]

    async def add_document(
        self, document: NewDocument, *, max_documents: int, max_passages: int
    ) -> tuple[DocumentRecord, DocumentChange]:
        corpus = await self.get(document.user_id, document.corpus_id)
        for known in self._documents(document.corpus_id):
            if known.sha256 == document.sha256:
                return known, DocumentChange.UNCHANGED
        if corpus.documents >= max_documents:
            raise CorpusLimitError("documents", max_documents)
        if corpus.passages + len(document.passages) > max_passages:
            raise CorpusLimitError("passages", max_passages)
        return self._save(document, document.time), DocumentChange.ADDED

    async def replace_document(
        self, document: NewDocument, *, max_passages: int
    ) -> tuple[DocumentRecord, DocumentChange]:
        known = await self.get_document(document.user_id, document.document_id)
        if (known.title, known.source, known.sha256) == (document.title, document.source, document.sha256):
            return known, DocumentChange.UNCHANGED
        others = [other for other in self._documents(known.corpus_id) if other.document_id != known.document_id]
        for other in others:
            if other.sha256 == document.sha256:
                raise DuplicateDocumentError(other.title)
        if sum(other.passages for other in others) + len(document.passages) > max_passages:
            raise CorpusLimitError("passages", max_passages)
        return self._save(replace(document, corpus_id=known.corpus_id), known.create_time), DocumentChange.UPDATED

    async def get_document(self, user_id: str, document_id: str) -> DocumentRecord:
        document = self._state.documents.get(document_id)
        if document is None or document.user_id != user_id:
            raise RecordNotFoundError("document", document_id)
        return document

    async def list_documents(
        self, user_id: str, corpus_id: str, *, page_size: int, page_token: str = ""
    ) -> Page[DocumentRecord]:
        listing = ("documents", user_id, corpus_id)
        after = read_token(page_token, *listing)
        await self.get(user_id, corpus_id)
        found = [
            document for document in self._documents(corpus_id) if after is None or _document_key(document) < after
        ]
        return cut_page(found[::-1], page_size, _document_key, *listing)

    async def delete_document(self, user_id: str, document_id: str, update_time: datetime) -> None:
        document = await self.get_document(user_id, document_id)
        del self._state.documents[document_id], self._state.passages[document_id]
        self._touch(document.corpus_id, update_time)

    async def read(self, user_id: str, corpus_id: str) -> AsyncIterator[PassageRecord]:
        await self.get(user_id, corpus_id)
        for document in self._documents(corpus_id):
            for passage in self._passages(document):
                yield passage

    async def search(self, user_id: str, query: str, *, corpus_ids: Collection[str], limit: int) -> SearchResult:
        mine = await self.list(user_id)
        within = [await self.get(user_id, corpus_id) for corpus_id in sorted(set(corpus_ids))] or mine
        terms = full_text.query_terms(query)
        result = self._search(within, terms, limit, as_beginnings=False)
        if result.found or not (longer := full_text.beginnings(terms)):
            return result
        result = self._search(within, longer, limit, as_beginnings=True)
        return result if result.found else SearchResult(terms, (), 0, as_beginnings=False)

    async def version(self, user_id: str) -> str:
        mine = sorted(corpus.corpus_id for corpus in self._state.corpora.values() if corpus.user_id == user_id)
        return version_of((corpus_id, self._state.revisions[corpus_id]) for corpus_id in mine)

    def _search(
        self, within: Sequence[CorpusRecord], terms: Sequence[str], limit: int, *, as_beginnings: bool
    ) -> SearchResult:
        placed = [
            (corpus, passage)
            for corpus in within
            for document in self._documents(corpus.corpus_id)
            for passage in self._passages(document)
        ]
        words = {
            place: text
            for place, (_, passage) in enumerate(placed)
            if full_text.spans(
                text := full_text.index_words(passage.title, passage.heading, passage.text),
                terms,
                as_beginnings=as_beginnings,
            )
        }
        chosen = best(words, terms, total=len(placed), limit=limit, as_beginnings=as_beginnings)
        hits = tuple(
            SearchHit(
                corpus_id=placed[place][0].corpus_id,
                corpus_name=placed[place][0].name,
                passage=placed[place][1],
                score=score,
                spans=full_text.spans(placed[place][1].text, terms, as_beginnings=as_beginnings),
            )
            for place, score in chosen.items()
        )
        return SearchResult(terms, hits, min(len(words), full_text.CANDIDATES), as_beginnings)

    def _documents(self, corpus_id: str) -> Sequence[DocumentRecord]:
        """Return the documents of a corpus, oldest first."""
        found = [document for document in self._state.documents.values() if document.corpus_id == corpus_id]
        return sorted(found, key=_document_key)

    def _passages(self, document: DocumentRecord) -> Sequence[PassageRecord]:
        return [
            PassageRecord(
                document.document_id, document.title, document.source, position, passage.heading, passage.text
            )
            for position, passage in enumerate(self._state.passages[document.document_id], start=1)
        ]

    def _counted(self, corpus: CorpusRecord) -> CorpusRecord:
        documents = self._documents(corpus.corpus_id)
        return replace(
            corpus,
            documents=len(documents),
            passages=sum(document.passages for document in documents),
            size_bytes=sum(document.size_bytes for document in documents),
        )

    def _save(self, document: NewDocument, create_time: datetime) -> DocumentRecord:
        record = DocumentRecord(
            document_id=document.document_id,
            corpus_id=document.corpus_id,
            user_id=document.user_id,
            title=document.title,
            source=document.source,
            sha256=document.sha256,
            size_bytes=document.size_bytes,
            passages=len(document.passages),
            create_time=create_time,
            update_time=document.time,
        )
        self._state.documents[record.document_id] = record
        self._state.passages[record.document_id] = tuple(document.passages)
        self._touch(record.corpus_id, document.time)
        return record

    def _touch(self, corpus_id: str, moment: datetime) -> None:
        self._state.corpora[corpus_id] = replace(self._state.corpora[corpus_id], update_time=moment)
        self._state.revisions[corpus_id] += 1


def _document_key(record: DocumentRecord) -> SortKey:
    return to_microseconds(record.create_time), record.document_id
