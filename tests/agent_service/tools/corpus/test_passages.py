"""How texts are cut: by headings and paragraphs, with every word kept."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.tools.corpus.limits import MAX_HEADING_CHARACTERS, MAX_PASSAGE_CHARACTERS
from agent_service.tools.corpus.passages import cut, first_heading
from storage.records import Passage

RUNBOOK = """\
Before anything else.

# Runbook

Who is on call.

## Retries

Retry twice.

Then stop.

### Limits ###

At most 3.

## Rollback

Ship the last good one.
"""


def test_headings_are_where_passages_begin() -> None:
    assert cut(RUNBOOK) == [
        Passage("", "Before anything else."),
        Passage("Runbook", "Who is on call."),
        Passage("Runbook > Retries", "Retry twice.\n\nThen stop."),
        Passage("Runbook > Retries > Limits", "At most 3."),
        Passage("Runbook > Rollback", "Ship the last good one."),
    ]
    assert first_heading(RUNBOOK) == "Runbook"
    assert first_heading("No heading.") == ""


def test_underlined_headings() -> None:
    text = "Guide\n=====\n\nOne.\n\nPart\n----\n\nTwo.\n\n---\n\nThree."
    assert cut(text) == [Passage("Guide", "One."), Passage("Guide > Part", "Two.\n\n---\n\nThree.")]


@pytest.mark.parametrize(
    "text",
    ["```\n# no heading\n```", "~~~\nx\n---\n~~~", "#hashtag", "| a |\n|---|", "- item\n---", "    # code", "###"],
    ids=["fence", "fence-underline", "tag", "table", "list", "indented", "empty"],
)
def test_what_is_no_heading(text: str) -> None:
    (passage,) = cut(text)
    assert passage.heading == ""


def test_paragraphs_share_a_passage_as_long_as_they_fit() -> None:
    half = "x" * (MAX_PASSAGE_CHARACTERS // 2 - 1)
    assert cut(f"{half}\n\n{half}") == [Passage("", f"{half}\n\n{half}")]
    assert cut(f"{half}\n\n{half}x") == [Passage("", half), Passage("", f"{half}x")]


def test_a_long_paragraph_is_split_at_sentences() -> None:
    sentence = "This is a sentence of some length. "
    passages = cut(sentence * 100)
    assert len(passages) > 1
    assert all(passage.text.endswith("length.") for passage in passages)
    assert all(len(passage.text) <= MAX_PASSAGE_CHARACTERS for passage in passages)


@pytest.mark.parametrize("character", ["x", "あ"], ids=["latin", "unspaced"])
def test_a_text_without_spaces_is_split_where_it_must(character: str) -> None:
    assert [len(passage.text) for passage in cut(character * (MAX_PASSAGE_CHARACTERS + 1))] == [
        MAX_PASSAGE_CHARACTERS,
        1,
    ]


def test_headings_are_bounded() -> None:
    deep = "\n".join(f"{'#' * level} {'h' * 90}" for level in range(1, 7))
    (passage,) = cut(f"{deep}\n\ntext")
    assert passage.heading == f"{'h' * 90} > {'h' * 90}"
    (passage,) = cut(f"# {'h' * 250}\n\ntext")
    assert len(passage.heading) == MAX_HEADING_CHARACTERS
    (passage,) = cut(f"# {'h' * 400}\n\ntext")
    assert passage.heading == ""


LINES = st.lists(
    st.one_of(
        st.text("ab .!?\t", max_size=30),
        st.sampled_from(["# A", "## B", "", "```", "---", "===", "- x", "word " * 400, "w" * 3_000]),
    ),
    max_size=15,
)


@given(LINES)
def test_no_word_is_lost(lines: list[str]) -> None:
    text = "\n".join(lines)
    passages = cut(text)
    assert all(passage.text.strip() and len(passage.text) <= MAX_PASSAGE_CHARACTERS for passage in passages)
    kept = "".join("".join(passage.text.split()) for passage in passages)
    # What is missing was a heading, or what underlines one.
    rest = iter("".join(text.split()))
    assert all(character in rest for character in kept)
    without = re.sub(r"(?m)^(?:# A|## B|---|===)$", "", text)
    if "---" not in text and "===" not in text and "```" not in text:
        assert kept == "".join(without.split())


def test_a_hostile_text_is_cut_in_time() -> None:
    began = time.perf_counter()
    for piece in ("# ", "#\n", "=\n", ". ", "```\n", "\n", "a\n---\n"):
        cut(piece * 50_000)
    assert time.perf_counter() - began < 5
