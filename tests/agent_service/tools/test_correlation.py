"""Coefficients against the standard library's."""

import random
import statistics
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agent_service.engine.tool import ToolError
from agent_service.tools.correlation import MIN_PAIRS, Pair, strength
from tests.support.datasets import DataBench, items, number, part, table

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[DataBench]:
    async with DataBench() as made:
        yield made


def ranks(values: list[float]) -> list[float]:
    """Equal values share the mean of their places."""
    return [sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values]


def rows(count: int) -> list[dict[str, float | None]]:
    chance = random.Random(7)
    made: list[dict[str, float | None]] = []
    for index in range(count):
        tokens = float(chance.randrange(1, 40) * 25)
        made.append(
            {
                "input_tokens": tokens,
                "output_tokens": float(chance.randrange(1, 500)),
                "latency_ms": None if index % 9 == 0 else round(tokens**1.5 + chance.uniform(0, 900), 2),
                "hour": float(index % 24),
                "failed": float(index % 7 == 0),
                "column retries": float(chance.randrange(0, 4)),
            }
        )
    return made


ROWS = rows(150)
HEADER = "timestamp,input_tokens,output_tokens,latency_ms,status,retries,region,version"


def content(made: list[dict[str, float | None]]) -> bytes:
    lines = [
        f"2026-01-0{1 + index // 24 % 9}T{index % 24:02}:30:00Z,{row['input_tokens']:.0f},{row['output_tokens']:.0f},"
        f"{'' if row['latency_ms'] is None else row['latency_ms']},{'error' if row['failed'] else 'ok'},"
        f"{row['column retries']:.0f},eu,3"
        for index, row in enumerate(made)
    ]
    return table(HEADER, *lines)


async def test_both_coefficients_are_those_of_plain_python(bench: DataBench) -> None:
    await bench.put("log.csv", content(ROWS))
    found = await bench.result(
        "correlate", measures=["input_tokens", "output_tokens", "latency_ms", "hour", "failed", "retries"]
    )
    pairs = items(found, "pairs")
    assert len(pairs) == 15
    for pair in pairs:
        both = [
            (row[str(pair["first"])], row[str(pair["second"])])
            for row in ROWS
            if row[str(pair["first"])] is not None and row[str(pair["second"])] is not None
        ]
        xs, ys = [float(x or 0) for x, _ in both], [float(y or 0) for _, y in both]
        assert pair["rows"] == len(both)
        assert number(pair, "pearson") == pytest.approx(statistics.correlation(xs, ys), abs=6e-5)
        assert number(pair, "spearman") == pytest.approx(statistics.correlation(ranks(xs), ranks(ys)), abs=6e-5)
    order = [abs(number(pair, "pearson")) for pair in pairs]
    assert order == sorted(order, reverse=True)
    assert {pairs[0]["first"], pairs[0]["second"]} == {"input_tokens", "latency_ms"}
    assert pairs[0]["significant"] is True


async def test_the_cost_goes_along_with_its_tokens_by_construction(bench: DataBench) -> None:
    await bench.put("log.csv", content(ROWS))
    found = await bench.result(
        "correlate", assume_model="gpt-4o", measures=["input_tokens", "output_tokens", "cost_usd"]
    )
    cost = [float(row["input_tokens"] or 0) * 2.5 + float(row["output_tokens"] or 0) * 10 for row in ROWS]
    tokens = [float(row["output_tokens"] or 0) for row in ROWS]
    (pair,) = [one for one in items(found, "pairs") if {one["first"], one["second"]} == {"output_tokens", "cost_usd"}]
    assert number(pair, "pearson") == pytest.approx(statistics.correlation(tokens, cost), abs=6e-5)
    assert [one["by_construction"] for one in items(found, "pairs")] == [False, True, True]
    cautions = str(part(found, "cautions"))
    assert "no cause" in cautions
    assert "by construction" in cautions


async def test_constant_measures_are_said_and_not_compared(bench: DataBench) -> None:
    await bench.put("log.csv", content(ROWS))
    found = await bench.result("correlate", measures=["input_tokens", "version", "hour"])
    assert part(found, "constant") == ["column version"]
    assert [(pair["first"], pair["second"]) for pair in items(found, "pairs")] == [("input_tokens", "hour")]


@pytest.mark.parametrize(("count", "compared"), [(MIN_PAIRS - 1, 0), (MIN_PAIRS, 1)], ids=["too-few", "enough"])
async def test_too_few_rows_are_said(bench: DataBench, count: int, compared: int) -> None:
    await bench.put("few.csv", content(ROWS[:count]))
    found = await bench.result("correlate", measures=["input_tokens", "output_tokens"])
    assert len(items(found, "pairs")) == compared
    assert (part(found, "too_few") == []) is bool(compared)


@pytest.mark.parametrize(
    ("name", "words"),
    [("region", r"no numbers in the column 'region'\. What can be compared: input_tokens"), ("x", "no column 'x'")],
)
async def test_what_is_no_measure_is_said_with_what_there_is(bench: DataBench, name: str, words: str) -> None:
    await bench.put("log.csv", content(ROWS))
    with pytest.raises(ToolError, match=words):
        await bench.call("correlate", measures=["input_tokens", name])


async def test_what_is_missing_is_said(bench: DataBench) -> None:
    await bench.put("bare.csv", table("input_tokens,output_tokens", *(f"{n},{n * n}" for n in range(1, 30))))
    found = await bench.result("correlate")
    assert {entry["column"] for entry in items(found, "missing")} >= {"timestamp", "latency", "cost"}
    (pair,) = items(found, "pairs")
    assert number(pair, "spearman") == 1.0


@pytest.mark.parametrize(
    ("pearson", "n", "significant"),
    # The critical value of r at 5 %, two-sided, is 0.279 for n = 50 in every table; Fisher's z gives 0.278.
    [(0.29, 50, True), (0.27, 50, False), (0.99, MIN_PAIRS - 1, False), (1.0, 20, True), (0.063, 1_000, True)],
)
async def test_significance_is_that_of_the_tables(pearson: float, n: int, *, significant: bool) -> None:
    assert Pair("a", "b", n, pearson, None).is_significant is significant


async def test_strengths_are_cohens() -> None:
    sizes = [0.5, -0.5, 0.49, 0.3, 0.29, 0.1, 0.09, None]
    assert list(map(strength, sizes)) == ["strong", "strong", "moderate", "moderate", "weak", "weak", "none", ""]
