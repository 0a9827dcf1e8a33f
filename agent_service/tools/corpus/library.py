"""What the tools over knowledge bases work with, and how they find the one, the document and the files meant."""

import asyncio
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.ports import Clock, Ids
from agent_service.engine.tool import ToolContext, ToolError
from agent_service.tools.analysis import time_text
from agent_service.tools.corpus.limits import MAX_READERS, MAX_SHOWN_BYTES, MAX_TITLE_CHARACTERS
from agent_service.tools.corpus.passages import cut
from agent_service.tools.corpus.reading import READABLE, kind_of
from agent_service.tools.datasets import list_files
from agent_service.tools.measures import clip
from storage.errors import RecordNotFoundError
from storage.interfaces import Corpora, Files
from storage.records import CorpusRecord, DocumentRecord, FileRecord, NewDocument

SHOWN_NAMES: Final = 10
"""Names that an error lists, so that the right one can be said."""

_PAGE_SIZE: Final = 200

REFERRED: Final = "the message refers to it"
NAMED: Final = "it was asked for by name"
NEWEST: Final = "it is your newest upload that can be added"


@dataclass(frozen=True, slots=True)
class Library:
    """The knowledge bases and files, what new ones need, and the turn of files that a process of their own reads."""

    corpora: Corpora
    files: Files
    clock: Clock
    ids: Ids
    turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_READERS))


async def find_corpus(library: Library, context: ToolContext, named: str) -> CorpusRecord:
    """Return the corpus of this id or name; with none, the one the message refers to, or the only one there is.

    Raises `ToolError` that says which there are.
    """
    mine = await library.corpora.list(context.user_id)
    wanted = _plain(named)
    if wanted:
        found = [corpus for corpus in mine if wanted in {corpus.corpus_id, _plain(corpus.name)}]
        found = found or [corpus for corpus in mine if wanted in _plain(corpus.name)]
    else:
        referred = {reference.corpus_id for reference in context.references}
        found = [corpus for corpus in mine if corpus.corpus_id in referred] or list(mine)
    if len(found) == 1:
        return found[0]
    raise ToolError(_which_corpus(mine, named))


def exactly(corpora: Sequence[CorpusRecord], named: str) -> CorpusRecord | None:
    """Return the corpus of exactly this id or name: nothing less is enough where something is lost."""
    wanted = _plain(named)
    return next((corpus for corpus in corpora if wanted in {corpus.corpus_id, _plain(corpus.name)}), None)


def names_of(corpora: Sequence[CorpusRecord]) -> str:
    """Return the names for a sentence."""
    shown = ", ".join(f"“{corpus.name}”" for corpus in corpora[:SHOWN_NAMES])
    return f"{shown} and {len(corpora) - SHOWN_NAMES} more" if len(corpora) > SHOWN_NAMES else shown


async def find_document(library: Library, context: ToolContext, corpus: str, named: str) -> DocumentRecord:
    """Return the document that `documents_named` finds. Raises `ToolError` unless it is exactly one."""
    found = await documents_named(library, context, corpus, named)
    if len(found) == 1:
        return found[0]
    if found:
        raise ToolError(f"There are {len(found)} documents called “{clip(named)}”. Say which one by its id.")
    where = f"“{clip(corpus)}”" if corpus else "your knowledge bases"
    raise ToolError(f"There is no document “{clip(named)}” in {where}. Its title, file name or id says which is meant.")


async def documents_named(library: Library, context: ToolContext, corpus: str, named: str) -> list[DocumentRecord]:
    """Return the documents of this id, title or file name; `corpus` may say in which knowledge base.

    Raises `ToolError` for a corpus that is not there.
    """
    try:
        return [await library.corpora.get_document(context.user_id, named)]
    except RecordNotFoundError:
        pass
    mine = [await find_corpus(library, context, corpus)] if corpus else await library.corpora.list(context.user_id)
    wanted = _plain(named)
    return [
        document
        for one in mine
        for document in await all_documents(library, context.user_id, one.corpus_id)
        if wanted in {_plain(document.title), _plain(document.source)}
    ]


async def all_documents(library: Library, user_id: str, corpus_id: str) -> list[DocumentRecord]:
    """Return every document of a corpus, newest first."""
    found: list[DocumentRecord] = []
    token = ""
    while True:
        page = await library.corpora.list_documents(user_id, corpus_id, page_size=_PAGE_SIZE, page_token=token)
        found += page.items
        token = page.next_page_token
        if not token:
            return found


async def find_files(library: Library, context: ToolContext, named: Sequence[str]) -> tuple[list[FileRecord], str]:
    """Return the files to add and why these: those named; else those the message refers to; else the newest upload.

    Raises `ToolError`.
    """
    mine = await list_files(library.files, context.user_id)
    if named:
        return [_file(mine, name) for name in dict.fromkeys(named)], NAMED
    if found := _referred(mine, context):
        return found, REFERRED
    for record in mine:
        # What runs made are answers, not what people brought.
        if record.run_id is None and kind_of(record.name, record.media_type):
            return [record], NEWEST
    raise ToolError(f"There is nothing to add. Upload a file ({READABLE}), or write the text into your message.")


async def find_newer_file(library: Library, context: ToolContext, document: DocumentRecord, named: str) -> FileRecord:
    """Return the file that is to replace a document.

    The one named; else the only one that the message refers to; else the newest upload under the document's own file
    name. Raises `ToolError`: nothing less tells which text is to take the other's place.
    """
    mine = await list_files(library.files, context.user_id)
    if named:
        return _file(mine, named)
    found = _referred(mine, context)
    found = found or [record for record in mine if record.run_id is None and record.name == document.source][:1]
    if len(found) == 1:
        return found[0]
    raise ToolError(f"Say which file holds the new text of “{document.title}”, or write the text into your message.")


async def referred_files(library: Library, context: ToolContext) -> list[FileRecord]:
    """Return the files that the message refers to, newest first."""
    return _referred(await list_files(library.files, context.user_id), context)


def new_document(
    library: Library, context: ToolContext, corpus_id: str, *, title: str, source: str, text: str
) -> NewDocument:
    """Return the text as a document, cut into passages. Reads every word of it: call it in a thread."""
    return NewDocument(
        document_id=library.ids.new(),
        corpus_id=corpus_id,
        user_id=context.user_id,
        title=clip(" ".join(title.split()), MAX_TITLE_CHARACTERS),
        source=clip(source, MAX_TITLE_CHARACTERS),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        size_bytes=len(text.encode()),
        passages=cut(text),
        time=library.clock.now(),
    )


def corpus_part(corpus: CorpusRecord) -> JsonObject:
    """Return a corpus in a result."""
    return {
        "corpus_id": corpus.corpus_id,
        "name": corpus.name,
        "description": corpus.description,
        "documents": corpus.documents,
        "passages": corpus.passages,
        "size_bytes": corpus.size_bytes,
        "create_time": time_text(corpus.create_time),
        "update_time": time_text(corpus.update_time),
    }


def document_part(document: DocumentRecord) -> JsonObject:
    """Return a document in a result."""
    return {
        "document_id": document.document_id,
        "title": document.title,
        "source": document.source,
        "passages": document.passages,
        "size_bytes": document.size_bytes,
        "create_time": time_text(document.create_time),
        "update_time": time_text(document.update_time),
    }


def size(part: JsonValue) -> int:
    """Return how many bytes this is as JSON."""
    return len(json.dumps(part, ensure_ascii=False).encode())


def fitting(parts: Iterable[JsonObject]) -> list[JsonValue]:
    """Return the first of these that can be shown together: as many as `MAX_SHOWN_BYTES` lets."""
    shown: list[JsonValue] = []
    room = MAX_SHOWN_BYTES
    for part in parts:
        room -= size(part)
        if room < 0:
            break
        shown.append(part)
    return shown


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())


def _which_corpus(mine: Sequence[CorpusRecord], named: str) -> str:
    if not mine:
        return "You have no knowledge base yet. Make one first, for example: create a knowledge base called Runbooks."
    if named:
        return f"There is no knowledge base that “{clip(named)}” could only mean. There are: {names_of(mine)}."
    return f"Say which knowledge base is meant: {names_of(mine)}."


def _file(mine: Sequence[FileRecord], named: str) -> FileRecord:
    for record in mine:
        if named == record.file_id or _plain(named) == _plain(record.name):
            return record
    raise ToolError(f"You have no file “{clip(named)}”. Upload it, or say the name that it was uploaded under.")


def _referred(mine: Sequence[FileRecord], context: ToolContext) -> list[FileRecord]:
    ids = {reference.file_id for reference in context.references}
    return [record for record in mine if record.file_id in ids]
