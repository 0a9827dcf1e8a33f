"""The `file` field of a multipart body, read piece by piece: never held as a whole, in memory or on disk."""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

FIELD: Final = b"file"
MAX_HEADER_BYTES: Final = 8192
"""Headers of one part."""


class MultipartError(Exception):
    """The body is not a multipart form with a file; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class PartHeader:
    """What the form says about the file. `name` has no folder."""

    name: str
    media_type: str


class FilePart:
    """The first part named `file`. Call `header` once, then iterate over `content`."""

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise MultipartError("the content type must be multipart/form-data")
        self._body = body
        self._pieces: deque[bytes] = deque()
        self._header: PartHeader | None = None
        self._fields: dict[bytes, bytes] = {}
        self._field = self._value = b""
        self._inside = self._passed = self._complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_end": self._on_end,
            },
        )

    async def header(self) -> PartHeader:
        """Read as far as the file's headers, and return them."""
        while self._header is None:
            if not await self._read():
                raise MultipartError("there is no field named file")
        return self._header

    async def content(self) -> AsyncIterator[bytes]:
        """Yield the file's content. A body that breaks off raises, so that half a file is never taken for a whole."""
        while True:
            while self._pieces:
                yield self._pieces.popleft()
            if self._passed:
                break
            if not await self._read():
                raise MultipartError("the body ends in the middle of the file")
        while not self._complete:
            if not await self._read():
                raise MultipartError("the body has no end")

    async def _read(self) -> bool:
        """Feed the next piece of the body to the parser; False at its end."""
        async for data in self._body:
            try:
                self._parser.write(data)
            except FormParserError as error:
                raise MultipartError(f"the form is broken: {error}") from error
            return True
        return False

    def _on_part_begin(self) -> None:
        self._fields = {}
        self._field = self._value = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._bound()

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._bound()

    def _on_header_end(self) -> None:
        self._fields[self._field.lower()] = self._value
        self._field = self._value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._fields.get(b"content-disposition", b""))
        self._inside = options.get(b"name") == FIELD and self._header is None
        if not self._inside:
            return
        name = options.get(b"filename", b"").decode(errors="replace")
        kind, _ = parse_options_header(self._fields.get(b"content-type", b""))
        media_type = kind.decode("latin-1")
        # Browsers say this for everything they do not know: the service looks at name and content instead.
        known = "" if media_type == "application/octet-stream" else media_type
        self._header = PartHeader(name.replace("\\", "/").rpartition("/")[2], known)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._pieces.append(data[start:end])

    def _on_part_end(self) -> None:
        self._passed = self._passed or self._inside
        self._inside = False

    def _on_end(self) -> None:
        self._complete = True

    def _bound(self) -> None:
        size = len(self._field) + len(self._value) + sum(len(k) + len(v) for k, v in self._fields.items())
        if size > MAX_HEADER_BYTES:
            raise MultipartError(f"the headers of a part have more than {MAX_HEADER_BYTES} bytes")
