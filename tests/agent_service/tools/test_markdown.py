"""Text of data shows as itself in Markdown, whatever it holds."""

import html
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from agent_service.tools.markdown import cell, plain, prose

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
words = st.text(st.sampled_from("ab1 .-=*_#+>!|~`[](){}<>&$\\\n:/"), max_size=30)


def shown(markup: str) -> str:
    """The text that a person sees."""
    return html.unescape(re.sub(r"<[^>]*>", "", MARKDOWN.render(markup))).strip()


@given(words)
@example("1. one")
@example("- one")
@example("---")
@example("==")
@example("[a]: http://e")
@example("&lt;b&gt;")
@example("![x](http://e/x)")
def test_plain_text_shows_as_itself(text: str) -> None:
    rendered = MARKDOWN.render(f"before\n\n{plain(text)}")
    assert re.fullmatch(r"<p>before</p>\n(?:<p>[^<]*</p>\n)?", rendered)
    assert shown(plain(text)) == " ".join(text.split())


@given(words, words)
def test_a_cell_stays_one_cell(one: str, two: str) -> None:
    rendered = MARKDOWN.render(f"| a | b |\n| --- | --- |\n| {cell(one)} | {cell(two)} |")
    found = [html.unescape(text) for text in re.findall(r"<td>(.*?)</td>", rendered)]
    assert found == [" ".join(one.split()), " ".join(two.split())]


@given(words)
@example("<img src=x onerror=y> ![a](b) [c](d) `e`")
@example("a\n==\n\n    b")
def test_prose_has_no_links_images_or_html(text: str) -> None:
    rendered = MARKDOWN.render(prose(text))
    assert not set(re.findall(r"<(\w+)", rendered)) - {
        *("p", "em", "strong", "ul", "ol", "li", "br", "hr"),
        *("h1", "h2", "pre", "code"),  # of underlined and indented lines: they neither act nor load
    }


@pytest.mark.parametrize("text", ["**bold** and *em*", "- one\n- two"])
def test_prose_keeps_emphasis_and_lists(text: str) -> None:
    assert prose(text) == text
