"""What holds for any data: sums, shares, percentiles, bounds."""

import asyncio
import json
import random
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_service.engine.dispatcher import MAX_RESULT_BYTES
from agent_service.engine.tool import ToolError
from tests.support.datasets import DataBench, items, number, part, percentile, table

HEADER = "timestamp,model,feature,user,input_tokens,output_tokens,latency_ms,status"
ROW = st.tuples(
    st.integers(0, 40 * 86_400),
    st.sampled_from(["gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "unheard-of", ""]),
    st.sampled_from(["chat", "mail", "search", "x / y", ""]),
    st.integers(0, 30),
    st.integers(0, 300_000),
    st.integers(0, 5_000),
    st.integers(0, 60_000),
    st.sampled_from(["ok", "error", ""]),
)


def lines(rows: list[tuple[int, str, str, int, int, int, int, str]]) -> list[str]:
    return [",".join(map(str, (1_760_000_000 + row[0], *row[1:]))) for row in rows]


def test_sums_shares_and_percentiles() -> None:
    with asyncio.Runner() as runner:
        bench = DataBench()

        @settings(max_examples=12)
        @given(st.lists(ROW, min_size=1, max_size=60), st.integers(1, 5))
        def check(rows: list[tuple[int, str, str, int, int, int, int, str]], top: int) -> None:
            runner.run(hold(bench, rows, top))

        try:
            check()
        finally:
            runner.run(bench.__aexit__(None, None, None))


async def hold(bench: DataBench, rows: list[tuple[int, str, str, int, int, int, int, str]], top: int) -> None:
    record = await bench.put("a.csv", table(HEADER, *lines(rows)))
    usage = await bench.result("usage_summary", dataset_id=record.file_id, top=top)
    costs = await bench.result("cost_breakdown", dataset_id=record.file_id, top=top, group_by=["feature", "model"])
    latency = await bench.result("latency_analysis", dataset_id=record.file_id, top=top)
    totals = part(usage, "totals")
    assert number(totals, "requests") == len(rows)
    assert number(totals, "input_tokens") == sum(row[4] for row in rows)
    for dimension in ("user", "day"):
        shown = items(usage, "groups", dimension)
        other = part(usage, "other", dimension)
        every = [*shown, *([other] if other else [])]
        assert len(shown) <= top
        for key in ("requests", "input_tokens", "output_tokens"):
            assert sum(number(entry, key) for entry in every) == number(totals, key)
        assert sum(Decimal(str(number(entry, "share_of_requests"))) for entry in every) == 1
    rest = part(costs, "other")
    every = [*items(costs, "groups"), *([rest] if rest else [])]
    assert sum(number(entry, "requests") for entry in every) == len(rows)
    total = part(costs, "total_cost_usd")
    if total:
        shared = [entry for entry in every if part(entry, "share") is not None]
        assert sum(Decimal(str(number(entry, "share"))) for entry in shared) == 1
        assert all((part(entry, "share") is None) is (part(entry, "cost_usd") is None) for entry in every)
        priced = [number(entry, "cost_usd") for entry in every if part(entry, "cost_usd") is not None]
        assert abs(sum(priced) - number(total)) <= 1e-6 * len(every)
    assert number(costs, "pricing", "requests_priced") + number(costs, "pricing", "requests_unpriced") == len(rows)
    latencies = [float(row[6]) for row in rows]
    for entry in [part(latency, "overall"), *items(latency, "groups")]:
        ranks = [number(entry, key) for key in ("min", "p50", "p90", "p95", "p99", "max")]
        assert ranks == sorted(ranks)
    for key, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        assert abs(number(latency, "overall", key) - percentile(latencies, share)) <= 0.001


async def test_no_result_is_too_large() -> None:
    """Long names, many groups, many columns, much text: every tool stays within the bound and says what it left out."""
    chance = random.Random(1)
    names = [f"{index:03d}" + chance.choice(["ü", "漢", "😀", '"']) * 200 for index in range(300)]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    extra = [f"column_{index}_{'y' * 100}" for index in range(60)]
    filler = ",".join(["some text that is long enough to be cut"] * len(extra))
    rows = [
        f"{1_760_000_000 + 3_600 * index},{name},{name},{name},100,10,{index},{name},{filler}"
        for index, name in enumerate(quoted)
    ]
    async with DataBench() as bench:
        await bench.put("long" + "n" * 200 + ".csv", table(HEADER + "," + ",".join(extra), *rows))
        for index in range(60):
            await bench.put(f"{'f' * 200}{index}.csv", table("a,b", f"{index},1"))
        calls: list[tuple[str, dict[str, object]]] = [
            ("usage_summary", {"top": 20, "group_by": ["model", "feature", "user", "day", "hour", "status"]}),
            ("cost_breakdown", {"top": 20, "group_by": ["feature", "user"]}),
            ("latency_analysis", {"top": 20, "group_by": ["feature"]}),
            ("usage_pattern", {"buckets": 100}),
            ("anomaly_scan", {"bucket": "hour", "top": 50, "assume_model": "gpt-4o"}),
            ("correlate", {"assume_model": "gpt-4o"}),
            ("duplicate_prompts", {"top": 20, "columns": {"prompt": extra[0]}}),
            ("describe_dataset", {}),
            ("query_dataset", {"sql": "SELECT * FROM data", "max_rows": 200}),
        ]
        for tool, args in calls:
            result = await bench.result(tool, dataset_id="long" + "n" * 200 + ".csv", **args)
            assert len(json.dumps(result, ensure_ascii=False).encode()) <= MAX_RESULT_BYTES, tool
        listed = await bench.result("list_datasets", limit=50)
        assert len(json.dumps(listed, ensure_ascii=False).encode()) <= MAX_RESULT_BYTES
        assert part(listed, "not_shown") == 11
        assert (
            number(await bench.result("describe_dataset", dataset_id="long" + "n" * 200 + ".csv"), "columns_not_shown")
            > 0
        )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"models": ["gpt-5"]}, "most frequent models are gpt-4o, gpt-4o-mini"),
        ({"start_time": "2030-01-01"}, "reaches from 2025-10-0"),
    ],
)
async def test_a_filter_that_matches_nothing_says_what_there_is(args: dict[str, object], words: str) -> None:
    async with DataBench() as bench:
        rows = [
            (0, "gpt-4o", "chat", 1, 1, 1, 1, "ok"),
            (1, "gpt-4o", "chat", 1, 1, 1, 1, "ok"),
            (2, "gpt-4o-mini", "m", 1, 1, 1, 1, "ok"),
        ]
        await bench.put("a.csv", table(HEADER, *lines(rows)))
        with pytest.raises(ToolError, match=words):
            await bench.result("usage_summary", **args)


async def test_filters() -> None:
    rows = [
        (0, "gpt-4o", "chat", 1, 1, 1, 1, "ok"),
        (60, "gpt-4o-mini", "mail", 1, 2, 1, 1, "ok"),
        (120, "gpt-4o", "mail", 1, 4, 1, 1, "ok"),
    ]
    async with DataBench() as bench:
        await bench.put("a.csv", table(HEADER, *lines(rows)))

        async def tokens(**args: object) -> float:
            return number(await bench.result("usage_summary", **args), "totals", "input_tokens")

        assert await tokens(models=["GPT-4O"]) == 5
        assert await tokens(features=["mail"], models=["gpt-4o"]) == 4
        # 1,760,000,060 is 2025-10-09 08:54:20 UTC: the start is inclusive, the end exclusive.
        assert await tokens(start_time="2025-10-09T08:54:20Z") == 6
        assert await tokens(end_time="2025-10-09T10:54:20+02:00") == 1
        result = await bench.result("usage_summary", models=["gpt-4o"])
        assert part(result, "filter", "matched_rows") == 2
        assert part(result, "dataset", "rows") == 3
        await bench.put("b.csv", table("input_tokens,output_tokens", "1,2"))
        with pytest.raises(ToolError, match="cannot be limited to a time range"):
            await bench.call("usage_pattern", start_time="2025-01-01")
