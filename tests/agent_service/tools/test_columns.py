"""Recognising columns by name and content, and how their values are read."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agent_service.engine.tool import ToolError
from agent_service.tools.roles import Role, name_score, sufficiency
from tests.support.datasets import DataBench, items, part, table

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[DataBench]:
    async with DataBench() as made:
        yield made


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("prompt_tokens", Role.INPUT_TOKENS),
        ("input_tokens", Role.INPUT_TOKENS),
        ("ContextTokens", Role.INPUT_TOKENS),
        ("gen_ai.usage.input_tokens", Role.INPUT_TOKENS),
        ("total_prompt_tokens", Role.INPUT_TOKENS),
        ("completion_tokens", Role.OUTPUT_TOKENS),
        ("GeneratedTokens", Role.OUTPUT_TOKENS),
        ("cached_input_tokens", Role.CACHED_TOKENS),
        ("cache_read_input_tokens", Role.CACHED_TOKENS),
        ("Model Name", Role.MODEL),
        ("latency_ms", Role.LATENCY),
        ("Duration", Role.LATENCY),
        ("created_at", Role.TIMESTAMP),
        ("total_cost", Role.COST),
        ("http_status", Role.STATUS),
        ("use-case", Role.FEATURE),
        ("user_id", Role.USER),
        ("prompt_hash", Role.PROMPT),
    ],
)
async def test_usual_names(name: str, role: Role) -> None:
    scores = {other: name_score(other, name) for other in Role}
    assert max(scores, key=lambda other: scores[other]) is role
    assert scores[role] >= 0.7


async def test_total_tokens_are_neither_input_nor_output() -> None:
    assert not any(name_score(role, "total_tokens") for role in Role)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2025-11-16T18:15:46Z", "2025-11-16T18:15:47Z"),
        ("2025-11-16 18:15:46.0000000", "2025-11-16 18:15:47.0000000"),
        ("2025-11-16T19:15:46+01:00", "2025-11-16T13:15:47-05:00"),
        ("1763316946", "1763316947"),
        ("1763316946.0", "1763316947.0"),
        ("1763316946000", "1763316947000"),
        ("1763316946000000", "1763316947000000"),
        ("1763316946000000000", "1763316947000000000"),
        ("16/Nov/2025:18:15:46 +0000", "16/Nov/2025:19:15:47 +0100"),
        ("11/16/2025 18:15:46", "11/16/2025 18:15:47"),
        ("16/11/2025 18:15:46", "16/11/2025 18:15:47"),
        ("16.11.2025 18:15:46", "16.11.2025 18:15:47"),
        ('"Sun, 16 Nov 2025 18:15:46 GMT"', '"Sun, 16 Nov 2025 18:15:47 GMT"'),
        ("20251116T181546Z", "20251116T181547Z"),
    ],
)
async def test_forms_of_time(bench: DataBench, first: str, second: str) -> None:
    record = await bench.put("t.csv", table("timestamp,input_tokens", f"{first},1", f"{second},2"))
    result = await bench.result("usage_summary", dataset_id=record.file_id)
    assert part(result, "time", "start") == "2025-11-16T18:15:46.000000Z"
    assert part(result, "time", "end") == "2025-11-16T18:15:47.000000Z"


async def test_microseconds_are_kept(bench: DataBench) -> None:
    record = await bench.put("t.csv", table("timestamp,a", "2025-11-16 18:15:46.1234567,1", "2025-11-16 18:15:46.2,2"))
    result = await bench.result("usage_pattern", dataset_id=record.file_id)
    assert part(result, "time", "start") == "2025-11-16T18:15:46.123456Z"


async def test_day_and_month_that_cannot_be_told_apart_are_noted(bench: DataBench) -> None:
    record = await bench.put("t.csv", table("timestamp,a", "03/04/2025 10:00:00,1", "05/06/2025 10:00:00,2"))
    result = await bench.result("usage_summary", dataset_id=record.file_id)
    assert "cannot be told apart" in str(part(result, "notes"))
    assert str(part(result, "time", "start")).startswith("2025-03-04")


@pytest.mark.parametrize(
    ("name", "values", "p50"),
    [
        ("latency_ms", ("100", "200"), 150.0),
        ("latency", ("0.1", "0.2"), 150.0),
        ("latency", ("1100", "1200.5"), 1150.25),
        ("latency_s", ("1", "2"), 1500.0),
        ("durationSeconds", ("1", "2"), 1500.0),
        ("latency_us", ("1000", "3000"), 2.0),
    ],
)
async def test_units_of_latency(bench: DataBench, name: str, values: tuple[str, ...], p50: float) -> None:
    record = await bench.put("l.csv", table(f"{name},a", *(f"{value},x" for value in values)))
    result = await bench.result("latency_analysis", dataset_id=record.file_id)
    assert part(result, "overall", "p50") == p50


@pytest.mark.parametrize(
    ("name", "values", "errors"),
    [
        ("status", ("ok", "error", "timeout", "success"), 2),
        ("status_code", ("200", "404", "500", "302"), 2),
        ("error", ("", "boom", "false", "NULL"), 1),
        ("success", ("true", "false", "True", "0"), 2),
    ],
)
async def test_what_counts_as_an_error(bench: DataBench, name: str, values: tuple[str, ...], errors: int) -> None:
    record = await bench.put("s.csv", table(f"{name},input_tokens", *(f"{value},1" for value in values)))
    result = await bench.result("usage_summary", dataset_id=record.file_id)
    assert part(result, "totals", "errors") == errors
    assert part(result, "totals", "error_rate") == errors / 4


@pytest.mark.parametrize(
    ("words", "errors"),
    [
        (("no_error", "No errors", "without failures", "ok"), 0),
        (("transferred", "deferred", "preferred", "ok"), 0),
        (("ServerError", "err", "err_timeout", "failed"), 4),
    ],
)
async def test_words_that_only_look_like_errors(bench: DataBench, words: tuple[str, ...], errors: int) -> None:
    record = await bench.put("s.csv", table("status,input_tokens", *(f"{word},1" for word in words)))
    result = await bench.result("usage_summary", dataset_id=record.file_id)
    assert part(result, "totals", "errors") == errors


@pytest.mark.parametrize(
    ("name", "values", "total"),
    [
        ("cost", ('"1,230"', '"2,345"', "5"), 3_580.0),
        ("cost", ('"0,500"', '"1,250"', "2"), 3.75),
        ("cost", ('"1,5"', '"2,25"', "3"), 6.75),
        ("cost_cents", ("150", "0.5", "1"), 1.515),
        ("costCents", ("150", "50", "100"), 3.0),
    ],
)
async def test_forms_of_cost(bench: DataBench, name: str, values: tuple[str, ...], total: float) -> None:
    record = await bench.put("c.csv", table(f"{name},a", *(f"{value},x" for value in values)))
    result = await bench.result("cost_breakdown", dataset_id=record.file_id)
    assert part(result, "total_cost_usd") == total


async def test_commas_read_as_thousands_are_noted(bench: DataBench) -> None:
    record = await bench.put("c.csv", table("cost,a", '"1,230",x', '"2,345",y'))
    result = await bench.result("cost_breakdown", dataset_id=record.file_id)
    assert "thousands" in str(part(result, "notes"))


@pytest.mark.parametrize(("name", "value"), [("cost_eur", "1.5"), ("requestCostGBP", "1.5"), ("cost", "€1.5")])
async def test_no_other_currency_passes_for_dollars(bench: DataBench, name: str, value: str) -> None:
    record = await bench.put("c.csv", table(f"{name},a", f"{value},x", f"{value},y"))
    result = await bench.result("cost_breakdown", dataset_id=record.file_id)
    assert part(result, "total_cost_usd") is None
    assert any(name in str(entry["why_it_matters"]) for entry in items(result, "missing"))


async def test_time_and_model_are_recognised_by_content_alone(bench: DataBench) -> None:
    record = await bench.put(
        "c.csv", table("foo,bar,baz", "2025-01-01T00:00:00Z,gpt-4o,7", "2025-01-02,claude-sonnet-4-5,8")
    )
    result = await bench.result("describe_dataset", dataset_id=record.file_id)
    assert part(result, "mapping") == {"timestamp": "foo", "model": "bar"}
    foo, _, baz = items(result, "columns")
    assert foo["confidence"] == 0.6
    assert "content" in str(foo["reason"])
    assert baz["role"] is None, "a number could be anything"


async def test_a_fitting_name_with_other_content_is_not_taken(bench: DataBench) -> None:
    record = await bench.put("x.csv", table("model,input_tokens", "7,abc", "8,def"))
    result = await bench.result("describe_dataset", dataset_id=record.file_id)
    assert part(result, "mapping") == {}
    missing = {entry["column"]: str(entry["why_it_matters"]) for entry in items(result, "missing")}
    assert "holds abc" in missing["input_tokens"] or "holds def" in missing["input_tokens"]


async def test_corrections_come_first(bench: DataBench) -> None:
    record = await bench.put("x.csv", table("a,b,latency", "10,20,1", "30,40,2"))
    result = await bench.result(
        "usage_summary",
        dataset_id=record.file_id,
        columns={"input_tokens": "a", "output_tokens": "B", "latency": ""},
    )
    assert part(result, "mapping") == {"input_tokens": "a", "output_tokens": "b"}
    assert part(result, "totals", "input_tokens") == 40
    assert part(result, "totals", "output_tokens") == 60
    assert part(result, "latency_ms") is None


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"speed": "a"}, "no column meaning 'speed'; known are: timestamp"),
        ({"latency": "zzz"}, "no column 'zzz'; it has: a, b"),
        ({"input_tokens": "b"}, "cannot be read as input tokens: it holds x"),
    ],
)
async def test_wrong_corrections_are_explained(bench: DataBench, columns: dict[str, str], words: str) -> None:
    record = await bench.put("x.csv", table("a,b", "1,x"))
    with pytest.raises(ToolError, match=words):
        await bench.call("usage_summary", dataset_id=record.file_id, columns=columns)


async def test_levels_of_sufficiency() -> None:
    basic = (Role.TIMESTAMP, Role.INPUT_TOKENS, Role.OUTPUT_TOKENS)
    assert sufficiency(basic).level == "partial"
    assert sufficiency((*basic, Role.MODEL)).level == "sufficient"
    assert sufficiency((*basic, Role.MODEL)).score == 0.8
    assert sufficiency((*basic, Role.COST)).score == 0.8
    assert sufficiency((Role.TIMESTAMP, Role.INPUT_TOKENS)).score == 0.4
    assert sufficiency((Role.TIMESTAMP, Role.INPUT_TOKENS)).level == "partial"
    assert sufficiency((Role.INPUT_TOKENS, Role.LATENCY)).level == "insufficient"
    assert sufficiency(tuple(Role)).score == 1.0
    assert sufficiency(()).score == 0.0


async def test_names_with_quotes_and_spaces(bench: DataBench) -> None:
    header = '"odd ""name""; DROP TABLE x",input_tokens'
    record = await bench.put("q.csv", table(header, "it's,1"))
    result = await bench.result("describe_dataset", dataset_id=record.file_id)
    assert part(result, "columns", 0, "name") == 'odd "name"; DROP TABLE x'
    summary = await bench.result(
        "usage_summary", dataset_id=record.file_id, columns={"feature": 'odd "name"; DROP TABLE x'}
    )
    assert part(summary, "groups", "feature", 0, "name") == "it's"
