"""Sizes of pages."""

from typing import Final

DEFAULT_PAGE_SIZE: Final = 50
"""When the caller names none. The most is a rule of the contract."""


def page_size(requested: int) -> int:
    """Return how many items a page has."""
    return requested or DEFAULT_PAGE_SIZE
