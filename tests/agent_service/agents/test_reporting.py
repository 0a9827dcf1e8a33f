"""Whole runs that end with the actions and reporting agents, offline: they answer, and make what they say they made."""

from collections.abc import AsyncIterator

import pytest

from agent_service.engine.events import ArtifactCreated, ToolCompleted, ToolStatus
from tests.support.conversations import Bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as bench:
        yield bench


async def test_a_report_is_made_of_what_the_run_measured(bench: Bench) -> None:
    log = "timestamp,model,input_tokens,output_tokens,latency_ms\n" + "".join(
        f"2026-03-0{day}T1{day}:00:00Z,gpt-4o,{1000 * day},100,{500 + day}\n" for day in range(1, 7)
    )
    await bench.put("log.csv", log.encode())
    told = await bench.ask("Make a report for management, with charts")
    assert {body.status for body in told.bodies(ToolCompleted)} == {ToolStatus.SUCCESS}
    made = {body.name: body.artifact_id for body in told.bodies(ArtifactCreated)}
    assert {"report.md", "report.html"} <= made.keys()
    assert any(name.endswith(".svg") for name in made)
    assert all(f"`{name}`" in told.final.content for name in made)
    assert set(told.final.artifact_ids) == set(made.values())
    pieces = [piece async for piece in bench.storage.files.read("ann", made["report.md"])]
    report = b"".join(pieces).decode()
    assert "on log.csv" in report
    assert "| gpt-4o |" in report


@pytest.mark.parametrize(
    ("agent", "opening"),
    [("actions", "**There is no plan"), ("reporting", "**I cannot answer this with numbers")],
)
async def test_an_agent_that_is_asked_alone_says_what_it_needs(bench: Bench, agent: str, opening: str) -> None:
    told = await bench.ask("Cut spend 20 %, keep quality: what do I do?", agent=agent)
    assert told.final.content.startswith(opening)
    assert not told.bodies(ArtifactCreated)
