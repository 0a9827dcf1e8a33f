"""The tool export_corpus: a knowledge base as a file to take away."""

import asyncio
import io
import json
import re
import zipfile
from collections.abc import AsyncIterator
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.corpus.library import Library, corpus_part, find_corpus
from agent_service.tools.measures import counted
from storage.records import CorpusRecord, PassageRecord

EXPORT_TIMEOUT_MS: Final = 25_000
"""Of one export: a full knowledge base is about 20 MiB."""

MAX_FILE_NAME_CHARACTERS: Final = 60
"""Of a name that is made from a title."""

_MEDIA_TYPES: Final = {"jsonl": "application/jsonl", "markdown": "application/zip"}
#: What an archive says a file's time is: two exports of the same text are the same bytes.
_NO_TIME: Final = (1980, 1, 1, 0, 0, 0)


class ExportCorpusArgs(BaseModel):
    """Arguments of export_corpus."""

    model_config = ConfigDict(extra="forbid")

    corpus: str = Field(
        default="", max_length=200, description="Name or id of the knowledge base; empty: the only one there is."
    )
    format: Literal["jsonl", "markdown"] = Field(
        default="jsonl", description="jsonl: one passage a line. markdown: a zip with a file for each document."
    )


async def export_corpus(library: Library, context: ToolContext, args: ExportCorpusArgs) -> ToolOutput:
    """Write a knowledge base to a file."""
    corpus = await find_corpus(library, context, args.corpus)
    passages = library.corpora.read(context.user_id, corpus.corpus_id)
    name = f"{file_name(corpus.name)}.{'jsonl' if args.format == 'jsonl' else 'zip'}"
    content = _lines(corpus, passages) if args.format == "jsonl" else await _archive(passages)
    description = f"The knowledge base {corpus.name}, exported"
    artifact_id = await context.artifacts.save(name, _MEDIA_TYPES[args.format], content, description=description)
    result: JsonObject = {
        "corpus": corpus_part(corpus),
        "format": args.format,
        "artifact_id": artifact_id,
        "file_name": name,
    }
    return ToolOutput(f"“{corpus.name}” exported as {name}: {counted(corpus.documents, 'document')}", result)


def file_name(title: str) -> str:
    """Return a file name without an ending that every system takes."""
    plain = re.sub(r"[^\w.-]+", "-", title.lower()).strip("-._")
    return plain[:MAX_FILE_NAME_CHARACTERS].rstrip("-._") or "document"


async def _lines(corpus: CorpusRecord, passages: AsyncIterator[PassageRecord]) -> AsyncIterator[bytes]:
    async for passage in passages:
        line = {
            "corpus": corpus.name,
            "document_id": passage.document_id,
            "document": passage.title,
            "source": passage.source,
            "passage": passage.position,
            "heading": passage.heading,
            "text": passage.text,
        }
        yield json.dumps(line, ensure_ascii=False).encode() + b"\n"


async def _archive(passages: AsyncIterator[PassageRecord]) -> bytes:
    """Return a zip with one Markdown file for each document. Held in memory: a knowledge base is bounded."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        taken: set[str] = set()
        document: list[PassageRecord] = []
        async for passage in passages:
            if document and passage.document_id != document[0].document_id:
                await asyncio.to_thread(_add, archive, document, taken)
                document = []
            document.append(passage)
        if document:
            await asyncio.to_thread(_add, archive, document, taken)
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, document: list[PassageRecord], taken: set[str]) -> None:
    stem = file_name(document[0].title)
    name, number = f"{stem}.md", 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}.md"
    taken.add(name)
    archive.writestr(zipfile.ZipInfo(name, _NO_TIME), _markdown(document), zipfile.ZIP_DEFLATED)


def _markdown(document: list[PassageRecord]) -> str:
    lines = [f"# {document[0].title}", ""]
    heading = document[0].title
    for passage in document:
        if passage.heading and passage.heading != heading:
            heading = passage.heading
            lines += [f"## {heading}", ""]
        lines += [passage.text, ""]
    return "\n".join(lines)
