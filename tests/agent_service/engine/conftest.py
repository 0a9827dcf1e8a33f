"""Storage for the engine: in memory, and, where a test asks for `storage`, in SQLite too. And what it logs."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from storage.interfaces import Storage
from storage.memory import MemoryStorage
from storage.opening import open_storage


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    """What the engine logs during the test."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture
async def memory() -> AsyncIterator[MemoryStorage]:
    """An empty storage in memory, with the machine's clock."""
    storage = MemoryStorage(lambda: datetime.now(UTC))
    yield storage
    await storage.close()


@pytest.fixture(params=["memory", "sqlite"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    """An empty storage of each embedded kind."""
    opened: Storage
    if request.param == "memory":
        opened = MemoryStorage(lambda: datetime.now(UTC))
    else:
        opened = await open_storage("", tmp_path)
    yield opened
    await opened.close()
