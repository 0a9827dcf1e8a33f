"""Columns that were not recognised are shown, and what a person says of them holds for the conversation."""

from collections.abc import AsyncIterator

import pytest

from tests.support.conversations import Bench
from tests.support.datasets import table

LOG = table(
    "timestamp,model,feature,input_tokens,output_tokens,latency_s",
    *(f"2026-01-0{day}T10:00:0{n}Z,gpt-4o,chat,1000,100,{n + 1}" for day in (5, 6) for n in range(3)),
)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as bench:
        yield bench


ODD = table(
    "happened,engine,tin,tout,took,area",
    *(f"2026-01-05T10:00:0{n}Z,gpt-4o,1000,100,{n + 1}00,{'chat' if n % 2 else 'search'}" for n in range(4)),
)


async def test_what_was_not_recognised_is_shown_with_how_to_correct_it_and_a_correction_lasts(bench: Bench) -> None:
    await bench.put("log.csv", ODD)
    first = await bench.ask("Analyze my AI costs")
    asked = first.final.content
    assert "the token counts are missing" in asked
    assert "| latency | took |" in asked
    assert "| input tokens | not recognised |" in asked
    assert "Not used: `tin`, `tout`, `area`." in asked
    assert "“column tin is input tokens”" in asked

    thread_id = first.run.thread_id
    second = await bench.ask("column tin is input tokens and column tout is output tokens", thread_id=thread_id)
    # 4 requests of 1000 and 100 tokens at $2.50 and $10 a million.
    assert second.final.content.startswith("**In log.csv, 4 requests cost $0.014: ")
    assert "| input tokens | tin | as you said |" in second.final.content
    assert second.result("usage_summary")["unused_columns"] == ["area"]

    third = await bench.ask("use column area as feature", thread_id=thread_id)
    assert "| feature | area | as you said |" in third.final.content
    fourth = await bench.ask("and by feature?", thread_id=thread_id)
    assert fourth.final.content.startswith("**In log.csv, chat costs most: $0.007, 50.0 % of $0.014.**")
    # A question of its own, which goes on with nothing, keeps them too.
    fifth = await bench.ask("What columns does my dataset have?", thread_id=thread_id)
    assert "| tin | BIGINT | input_tokens | you said so |" in fifth.final.content
    assert "| area | VARCHAR | feature | you said so |" in fifth.final.content


async def test_corrections_end_where_another_file_is_named(bench: Bench) -> None:
    await bench.put("raw.csv", ODD)
    first = await bench.ask("Analyze raw.csv: column tin is input tokens and column tout is output tokens")
    await bench.put("log.csv", LOG)
    other = await bench.ask("Analyze log.csv", thread_id=first.run.thread_id)
    assert other.final.content.startswith("**In log.csv, 6 requests cost ")
    assert "as you said" not in other.final.content


async def test_corrections_that_do_not_fit_a_newer_file_are_left_out(bench: Bench) -> None:
    await bench.put("raw.csv", ODD)
    first = await bench.ask("column tin is input tokens and column tout is output tokens")
    await bench.put("log.csv", LOG)
    newer = await bench.ask("Compare the latency of our models", thread_id=first.run.thread_id)
    assert newer.final.content.startswith("**In log.csv, ")
    assert "another file" in str(newer.events)
    assert "What did not work" not in newer.final.content
