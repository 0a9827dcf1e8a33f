"""The tools that look into knowledge bases: search_corpus, list_corpora, corpus_stats."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.analysis import time_text
from agent_service.tools.corpus.library import Library, corpus_part, document_part, find_corpus, fitting, size
from agent_service.tools.corpus.limits import (
    MAX_CORPORA,
    MAX_HITS,
    MAX_QUERY_CHARACTERS,
    MAX_SHOWN_BYTES,
    MAX_SNIPPET_CHARACTERS,
    SHOWN_DOCUMENTS,
)
from agent_service.tools.measures import clip, counted
from storage.records import HEADING_SEPARATOR, CorpusRecord, PassageRecord, SearchHit


class SearchCorpusArgs(BaseModel):
    """Arguments of search_corpus."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, max_length=MAX_QUERY_CHARACTERS, description="The words to look for, no syntax.")
    corpora: list[str] = Field(
        default=[], max_length=MAX_CORPORA, description="Names or ids of knowledge bases; empty: all."
    )
    limit: int = Field(default=5, ge=1, le=MAX_HITS, description="Passages, best first.")


class ListCorporaArgs(BaseModel):
    """Arguments of list_corpora."""

    model_config = ConfigDict(extra="forbid")


class CorpusStatsArgs(BaseModel):
    """Arguments of corpus_stats."""

    model_config = ConfigDict(extra="forbid")

    corpus: str = Field(
        default="", max_length=200, description="Name or id of the knowledge base; empty: the only one there is."
    )


async def search_corpus(library: Library, context: ToolContext, args: SearchCorpusArgs) -> ToolOutput:
    """Search: all knowledge bases, unless some are named, or the message refers to one."""
    referred = list(dict.fromkeys(reference.corpus_id for reference in context.references if reference.corpus_id))
    named = [await find_corpus(library, context, name) for name in dict.fromkeys(args.corpora or referred)]
    within = named or await library.corpora.list(context.user_id)
    found = await library.corpora.search(
        context.user_id, args.query, corpus_ids=[corpus.corpus_id for corpus in within], limit=args.limit
    )
    hits = _hit_parts(found.hits)
    result: JsonObject = {
        "query": args.query,
        "terms": list(found.terms),
        "as_beginnings": found.as_beginnings,
        "corpora": [{"corpus_id": corpus.corpus_id, "name": corpus.name} for corpus in within],
        "documents_searched": sum(corpus.documents for corpus in within),
        "passages_searched": sum(corpus.passages for corpus in within),
        "found": found.found,
        "hits": hits,
    }
    where = f"{counted(len(within), 'knowledge base')} with {counted(sum(c.passages for c in within), 'passage')}"
    if not found.hits:
        return ToolOutput(f"Nothing about “{clip(args.query)}” in {where}", result)
    best = found.hits[0].passage
    return ToolOutput(f"{counted(found.found, 'passage')} in {where}; the best is {cite(best)}", result)


async def list_corpora(library: Library, context: ToolContext, _args: ListCorporaArgs) -> ToolOutput:
    """List the user's knowledge bases."""
    mine = await library.corpora.list(context.user_id)
    documents = sum(corpus.documents for corpus in mine)
    result: JsonObject = {"corpora": [_entry(corpus) for corpus in mine], "total": len(mine)}
    held = f" with {counted(documents, 'document')}" if mine else ""
    return ToolOutput(f"{counted(len(mine), 'knowledge base')}{held}", result)


async def corpus_stats(library: Library, context: ToolContext, args: CorpusStatsArgs) -> ToolOutput:
    """Say what a knowledge base holds."""
    corpus = await find_corpus(library, context, args.corpus)
    page = await library.corpora.list_documents(context.user_id, corpus.corpus_id, page_size=SHOWN_DOCUMENTS)
    shown = fitting(document_part(document) for document in page.items)
    result: JsonObject = {
        "corpus": corpus_part(corpus),
        "documents": shown,
        "documents_not_shown": corpus.documents - len(shown),
        "bytes_per_passage": round(corpus.size_bytes / corpus.passages) if corpus.passages else None,
    }
    held = f"{counted(corpus.documents, 'document')}, {counted(corpus.passages, 'passage')}"
    return ToolOutput(f"“{corpus.name}”: {held}, {corpus.size_bytes:,} bytes", result)


def cite(passage: PassageRecord) -> str:
    """Return how an answer names a passage: `[Runbook: Retries, passage 3]`."""
    heading = passage.heading.rpartition(HEADING_SEPARATOR)[2]
    name = passage.title if not heading or heading == passage.title else f"{passage.title}: {heading}"
    return f"[{name.replace('[', '(').replace(']', ')')}, passage {passage.position}]"


def _entry(corpus: CorpusRecord) -> JsonObject:
    """Return a corpus in a list: so little of it that all that a user may have can be shown."""
    return {
        "corpus_id": corpus.corpus_id,
        "name": corpus.name,
        "documents": corpus.documents,
        "passages": corpus.passages,
        "size_bytes": corpus.size_bytes,
        "update_time": time_text(corpus.update_time),
    }


def _hit_parts(hits: Sequence[SearchHit]) -> list[JsonValue]:
    """Return the hits, with the whole passage where there is room: for the best ones."""
    parts: list[JsonValue] = []
    room = MAX_SHOWN_BYTES
    for rank, hit in enumerate(hits, start=1):
        part = _hit_part(rank, hit)
        room -= size(part)
        whole = size(hit.passage.text)
        if whole <= room:
            room -= whole
            part = {**part, "text": hit.passage.text}
        if room < 0 and parts:
            break
        parts.append(part)
    return parts


def _hit_part(rank: int, hit: SearchHit) -> JsonObject:
    start, end = _window(hit.passage.text, hit.spans)
    return {
        "rank": rank,
        "cite": cite(hit.passage),
        "corpus_id": hit.corpus_id,
        "corpus": hit.corpus_name,
        "document_id": hit.passage.document_id,
        "document": hit.passage.title,
        "source": hit.passage.source,
        "passage": hit.passage.position,
        "heading": hit.passage.heading,
        "score": round(hit.score, 4),
        "snippet": hit.passage.text[start:end],
        "highlights": [[left - start, right - start] for left, right in hit.spans if start <= left and right <= end],
        "cut_before": start > 0,
        "cut_after": end < len(hit.passage.text),
    }


def _window(text: str, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return where the snippet begins and ends: as many of the words found as fit, between whole words."""
    if len(text) <= MAX_SNIPPET_CHARACTERS:
        return 0, len(text)
    margin = MAX_SNIPPET_CHARACTERS // 5
    starts = [max(0, min(left - margin, len(text) - MAX_SNIPPET_CHARACTERS)) for left, _ in spans] or [0]

    def held(start: int) -> int:
        return sum(start <= left and right <= start + MAX_SNIPPET_CHARACTERS for left, right in spans)

    begin = max(starts, key=lambda start: (held(start), -start))
    end = begin + MAX_SNIPPET_CHARACTERS
    if begin:
        space = text.find(" ", begin, begin + margin)
        begin = space + 1 if space >= 0 else begin
    if end < len(text):
        space = text.rfind(" ", end - margin, end)
        end = space if space >= 0 else end
    return begin, end
