"""Files that are not what one hopes for: a clear answer each, and no invented number."""

import gzip
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agent_service.engine.tool import ToolError
from agent_service.tools.sandbox import SandboxError, SandboxLimits
from tests.support.datasets import TRACE, DataBench, items, part, table

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD = table("timestamp,model,input_tokens,output_tokens", "2025-01-01,gpt-4o,10,1", "2025-01-02,gpt-4o,20,2")
TOOLS = ("usage_summary", "cost_breakdown", "latency_analysis", "usage_pattern", "describe_dataset")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[DataBench]:
    async with DataBench() as made:
        yield made


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", b"", "empty: there is nothing"),
        ("blank.csv", b"\n \n\n", "empty: there is nothing"),
        ("empty.csv.gz", gzip.compress(b""), "empty: there is nothing"),
        ("header.csv", b"timestamp,model,input_tokens\n", "column names but no rows"),
        ("cut.csv.gz", TRACE.read_bytes()[:90_000], "cut off"),
        ("damaged.csv.gz", gzip.compress(GOOD)[:-6] + b"\0\0\0\0\0\0", "damaged"),
        ("garbage.csv.gz", b"\x1f\x8bgarbage", "damaged"),
        ("prose.csv", b"Dear all,\n\nthis is text, and that is\nno data at all.\n", "single column of text"),
        ("ragged.csv", b"a,b,c\n1,2,3\n4,5\n6,7,8\n1,2,3,4,5\n", "do not fit"),
        ("book.csv", b"PK\x03\x04" + bytes(100), "an Excel workbook"),
        ("paper.csv", b"%PDF-1.7 " + bytes(100), "a PDF document"),
        ("binary.csv", bytes(range(256)) * 4, "a binary file"),
        ("wide.csv", "a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        ("broken.json", b'[{"a":1},{"a":2', "its last line (1) cannot be read; it may have been cut off"),
        ("cut.json", b'[{"a":1},\n', "its last line (1) cannot be read; it may have been cut off"),
        ("pretty.json", b'[\n{"a":1},\n{"a":oops},\n{"a":2}]', "pretty.json is not valid JSON: line 3 cannot be read."),
        ("broken.jsonl", b'{"a":1}\n{"a":', "its last line (2) cannot be read; it may have been cut off"),
        ("first.jsonl", b'{"a":\n{"a":2}\n{"a":3}\n', "line 1 cannot be read. Repair"),
        ("middle.jsonl", b'{"a":1}\n{"a":2}\n{"a":\n{"a":3}\n', "line 3 cannot be read. Repair"),
        ("zipped.jsonl.gz", gzip.compress(b'{"a":1}\n{oops}\n{"a":3}\n'), "line 2 cannot be read. Repair"),
        ("deep.json", b"[" * 3_000, "one of its records cannot be read. Repair"),
        ("quote.csv", b'a,b\n1,2\n3,"4\n5,6\n', "Line 3 of quote.csv does not fit the others"),
        ("inside.json", b'{"data":[{"a":1},{"a":2}]}', "inside its field 'data'"),
        ("numbers.json", b"[1,2,3]", "no JSON objects"),
        ("broken.parquet", b"PAR1" + bytes(50) + b"PAR1", "broken.parquet is not a readable Parquet file"),
        ("many.csv", table(",".join(f"c{i}" for i in range(301)), ",".join("1" * 301)), "301 columns"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value and " " not in value else "",
)
async def test_what_cannot_be_read_is_an_error_in_words(
    bench: DataBench, name: str, content: bytes, words: str
) -> None:
    record = await bench.put(name, content)
    for tool in TOOLS:
        with pytest.raises(ToolError) as error:
            await bench.call(tool, dataset_id=record.file_id)
        assert words in str(error.value), tool
        assert "Error:" not in str(error.value), "the database's own words are for nobody"
        assert "/tmp" not in str(error.value), "where the file lies is nobody's business"  # noqa: S108


async def test_a_bomb_is_refused() -> None:
    async with DataBench(SandboxLimits(max_children=1, max_unpacked_bytes=1 << 20)) as bench:
        await bench.put("edge.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * ((1 << 18) - 1)))
        assert part(await bench.result("describe_dataset"), "dataset", "rows") == (1 << 18) - 1
        await bench.put("bomb.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * (1 << 18)))
        with pytest.raises(SandboxError, match="more than 1 MiB"):
            await bench.call("describe_dataset", dataset_id="bomb.csv.gz")


async def test_a_byte_order_mark_does_not_hide_the_first_column(bench: DataBench) -> None:
    record = await bench.put("bom.csv", b"\xef\xbb\xbf" + GOOD)
    result = await bench.result("usage_summary", dataset_id=record.file_id)
    assert part(result, "mapping", "timestamp") == "timestamp"
    assert part(result, "totals", "input_tokens") == 30


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
async def test_other_delimiters(bench: DataBench, delimiter: str) -> None:
    record = await bench.put("d.csv", GOOD.replace(b",", delimiter.encode()))
    result = await bench.result("describe_dataset", dataset_id=record.file_id)
    assert part(result, "format", "delimiter") == delimiter
    assert part(result, "dataset", "rows") == 2


async def test_windows_line_ends_and_late_quotes(bench: DataBench) -> None:
    lines = [b"2025-01-01,gpt-4o,1,1"] * 30_000 + [b'2025-01-01,"odd, name",1,1']
    record = await bench.put("w.csv", b"\r\n".join([b"timestamp,model,input_tokens,output_tokens", *lines, b""]))
    result = await bench.result("usage_summary", dataset_id=record.file_id)
    assert part(result, "totals", "requests") == 30_001
    assert {entry["name"] for entry in items(result, "groups", "model")} == {"gpt-4o", "odd, name"}


async def test_latin_text_is_read(bench: DataBench) -> None:
    record = await bench.put("l.csv", "feature,input_tokens\ncaf\u00e9,1\n".encode("latin-1"))
    result = await bench.result("usage_summary", dataset_id=record.file_id)
    assert part(result, "groups", "feature", 0, "name") == "caf\u00e9"


async def test_a_few_unreadable_values_are_left_out_and_counted(bench: DataBench) -> None:
    lines = [f"{i},5" for i in range(99)] + ["oops,5"]
    record = await bench.put("m.csv", table("input_tokens,output_tokens", *lines))
    result = await bench.result("usage_summary", dataset_id=record.file_id)
    assert part(result, "totals", "input_tokens") == sum(range(99))
    assert part(result, "totals", "requests") == 100
    assert "1 of 100 values of the column 'input_tokens' cannot be read, such as 'oops'" in str(part(result, "notes"))


async def test_many_unreadable_values_make_the_column_unusable(bench: DataBench) -> None:
    late = [f"{i % 50},5" for i in range(6_000)] + ["oops,5"] * 600
    for lines in (["1,5", "oops,5", "2,5", "none at all,5"], late):
        record = await bench.put("m.csv", table("input_tokens,output_tokens", *lines))
        result = await bench.result("usage_summary", dataset_id=record.file_id)
        assert part(result, "totals", "input_tokens") is None
        assert part(result, "totals", "total_tokens") is None
        missing = {entry["column"]: str(entry["why_it_matters"]) for entry in items(result, "missing")}
        assert "it is not used" in missing["input_tokens"]


@pytest.mark.parametrize("value", ["99999999999999999999999999", "1e30", "-5", "1.5", "1000000001"])
async def test_impossible_token_counts_are_not_counted(bench: DataBench, value: str) -> None:
    record = await bench.put("h.csv", table("input_tokens,output_tokens", f"{value},1", f"{value},2"))
    result = await bench.result("usage_summary", dataset_id=record.file_id)
    assert part(result, "totals", "input_tokens") is None
    assert part(result, "totals", "output_tokens") == 3
    assert "input_tokens" in {entry["column"] for entry in items(result, "missing")}


async def test_the_largest_possible_token_count_is_counted(bench: DataBench) -> None:
    record = await bench.put("h.csv", table("input_tokens,output_tokens", "1000000000,1"))
    result = await bench.result("usage_summary", dataset_id=record.file_id)
    assert part(result, "totals", "input_tokens") == 1_000_000_000


async def test_nothing_but_nulls(bench: DataBench) -> None:
    record = await bench.put("n.csv", table("timestamp,model,input_tokens,output_tokens", ",,,", "NULL,None,N/A,nan"))
    result = await bench.result("usage_summary", dataset_id=record.file_id)
    assert part(result, "totals", "requests") == 2
    for key in ("input_tokens", "output_tokens", "cost_usd", "errors"):
        assert part(result, "totals", key) is None
    assert part(result, "time") is None
    assert part(result, "peaks") is None
    assert part(result, "groups") == {}
    assert "it is empty" in str(part(result, "missing"))


async def test_some_nulls_are_unknown_and_not_zero(bench: DataBench) -> None:
    lines = ["2025-01-01,gpt-4o,10,", "2025-01-01,,10,5", ",gpt-4o,,5"]
    record = await bench.put("n.csv", table("timestamp,model,input_tokens,output_tokens", *lines))
    result = await bench.result("usage_summary", dataset_id=record.file_id)
    assert part(result, "totals", "input_tokens") == 20
    assert part(result, "totals", "cost_usd") is None
    assert part(result, "pricing", "requests_unpriced") == 3
    assert {entry["name"]: entry["requests"] for entry in items(result, "groups", "day")} == {
        "2025-01-01": 2,
        "(none)": 1,
    }


async def test_jsonl_with_nested_usage(bench: DataBench) -> None:
    lines = [
        {"created": 1_700_158_546, "model": "gpt-4o", "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
        {"created": 1_700_158_547, "model": "gpt-4o", "usage": {"prompt_tokens": 5, "completion_tokens": None}},
    ]
    content = "\n".join(json.dumps(line) for line in lines).encode()
    for name, data in (
        ("a.jsonl", content),
        ("a.jsonl.gz", gzip.compress(content)),
        ("a.json", json.dumps(lines).encode()),
    ):
        record = await bench.put(name, data)
        result = await bench.result("usage_summary", dataset_id=record.file_id)
        assert part(result, "mapping") == {
            "timestamp": "created",
            "input_tokens": "usage.prompt_tokens",
            "output_tokens": "usage.completion_tokens",
            "model": "model",
        }
        assert part(result, "totals", "input_tokens") == 8
        assert part(result, "time", "start") == "2023-11-16T18:15:46.000000Z"


async def test_parquet(bench: DataBench) -> None:
    import duckdb

    path = await bench.files.local_path("ann", (await bench.put("x.csv", GOOD)).file_id)
    target = path.with_name("made.parquet")
    with duckdb.connect(":memory:") as connection:
        connection.read_csv(str(path)).write_parquet(str(target))
    record = await bench.put("x.parquet", target.read_bytes())
    target.unlink()
    result = await bench.result("describe_dataset", dataset_id=record.file_id)
    assert part(result, "format", "kind") == "parquet"
    assert part(result, "dataset", "rows") == 2
    assert part(result, "mapping", "timestamp") == "timestamp"


async def test_content_decides_over_the_name(bench: DataBench) -> None:
    record = await bench.put("really_json.csv", b'{"model":"gpt-4o","input_tokens":1}\n')
    assert part(await bench.result("describe_dataset", dataset_id=record.file_id), "format", "kind") == "jsonl"
    record = await bench.put("really_gzip.csv", gzip.compress(GOOD))
    assert part(await bench.result("describe_dataset", dataset_id=record.file_id), "format", "compression") == "gzip"


async def test_duplicate_rows_are_counted(bench: DataBench) -> None:
    record = await bench.put("dup.csv", table("model,input_tokens", "a,1", "a,1", "a,2", "a,1"))
    assert part(await bench.result("describe_dataset", dataset_id=record.file_id), "duplicate_rows") == 2


async def test_columns_that_differ_only_in_case(bench: DataBench) -> None:
    record = await bench.put("case.jsonl", b'{"Model":"gpt-4o","model":"gpt-4o-mini","input_tokens":1}\n')
    result = await bench.result("describe_dataset", dataset_id=record.file_id)
    assert part(result, "columns_total") == 3
