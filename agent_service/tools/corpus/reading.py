"""The text of files that people bring: plain text, Markdown, HTML, PDF. Whatever else there is, is refused in words."""

import asyncio
import json
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent_service.engine.tool import ToolError
from agent_service.tools.corpus.limits import MAX_FILE_BYTES, MAX_TEXT_BYTES, READ_MEMORY_MIB, READ_TIMEOUT_MS
from agent_service.tools.measures import clip
from storage.interfaces import Files
from storage.records import FileRecord

_CHILD: Final = Path(__file__).with_name("reader_child")

_MIB: Final = 1024 * 1024
_KINDS: Final = {
    ".txt": "text", ".text": "text", ".log": "text", ".rst": "text", ".adoc": "text", ".md": "text",
    ".markdown": "text", ".mdx": "text", ".html": "html", ".htm": "html", ".xhtml": "html", ".pdf": "pdf",
}  # fmt: skip
_MEDIA_TYPES: Final = {"application/pdf": "pdf", "text/html": "html", "application/xhtml+xml": "html"}
_BYTE_ORDER_MARKS: Final = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_SNIFFED_BYTES: Final = 1_024
_SNIFFED_CHARACTERS: Final = 10_000
#: One character in so many may be none that people write.
_NOISE_SHARE: Final = 5

READABLE: Final = "text, Markdown, HTML and PDF files"

PROBLEMS: Final[Mapping[str, str]] = {
    "missing": "PDF files cannot be read here: that needs the package pypdf (pip install 'apex-agents[pdf]'). "
    "Upload {name} as text, Markdown or HTML.",
    "encrypted": "{name} is protected by a password. Save it without one, and upload it again.",
    "large": f"The text of {{name}} is larger than {MAX_TEXT_BYTES // _MIB} MiB, the most for one document. Split it.",
    "memory": f"Reading {{name}} needs more than the {READ_MEMORY_MIB} MiB it may use. Split it, or upload its text.",
    "timeout": f"Reading {{name}} took longer than {READ_TIMEOUT_MS // 1000} s and was stopped. Upload its text.",
    "empty": "{name} holds no text. (Scanned pages are pictures: run a text recognition over them first.)",
    "broken": "{name} cannot be read: it is damaged or was cut off. Upload it again, or upload its text.",
    "binary": f"{{name}} is no text: {READABLE} can be added. Save it as one of those.",
}
"""What a person is told, by what is wrong with a file."""


@dataclass(frozen=True, slots=True)
class ReadText:
    """What a file says. `title` is the one it gives itself, or empty; `text` is plain or Markdown."""

    title: str
    text: str


def kind_of(name: str, media_type: str = "") -> str:
    """Return text, html or pdf by name, else by media type; empty for anything else."""
    plain = media_type.partition(";")[0].strip().casefold()
    by_name = _KINDS.get(Path(name).suffix.casefold(), "")
    return by_name or _MEDIA_TYPES.get(plain, "text" if plain in {"text/plain", "text/markdown"} else "")


async def read_file(files: Files, record: FileRecord, turn: asyncio.Semaphore) -> ReadText:
    """Return the text of a user's file. `turn` bounds the processes that read at once. Raises `ToolError`."""
    name = clip(record.name)
    if record.size_bytes > MAX_FILE_BYTES:
        raise ToolError(f"{name} is larger than {MAX_FILE_BYTES // _MIB} MiB, the most that can be added. Split it.")
    path = await files.local_path(record.user_id, record.file_id)
    head = await asyncio.to_thread(_head, path)
    kind = "pdf" if head.startswith(b"%PDF-") else kind_of(record.name, record.media_type) or _sniffed(head)
    if kind == "text":
        content = await asyncio.to_thread(path.read_bytes)
        found = ReadText("", await asyncio.to_thread(decoded, content, name))
    else:
        async with turn:
            found = await _read_in_child(kind, path, name)
    text = await asyncio.to_thread(cleaned, found.text)
    if not text:
        raise ToolError(PROBLEMS["empty"].format(name=name))
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise ToolError(PROBLEMS["large"].format(name=name))
    return ReadText(" ".join(cleaned(found.title).split()), text)


def decoded(content: bytes, name: str) -> str:
    """Return the text of these bytes: as its mark says, else UTF-8, else Windows-1252. Raises `ToolError`."""
    marked = next((encoding for mark, encoding in _BYTE_ORDER_MARKS if content.startswith(mark)), "")
    for encoding in (marked,) if marked else ("utf-8", "cp1252"):
        try:
            text = content.decode(encoding)
        except ValueError:
            continue
        if not _is_noise(text):
            return text
    raise ToolError(PROBLEMS["binary"].format(name=name))


def cleaned(text: str) -> str:
    """Return the text as it is kept: one form of each character and of line ends, nothing that cannot be shown."""
    lines = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n"))
    kept = "".join(c for c in lines if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cs"})
    return kept.strip()


def _is_noise(text: str) -> bool:
    """True when too much of it is no character that people write."""
    strange = sum(not c.isprintable() and not c.isspace() for c in text[:_SNIFFED_CHARACTERS])
    return "\x00" in text or strange * _NOISE_SHARE > len(text[:_SNIFFED_CHARACTERS])


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_SNIFFED_BYTES)


def _sniffed(head: bytes) -> str:
    return "html" if head.lstrip().lower().startswith((b"<!doctype html", b"<html")) else "text"


async def _read_in_child(kind: str, path: Path, name: str) -> ReadText:
    """Read a file whose reader may need any time and memory, in a process that has little of both."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(_CHILD),
        kind,
        str(path),
        str(READ_MEMORY_MIB),
        str(MAX_TEXT_BYTES),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
    )
    try:
        async with asyncio.timeout(READ_TIMEOUT_MS / 1000):
            output, _ = await process.communicate()
    except TimeoutError:
        raise ToolError(PROBLEMS["timeout"].format(name=name)) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        answer = json.loads(output)
    except ValueError:
        answer = {"error": "broken"}
    if not isinstance(answer, Mapping) or "error" in answer:
        problem = str(answer["error"]) if isinstance(answer, Mapping) else "broken"
        raise ToolError(PROBLEMS.get(problem, PROBLEMS["broken"]).format(name=name))
    return ReadText(str(answer["title"]), str(answer["text"]))
