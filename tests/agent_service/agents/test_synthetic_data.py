"""What people ask of the synthetic data agent and get, over the real tools and the offline model."""

from collections.abc import AsyncIterator

import pytest

from agent_service.engine.events import ArtifactCreated, ToolExecuting
from tests.support.conversations import Bench
from tests.support.datasets import number, part, table


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as bench:
        yield bench


async def test_a_sale_is_a_preset_with_a_day_of_more_traffic(bench: Bench) -> None:
    told = await bench.ask("generate 2,000 requests that look like Black Friday", agent="synthetic_data")
    (made,) = told.bodies(ArtifactCreated)
    result = told.result("generate_workload")
    assert number(result, "dataset", "rows") == 2_000
    assert part(result, "spike", "factor") == 5
    answer = told.final.content
    assert answer.startswith(f"**{made.name} is ready: 2,000 synthetic requests over 30 days")
    assert "so 5 times was assumed" in answer
    assert "They are made up" in answer
    assert told.final.artifact_ids == (made.artifact_id,)
    followed = await bench.ask(f"Analyze {made.name}")
    assert followed.final.content.startswith(f"**In {made.name}, 2,000 requests")


async def test_rows_like_ones_own_are_checked_against_them(bench: Bench) -> None:
    lines = [f"2026-01-{1 + i % 20:02d}T{i % 24:02d}:00:00Z,gpt-4o,{100 + i},{10 + i % 50}" for i in range(2_000)]
    await bench.put("mine.csv", table("timestamp,model,input_tokens,output_tokens", *lines))
    told = await bench.ask("Generate 1,000 rows like my data, seed 4", agent="synthetic_data")
    assert [call.tool_name for call in told.bodies(ToolExecuting)] == ["generate_workload", "validate_synthetic"]
    assert part(told.result("generate_workload"), "source", "dataset", "name") == "mine.csv"
    assert part(told.result("generate_workload"), "seed") == 4
    assert "### How alike they are" in told.final.content
    assert "| input tokens | Kolmogorov-Smirnov distance |" in told.final.content


async def test_what_the_data_is_like(bench: Bench) -> None:
    told = await bench.ask("profile my dataset", agent="synthetic_data")
    assert [call.tool_name for call in told.bodies(ToolExecuting)] == ["profile_dataset"]
    assert told.final.content.startswith("**sample_usage.csv.gz has ")


async def test_what_was_generated_last_is_checked_without_being_named(bench: Bench) -> None:
    before = await bench.ask("validate the synthetic data", agent="synthetic_data")
    assert before.final.content.startswith("**There is no generated dataset to check.**")
    made = await bench.ask("Generate 1,000 rows like my data", agent="synthetic_data")
    assert "the built-in sample is what they are like" in made.final.content
    told = await bench.ask("validate the synthetic data", agent="synthetic_data")
    assert [call.tool_name for call in told.bodies(ToolExecuting)] == ["list_datasets", "validate_synthetic"]
    assert part(told.result("validate_synthetic"), "source") == "sample_usage.csv.gz"
    assert part(told.result("validate_synthetic"), "synthetic") == "synthetic_workload_1000.parquet"
    await bench.ask("Generate 500 requests of a game", agent="synthetic_data")
    told = await bench.ask("validate the synthetic data", agent="synthetic_data")
    assert part(told.result("validate_synthetic"), "source") == "the preset gaming"
