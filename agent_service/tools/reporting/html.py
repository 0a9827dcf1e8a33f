"""A report as one HTML file: nothing in it runs, and nothing of it is loaded from anywhere."""

import base64
from collections.abc import Mapping
from html import escape
from typing import Final

CSS: Final = """
:root { color-scheme: light; }
body { font: 15px/1.5 Helvetica, Arial, sans-serif; color: #22303c; background: #fff; max-width: 62em; margin: 2em auto;
       padding: 0 1em; }
h1 { font-size: 1.8em; margin-bottom: .2em; } h2 { border-bottom: 1px solid #dcdad4; padding-bottom: .2em; }
h3 { font-size: 1em; margin-bottom: 0; }
table { border-collapse: collapse; margin: .6em 0 1.2em; font-size: .86em; }
th, td { border: 1px solid #dcdad4; padding: .25em .6em; text-align: left; vertical-align: top; }
th { background: #f3f1ec; } td { overflow-wrap: break-word; max-width: 26em; }
img { max-width: 100%; height: auto; }
a { color: #3367a8; text-decoration: none; }
@page { size: A4; margin: 18mm 15mm; @bottom-right { content: counter(page) " / " counter(pages); font-size: 9px; } }
@media print { body { max-width: none; margin: 0; font-size: 11px; } table, img, tr { break-inside: avoid; } }
""".strip()

_TAGS: Final = frozenset(
    {
        *("h1", "h2", "h3", "h4", "p", "ul", "ol", "li", "strong", "em", "table", "thead", "tbody", "tr", "th", "td"),
        *("a", "img", "br", "hr", "code", "blockquote"),
    }
)
_ATTRIBUTES: Final[Mapping[str, frozenset[str]]] = {
    "a": frozenset({"href"}),
    "img": frozenset({"src", "alt"}),
    "h3": frozenset({"id"}),
}


def as_html(markdown: str, title: str, images: Mapping[str, str]) -> str:
    """Return the report as a page. `images` are SVGs by the names under which the Markdown shows them.

    Images of other names and links to other places are left out.
    """
    import nh3
    from markdown_it import MarkdownIt

    embedded = {
        name: f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}" for name, svg in images.items()
    }

    def kept(tag: str, name: str, value: str) -> str | None:
        if (tag, name) == ("img", "src"):
            return value if value in embedded else None
        if (tag, name) == ("a", "href"):
            return value if value.startswith("#source-") else None
        return value

    body = nh3.clean(
        _with_anchors(MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)),
        tags=set(_TAGS),
        attributes={tag: set(names) for tag, names in _ATTRIBUTES.items()},
        attribute_filter=kept,
        url_schemes=set(),
        link_rel=None,
    )
    for name, data in embedded.items():
        # Only here: what the sanitiser let through is exactly a name of ours.
        body = body.replace(f'src="{escape(name)}"', f'src="{data}"')
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{CSS}\n</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def _with_anchors(html: str) -> str:
    """Give the sources' headings the names that references lead to."""
    start, end = "<h3>Source ", "</h3>"
    pieces = html.split(start)
    anchored = [pieces[0]]
    for piece in pieces[1:]:
        number = piece.partition(end)[0]
        anchored.append(f'<h3 id="source-{number}">Source {piece}' if number.isdigit() else start + piece)
    return "".join(anchored)
