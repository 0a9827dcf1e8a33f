"""Knowledge bases in a database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Select, and_, delete, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import full_text
from storage.corpus_search import best, name_key, version_of
from storage.database import Database
from storage.errors import CorpusLimitError, DuplicateDocumentError, RecordNotFoundError
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
from storage.rows import AnyRow, corpus_record, document_record, passage_record
from storage.schema import corpora, corpus_documents, corpus_passages, from_microseconds, to_microseconds

READ_PASSAGES: Final = 200
"""Passages that `read` takes from the database at a time."""

_Row = dict[str, object]


class SqlCorpora:
    """Implements `storage.interfaces.Corpora`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, corpus: CorpusRecord, *, max_corpora: int) -> CorpusRecord:
        key = name_key(corpus.name)
        mine = corpora.c.user_id == corpus.user_id

        async def work(connection: AsyncConnection) -> CorpusRecord:
            await self._database.dialect.serialise(connection, "corpora", corpus.user_id)
            known = (await connection.execute(_counted().where(mine, corpora.c.name_key == key))).one_or_none()
            if known is not None:
                return corpus_record(known)
            if (await connection.execute(select(func.count()).where(mine))).scalar_one() >= max_corpora:
                raise CorpusLimitError("knowledge bases", max_corpora)
            await connection.execute(
                insert(corpora).values(
                    id=corpus.corpus_id,
                    user_id=corpus.user_id,
                    name=corpus.name,
                    name_key=key,
                    description=corpus.description,
                    revision=1,
                    create_time=corpus.create_time,
                    update_time=corpus.update_time,
                )
            )
            return replace(corpus, documents=0, passages=0, size_bytes=0)

        return await self._database.write(work)

    async def get(self, user_id: str, corpus_id: str) -> CorpusRecord:
        return await self._database.read(lambda connection: _get(connection, user_id, corpus_id))

    async def list(self, user_id: str) -> Sequence[CorpusRecord]:
        query = _counted().where(corpora.c.user_id == user_id).order_by(corpora.c.name_key)
        rows = await self._database.read(lambda connection: connection.execute(query))
        return [corpus_record(row) for row in rows]

    async def delete(self, user_id: str, corpus_id: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            await _lock(connection, user_id, corpus_id)
            # Its documents and passages go by their foreign keys.
            await connection.execute(delete(corpora).where(corpora.c.id == corpus_id))

        await self._database.write(work, is_bulk=True)

    async def add_document(
        self, document: NewDocument, *, max_documents: int, max_passages: int
    ) -> tuple[DocumentRecord, DocumentChange]:
        passages = await asyncio.to_thread(_passage_rows, document)
        of_corpus = corpus_documents.c.corpus_id == document.corpus_id

        async def work(connection: AsyncConnection) -> tuple[DocumentRecord, DocumentChange]:
            await _lock(connection, document.user_id, document.corpus_id)
            same = select(corpus_documents).where(of_corpus, corpus_documents.c.sha256 == document.sha256)
            known = (await connection.execute(same)).one_or_none()
            if known is not None:
                return document_record(known), DocumentChange.UNCHANGED
            count = select(func.count()).select_from(corpus_documents).where(of_corpus)
            if (await connection.execute(count)).scalar_one() >= max_documents:
                raise CorpusLimitError("documents", max_documents)
            await _check_room(connection, document, max_passages)
            record = DocumentRecord(
                document_id=document.document_id,
                corpus_id=document.corpus_id,
                user_id=document.user_id,
                title=document.title,
                source=document.source,
                sha256=document.sha256,
                size_bytes=document.size_bytes,
                passages=len(passages),
                create_time=document.time,
                update_time=document.time,
            )
            values = {"id": record.document_id, "create_time": record.create_time, **_document_values(document)}
            await connection.execute(insert(corpus_documents).values(values))
            await _save_passages(connection, passages)
            await _touch(connection, document.corpus_id, document.time)
            return record, DocumentChange.ADDED

        return await self._database.write(work, is_bulk=True)

    async def replace_document(
        self, document: NewDocument, *, max_passages: int
    ) -> tuple[DocumentRecord, DocumentChange]:
        passages = await asyncio.to_thread(_passage_rows, document)
        user_id, document_id = document.user_id, document.document_id

        async def work(connection: AsyncConnection) -> tuple[DocumentRecord, DocumentChange]:
            known = await _locked_document(connection, user_id, document_id)
            now = (document.title, document.source, document.sha256)
            if (known.title, known.source, known.sha256) == now:
                return known, DocumentChange.UNCHANGED
            await _check_unique(connection, known.corpus_id, document)
            await connection.execute(delete(corpus_passages).where(corpus_passages.c.document_id == document_id))
            await _check_room(connection, replace(document, corpus_id=known.corpus_id), max_passages)
            values = _document_values(replace(document, corpus_id=known.corpus_id))
            await connection.execute(
                update(corpus_documents).where(corpus_documents.c.id == document_id).values(values)
            )
            await _save_passages(connection, [row | {"corpus_id": known.corpus_id} for row in passages])
            await _touch(connection, known.corpus_id, document.time)
            return await _get_document(connection, user_id, document_id), DocumentChange.UPDATED

        return await self._database.write(work, is_bulk=True)

    async def get_document(self, user_id: str, document_id: str) -> DocumentRecord:
        return await self._database.read(lambda connection: _get_document(connection, user_id, document_id))

    async def list_documents(
        self, user_id: str, corpus_id: str, *, page_size: int, page_token: str = ""
    ) -> Page[DocumentRecord]:
        listing = ("documents", user_id, corpus_id)
        query = select(corpus_documents).where(corpus_documents.c.corpus_id == corpus_id)
        if after := read_token(page_token, *listing):
            moment, last_id = after
            place = tuple_(corpus_documents.c.create_time, corpus_documents.c.id)
            query = query.where(place < (from_microseconds(moment), last_id))
        query = query.order_by(corpus_documents.c.create_time.desc(), corpus_documents.c.id.desc())

        async def work(connection: AsyncConnection) -> Sequence[AnyRow]:
            await _get(connection, user_id, corpus_id)
            return (await connection.execute(query.limit(page_size + 1))).all()

        rows = await self._database.read(work)
        return cut_page([document_record(row) for row in rows], page_size, _document_key, *listing)

    async def delete_document(self, user_id: str, document_id: str, update_time: datetime) -> None:
        async def work(connection: AsyncConnection) -> None:
            known = await _locked_document(connection, user_id, document_id)
            await connection.execute(delete(corpus_documents).where(corpus_documents.c.id == document_id))
            await _touch(connection, known.corpus_id, update_time)

        await self._database.write(work, is_bulk=True)

    async def read(self, user_id: str, corpus_id: str) -> AsyncIterator[PassageRecord]:
        await self.get(user_id, corpus_id)
        place = tuple_(corpus_documents.c.create_time, corpus_documents.c.id, corpus_passages.c.position)
        query = _passages().where(corpus_passages.c.corpus_id == corpus_id).order_by(*place).limit(READ_PASSAGES)
        piece = query
        while True:
            rows = await self._database.read(_rows_of(piece))
            for row in rows:
                yield passage_record(row)
            if len(rows) < READ_PASSAGES:
                return
            piece = query.where(place > (rows[-1].create_time, rows[-1].document_id, rows[-1].position))

    async def search(self, user_id: str, query: str, *, corpus_ids: Collection[str], limit: int) -> SearchResult:
        terms = full_text.query_terms(query)
        wanted = sorted(set(corpus_ids))

        async def work(connection: AsyncConnection) -> SearchResult:
            scope = _counted().where(corpora.c.user_id == user_id)
            if wanted:
                scope = scope.where(corpora.c.id.in_(wanted))
            within = [corpus_record(row) for row in await connection.execute(scope)]
            found = {corpus.corpus_id for corpus in within}
            for corpus_id in wanted:
                if corpus_id not in found:
                    raise RecordNotFoundError("corpus", corpus_id)
            result = await self._search(connection, within, terms, limit, as_beginnings=False)
            if result.found or not (longer := full_text.beginnings(terms)):
                return replace(result, terms=terms)
            result = await self._search(connection, within, longer, limit, as_beginnings=True)
            return result if result.found else SearchResult(terms, (), 0, as_beginnings=False)

        return await self._database.read(work)

    async def version(self, user_id: str) -> str:
        query = select(corpora.c.id, corpora.c.revision).where(corpora.c.user_id == user_id).order_by(corpora.c.id)
        rows = await self._database.read(lambda connection: connection.execute(query))
        return version_of((row.id, row.revision) for row in rows)

    async def _search(
        self,
        connection: AsyncConnection,
        within: Sequence[CorpusRecord],
        terms: Sequence[str],
        limit: int,
        *,
        as_beginnings: bool,
    ) -> SearchResult:
        if not terms or not within:
            return SearchResult(terms, (), 0, as_beginnings)
        names = {corpus.corpus_id: corpus.name for corpus in within}
        likeliest = self._database.dialect.passages_with(
            terms, list(names), as_beginnings=as_beginnings, limit=full_text.CANDIDATES
        )
        words = select(corpus_passages.c.id, corpus_passages.c.words)
        rows = (
            await connection.execute(words.where(corpus_passages.c.id.in_(likeliest)).order_by(corpus_passages.c.id))
        ).all()
        chosen = best(
            {row.id: row.words for row in rows},
            terms,
            total=sum(corpus.passages for corpus in within),
            limit=limit,
            as_beginnings=as_beginnings,
        )
        shown = (await connection.execute(_passages().where(corpus_passages.c.id.in_(chosen)))).all()
        by_id = {row.id: row for row in shown}
        hits = [
            SearchHit(
                corpus_id=row.corpus_id,
                corpus_name=names[row.corpus_id],
                passage=passage_record(row),
                score=score,
                spans=full_text.spans(row.text, terms, as_beginnings=as_beginnings),
            )
            for key, score in chosen.items()
            if (row := by_id.get(key)) is not None
        ]
        return SearchResult(terms, tuple(hits), len(rows), as_beginnings)


def _counted() -> Select[tuple[object, ...]]:
    """Return the query whose rows `corpus_record` takes: corpora with what they hold."""
    held = (
        select(
            corpus_documents.c.corpus_id,
            func.count().label("documents"),
            func.sum(corpus_documents.c.passages).label("passages"),
            func.sum(corpus_documents.c.size_bytes).label("size_bytes"),
        )
        .group_by(corpus_documents.c.corpus_id)
        .subquery()
    )
    counts = [func.coalesce(held.c[name], 0).label(name) for name in ("documents", "passages", "size_bytes")]
    return select(*corpora.c, *counts).outerjoin(held, held.c.corpus_id == corpora.c.id)


def _passages() -> Select[tuple[object, ...]]:
    """Return the query whose rows `passage_record` takes."""
    columns = (corpus_documents.c.title, corpus_documents.c.source, corpus_documents.c.create_time)
    return select(*corpus_passages.c, *columns).join(
        corpus_documents, corpus_documents.c.id == corpus_passages.c.document_id
    )


def _is(user_id: str, corpus_id: str) -> ColumnElement[bool]:
    return and_(corpora.c.id == corpus_id, corpora.c.user_id == user_id)


async def _get(connection: AsyncConnection, user_id: str, corpus_id: str) -> CorpusRecord:
    row = (await connection.execute(_counted().where(_is(user_id, corpus_id)))).one_or_none()
    if row is None:
        raise RecordNotFoundError("corpus", corpus_id)
    return corpus_record(row)


async def _lock(connection: AsyncConnection, user_id: str, corpus_id: str) -> None:
    """Let changes of this corpus pass one at a time, from here to the transaction's end."""
    row = select(corpora.c.id).where(_is(user_id, corpus_id)).with_for_update()
    if (await connection.execute(row)).one_or_none() is None:
        raise RecordNotFoundError("corpus", corpus_id)


async def _get_document(connection: AsyncConnection, user_id: str, document_id: str) -> DocumentRecord:
    mine = and_(corpus_documents.c.id == document_id, corpus_documents.c.user_id == user_id)
    row = (await connection.execute(select(corpus_documents).where(mine))).one_or_none()
    if row is None:
        raise RecordNotFoundError("document", document_id)
    return document_record(row)


async def _locked_document(connection: AsyncConnection, user_id: str, document_id: str) -> DocumentRecord:
    """Lock the document's corpus, and return the document as it is then."""
    found = await _get_document(connection, user_id, document_id)
    await _lock(connection, user_id, found.corpus_id)
    return await _get_document(connection, user_id, document_id)


async def _check_unique(connection: AsyncConnection, corpus_id: str, document: NewDocument) -> None:
    same = select(corpus_documents.c.title).where(
        corpus_documents.c.corpus_id == corpus_id,
        corpus_documents.c.sha256 == document.sha256,
        corpus_documents.c.id != document.document_id,
    )
    other = (await connection.execute(same)).scalar_one_or_none()
    if other is not None:
        raise DuplicateDocumentError(other)


async def _check_room(connection: AsyncConnection, document: NewDocument, max_passages: int) -> None:
    count = select(func.count()).where(corpus_passages.c.corpus_id == document.corpus_id)
    if (await connection.execute(count)).scalar_one() + len(document.passages) > max_passages:
        raise CorpusLimitError("passages", max_passages)


async def _save_passages(connection: AsyncConnection, passages: Sequence[_Row]) -> None:
    if passages:
        await connection.execute(insert(corpus_passages), passages)


async def _touch(connection: AsyncConnection, corpus_id: str, moment: datetime) -> None:
    """Tell that the corpus has changed."""
    values = {"revision": corpora.c.revision + 1, "update_time": moment}
    await connection.execute(update(corpora).where(corpora.c.id == corpus_id).values(values))


def _document_values(document: NewDocument) -> _Row:
    return {
        "corpus_id": document.corpus_id,
        "user_id": document.user_id,
        "title": document.title,
        "source": document.source,
        "sha256": document.sha256,
        "size_bytes": document.size_bytes,
        "passages": len(document.passages),
        "update_time": document.time,
    }


def _passage_rows(document: NewDocument) -> list[_Row]:
    """Return the rows of the passages. Reads every word: call it in a thread."""
    return [
        {
            "corpus_id": document.corpus_id,
            "document_id": document.document_id,
            "position": position,
            "heading": passage.heading,
            "text": passage.text,
            "words": full_text.index_words(document.title, passage.heading, passage.text),
        }
        for position, passage in enumerate(document.passages, start=1)
    ]


def _rows_of(query: Select[tuple[object, ...]]) -> Callable[[AsyncConnection], Awaitable[Sequence[AnyRow]]]:
    async def work(connection: AsyncConnection) -> Sequence[AnyRow]:
        return (await connection.execute(query)).all()

    return work


def _document_key(record: DocumentRecord) -> SortKey:
    return to_microseconds(record.create_time), record.document_id
