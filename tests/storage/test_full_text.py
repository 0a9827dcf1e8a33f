"""Words, stems and ranks, against Porter's own examples and a plain calculation."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.full_text import (
    MAX_QUERY_TERMS,
    MAX_TERM_CHARACTERS,
    STOP_WORDS,
    bm25,
    index_words,
    query_terms,
    spans,
    words_of,
)
from storage.stemming import MAX_WORD_CHARACTERS, stem

# Of the paper, and of what people ask here.
STEMS = """
caresses caress ponies poni ties ti caress caress cats cat feed feed agreed agre plastered plaster bled bled
motoring motor sing sing conflated conflat troubled troubl sized size hopping hop tanned tan falling fall hissing hiss
fizzed fizz failing fail filing file happy happi sky sky relational relat conditional condit rational ration
digitizer digit radicalli radic operator oper feudalism feudal decisiveness decis hopefulness hope
sensibiliti sensibl triplicate triplic formative form formalize formal electrical electr goodness good revival reviv
allowance allow inference infer airliner airlin gyroscopic gyroscop adjustable adjust defensible defens
replacement replac adjustment adjust dependent depend adoption adopt communism commun activate activ effective effect
probate probat rate rate cease ceas controll control roll roll retry retri retries retri retried retri retrying retri
yes ye youth youth
""".split()  # noqa: SIM905 - a list of words is read as words


@pytest.mark.parametrize(("word", "expected"), list(zip(STEMS[::2], STEMS[1::2], strict=True)), ids=STEMS[::2])
def test_stems(word: str, expected: str) -> None:
    assert stem(word) == expected


@pytest.mark.parametrize("word", ["", "a", "is", "429", "v2", "größe", "s" * (MAX_WORD_CHARACTERS + 1)])
def test_what_is_no_english_word_stays(word: str) -> None:
    assert stem(word) == word


def test_words_have_their_place() -> None:
    text = "Retries: max_retries, 429 — Ünïcode"
    assert [(text[start:end], word) for start, end, word in words_of(text)] == [
        ("Retries", "retri"),
        ("max", "max"),
        ("retries", "retri"),
        ("429", "429"),
        ("Ünïcode", "unicod"),
    ]


def test_a_heading_counts_more_often() -> None:
    assert index_words("The Guide", "Retries", "Retry it.").split() == [
        "the",
        "guid",
        *["retri"] * 2,
        "retri",
        "it",
    ]


def test_a_query_is_bounded() -> None:
    assert query_terms("a Retry the retries") == ("retri",)
    assert query_terms("to be or not to be") == ("to", "be", "or", "not")
    assert len(query_terms(" ".join(f"w{n}" for n in range(MAX_QUERY_TERMS + 1)))) == MAX_QUERY_TERMS
    (term,) = query_terms("x" * 10_000)
    assert len(term) == MAX_TERM_CHARACTERS


def test_stop_words_are_single_words() -> None:
    assert all([word] == [text for _, _, text in words_of(word)] or stem(word) != word for word in STOP_WORDS)


def test_spans_of_beginnings() -> None:
    assert spans("Author, authority", ["autho"], as_beginnings=True) == ((0, 6), (8, 17))
    assert spans("Author, authority", ["autho"], as_beginnings=False) == ()


def test_bm25_is_the_formula() -> None:
    scores = bm25(["retri retri wait", "wait wait wait wait stop"], ["retri", "stop"], total=10, as_beginnings=False)
    rare = math.log(1 + (10 - 1 + 0.5) / (1 + 0.5))
    assert scores == pytest.approx(
        [
            rare * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 3 / 4)),
            rare * 1 * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 5 / 4)),
        ]
    )
    assert bm25([], ["retri"], total=0, as_beginnings=False) == []


@given(st.text(max_size=200))
def test_every_word_is_found_by_itself(text: str) -> None:
    places = list(words_of(text))
    for start, end, word in places:
        assert word
        assert not set(word) & set(" \"'*:&|!()<>\\")
        assert (start, end) in spans(text, [word], as_beginnings=False)
    indexed = index_words("", "", text)
    assert indexed.split(" ") == [word for _, _, word in places] or not indexed
    assert set(query_terms(text)) <= {word for _, _, word in places}


def test_long_runs_cost_little() -> None:
    began = time.perf_counter()
    for text in ("a" * 1_000_000, "e\u0301" * 500_000, "あ" * 100_000, "yyyyyed " * 100_000, "ﷺ" * 10_000):
        index_words("", "", text)
    assert time.perf_counter() - began < 10


def test_a_passage_about_something_comes_before_its_short_neighbour_under_the_same_title() -> None:
    """What both share, the title, must not decide: the neighbour would win by being short."""
    title = "Runbook: Retries"
    about = index_words(title, title, "A call that fails is retried twice, with exponential backoff and full jitter.")
    beside = index_words(title, f"{title} > Timeouts", "A call may take 30 seconds.")
    first, second = bm25([about, beside], query_terms("retries"), total=2, as_beginnings=False)
    assert first > second
