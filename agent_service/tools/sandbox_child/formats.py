"""What kind of file it is: by its content, whatever its name says."""

import codecs
import zlib
from pathlib import Path
from typing import Final, NamedTuple

from agent_service.tools.sandbox_child.broken_json import malformed_json
from agent_service.tools.sandbox_child.refusal import Refusal

HEAD_BYTES: Final = 64 * 1024
"""What is looked at, at the beginning and at the end of a file."""

FOREIGN: Final = {
    b"PK\x03\x04": "an Excel workbook or a zip archive",
    b"%PDF": "a PDF document",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"SQLite format 3": "an SQLite database",
}
"""First bytes of what people upload by mistake."""

WANTED: Final = "Datasets are CSV, JSONL, JSON or Parquet, also gzipped; export or save it as one of these."


class Format(NamedTuple):
    """`kind`: csv, json, jsonl or parquet; `compression`: none or gzip; `encoding`: utf-8 or latin-1."""

    kind: str
    compression: str
    encoding: str


def detect(path: Path, max_unpacked_bytes: int) -> Format:
    """Return what the file is. Raises `Refusal` for what is no dataset, and for one that is damaged."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    compression = "none"
    if head.startswith(b"\x1f\x8b"):
        compression, head = "gzip", unzipped_head(path, max_unpacked_bytes)
    for magic, what in FOREIGN.items():
        if head.startswith(magic):
            raise unsupported(what)
    if head.startswith(b"PAR1"):
        if compression == "gzip":
            raise unsupported("a gzipped Parquet file: upload the Parquet file itself, it is")
        return Format("parquet", "none", "utf-8")
    if b"\0" in head:
        raise unsupported("a binary file")
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text:
        raise Refusal("file", "{name} is empty: there is nothing to analyse.")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = "latin-1"
    kind = {b"[": "json", b"{": "jsonl"}.get(text[:1], "csv")
    if kind == "json" and compression == "none" and not ends_with_list(path):
        # The database reads such a list as a shorter one.
        raise Refusal("file", malformed_json(path))
    return Format(kind, compression, encoding)


def unzipped_head(path: Path, max_bytes: int) -> bytes:
    """Check the whole gzip stream and return its beginning: a cut or damaged file must not pass as a shorter one."""
    head, total = b"", 0
    decoder = zlib.decompressobj(31)
    with path.open("rb") as file:
        while data := file.read(1024 * 1024):
            while data:
                try:
                    piece = decoder.decompress(data, 4 * 1024 * 1024)
                except zlib.error as error:
                    raise Refusal(
                        "file", "{name} is not a readable gzip file: it is damaged. Upload it again."
                    ) from error
                total += len(piece)
                head += piece[: HEAD_BYTES - len(head)]
                if total > max_bytes:
                    text = f"{{name}} unpacks to more than {max_bytes // 1024**2} MiB. Upload a smaller part of it."
                    raise Refusal("file", text)
                data = decoder.unconsumed_tail
                if decoder.eof and (data := decoder.unused_data):
                    decoder = zlib.decompressobj(31)
    if not decoder.eof:
        raise Refusal("file", "{name} ends in the middle of its gzip data: it was cut off. Upload it again.")
    return head


def ends_with_list(path: Path) -> bool:
    """Return whether the last bytes that are not space are the end of a JSON list."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - HEAD_BYTES))
        return file.read().rstrip().endswith(b"]")


def unsupported(what: str) -> Refusal:
    """Say what the file is and what would be right."""
    return Refusal("file", f"{{name}} is {what}, not a dataset. {WANTED}")
