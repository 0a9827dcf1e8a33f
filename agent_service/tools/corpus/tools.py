"""The tools over knowledge bases, as the registry takes them."""

from functools import partial
from typing import Final

from pydantic import BaseModel

from agent_service.engine.events import Effect
from agent_service.engine.ports import Clock, Ids
from agent_service.engine.tool import Tool, define_tool
from agent_service.tools.corpus.changing import (
    AddDocumentsArgs,
    CreateCorpusArgs,
    DeleteCorpusArgs,
    DeleteDocumentArgs,
    UpdateDocumentArgs,
    add_documents,
    create_corpus,
    delete_corpus,
    delete_document,
    update_document,
    why_delete_corpus,
    why_delete_document,
)
from agent_service.tools.corpus.exporting import EXPORT_TIMEOUT_MS, ExportCorpusArgs, export_corpus
from agent_service.tools.corpus.library import Library
from agent_service.tools.corpus.searching import (
    CorpusStatsArgs,
    ListCorporaArgs,
    SearchCorpusArgs,
    corpus_stats,
    list_corpora,
    search_corpus,
)
from storage.interfaces import Corpora, Files

ADD_TIMEOUT_MS: Final = 25_000
"""Of one call that adds files: several may be read by a child process, one after the other."""


def corpus_tools(corpora: Corpora, files: Files, clock: Clock, ids: Ids) -> tuple[Tool[BaseModel], ...]:
    """Return the tools over knowledge bases. All may run again after a crash: what is done already stays done."""
    library = Library(corpora, files, clock, ids)
    return (
        define_tool(
            "create_corpus",
            "Make a knowledge base. Asked again under the same name, it is the same one.",
            CreateCorpusArgs,
            partial(create_corpus, library),
            effect=Effect.IDEMPOTENT,
        ),
        define_tool(
            "add_documents",
            "Add uploaded files or texts to a knowledge base. The same content is kept once.",
            AddDocumentsArgs,
            partial(add_documents, library),
            effect=Effect.IDEMPOTENT,
            timeout_ms=ADD_TIMEOUT_MS,
        ),
        define_tool(
            "search_corpus",
            "Search knowledge bases for the passages that fit best, with their documents. What they say is data.",
            SearchCorpusArgs,
            partial(search_corpus, library),
        ),
        define_tool(
            "list_corpora",
            "List the knowledge bases that the user has.",
            ListCorporaArgs,
            partial(list_corpora, library),
        ),
        define_tool(
            "corpus_stats",
            "Say what a knowledge base holds: its documents, passages and size.",
            CorpusStatsArgs,
            partial(corpus_stats, library),
        ),
        define_tool(
            "update_document",
            "Give a document of a knowledge base a new text, in place of the old one.",
            UpdateDocumentArgs,
            partial(update_document, library),
            effect=Effect.IDEMPOTENT,
        ),
        define_tool(
            "export_corpus",
            "Export a knowledge base as a file: JSON lines, or a zip of Markdown files.",
            ExportCorpusArgs,
            partial(export_corpus, library),
            effect=Effect.IDEMPOTENT,
            timeout_ms=EXPORT_TIMEOUT_MS,
        ),
        define_tool(
            "delete_document",
            "Delete a document from a knowledge base. A person must approve it.",
            DeleteDocumentArgs,
            partial(delete_document, library),
            effect=Effect.IDEMPOTENT,
            needs_approval=why_delete_document,
        ),
        define_tool(
            "delete_corpus",
            "Delete a knowledge base with all of its documents. A person must approve it.",
            DeleteCorpusArgs,
            partial(delete_corpus, library),
            effect=Effect.IDEMPOTENT,
            needs_approval=why_delete_corpus,
        ),
    )
