"""The tools that make, fill and delete knowledge bases."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolContext, ToolError, ToolOutput
from agent_service.tools.corpus.library import (
    Library,
    corpus_part,
    document_part,
    documents_named,
    exactly,
    find_corpus,
    find_document,
    find_files,
    find_newer_file,
    fitting,
    names_of,
    new_document,
    referred_files,
)
from agent_service.tools.corpus.limits import (
    MAX_CORPORA,
    MAX_DESCRIPTION_CHARACTERS,
    MAX_DOCUMENTS,
    MAX_FILES_AT_ONCE,
    MAX_NAME_CHARACTERS,
    MAX_PASSAGES,
    MAX_TEXT_BYTES,
    MAX_TITLE_CHARACTERS,
)
from agent_service.tools.corpus.passages import first_heading
from agent_service.tools.corpus.reading import cleaned, read_file
from agent_service.tools.measures import clip, counted
from storage.errors import CorpusLimitError, DuplicateDocumentError, RecordNotFoundError
from storage.records import CorpusRecord, DocumentChange, DocumentRecord, FileRecord, NewDocument

MESSAGE: Final = "the message"
"""The source of a text that no file holds."""


class CreateCorpusArgs(BaseModel):
    """Arguments of create_corpus."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(
        min_length=1, max_length=MAX_NAME_CHARACTERS, pattern=r"\S", description="What it is called, e.g. Runbooks."
    )
    description: str = Field(
        default="", max_length=MAX_DESCRIPTION_CHARACTERS, description="What it is about, in one sentence."
    )


class TextDocument(BaseModel):
    """A text that becomes a document."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=MAX_TEXT_BYTES, description="The text, plain or Markdown, in full.")
    title: str = Field(default="", max_length=MAX_TITLE_CHARACTERS, description="Its title; empty: its first heading.")


class AddDocumentsArgs(BaseModel):
    """Arguments of add_documents."""

    model_config = ConfigDict(extra="forbid")

    corpus: str = Field(
        default="", max_length=200, description="Name or id of the knowledge base; empty: the only one there is."
    )
    files: list[str] = Field(
        default=[],
        max_length=MAX_FILES_AT_ONCE,
        description="Names or ids of uploaded files (text, Markdown, HTML, PDF). Empty, and no texts: those that the "
        "message refers to, else the newest upload.",
    )
    texts: list[TextDocument] = Field(
        default=[], max_length=MAX_FILES_AT_ONCE, description="Texts that the person wrote into the message."
    )


class UpdateDocumentArgs(BaseModel):
    """Arguments of update_document."""

    model_config = ConfigDict(extra="forbid")

    document: str = Field(min_length=1, max_length=200, description="Title, file name or id of the document.")
    corpus: str = Field(default="", max_length=200, description="Name or id of its knowledge base; empty: any.")
    file: str = Field(default="", max_length=200, description="Name or id of the uploaded file with the new text.")
    text: str = Field(default="", max_length=MAX_TEXT_BYTES, description="The new text, in place of a file.")
    title: str = Field(default="", max_length=MAX_TITLE_CHARACTERS, description="The new title; empty: as it was.")


class DeleteDocumentArgs(BaseModel):
    """Arguments of delete_document."""

    model_config = ConfigDict(extra="forbid")

    document: str = Field(min_length=1, max_length=200, description="Title, file name or id of the document.")
    corpus: str = Field(default="", max_length=200, description="Name or id of its knowledge base; empty: any.")


class DeleteCorpusArgs(BaseModel):
    """Arguments of delete_corpus."""

    model_config = ConfigDict(extra="forbid")

    corpus: str = Field(min_length=1, max_length=200, description="The exact name, or the id, of the knowledge base.")


async def create_corpus(library: Library, context: ToolContext, args: CreateCorpusArgs) -> ToolOutput:
    """Make a knowledge base, or find the one of this name."""
    now = library.clock.now()
    name, description = " ".join(cleaned(args.name).split()), " ".join(cleaned(args.description).split())
    if not name:
        raise ToolError("The name has no character that can be shown. Give it another one, for example Runbooks.")
    new = CorpusRecord(library.ids.new(), context.user_id, name, description, now, now)
    with told_in_words():
        corpus = await library.corpora.create(new, max_corpora=MAX_CORPORA)
    created = corpus.corpus_id == new.corpus_id
    referred = await referred_files(library, context)
    result: JsonObject = {
        "corpus": corpus_part(corpus),
        "created": created,
        # So that whoever asked goes on and adds them.
        "referenced_files": [
            {"file_id": record.file_id, "name": clip(record.name)} for record in referred[:MAX_FILES_AT_ONCE]
        ],
    }
    what = "made" if created else f"is there already, with {counted(corpus.documents, 'document')}"
    return ToolOutput(f"Knowledge base “{corpus.name}” {what}", result)


async def add_documents(library: Library, context: ToolContext, args: AddDocumentsArgs) -> ToolOutput:
    """Add files and texts; what cannot be read is told beside what could."""
    corpus = await find_corpus(library, context, args.corpus)
    files, because = ([], "") if args.texts and not args.files else await find_files(library, context, args.files)
    if len(files) > MAX_FILES_AT_ONCE:
        raise ToolError(f"{len(files)} files are more than the {MAX_FILES_AT_ONCE} of one call. Name fewer.")
    added: list[tuple[DocumentRecord, DocumentChange]] = []
    failed: list[tuple[str, str]] = []

    sources: list[FileRecord | TextDocument] = [*files, *args.texts]
    for number, source in enumerate(sources):
        name = clip(source.name) if isinstance(source, FileRecord) else MESSAGE
        await context.progress(f"Reading {name}", number / len(sources))
        try:
            with told_in_words():
                document = await _document(library, context, corpus.corpus_id, source)
                record, change = await library.corpora.add_document(
                    document, max_documents=MAX_DOCUMENTS, max_passages=MAX_PASSAGES
                )
        except ToolError as error:
            failed.append((name, str(error)))
        else:
            added.append((record, change))
    if not added:
        raise ToolError(" ".join(why for _, why in failed))
    now = await library.corpora.get(context.user_id, corpus.corpus_id)
    shown = fitting({**document_part(record), "change": change.value} for record, change in added)
    result: JsonObject = {
        "corpus": corpus_part(now),
        "documents": shown,
        "documents_not_shown": len(added) - len(shown),
        "failed": [{"source": name, "why": why} for name, why in failed],
        "chosen_because": because,
    }
    new = sum(change is DocumentChange.ADDED for _, change in added)
    parts = [f"{counted(new, 'document')} added to “{corpus.name}”"]
    parts += [f"{len(added) - new} already there"] if len(added) > new else []
    parts += [f"{len(failed)} not readable"] if failed else []
    return ToolOutput("; ".join(parts), result)


async def update_document(library: Library, context: ToolContext, args: UpdateDocumentArgs) -> ToolOutput:
    """Give a document another text."""
    document = await find_document(library, context, args.corpus, args.document)
    if args.text:
        text, source = cleaned(args.text), MESSAGE
    else:
        file = await find_newer_file(library, context, document, args.file)
        with told_in_words():
            text, source = (await read_file(library.files, file, library.turn)).text, file.name
    _check_text(text)
    new = await asyncio.to_thread(
        new_document,
        library,
        context,
        document.corpus_id,
        title=cleaned(args.title) or document.title,
        source=source,
        text=text,
    )
    with told_in_words():
        record, change = await library.corpora.replace_document(
            replace(new, document_id=document.document_id), max_passages=MAX_PASSAGES
        )
    corpus = await library.corpora.get(context.user_id, document.corpus_id)
    result: JsonObject = {
        "corpus": corpus_part(corpus),
        "document": {**document_part(record), "change": change.value},
        "passages_before": document.passages,
    }
    what = "is as it was: the text is the same" if change is DocumentChange.UNCHANGED else "has its new text"
    return ToolOutput(f"“{record.title}” {what}", result)


async def delete_document(library: Library, context: ToolContext, args: DeleteDocumentArgs) -> ToolOutput:
    """Delete a document. One that is not there is as good as deleted: a call may run again after a crash."""
    if not await documents_named(library, context, args.corpus, args.document):
        nothing: JsonObject = {"corpus": None, "document": None, "asked_for": args.document, "deleted": False}
        return ToolOutput(f"There is no document “{clip(args.document)}”", nothing)
    document = await find_document(library, context, args.corpus, args.document)
    with told_in_words():
        await library.corpora.delete_document(context.user_id, document.document_id, library.clock.now())
    corpus = await library.corpora.get(context.user_id, document.corpus_id)
    result: JsonObject = {
        "corpus": corpus_part(corpus),
        "document": document_part(document),
        "asked_for": args.document,
        "deleted": True,
    }
    return ToolOutput(f"“{document.title}” deleted from “{corpus.name}”", result)


async def delete_corpus(library: Library, context: ToolContext, args: DeleteCorpusArgs) -> ToolOutput:
    """Delete a knowledge base. One that is not there is as good as deleted: a call may run again after a crash."""
    mine = await library.corpora.list(context.user_id)
    corpus = exactly(mine, args.corpus)
    if corpus is not None:
        try:
            await library.corpora.delete(context.user_id, corpus.corpus_id)
        except RecordNotFoundError:
            corpus = None
    left = [other for other in mine if corpus is None or other.corpus_id != corpus.corpus_id]
    result: JsonObject = {
        "corpus": corpus_part(corpus) if corpus else None,
        "asked_for": args.corpus,
        "deleted": corpus is not None,
        "left": [other.name for other in left],
    }
    if corpus is None:
        there = f"There are: {names_of(left)}" if left else "You have none"
        return ToolOutput(f"There is no knowledge base “{clip(args.corpus)}”. {there}", result)
    return ToolOutput(f"Knowledge base “{corpus.name}” deleted, with {counted(corpus.documents, 'document')}", result)


def why_delete_corpus(args: DeleteCorpusArgs) -> str:
    """Return why a person must decide: always."""
    return f"This deletes the knowledge base “{clip(args.corpus)}” with all of its documents. It cannot be undone."


def why_delete_document(args: DeleteDocumentArgs) -> str:
    """Return why a person must decide: always."""
    return f"This deletes the document “{clip(args.document)}” from its knowledge base. It cannot be undone."


@contextmanager
def told_in_words() -> Iterator[None]:
    """Turn storage's refusals into `ToolError`s that say what to do."""
    try:
        yield
    except CorpusLimitError as error:
        text = f"That would be more than the {error.limit:,} {error.what} that there may be. Delete some first."
        raise ToolError(text) from error
    except DuplicateDocumentError as error:
        text = f"“{clip(error.title)}” has exactly this text already. Delete one of the two, or give another text."
        raise ToolError(text) from error
    except RecordNotFoundError as error:
        kind = "knowledge base" if error.kind == "corpus" else error.kind
        raise ToolError(f"The {kind} is not there any more: it was deleted meanwhile.") from error


async def _document(
    library: Library, context: ToolContext, corpus_id: str, source: FileRecord | TextDocument
) -> NewDocument:
    """Read a file or text as a document. Raises `ToolError`."""
    if isinstance(source, FileRecord):
        read = await read_file(library.files, source, library.turn)
        text, name = read.text, source.name
        title = read.title or first_heading(text) or Path(source.name).stem
    else:
        text, name = cleaned(source.text), MESSAGE
        title = cleaned(source.title) or first_heading(text) or text.partition("\n")[0]
    _check_text(text)
    return await asyncio.to_thread(
        new_document, library, context, corpus_id, title=title or "Untitled", source=name, text=text
    )


def _check_text(text: str) -> None:
    if not text:
        raise ToolError("There is no text in that. Write the text into your message, or upload it as a file.")
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise ToolError(
            f"The text is larger than {MAX_TEXT_BYTES // 1024**2} MiB, the most for one document. Split it."
        )
