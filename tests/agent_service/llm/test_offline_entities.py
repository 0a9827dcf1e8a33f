"""What a message names."""

from datetime import UTC, datetime
from typing import Final

import pytest

from agent_service.llm.offline.dates import Period
from agent_service.llm.offline.entities import Entities, Goal
from agent_service.llm.offline.named import find_entities
from agent_service.llm.offline.words import normalise

NOW: Final = datetime(2026, 6, 17, 12, tzinfo=UTC)
"""A Wednesday."""


def entities(message: str) -> Entities:
    return find_entities(message, normalise(message), NOW)


def utc(*parts: int) -> datetime:
    year, month, day, *rest = parts
    hour, minute = [*rest, 0, 0][:2]
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("message", "models", "assumed"),
    [
        ("assume gpt-4o", ("gpt-4o",), "gpt-4o"),
        ("Analyze my costs, assuming GPT 4o mini please", ("gpt-4o-mini",), "gpt-4o-mini"),
        ("it was all gpt-4-turbo", ("gpt-4-turbo",), "gpt-4-turbo"),
        ("we only use claude 3.5 sonnet", ("claude-3-5-sonnet",), "claude-3-5-sonnet"),
        ("price it as o3-mini", ("o3-mini",), "o3-mini"),
        ("What would GPT-4o-mini cost for this traffic?", ("gpt-4o-mini",), ""),
        ("if it were gemini 1.5 pro, what would we pay?", ("gemini-1.5-pro",), ""),
        ("compare gpt-4.1-nano with Haiku 4.5", ("gpt-4.1-nano", "claude-haiku-4-5"), ""),
        ("llama 3.1 70b or mistral large", ("llama-3.1-70b", "mistral-large"), ""),
        ("gpt-4o-2024-08-06 in the log", ("gpt-4o-2024-08-06",), ""),
        ("which model is best", (), ""),
    ],
)
def test_models(message: str, models: tuple[str, ...], assumed: str) -> None:
    found = entities(message)
    assert (found.models, found.assume_model) == (models, assumed)


@pytest.mark.parametrize(
    ("message", "group_by"),
    [
        ("costs by model and feature", ("model", "feature")),
        ("spend per customer, per day", ("user", "day")),
        ("which endpoint costs most", ("feature",)),
        ("daily totals", ("day",)),
        ("hourly load", ("hour",)),
        ("who spends the most", ("user",)),
        ("my model costs too much", ()),
    ],
)
def test_dimensions(message: str, group_by: tuple[str, ...]) -> None:
    assert entities(message).group_by == group_by


@pytest.mark.parametrize(
    ("message", "start", "end"),
    [
        ("on 2023-11-16", utc(2023, 11, 16), utc(2023, 11, 17)),
        ("since 2023-11-16", utc(2023, 11, 16), None),
        ("before 2023-11-16", None, utc(2023, 11, 16)),
        ("until 2023-11-16", None, utc(2023, 11, 17)),
        ("between 2023-11-01 and 2023-11-15", utc(2023, 11, 1), utc(2023, 11, 16)),
        ("from 2023-11-16 18:30 to 2023-11-16 19:00", utc(2023, 11, 16, 18, 30), utc(2023, 11, 16, 19)),
        ("16 November 2023", utc(2023, 11, 16), utc(2023, 11, 17)),
        ("Nov 16, 2023", utc(2023, 11, 16), utc(2023, 11, 17)),
        ("in November", utc(2025, 11, 1), utc(2025, 12, 1)),
        ("in may", utc(2026, 5, 1), utc(2026, 6, 1)),
        ("March 2024", utc(2024, 3, 1), utc(2024, 4, 1)),
        ("2024-03", utc(2024, 3, 1), utc(2024, 4, 1)),
        ("Q4 2024", utc(2024, 10, 1), utc(2025, 1, 1)),
        ("in 2024", utc(2024, 1, 1), utc(2025, 1, 1)),
        ("today", utc(2026, 6, 17), utc(2026, 6, 18)),
        ("yesterday", utc(2026, 6, 16), utc(2026, 6, 17)),
        ("last week", utc(2026, 6, 8), utc(2026, 6, 15)),
        ("this month", utc(2026, 6, 1), utc(2026, 7, 1)),
        ("last quarter", utc(2026, 1, 1), utc(2026, 4, 1)),
        ("last 7 days", utc(2026, 6, 10, 12), utc(2026, 6, 17, 12)),
        ("the past two months", utc(2026, 4, 17, 12), utc(2026, 6, 17, 12)),
        ("may I see it", None, None),
        ("2023-13-45", None, None),
        ("30 February 2024", utc(2024, 2, 1), utc(2024, 3, 1)),
    ],
)
def test_times(message: str, start: datetime | None, end: datetime | None) -> None:
    assert entities(message).period == Period(start, end)


@pytest.mark.parametrize(
    ("message", "goals"),
    [
        ("cut spend 30 %, keep quality", (Goal("cost", -30.0), Goal("quality", 0.0))),
        ("-20 % cost, 2x faster, +30 % usage", (Goal("cost", -20.0), Goal("latency", -50.0), Goal("usage", 30.0))),
        ("stay below $5k a month in costs", (Goal("cost", None, 5000.0),)),
        ("the bill must not pass 1,250.50 dollars", (Goal("cost", None, 1250.5),)),
        ("usage doubles next year", (Goal("usage", 100.0),)),
        ("half the cost", (Goal("cost", -50.0),)),
        ("25 percent faster", (Goal("latency", -25.0),)),
        ("we expect 40% more requests", (Goal("usage", 40.0),)),
        ("how much does it cost", ()),
    ],
)
def test_goals(message: str, goals: tuple[Goal, ...]) -> None:
    assert entities(message).goals == goals


@pytest.mark.parametrize(
    ("message", "files"),
    [
        ("analyze Usage-2024.csv please", ("Usage-2024.csv",)),
        ("a.jsonl.gz and b.parquet", ("a.jsonl.gz", "b.parquet")),
        ("the csv file", ()),
    ],
)
def test_files(message: str, files: tuple[str, ...]) -> None:
    assert entities(message).files == files


@pytest.mark.parametrize(
    ("message", "features"),
    [
        ("what does feature chat-support cost us?", ("chat-support",)),
        ('cost of the "search assist" feature', ("search assist",)),
        ("costs by feature", ()),
        ("which feature costs most", ()),
        ("the most expensive feature", ()),
    ],
)
def test_features(message: str, features: tuple[str, ...]) -> None:
    assert entities(message).features == features


@pytest.mark.parametrize(
    ("message", "columns"),
    [
        ("the column took is latency", {"latency": "took"}),
        ("use column 'Dur_MS' as latency", {"latency": "Dur_MS"}),
        ("model is in column engine", {"model": "engine"}),
        ("treat ctx as input tokens and column out as output tokens", {"input_tokens": "ctx", "output_tokens": "out"}),
        ("what columns are there?", {}),
    ],
)
def test_corrections_of_columns(message: str, columns: dict[str, str]) -> None:
    assert dict(entities(message).columns) == columns


@pytest.mark.parametrize(
    ("message", "sql"),
    [
        ("SELECT count(*) FROM data;", "SELECT count(*) FROM data"),
        ("run: select a\nfrom data", "select a\nfrom data"),
        ("with x as (select 1 from data) select * from x", "with x as (select 1 from data) select * from x"),
        ("help me with costs from last week", ""),
    ],
)
def test_sql(message: str, sql: str) -> None:
    assert entities(message).sql == sql
