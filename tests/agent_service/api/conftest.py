from collections.abc import AsyncIterator

import pytest

from tests.support.face import Face, open_face


@pytest.fixture
async def face() -> AsyncIterator[Face]:
    """A running server over storage in memory."""
    async with open_face() as running:
        yield running
