"""Text of data and models as Markdown that says nothing else: no markup, no links, no images of its own."""

import re
from typing import Final

_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&])")
_BLOCK: Final = re.compile(r"^(\s*)([-=]|\d+[.)](?=\s|$))")


def plain(text: str) -> str:
    """Return one line of Markdown that shows exactly this text."""
    line = " ".join(text.split())
    return _BLOCK.sub(lambda match: f"{match[1]}{_escaped_marker(match[2])}", _SPECIAL.sub(r"\\\1", line))


def cell(text: str) -> str:
    """Return the text as a table's cell."""
    return plain(text)


def _escaped_marker(marker: str) -> str:
    """Escape what would begin a list at the start of a line."""
    return f"{marker[:-1]}\\{marker[-1]}"


_ACTING: Final = re.compile(r"([\\`\[\]<>!|~$&#_])")


def prose(text: str) -> str:
    """Return Markdown as it is, but for what could link, load, or be HTML: emphasis, paragraphs and lists stay."""
    return _ACTING.sub(r"\\\1", text)
