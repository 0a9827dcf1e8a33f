"""Numbers of a text are found, and held against results, with the rounding that people use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.engine.events import JsonValue
from agent_service.engine.tool import ToolError
from agent_service.tools.reporting.narrative import Sources, checked
from agent_service.tools.reporting.numbers import KnownNumbers, numbers_in
from tests.support.evidence import COSTS, USAGE, a_record

RESULT: JsonValue = {
    "cost_usd": 96.782055,
    "share": 0.6149,
    "requests": 19_366,
    "p95_ms": 12_345.6,
    "saving_percent": -29.95,
    "days": ["a", "b", "c"],
    "time": {"start": "2026-05-10T14:30:00Z"},
    "latency": {"p50": 812.4},
    "name": "saves 77 % of 555 requests",
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It costs $96.78 for 19,366 requests.", [96.78, 19366]),
        ("gpt-4o-mini and claude-3-5-sonnet, p95, v2, user_001", []),
        ("1. First\n2) second: 3 of them", [3]),
        ("from 2026-05-10 on", []),
        ("a saving of -30 % or -12.5%", [30, 12.5]),
        ("12.3 s, 4k, 1.5M", [12.3, 4, 1.5]),
        ("2x faster", [2]),
        ("(45%), [7] and 1,000.", [45, 7, 1000]),
    ],
    ids=["plain", "names", "lists", "dates", "signs", "units", "times", "brackets"],
)
def test_what_counts_as_a_number(text: str, found: list[float]) -> None:
    assert [said.value for said in numbers_in(text)] == found


@pytest.mark.parametrize(
    "text",
    [
        *("$96.78", "$97", "$96.782", "61.5 %", "61 %", "0.61", "19,366", "19.4k", "12.3 s", "12,346 ms", "30 %"),
        *("29.95%", "3", "p50 of 812 ms", "at 14:30", "a share of 61.49 percent"),
    ],
)
def test_a_number_that_a_result_holds_is_known_however_it_is_rounded(text: str) -> None:
    known = KnownNumbers(RESULT)
    assert all(known.has(said) for said in numbers_in(text))
    assert numbers_in(text)


@pytest.mark.parametrize("text", ["$96.79", "$98", "62 %", "19,367", "19,000", "12.4 s", "31 %", "77 %", "555", "0.62"])
def test_another_number_is_not_known(text: str) -> None:
    known = KnownNumbers(RESULT)
    assert not any(known.has(said) for said in numbers_in(text))


@given(st.floats(0.001, 1e9, allow_nan=False), st.integers(0, 6))
def test_every_rounding_of_a_value_is_known(value: float, decimals: int) -> None:
    (said,) = numbers_in(f"it is {value:,.{decimals}f} in all")
    assert KnownNumbers({"x": value}).has(said)


@given(st.integers(10, 10**9), st.integers(1, 10**6))
def test_a_whole_number_is_known_by_itself_only(value: int, off: int) -> None:
    (said,) = numbers_in(f"{value + off} in all")
    assert not KnownNumbers({"x": value}).has(said)


def sources(message: str = "") -> Sources:
    return Sources.of([a_record("usage_summary", USAGE), a_record("cost_breakdown", COSTS, args={"top": 71})], message)


def test_each_number_leads_to_its_source() -> None:
    text = checked("We paid $42.50 for 300 requests; chat took $30.50 with the top 71.", sources())
    one, two = r"[\[1\]](#source-1)", r"[\[2\]](#source-2)"
    assert text == rf"We paid \$42.50 {one} for 300 {one} requests; chat took \$30.50 {two} with the top 71 {two}."


def test_a_small_count_leads_to_all_that_hold_it() -> None:
    assert checked("There are 2 models.", sources()) == r"There are 2 [\[1\]](#source-1) [\[2\]](#source-2) models."


def test_numbers_that_no_result_holds_are_refused_by_name() -> None:
    with pytest.raises(ToolError, match=r"states \$43\.60, 99 %, 2026-04-01, which none"):
        checked("We paid $43.60, not $42.50; 99 % since 2026-04-01.", sources())


def test_what_the_person_said_may_be_said_again() -> None:
    assert (
        checked("The goal is -20 % by 2026-07-01.", sources("cut 20 % by 2026-07-01"))
        == "The goal is -20 % by 2026-07-01."
    )
    with pytest.raises(ToolError):
        checked("The goal is -20 %.", sources())


def test_text_cannot_link_load_or_hide() -> None:
    text = checked("**Bold** ![x](http://e/x) <script>a</script> [y](javascript:z)\n\n- item", sources())
    assert text.startswith("**Bold** ")
    assert "](" not in text.replace("\\](", "").replace(r"\[", "")
    assert "<script" not in text.replace("\\<", "")
