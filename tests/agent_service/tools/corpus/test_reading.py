"""Files as people have them: encodings, markup, PDF, and what cannot be read, in words."""

import asyncio
import io
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pypdf import PdfReader, PdfWriter

from agent_service.engine.tool import ToolError
from agent_service.tools.corpus import reading
from agent_service.tools.corpus.limits import MAX_FILE_BYTES, MAX_TEXT_BYTES, READ_TIMEOUT_MS
from agent_service.tools.corpus.reader_child.reading import UnreadableError, read_pdf
from agent_service.tools.corpus.reading import PROBLEMS, ReadText, cleaned, decoded, kind_of, read_file
from tests.support.corpora import CorpusBench, a_pdf, pdf_of


@pytest.fixture
async def bench() -> AsyncIterator[CorpusBench]:
    bench = CorpusBench()
    yield bench
    await bench.close()


async def read(bench: CorpusBench, name: str, content: bytes) -> ReadText:
    return await read_file(bench.storage.files, await bench.put(name, content), asyncio.Semaphore(1))


async def refused(bench: CorpusBench, name: str, content: bytes) -> str:
    with pytest.raises(ToolError) as refusal:
        await read(bench, name, content)
    return str(refusal.value)


@pytest.mark.parametrize(
    "content",
    [
        "Grüße".encode(),
        b"\xef\xbb\xbf" + "Grüße".encode(),
        "Grüße".encode("utf-16"),
        "Grüße".encode("utf-32"),
        "Grüße".encode("cp1252"),
        "Gru\u0308\u00dfe".encode(),
        b"Gr\xc3\xbc\xc3\x9fe\r\n\x07",
    ],
    ids=["utf-8", "utf-8-marked", "utf-16", "utf-32", "windows-1252", "decomposed", "control-characters"],
)
async def test_text_is_read_in_the_encodings_that_people_use(bench: CorpusBench, content: bytes) -> None:
    assert await read(bench, "note.txt", content) == ReadText("", "Grüße")


HTML = """
<!DOCTYPE html><html><head><title>The &amp; Guide</title><style>p { color: red }</style>
<script>alert("no")</script></head><body onload="evil()">
<h1>Guide</h1><p>First   <b>bold</b>
words.</p><!-- a comment --><h2>Part <i>two</i></h2>
<ul><li>one<li>two</ul><table><tr><td>a</td><td>b</td></tr></table>
<pre>line 1
  line 2</pre><svg><text>drawn</text></svg><template>hidden</template>&lt;script&gt; is text.
</body></html>
"""


async def test_html_is_read_without_markup_and_scripts(bench: CorpusBench) -> None:
    found = await read(bench, "guide.html", HTML.encode())
    assert found.title == "The & Guide"
    assert found.text.split("\n") == [
        "# Guide",
        "",
        "First bold words.",
        "",
        "## Part two",
        "",
        "- one",
        "- two",
        "",
        "a",
        "b",
        "",
        "line 1",
        "  line 2",
        "",
        "<script> is text.",
    ]


async def test_html_says_its_encoding(bench: CorpusBench) -> None:
    page = '<meta charset="iso-8859-15"><p>10 €</p>'
    assert (await read(bench, "page.htm", page.encode("iso-8859-15"))).text == "10 €"


async def test_html_is_known_without_its_name(bench: CorpusBench) -> None:
    assert (await read(bench, "page", b"  <!DOCTYPE html><p>Words.</p>")).text == "Words."


@pytest.mark.parametrize(
    "page",
    ["<p>kept<div><b>", "<p>kept</b></i></p></div>", "<p>kept<script>x", "<title>a<title>b</title><p>kept"],
    ids=["open", "closed-twice", "open-script", "titles"],
)
async def test_broken_html_is_read_as_far_as_it_goes(bench: CorpusBench, page: str) -> None:
    assert (await read(bench, "page.html", page.encode())).text == "kept"


async def test_pdf_is_read_page_by_page(bench: CorpusBench) -> None:
    content = a_pdf("Retry twice.", "Then stop.", title="Runbook")
    assert await read(bench, "runbook.pdf", content) == ReadText("Runbook", "Retry twice.\n\nThen stop.")
    assert (await read(bench, "no-name", content)).text == "Retry twice.\n\nThen stop."


def locked(password: str) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(a_pdf("Secret."))))
    writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


async def test_a_locked_pdf_is_refused_in_words(bench: CorpusBench) -> None:
    assert "runbook.pdf is protected by a password" in await refused(bench, "runbook.pdf", locked("hunter2"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"%PDF-1.7\nnothing more", "damaged"),
        (a_pdf("Retry twice.")[:200], "damaged"),
        (pdf_of([b""]), "holds no text"),
        (b"no PDF at all", "damaged"),
    ],
    ids=["empty-shell", "cut-off", "no-text", "other-content"],
)
async def test_a_broken_pdf_is_refused_in_words(bench: CorpusBench, content: bytes, words: str) -> None:
    told = await refused(bench, "runbook.pdf", content)
    assert words in told
    assert "Traceback" not in told


async def test_a_pdf_bomb_hurts_nobody(bench: CorpusBench) -> None:
    bomb = pdf_of([b"BT /F1 12 Tf (x) Tj ET " + b" " * 100_000_000])
    assert len(bomb) < 1_000_000
    began = time.perf_counter()
    told = await refused(bench, "bomb.pdf", bomb)
    assert time.perf_counter() - began < READ_TIMEOUT_MS / 1000 + 5
    assert "bomb.pdf" in told


async def test_reading_ends_in_time(bench: CorpusBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "READ_TIMEOUT_MS", 1)
    assert "and was stopped" in await refused(bench, "page.html", b"<p>x</p>")


def test_without_the_library_a_pdf_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)  # to import it fails
    with pytest.raises(UnreadableError) as refusal:
        read_pdf(tmp_path / "runbook.pdf", 1)
    assert "pip install 'apex-agents[pdf]'" in PROBLEMS[refusal.value.kind]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", b"", "holds no text"),
        ("spaces.md", b" \n\t ", "holds no text"),
        ("image.png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "is no text"),
        ("word.docx", b"PK\x03\x04\x14\x00\x06\x00", "is no text"),
        ("noise.bin", bytes(range(1, 32)) * 9 + b"some letters", "is no text"),
        ("half.txt", b"\xff\xfea", "is no text"),
        ("large.txt", b"a " * (MAX_TEXT_BYTES // 2) + b"b", "larger than 1 MiB"),
        ("large.html", b"<p>" + b"a " * (MAX_TEXT_BYTES // 2) + b"b", "larger than 1 MiB"),
        ("huge.txt", b"a" * (MAX_FILE_BYTES + 1), "larger than 20 MiB"),
    ],
    ids=["empty", "spaces", "picture", "word", "noise", "half-utf-16", "large", "large-html", "huge"],
)
async def test_what_cannot_be_added_is_refused_in_words(
    bench: CorpusBench, name: str, content: bytes, words: str
) -> None:
    told = await refused(bench, name, content)
    assert name in told
    assert words in told


async def test_a_text_of_exactly_the_limit_is_read(bench: CorpusBench) -> None:
    assert len((await read(bench, "full.txt", b"a" * MAX_TEXT_BYTES)).text) == MAX_TEXT_BYTES


def test_kinds() -> None:
    assert [kind_of(name) for name in ("A.MD", "a.txt", "a.HTML", "a.pdf", "a.csv", "a")] == [
        "text",
        "text",
        "html",
        "pdf",
        "",
        "",
    ]
    assert kind_of("a", "text/html; charset=utf-8") == "html"
    assert kind_of("a", "text/markdown") == "text"


def test_cleaning() -> None:
    assert cleaned("a\r\nb\rc\x00\ud800\u200b") == "a\nb\nc\u200b"
    assert decoded("ü".encode("latin-1"), "x") == "ü"
