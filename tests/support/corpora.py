"""Knowledge bases for tests of storage, and of what stands on it."""

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypedDict

from agent_service.engine.clock import SystemIds
from agent_service.engine.commands import Reference
from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolOutput
from agent_service.tools.corpus.tools import corpus_tools
from storage.memory import MemoryStorage
from storage.records import CorpusRecord, FileRecord, NewDocument, Passage
from tests.support.datasets import KeptArtifacts, context
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


class TickingClock:
    """Implements `ports.Clock`: each look is a second later."""

    def __init__(self) -> None:
        self._now = datetime(2026, 6, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now

    def monotonic_ms(self) -> int:
        return 0


class CorpusBench:
    """A user with files and the tools over knowledge bases, all in memory."""

    def __init__(self) -> None:
        self.clock = TickingClock()
        self.storage = MemoryStorage(self.clock.now)
        tools = corpus_tools(self.storage.corpora, self.storage.files, self.clock, SystemIds())
        self.tools = {tool.name: tool for tool in tools}
        self.artifacts = KeptArtifacts()

    async def put(self, name: str, content: bytes, *, user_id: str = "ann", run_id: str | None = None) -> FileRecord:
        """Upload a file; each one is newer than the one before."""
        upload = self.storage.files.upload(user_id, SystemIds().new(), name, "", max_bytes=1 << 30, run_id=run_id)
        async with upload:
            await upload.write(content)
            return await upload.commit(self.clock.now())

    async def call(
        self, tool: str, references: tuple[Reference, ...] = (), user_id: str = "ann", **args: object
    ) -> ToolOutput:
        """Call a tool as the dispatcher does."""
        return await self._call(tool, args, references, user_id)

    async def result(self, tool: str, **args: object) -> JsonObject:
        """Call a tool and return its result."""
        return (await self._call(tool, args, (), "ann")).result

    async def _call(
        self, tool: str, args: Mapping[str, object], references: tuple[Reference, ...], user_id: str
    ) -> ToolOutput:
        found = self.tools[tool]
        its_context = replace(context("", references, user_id), artifacts=self.artifacts)
        return await found.run(its_context, found.args.model_validate(args))

    async def close(self) -> None:
        """Remove what lies on disk."""
        await self.storage.close()


def a_pdf(*pages: str, title: str = "") -> bytes:
    """Return a PDF with a line of text on each page."""
    streams = [f"BT /F1 12 Tf 72 720 Td ({page}) Tj ET".encode() for page in pages]
    return pdf_of(streams, title)


def pdf_of(streams: list[bytes], title: str = "") -> bytes:
    """Return a PDF whose pages have these content streams."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(streams)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(streams)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, stream in enumerate(streams):
        packed = zlib.compress(stream)
        page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R "
        objects.append((page + "/Resources << /Font << /F1 3 0 R >> >> >>").encode())
        objects.append(f"<< /Length {len(packed)} /Filter /FlateDecode >>\nstream\n".encode() + packed + b"\nendstream")
    objects.append(f"<< /Title ({title}) >>".encode())
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    info = len(objects)
    out += f"trailer\n<< /Size {info + 1} /Root 1 0 R /Info {info} 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(out)
