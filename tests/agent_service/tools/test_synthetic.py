"""Synthetic workloads: presets and learned profiles, repeatable, within their profile, and as like as they claim."""

import csv
import io
import math
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import Tool, ToolContext, ToolError
from agent_service.tools.analysis import Workbench
from agent_service.tools.datasets import SAMPLE_PATH
from agent_service.tools.sandbox import Sandbox, SandboxError, SandboxLimits
from agent_service.tools.synthetic.generation import Order, cholesky, generate
from agent_service.tools.synthetic.likeness import distance, level_of, total_variation
from agent_service.tools.synthetic.presets import preset_profile
from agent_service.tools.synthetic.profile import LEVELS, Segment
from agent_service.tools.synthetic.tools import (
    FREE_ROWS,
    MAX_ROWS,
    MIN_ROWS,
    GenerateWorkloadArgs,
    synthetic_tools,
)
from tests.support.datasets import DataBench, KeptArtifacts, StoppedClock, context, items, number, part, table

pytestmark = pytest.mark.asyncio(loop_scope="module")

START = datetime(2026, 1, 1, tzinfo=UTC)


class Shop:
    """The tools over files in memory; what they make becomes a file of the user, as in a run."""

    def __init__(self, bench: DataBench, maker: Sandbox) -> None:
        self.bench = bench
        self.tools: Mapping[str, Tool[BaseModel]] = {
            tool.name: tool for tool in synthetic_tools(Workbench(bench.files, bench.sandbox, StoppedClock()), maker)
        }
        self.told: list[tuple[str, float]] = []

    async def result(self, tool: str, **args: object) -> JsonObject:
        found = self.tools[tool]
        return (await found.run(self._context(), found.args.model_validate(args))).result

    async def rows(self, **args: object) -> list[dict[str, str]]:
        kept = KeptArtifacts()
        found = self.tools["generate_workload"]
        made = await found.run(replace(self._context(), artifacts=kept), found.args.model_validate(args))
        ((_, content),) = kept.kept.values()
        assert content[:4] == b"PAR1"
        return await self._read(content, str(part(made.result, "dataset", "name")))

    async def keep(self, name: str, **args: object) -> JsonObject:
        kept = KeptArtifacts()
        found = self.tools["generate_workload"]
        made = await found.run(replace(self._context(), artifacts=kept), found.args.model_validate(args))
        ((_, content),) = kept.kept.values()
        await self.bench.put(name, content)
        return made.result

    async def _read(self, content: bytes, name: str) -> list[dict[str, str]]:
        import duckdb

        record = await self.bench.put(name, content, user_id="reader")
        path = await self.bench.files.local_path("reader", record.file_id)
        with duckdb.connect(":memory:") as connection:
            found = connection.execute(f"SELECT * FROM read_parquet('{path}')")  # noqa: S608 - a path of ours
            names = [name for name, *_ in found.description or []]
            return [dict(zip(names, map(str, row), strict=True)) for row in found.fetchall()]

    def _context(self) -> ToolContext:
        async def progress(message: str, fraction: float = 0.0) -> None:
            self.told.append((message, fraction))

        return replace(context(), progress=progress)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop() -> AsyncIterator[Shop]:
    maker = Sandbox(SandboxLimits(max_children=1, max_written_bytes=1 << 28))
    async with DataBench() as bench:
        try:
            yield Shop(bench, maker)
        finally:
            await maker.close()


async def test_the_same_seed_gives_the_same_rows_and_another_seed_others(shop: Shop) -> None:
    first = await shop.rows(preset="gaming", rows=500, days=3, seed=5)
    assert first == await shop.rows(preset="gaming", rows=500, days=3, seed=5)
    other = await shop.rows(preset="gaming", rows=500, days=3, seed=6)
    assert [row["input_tokens"] for row in first] != [row["input_tokens"] for row in other]


async def test_rows_stay_within_their_profile_whatever_the_noise(shop: Shop) -> None:
    segments = {(s.model, s.feature): s for s in preset_profile("ecommerce").segments}
    rows = await shop.rows(preset="ecommerce", rows=3_000, days=10, noise=1.0, start_date="2026-01-01")
    assert len(rows) == 3_000
    for row in rows:
        segment = segments[row["model"], row["feature"]]
        assert segment.input_tokens
        assert segment.output_tokens
        assert segment.latency_ms
        assert round(segment.input_tokens[0]) <= int(row["input_tokens"]) <= round(segment.input_tokens[-1])
        assert round(segment.output_tokens[0]) <= int(row["output_tokens"]) <= round(segment.output_tokens[-1])
        assert segment.latency_ms[0] - 0.1 <= float(row["latency_ms"]) <= segment.latency_ms[-1] + 0.1
        assert 0 <= int(row["cached_tokens"]) <= int(row["input_tokens"])
        assert "2026-01-01" <= row["timestamp"] < "2026-01-11"
    assert [row["timestamp"] for row in rows] == sorted(row["timestamp"] for row in rows)


async def test_shares_and_medians_are_those_of_the_preset(shop: Shop) -> None:
    rows = await shop.rows(preset="financial", rows=6_000, seed=3)
    weights = {(s.model, s.feature): s.weight for s in preset_profile("financial").segments}
    found = Counter((row["model"], row["feature"]) for row in rows)
    for key, weight in weights.items():
        share = weight / sum(weights.values())
        # Five standard errors of a share of 6,000 draws.
        assert abs(found[key] / 6_000 - share) < 5 * math.sqrt(share * (1 - share) / 6_000)
    labels = [int(row["input_tokens"]) for row in rows if row["feature"] == "transaction_labels"]
    # The normal shape: mean 600, standard deviation 0.3 of it.
    assert statistics.median(labels) == pytest.approx(600, rel=0.03)
    assert statistics.stdev(labels) == pytest.approx(180, rel=0.15)


async def test_a_day_of_more_traffic_has_it(shop: Shop) -> None:
    flat = Counter(row["timestamp"][:10] for row in await shop.rows(preset="healthcare", rows=5_000, days=10))
    spiked = Counter(
        row["timestamp"][:10]
        for row in await shop.rows(preset="healthcare", rows=5_000, days=10, spike_day=4, spike_factor=6)
    )
    day = sorted(flat)[3]
    assert max(spiked, key=lambda date: spiked[date]) == day
    usual = statistics.mean(spiked[date] for date in spiked if date != day)
    assert 4 < spiked[day] / usual < 9
    assert max(flat.values()) < 2 * statistics.mean(flat.values())


async def test_a_learned_workload_is_like_its_source_and_names_nobody(shop: Shop) -> None:
    sample = await shop.bench.put("real.csv.gz", SAMPLE_PATH.read_bytes())
    made = await shop.keep("like_real.parquet", dataset_id=sample.file_id, rows=8_000, seed=2)
    assert part(made, "source", "dataset", "name") == "real.csv.gz"
    checked = await shop.result(
        "validate_synthetic", synthetic_dataset="like_real.parquet", source_dataset="real.csv.gz"
    )
    failed = [check for check in items(checked, "checks") if not check["passed"]]
    # The sample's twenty minutes of a spike are not hours of a day: that share may move.
    assert [check["what"] for check in failed] in ([], ["hours of the day"])
    assert part(checked, "passed") == len(items(checked, "checks")) - len(failed)
    assert {check["what"] for check in items(checked, "checks")} >= {"models", "features", "input tokens", "latency"}
    rows = await shop.rows(dataset_id=sample.file_id, rows=500)
    assert not any(row["user_id"].startswith("user_") for row in rows)


async def test_another_workload_is_found_to_be_different(shop: Shop) -> None:
    await shop.keep("shop.parquet", preset="ecommerce", rows=2_000)
    checked = await shop.result("validate_synthetic", synthetic_dataset="shop.parquet", preset="research")
    assert part(checked, "verdict") == "different"
    assert number(checked, "failed") >= 4
    alike = await shop.result("validate_synthetic", synthetic_dataset="shop.parquet", preset="ecommerce")
    assert not [
        check
        for check in items(alike, "checks")
        if check["what"] in {"models", "features", "input tokens"} and not check["passed"]
    ]


async def test_a_profile_is_what_plain_python_counts(shop: Shop) -> None:
    lines = [f"2026-01-0{1 + i % 2}T10:00:00Z,m{i % 2},{100 + i},{i}" for i in range(40)]
    await shop.bench.put("plain.csv", table("timestamp,model,input_tokens,output_tokens", *lines))
    found = await shop.result("profile_dataset", dataset_id="plain.csv")
    segments = {str(s["model"]): s for s in items(found, "profile", "segments")}
    evens = [100 + i for i in range(0, 40, 2)]
    assert part(segments["m0"], "share") == 0.5
    assert part(segments["m0"], "input_tokens", LEVELS.index(0.5)) == statistics.median(evens)
    assert part(segments["m0"], "input_tokens", 0) == min(evens)
    assert part(segments["m0"], "input_tokens", len(LEVELS) - 1) == max(evens)
    assert part(found, "profile", "days") == 2
    assert part(found, "profile", "hours", 10) == 40
    assert part(found, "profile", "correlation", "input_output") == pytest.approx(1.0)
    assert {entry["column"] for entry in items(found, "missing")} == {"latency", "status"}


async def test_columns_that_the_source_lacks_are_not_made_up(shop: Shop) -> None:
    await shop.bench.put("bare.csv", table("prompt_tokens,completion_tokens", *(f"{i},{2 * i}" for i in range(1, 200))))
    (first, *_) = await shop.rows(dataset_id="bare.csv", rows=100)
    assert set(first) == {"input_tokens", "output_tokens"}


async def test_it_tells_how_far_it_is(shop: Shop) -> None:
    shop.told.clear()
    await shop.rows(preset="research", rows=60_000)
    made = [message for message, _ in shop.told if "rows made" in message]
    assert made == ["50,000 of 60,000 rows made", "60,000 of 60,000 rows made"]


@pytest.mark.parametrize(
    ("args", "asks"),
    [
        ({"preset": "ecommerce"}, False),
        ({"preset": "ecommerce", "rows": FREE_ROWS}, False),
        ({"preset": "ecommerce", "rows": FREE_ROWS + 1}, True),
        ({"preset": "gaming"}, True),
        ({"rows": MAX_ROWS}, True),
        ({}, False),
    ],
    ids=["preset", "edge", "above", "large preset", "largest", "own data"],
)
async def test_many_rows_need_a_person(shop: Shop, args: dict[str, object], *, asks: bool) -> None:
    tool = shop.tools["generate_workload"]
    assert tool.needs_approval is not None
    assert bool(tool.needs_approval(tool.args.model_validate(args))) is asks


@pytest.mark.parametrize("rows", [MIN_ROWS - 1, MAX_ROWS + 1])
async def test_rows_out_of_bounds_are_refused(rows: int) -> None:
    with pytest.raises(ValidationError):
        GenerateWorkloadArgs(rows=rows)


async def test_what_does_not_fit_together_is_said(shop: Shop) -> None:
    with pytest.raises(ToolError, match="after the last of 3 days"):
        await shop.result("generate_workload", preset="gaming", rows=100, days=3, spike_day=4, spike_factor=2)
    with pytest.raises(ToolError, match="leave distribution out"):
        await shop.result("generate_workload", rows=100, distribution="normal")
    with pytest.raises(ToolError, match="either source_dataset or preset"):
        await shop.result("validate_synthetic", synthetic_dataset="x")


async def test_a_child_that_reads_files_cannot_write_any(shop: Shop, tmp_path: Path) -> None:
    order = Order(preset_profile("research"), 100, 1, 1, START)
    async with shop.bench.sandbox.scratch(tmp_path / "made.parquet", "made") as session:
        rows = generate(session, order, tmp_path / "made.parquet")
        assert await anext(rows) == 100
        with pytest.raises(SandboxError):
            await anext(rows)
    assert not (tmp_path / "made.parquet").exists() or not (tmp_path / "made.parquet").stat().st_size


async def test_a_child_that_writes_can_write_that_file_only(tmp_path: Path) -> None:
    maker = Sandbox(SandboxLimits(max_children=1, max_written_bytes=1 << 20))
    try:
        async with maker.scratch(tmp_path / "mine.parquet", "mine") as session:
            with pytest.raises(SandboxError):
                await session.run(f"COPY (SELECT 1) TO '{tmp_path / 'other.csv'}'")
        assert not (tmp_path / "other.csv").exists()
    finally:
        await maker.close()


async def test_what_was_generated_is_analysed_only_when_asked_for() -> None:
    async with DataBench() as bench:
        upload = bench.files.upload("ann", "0199-made", "made.parquet", "", max_bytes=1 << 20, run_id="run")
        async with upload:
            await upload.write(b"PAR1")
            await upload.commit(StoppedClock().now())
        listed = await bench.result("list_datasets")
        assert part(listed, "dataset", "builtin_sample") is True
        assert [entry["generated"] for entry in items(listed, "datasets")] == [True]
        await bench.put("mine.csv", table("model,input_tokens", "gpt-4o,1"))
        assert part(await bench.result("list_datasets"), "dataset", "name") == "mine.csv"


# --- The arithmetic ---------------------------------------------------------------------------------------------------


@given(*(st.floats(-1, 1) for _ in range(3)))
async def test_the_factors_give_a_possible_correlation(a: float, b: float, c: float) -> None:
    l21, l22, l31, l32, l33 = cholesky((a, b, c))
    assert l21**2 + l22**2 == pytest.approx(1)
    assert l31**2 + l32**2 + l33**2 == pytest.approx(1)


async def test_the_factors_keep_what_is_possible() -> None:
    l21, l22, l31, l32, _ = cholesky((0.3, 0.35, 0.8))
    wanted = [2 * math.sin(math.pi * rho / 6) for rho in (0.3, 0.35, 0.8)]
    assert [l21, l31, l21 * l31 + l22 * l32] == pytest.approx(wanted)


@given(st.lists(st.floats(0, 1e6), min_size=len(LEVELS), max_size=len(LEVELS)), st.floats(-10, 1e6 + 10))
async def test_levels_are_shares_and_grow(values: list[float], point: float) -> None:
    quantiles = sorted(values)
    level = level_of(quantiles, point)
    assert 0 <= level <= 1
    assert level <= level_of(quantiles, point + 1)


async def test_distances_are_those_of_hand() -> None:
    low, high = tuple(float(level) for level in LEVELS), tuple(level + 2 for level in LEVELS)
    assert distance([(1.0, low)], [(1.0, high)]) == 1
    assert distance([(1.0, low)], [(1.0, low)]) == 0
    assert distance([(1.0, low)], [(0.5, low), (0.5, high)]) == pytest.approx(0.5)
    assert total_variation({"a": 0.5, "b": 0.5}, {"a": 1.0}) == 0.5


async def test_a_profile_of_a_csv_reads_back_as_itself(shop: Shop) -> None:
    """The generator's own quantiles: what is learned from many rows of a segment is the segment."""
    wanted = preset_profile("healthcare").segments[0]
    rows = await shop.rows(preset="healthcare", rows=20_000, days=5, seed=9)
    mine = sorted(int(row["input_tokens"]) for row in rows if row["feature"] == wanted.feature)
    assert isinstance(wanted, Segment)
    assert wanted.input_tokens
    out = io.StringIO()
    csv.writer(out).writerow(mine)
    for level, value in zip(LEVELS[1:-2], wanted.input_tokens[1:-2], strict=True):
        assert mine[int(level * len(mine))] == pytest.approx(value, rel=0.06)
