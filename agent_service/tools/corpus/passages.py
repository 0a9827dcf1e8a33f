"""Cuts a document's text into passages: by headings, then by paragraphs, then where it must."""

import re
from collections.abc import Iterator
from typing import Final

from agent_service.tools.corpus.limits import MAX_HEADING_CHARACTERS, MAX_PASSAGE_CHARACTERS
from storage.records import HEADING_SEPARATOR, Passage

_HEADING: Final = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.+?)(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE: Final = re.compile(r"^ {0,3}(=+|-{3,})[ \t]*$")
_FENCE: Final = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_SENTENCE_END: Final = re.compile(r"[.!?…][\"')\]]?\s|\n")
MAX_HEADING_LINE: Final = 300
"""Characters of a line that may be a heading."""


def cut(text: str) -> list[Passage]:
    """Return the passages of a text, Markdown or plain, in order.

    No word is lost but those of headings, which each passage under them carries as `heading` ("Retries > Limits").
    """
    return [
        Passage(heading, part)
        for heading, body in _sections(text)
        for part in _packed(_paragraphs(body), MAX_PASSAGE_CHARACTERS)
    ]


def first_heading(text: str) -> str:
    """Return the first heading of a Markdown text, empty where there is none."""
    return next((heading.rpartition(HEADING_SEPARATOR)[2] for heading, _ in _sections(text) if heading), "")


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each part between headings: the headings above it, and its lines. One without lines counts as well."""
    above: list[tuple[int, str]] = []
    lines: list[str] = []
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if mark and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else mark[1]
        found = None if fence or mark or len(line) > MAX_HEADING_LINE else _heading(line, lines)
        if found is None:
            lines.append(line)
            continue
        yield _path(above), lines
        lines = []
        level, title = found
        above = [*((depth, name) for depth, name in above if depth < level), (level, title)]
    yield _path(above), lines


def _heading(line: str, before: list[str]) -> tuple[int, str] | None:
    """Return level and title where the line is a heading, or underlines the one before it, which it takes away."""
    if match := _HEADING.match(line):
        return len(match[1]), match[2].strip()
    underline = _UNDERLINE.match(line)
    alone = len(before) == 1 or (len(before) > 1 and not before[-2].strip())
    if underline and alone and before[-1].strip() and len(before[-1]) <= MAX_HEADING_LINE:
        if _HEADING.match(before[-1]) or before[-1].lstrip().startswith(("|", "-", "*", ">")):
            return None
        return (1 if underline[1].startswith("=") else 2), before.pop().strip()
    return None


def _path(above: list[tuple[int, str]]) -> str:
    """Return the headings joined; where they are too long, the nearest ones."""
    path = ""
    for _, title in reversed(above):
        longer = f"{title}{HEADING_SEPARATOR}{path}" if path else title
        if len(longer) > MAX_HEADING_CHARACTERS:
            break
        path = longer
    return path or (above[-1][1][: MAX_HEADING_CHARACTERS - 1] + "…" if above else "")


def _paragraphs(lines: list[str]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in (*lines, ""):
        if line.strip():
            paragraph.append(line.rstrip())
        elif paragraph:
            yield "\n".join(paragraph)
            paragraph = []


def _packed(paragraphs: Iterator[str], limit: int) -> Iterator[str]:
    """Yield passages of whole paragraphs, as many as fit; a longer paragraph is split."""
    passage = ""
    for paragraph in paragraphs:
        for piece in _split(paragraph, limit):
            if passage and len(passage) + 2 + len(piece) > limit:
                yield passage
                passage = ""
            passage = f"{passage}\n\n{piece}" if passage else piece
    if passage:
        yield passage


def _split(text: str, limit: int) -> Iterator[str]:
    """Yield pieces of at most `limit` characters, ending with a sentence, else with a word, else where they must."""
    begin = 0
    while len(text) - begin > limit:
        window = text[begin : begin + limit]
        ends = [match.end() for match in _SENTENCE_END.finditer(window)]
        end = ends[-1] if ends and ends[-1] > limit // 3 else window.rfind(" ") + 1 or limit
        if piece := window[:end].strip():
            yield piece
        begin += end
    if rest := text[begin:].strip():
        yield rest
