"""Page tokens: where a listing goes on, sealed with the listing they belong to.

A token names the last item of its page by the sort key, so that items which come or go meanwhile neither repeat nor
hide others. It grants nothing: the query that uses it filters by user like every other.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TypeVar

from storage.errors import InvalidPageTokenError
from storage.records import Page

T = TypeVar("T")

#: What an item sorts by: a number (a time in microseconds, a position), then a text (an id) that breaks ties.
SortKey = tuple[int, str]

_SEAL_CHARS = 16


def read_token(token: str, *listing: str) -> SortKey | None:
    """Return the key after which the page begins; None, at the beginning, for an empty token.

    Args:
        token: what `cut_page` put into `next_page_token`.
        listing: the listing's kind, user and filters.

    Raises:
        InvalidPageTokenError: the token was not made by this listing.
    """
    if not token:
        return None
    try:
        seal, number, text = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise InvalidPageTokenError("the page token is broken") from error
    if seal != _seal(listing) or type(number) is not int or not isinstance(text, str) or abs(number) >= 1 << 63:
        raise InvalidPageTokenError("the page token belongs to another listing")
    return number, text


def cut_page(items: Sequence[T], page_size: int, sort_key: Callable[[T], SortKey], *listing: str) -> Page[T]:
    """Return the page that begins with `items`, which hold one more than `page_size` if there is more."""
    if len(items) <= page_size:
        return Page(items)
    shown = items[:page_size]
    number, text = sort_key(shown[-1])
    token = json.dumps([_seal(listing), number, text]).encode()
    return Page(shown, base64.urlsafe_b64encode(token).decode())


def _seal(listing: Sequence[str]) -> str:
    return sha256(json.dumps(listing).encode()).hexdigest()[:_SEAL_CHARS]
