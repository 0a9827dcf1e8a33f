from collections.abc import AsyncIterator

import pytest

from tests.support.bridge_server import RunningBridge, running_bridge
from tests.support.scripted_service import ScriptedService


@pytest.fixture
async def service() -> AsyncIterator[ScriptedService]:
    async with ScriptedService() as running:
        yield running


@pytest.fixture
async def bridge(service: ScriptedService) -> AsyncIterator[RunningBridge]:
    async with running_bridge(service.target) as running:
        yield running
