"""An SVG for people: with words for those who cannot see it, and with nothing in it that could act or load."""

from typing import Final
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

from agent_service.engine.tool import ToolError

SVG: Final = "{http://www.w3.org/2000/svg}"

_ALLOWED: Final = frozenset(
    f"{SVG}{name}" for name in ("svg", "g", "path", "rect", "line", "text", "tspan", "circle", "title", "desc")
)
_LINKS: Final = frozenset({"href", "src", "{http://www.w3.org/1999/xlink}href"})


def described(svg: str, title: str, description: str) -> str:
    """Return the SVG as one image with a title and a description.

    Raises `ToolError` for one that is more than a drawing.
    """
    _check(svg)
    head, _, body = svg.partition(">")
    words = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    return f'{head} role="img" aria-label={quoteattr(title)}>{words}{body}\n'


def _check(svg: str) -> None:
    try:
        root = ET.fromstring(svg)  # noqa: S314 - drawn by our own child from our own specification
    except ET.ParseError:
        raise ToolError("The chart could not be drawn. Try again.") from None
    for element in root.iter():
        acts = any(name.lower().startswith("on") or name in _LINKS for name in element.attrib)
        loads = any("url(" in value and "url(#" not in value for value in element.attrib.values())
        if element.tag not in _ALLOWED or acts or loads:
            raise ToolError("The chart came out as something other than a drawing, so it was thrown away.")
