"""The text of PDF and HTML files, headings of HTML as those of Markdown. Runs in the child process only."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

MAX_TITLE_CHARACTERS: Final = 1_000
"""Of a title as it is found."""

_SKIPPED: Final = frozenset({"script", "style", "template", "noscript", "svg", "math", "head", "iframe", "object"})
_BLOCKS: Final = frozenset(
    """
    address article aside blockquote body dd details dialog div dl dt fieldset figcaption figure footer form header hr
    html li main nav ol p pre section summary table tbody td tfoot th thead tr ul
    """.split()  # noqa: SIM905 - a list of words is read as words
)
_HEADING: Final = re.compile("h[1-6]")
_CHARSET: Final = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([\w-]{1,40})", re.IGNORECASE)
_CHARSET_BYTES: Final = 2_048


class UnreadableError(Exception):
    """The file cannot be read. `kind`: missing (a library), encrypted, large, empty, broken."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def read_pdf(path: Path, max_bytes: int) -> tuple[str, str]:
    """Return title and text. Raises `UnreadableError`."""
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError:
        raise UnreadableError("missing") from None
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableError("encrypted")
        size, parts = 0, []
        for page in reader.pages:
            part = page.extract_text().strip()
            size += len(part.encode("utf-8", "replace"))
            if size > max_bytes:
                raise UnreadableError("large")
            parts.append(part)
        title = (reader.metadata.title if reader.metadata else None) or ""
    except PyPdfError as error:
        raise UnreadableError("encrypted" if "crypt" in type(error).__name__.lower() else "broken") from error
    return str(title)[:MAX_TITLE_CHARACTERS], "\n\n".join(part for part in parts if part)


def read_html(path: Path, max_bytes: int) -> tuple[str, str]:
    """Return title and text. Raises `UnreadableError`."""
    page = _Page()
    page.feed(_decoded(path.read_bytes()))
    page.close()
    text = page.text()
    if len(text.encode("utf-8", "replace")) > max_bytes:
        raise UnreadableError("large")
    return " ".join(page.title.split())[:MAX_TITLE_CHARACTERS], text


def _decoded(content: bytes) -> str:
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    said = _CHARSET.search(content[:_CHARSET_BYTES])
    for encoding in (*([said[1].decode()] if said else []), "utf-8"):
        try:
            return content.decode(encoding)
        except (LookupError, ValueError):
            continue
    return content.decode("cp1252", "replace")


class _Page(HTMLParser):
    """Takes the words, and breaks where blocks begin and end; what is not for readers is left out."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self._lines: list[str] = []
        self._line: list[str] = []
        self._skipped: list[str] = []
        self._in_title = False
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title"
        if tag in _SKIPPED:
            self._skipped.append(tag)
        elif _HEADING.fullmatch(tag):
            self._break("")
            self._line.append("#" * int(tag[1]) + " ")
        elif tag == "br":
            self._break()
        elif tag in _BLOCKS:
            self._break("" if tag not in {"li", "tr", "td", "th", "dt", "dd"} else None)
            self._pre += tag == "pre"
            self._line.extend(["- "] if tag == "li" else [])

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False
        if tag in self._skipped:
            # Whatever was left open inside it ends with it.
            while self._skipped.pop() != tag:
                pass
        elif tag in _BLOCKS or _HEADING.fullmatch(tag):
            self._break("" if tag not in {"li", "tr", "td", "th", "dt", "dd"} else None)
            self._pre -= tag == "pre" and self._pre > 0

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data[:MAX_TITLE_CHARACTERS]
        elif not self._skipped:
            first, *more = data.split("\n") if self._pre else [re.sub(r"\s+", " ", data)]
            self._line.append(first)
            for line in more:
                self._break()
                self._line.append(line)

    def text(self) -> str:
        """Return the text, with at most one empty line between blocks."""
        self._break()
        return re.sub(r"\n{3,}", "\n\n", "\n".join(self._lines)).strip()

    def _break(self, after: str | None = None) -> None:
        line = "".join(self._line).rstrip() if self._pre else "".join(self._line).strip()
        self._line = []
        if line.strip("#- "):
            self._lines.append(line)
        if after is not None:
            self._lines.append(after)
