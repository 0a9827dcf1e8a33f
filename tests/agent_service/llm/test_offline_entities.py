"""What a message names."""

from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.llm.offline.dates import Period
from agent_service.llm.offline.entities import Entities, Goal
from agent_service.llm.offline.named import find_entities

NOW: Final = datetime(2026, 6, 17, 12, tzinfo=UTC)
"""A Wednesday."""


def entities(message: str) -> Entities:
    return find_entities(message, NOW)


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
        ("since Monday", utc(2026, 6, 15), None),
        ("on Friday", utc(2026, 6, 12), utc(2026, 6, 13)),
        ("since last Wednesday", utc(2026, 6, 10), None),
        ("on Wednesday", utc(2026, 6, 17), utc(2026, 6, 18)),
        ("since two weeks ago", utc(2026, 6, 3), None),
        ("since 2026/05/01", utc(2026, 5, 1), None),
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
        ("keep quality and p95 below 2 seconds", (Goal("quality", 0.0), Goal("latency", limit_ms=2000.0))),
        ("response times under 1,500 ms", (Goal("latency", limit_ms=1500.0),)),
        ("we expect 40% more requests", (Goal("usage", 40.0),)),
        ("how much does it cost", ()),
        ("cut costs by a third", (Goal("cost", -(1 / 3) * 100),)),
        ("usage grows by a quarter", (Goal("usage", 25.0),)),
        ("three times the traffic", (Goal("usage", 200.0),)),
        ("10x traffic", (Goal("usage", 900.0),)),
        ("from $1,000 to $700 in spend", (Goal("cost", None, 700.0),)),
        ("cut cost by 10% without losing quality", (Goal("cost", -10.0), Goal("quality", 0.0))),
        ("halve the latency without spending more", (Goal("latency", -50.0), Goal("cost", 0.0))),
        ("what does it cost if usage doubles", (Goal("usage", 100.0),)),
        ("will we stay within 500 requests per minute", ()),
        ("half a million requests", ()),
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
        ("add Runbook.MD and terms.pdf", ("Runbook.MD", "terms.pdf")),
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
        ("column ts is the timestamp", {"timestamp": "ts"}),
        ("ts is the timestamp", {"timestamp": "ts"}),
        ("no, GeneratedTokens is the output", {"output_tokens": "GeneratedTokens"}),
        ("actually, ctx_len means input tokens", {"input_tokens": "ctx_len"}),
        ("'Dur MS' is the response time", {"latency": "Dur MS"}),
        ("map svc to feature", {"feature": "svc"}),
        ("it is the cost", {}),
        ("use it as the model", {}),
        ("latency is the time users wait", {}),
        (
            'Analyze a.csv: column "name" is the model, column "my col" is the latency, column "b-c" is the user',
            {"model": "name", "latency": "my col", "user": "b-c"},
        ),
        ("SELECT count(*) FROM data WHERE user_id = user", {}),
        ("the user is the customer", {}),
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


def test_documents_are_no_datasets() -> None:
    found = entities("add runbook.md and compare it with usage.csv")
    assert found.datasets == ("usage.csv",)
    assert found.dataset_arguments() == {"dataset_id": "usage.csv"}
    assert entities("add runbook.md").dataset_arguments() == {}


@pytest.mark.parametrize(
    ("message", "rows"),
    [
        ("generate 10,000 requests", 10_000),
        ("generate 10.000 requests", 10_000),
        ("10 000 rows of fake data", 10_000),
        ("50k synthetic rows", 50_000),
        ("1 million fake calls", 1_000_000),
        ("1.5 million records", 1_500_000),
        ("half a million records", 500_000),
        ("five thousand made-up support conversations", 5_000),
        ("a hundred thousand rows", 100_000),
        ("simulate 20k", 20_000),
        ("5 rows", 5),
        ("average cost of one conversation", None),
        ("top 10 requests", None),
        ("the last 500 requests", None),
        ("500 requests per minute", None),
        ("gpt-4 requests", None),
        ("claude 3.5 sonnet requests", None),
        ("one million tokens", None),
        ("make 3 charts", None),
        ("0 rows", None),
    ],
)
def test_rows_of_a_workload(message: str, rows: int | None) -> None:
    assert entities(message).rows == rows


@pytest.mark.parametrize(
    ("message", "days"),
    [
        ("generate traffic over 30 days", 30),
        ("simulate a month of traffic", 30),
        ("a week's worth of fake requests", 7),
        ("fake data for two weeks", 14),
        ("mock requests for a quarter", 90),
        ("synthetic requests across one year", 365),
        ("a 14-day synthetic workload", 14),
        ("costs of the last 7 days", None),
        ("simulate traffic like last week", None),
    ],
)
def test_days_of_a_workload(message: str, days: int | None) -> None:
    assert entities(message).days == days


@pytest.mark.parametrize(
    ("message", "preset"),
    [
        ("generate requests that look like Black Friday", "ecommerce"),
        ("fake traffic of an online shop", "ecommerce"),
        ("simulate a bank's usage", "financial"),
        ("a synthetic hospital workload", "healthcare"),
        ("mock e-sports requests", "gaming"),
        ("sample data of a university", "research"),
        ("report for the finance team", ""),
        ("what does the checkout feature cost", ""),
        ("health of the database", ""),
    ],
)
def test_presets(message: str, preset: str) -> None:
    assert entities(message).preset == preset


@pytest.mark.parametrize(
    ("message", "seed"), [("with seed 42", 42), ("seed=7", 7), ("random seed of 3", 3), ("seed it", None)]
)
def test_seeds(message: str, seed: int | None) -> None:
    assert entities(message).seed == seed


@pytest.mark.parametrize(
    ("message", "corpus"),
    [
        ("create a knowledge base for our runbooks", "runbooks"),
        ("Create a knowledge base for our Kubernetes manuals, please", "Kubernetes manuals"),
        ("add this to the Incidents knowledge base", "Incidents"),
        ('delete the "Old Stuff" knowledge base', "Old Stuff"),
        ("a corpus called HR-2024 and nothing else", "HR-2024"),
        ("search our wiki for SSO", "wiki"),
        ("search the runbooks knowledge base for rate limits", "runbooks"),
        ("search the knowledge base for rate limits", ""),
        ("create a knowledge base named billing notes from a.md", "billing notes"),
        ("delete the old knowledge base", ""),
        ("what do our docs say about retries?", ""),
        ("create a new knowledge base", ""),
        ("Analyze my AI costs", ""),
    ],
)
def test_knowledge_bases(message: str, corpus: str) -> None:
    assert entities(message).corpus == corpus


@pytest.mark.parametrize(
    ("message", "query"),
    [
        ("what do our docs say about retries?", "retries"),
        ("Search the handbook for the Refund Policy", "Refund Policy"),
        ("according to the documentation, how do we rotate keys?", "how do we rotate keys"),
        ("how do we handle 429 errors according to our runbooks?", "how do we handle 429 errors"),
        ("does the handbook mention data retention?", "data retention"),
        ("find everything about SLA breaches in our wiki", "SLA breaches"),
        ("ask the knowledge base how to restart Kafka", "how to restart Kafka"),
        ("is there anything about SSO in the docs?", "SSO"),
        ("which documents talk about kubctl rollouts?", "kubctl rollouts"),
        ("what do our docs say about retries, and how many requests fail?", "retries"),
        ("create a knowledge base for our runbooks", ""),
        ("Analyze my AI costs", ""),
        ("what does it cost per model?", ""),
    ],
)
def test_searches(message: str, query: str) -> None:
    assert entities(message).query == query


@pytest.mark.parametrize(
    ("message", "limits"),
    [
        ("500 RPM and 200k TPM", (("rpm", 500), ("tpm", 200_000))),
        ("200k TPM and 500 RPM", (("rpm", 500), ("tpm", 200_000))),
        ("1,000 requests per minute and 2 million tokens/min", (("rpm", 1_000), ("tpm", 2_000_000))),
        ("10 requests per second", (("rpm", 600),)),
        ("our rpm limit is 800", (("rpm", 800),)),
        ("0 rpm", ()),
        ("how many requests per minute", ()),
    ],
)
def test_limits(message: str, limits: tuple[tuple[str, int], ...]) -> None:
    assert entities(message).limits == limits


@pytest.mark.parametrize(
    ("message", "change", "period"),
    [
        ("was the upgrade on May 10 worth it?", utc(2026, 5, 10), Period()),
        ("compare before and after 2026-05-01", utc(2026, 5, 1), Period()),
        ("we moved to gpt-4o-mini on 3 May: did it help?", utc(2026, 5, 3), Period()),
        ("what did the May 10 rollout change?", utc(2026, 5, 10), Period()),
        ("costs since 2026-05-01", None, Period(utc(2026, 5, 1))),
        (
            "if we had switched to gpt-4o in May, what would we have paid?",
            None,
            Period(utc(2026, 5, 1), utc(2026, 6, 1)),
        ),
        ("was there an outage on 16 November 2023?", None, Period(utc(2023, 11, 16), utc(2023, 11, 17))),
        ("was the upgrade worth it?", None, Period()),
    ],
)
def test_changes_in_time(message: str, change: datetime | None, period: Period) -> None:
    found = entities(message)
    assert (found.change_time, found.period) == (change, period)


def test_a_later_message_stands_before_an_earlier_one_and_keeps_what_it_does_not_name() -> None:
    earlier = entities("cut cost 30 %, keep quality, limits 500 RPM and 200k TPM, assume gpt-4o in a.csv")
    later = entities("now with 40 % less cost and 900 RPM since 2026-05-01")
    both = later.over(earlier)
    assert dict(both.limits) == {"rpm": 900, "tpm": 200_000}
    assert set(both.goals) == {Goal("cost", -40.0), Goal("quality", 0.0)}
    assert (both.files, both.assume_model, both.period.start) == (("a.csv",), "gpt-4o", utc(2026, 5, 1))


PERCENTS: Final = st.integers(1, 99)


@given(PERCENTS, st.sampled_from(["cost", "spend", "the bill"]))
def test_less_is_negative_whatever_the_number(percent: int, what: str) -> None:
    assert entities(f"cut {what} by {percent} %").goals == (Goal("cost", float(-percent)),)


@given(st.integers(10, 10_000_000))
def test_numbers_are_read_as_they_are_written(rows: int) -> None:
    assert entities(f"generate {rows} requests").rows == rows
    assert entities(f"generate {rows:,} requests").rows == rows
    assert entities(f"generate {rows:_} requests".replace("_", " ")).rows == rows


@given(st.text(max_size=300))
def test_any_text_is_read_without_an_error_and_the_same_each_time(text: str) -> None:
    assert entities(text) == entities(text)
