"""Page tokens: what was made is read, whatever else is refused."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import InvalidPageTokenError
from storage.paging import cut_page, read_token
from storage.records import Page


def test_the_last_page_has_no_token() -> None:
    assert cut_page([(1, "a")], 1, lambda item: item, "things") == Page([(1, "a")])


@given(number=st.integers(-(2**63) + 1, 2**63 - 1), text=st.text(), filters=st.lists(st.text()))
def test_a_token_names_the_last_item_shown(number: int, text: str, filters: list[str]) -> None:
    page = cut_page([(0, "x"), (number, text), (0, "y")], 2, lambda item: item, *filters)
    assert list(page.items) == [(0, "x"), (number, text)]
    assert read_token(page.next_page_token, *filters) == (number, text)


def test_no_token_is_the_beginning() -> None:
    assert read_token("", "things") is None


def make_token(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def seal() -> str:
    token = cut_page([(1, "a"), (2, "b")], 1, lambda item: item, "things").next_page_token
    found: str = json.loads(base64.urlsafe_b64decode(token))[0]
    return found


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "!!!!",
        "äöü",
        make_token(None),
        make_token([]),
        make_token({"a": 1}),
        make_token([seal(), 1]),
        make_token([seal(), "1", "a"]),
        make_token([seal(), True, "a"]),
        make_token([seal(), 1.5, "a"]),
        make_token([seal(), 1 << 63, "a"]),
        make_token([seal(), 1, None]),
        make_token(["", 1, "a"]),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_what_this_listing_did_not_make_is_refused(token: str) -> None:
    with pytest.raises(InvalidPageTokenError):
        read_token(token, "things")


@given(st.text())
def test_no_text_breaks_it(token: str) -> None:
    try:
        assert read_token(token, "things") is None
    except InvalidPageTokenError:
        assert token
