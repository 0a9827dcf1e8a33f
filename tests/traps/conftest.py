"""These tests run on the event loop that both processes run on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from agent_service.tools.sandbox import Sandbox
from tests.support.stack import Service, Stack, open_service, open_stack


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Transports of asyncio's own loop buffer and abort in other ways."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _cold_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here uses a data tool: its processes need not be started beforehand."""

    async def nothing(_sandbox: Sandbox) -> None:
        """Start nothing."""

    monkeypatch.setattr(Sandbox, "warm", nothing)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with open_service(tmp_path) as running:
        yield running


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path) as running:
        yield running
