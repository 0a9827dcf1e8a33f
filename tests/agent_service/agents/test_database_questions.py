"""Questions about a database's performance in the chat, from the message to the answer."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent_service.engine.events import AnswerSource, ToolCompleted, ToolExecuting, ToolStatus
from storage.memory_cache import MemoryCache
from tests.support.conversations import USER, Bench

OPERATOR = replace(USER, scopes=frozenset({"databases:read"}))
QUESTION = "Analyze my database performance"


@pytest.fixture
def databases(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a INTEGER REFERENCES a (id), note TEXT);"
        )
    return {"shop": f"sqlite:///{path}"}


async def test_who_may_look_gets_findings(databases: dict[str, str]) -> None:
    async with Bench(databases=databases) as bench:
        told = await bench.ask(QUESTION, caller=OPERATOR)
    answer = told.final.content
    assert [call.tool_name for call in told.bodies(ToolExecuting)] == ["database_analyzer"]
    assert answer.startswith("**1 finding in the database shop (SQLite ")
    assert "| low | missing index | b.a |" in answer
    assert any(sentence.startswith("use of indexes:") for sentence in told.final.missing_data)
    assert databases["shop"] not in str(told.events)


async def test_who_may_not_is_told_what_to_ask_for(databases: dict[str, str]) -> None:
    async with Bench(databases=databases) as bench:
        told = await bench.ask(QUESTION)
    (call,) = told.bodies(ToolCompleted)
    assert call.status is ToolStatus.DENIED
    assert told.final.content.startswith("**I could not look at the database.**")
    assert "databases:read" in told.final.content


async def test_without_a_database_it_is_said_how_to_name_one() -> None:
    async with Bench() as bench:
        told = await bench.ask(QUESTION, caller=OPERATOR)
    assert "APEX_ANALYZER_TARGETS" in told.final.content


async def test_an_answer_about_a_database_is_not_given_again(databases: dict[str, str]) -> None:
    """Its statistics change while the user's own data stays the same; an answer about that is kept."""
    async with Bench(databases=databases, cache=MemoryCache(lambda: datetime.now(UTC))) as bench:
        for question, sources in (
            (QUESTION, [AnswerSource.COMPUTED, AnswerSource.COMPUTED]),
            ("Are there anomalies in our usage?", [AnswerSource.COMPUTED, AnswerSource.CACHE]),
        ):
            told = [await bench.ask(question, caller=OPERATOR) for _ in range(2)]
            assert [one.final.source for one in told] == sources
