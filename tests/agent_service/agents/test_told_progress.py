"""How far a tool is: each of its own reports reaches the log of the run."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent_service.engine.commands import Reference
from agent_service.engine.events import AgentProgress, ProgressStage
from tests.support.conversations import USER, Bench, Told


def told_of(told: Told) -> list[str]:
    return [body.message for body in told.bodies(AgentProgress) if body.stage is ProgressStage.TOOL]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE a (id INTEGER PRIMARY KEY)")
    async with Bench(databases={"shop": f"sqlite:///{path}"}) as bench:
        yield bench


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("Are there anomalies in our usage?", "Columns recognised, looking at every bucket of time"),
        ("Does latency correlate with output tokens?", "Columns recognised, comparing"),
        ("How many of our prompts are duplicates?", "Columns recognised, looking for the same prompts"),
        ("Analyze my database performance", "Reading the statistics of shop"),
    ],
    ids=["anomalies", "correlation", "duplicates", "database"],
)
async def test_a_look_at_the_data_is_told(bench: Bench, question: str, message: str) -> None:
    told = await bench.ask(question, caller=replace(USER, scopes=frozenset({"databases:read"})))
    assert message in told_of(told)


async def test_pricing_simulating_drawing_and_the_pdf_are_told(bench: Bench) -> None:
    messages = told_of(await bench.ask("Write a report for management on how to cut costs, with charts, as PDF"))
    for message in (
        "Columns recognised, pricing",
        "Priced, simulating",
        "Sources checked, drawing",
        "Written, making the PDF",
    ):
        assert message in messages
    assert [message for message in messages if message.endswith(" combinations are simulated")]


async def test_options_are_priced_and_simulated_where_nobody_else_prices(bench: Bench) -> None:
    told = await bench.ask("audit caching", agent="optimizations")
    assert {"Columns recognised, pricing", "Priced, simulating"} <= set(told_of(told))


async def test_each_document_that_is_read_is_told(bench: Bench) -> None:
    file = await bench.put("retries.md", b"# Retries\n\nTwice, with jitter.\n")
    references = (Reference(file_id=file.file_id),)
    told = await bench.ask("create a knowledge base for our runbooks", references=references)
    assert "Reading retries.md" in told_of(told)
