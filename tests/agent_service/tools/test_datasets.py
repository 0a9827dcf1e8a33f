"""Which dataset is meant: references → a name in the text → the newest → the sample."""

import asyncio
import sys

import pytest

from agent_service.engine.commands import Reference
from agent_service.engine.tool import ToolError
from agent_service.tools.analysis import MAX_NOTE_CHARACTERS
from agent_service.tools.datasets import MAX_SKIPPED, SAMPLE_INSTEAD, format_of, resolve
from tests.support.datasets import DataBench, context, items, part, table

CONTENT = table("model,input_tokens", "gpt-4o,1")


@pytest.mark.parametrize(
    ("name", "media_type", "expected"),
    [
        ("a.csv", "", "csv"),
        ("A.CSV.GZ", "", "csv"),
        ("a.tsv", "", "csv"),
        ("a.ndjson", "", "jsonl"),
        ("a.v2.json.gz", "", "json"),
        ("a.parquet", "", "parquet"),
        ("a", "text/csv; charset=utf-8", "csv"),
        ("a.dat", "application/x-ndjson", "jsonl"),
        ("a.pdf", "application/pdf", ""),
        ("a.gz", "application/gzip", ""),
        ("csv", "", ""),
    ],
)
def test_formats_by_name(name: str, media_type: str, expected: str) -> None:
    assert format_of(name, media_type) == expected


async def test_nothing_heavy_is_imported_with_the_tools() -> None:
    code = "import sys, agent_service.tools.data; print([m for m in ('duckdb', 'genai_prices') if m in sys.modules])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert (await process.communicate())[0].strip() == b"[]"


async def test_the_rule_in_its_order() -> None:
    async with DataBench() as bench:
        assert (await resolve(bench.files, context(), "")).dataset.builtin_sample
        old = await bench.put("traffic_2024.csv", CONTENT)
        await bench.put("prod.csv", CONTENT + b"gpt-4o,2\n")
        new = await bench.put("traffic_2025.csv", CONTENT + b"gpt-4o,3\n")
        await bench.put("notes.pdf", b"%PDF")

        async def chosen(message: str = "", *, dataset_id: str = "", file_id: str = "") -> tuple[str, str]:
            references = (Reference(file_id=file_id),) if file_id else ()
            found = await resolve(bench.files, context(message, references), dataset_id)
            return found.dataset.name, found.because

        assert await chosen("Analyze my AI costs") == ("traffic_2025.csv", "it is your newest dataset")
        assert await chosen("what about Prod.csv?") == ("prod.csv", "its name is in the message")
        assert await chosen("compare traffic_2024 please") == ("traffic_2024.csv", "its name is in the message")
        assert await chosen("prod is slow") == ("traffic_2025.csv", "it is your newest dataset")
        assert await chosen("see traffic_2024.csv.bak2") == ("traffic_2024.csv", "its name is in the message")
        assert await chosen("see old_traffic_2024.csv") == ("traffic_2025.csv", "it is your newest dataset")
        assert await chosen("prod.csv", file_id=old.file_id) == ("traffic_2024.csv", "the message refers to it")
        assert await chosen(dataset_id=new.file_id, file_id=old.file_id) == (
            "traffic_2025.csv",
            "it was asked for by id",
        )
        assert await chosen(dataset_id="PROD.csv") == ("prod.csv", "it was asked for by name")


async def test_a_reference_to_a_dataset_comes_before_one_to_something_else() -> None:
    async with DataBench() as bench:
        pdf = await bench.put("notes.pdf", b"%PDF-1.7")
        data = await bench.put("a.csv", CONTENT)
        await bench.put("b.csv", CONTENT + b"x,1\n")
        both = (Reference(file_id=pdf.file_id), Reference(file_id=data.file_id))
        assert (await resolve(bench.files, context("", both), "")).dataset.name == "a.csv"
        with pytest.raises(ToolError, match=r"notes\.pdf is a PDF document, not a dataset"):
            await bench.call("usage_summary", "", (Reference(file_id=pdf.file_id),))


async def test_a_file_without_a_telling_name_is_opened_when_referred_to() -> None:
    async with DataBench() as bench:
        record = await bench.put("export", CONTENT)
        output = await bench.call("usage_summary", "", (Reference(file_id=record.file_id),))
        assert part(output.result, "dataset", "name") == "export"
        assert part(output.result, "dataset", "chosen_because") == "the message refers to it"


async def test_what_is_not_there_is_said_with_what_is() -> None:
    async with DataBench() as bench:
        await bench.put("a.csv", CONTENT)
        with pytest.raises(ToolError, match=r"no dataset 'b\.csv'\. Yours are: a\.csv\."):
            await bench.call("usage_summary", dataset_id="b.csv")
        with pytest.raises(ToolError, match="refers to is not there any more"):
            await bench.call("usage_summary", "", (Reference(file_id="gone"),))


async def test_nobody_gets_anothers_file() -> None:
    async with DataBench() as bench:
        record = await bench.put("secret.csv", CONTENT, user_id="bob")
        with pytest.raises(ToolError, match="no dataset"):
            await bench.call("usage_summary", dataset_id=record.file_id)
        with pytest.raises(ToolError, match="no dataset"):
            await bench.call("usage_summary", dataset_id="secret.csv")
        with pytest.raises(ToolError, match="not there any more"):
            await bench.call("usage_summary", "", (Reference(file_id=record.file_id),))
        output = await bench.call("usage_summary", "look at secret.csv")
        assert part(output.result, "dataset", "builtin_sample") is True


async def test_listing() -> None:
    async with DataBench() as bench:
        for index in range(3):
            await bench.put(f"d{index}.csv", CONTENT + f"x,{index}\n".encode())
        await bench.put("notes.pdf", b"%PDF")
        result = await bench.result("list_datasets", limit=2)
    assert [entry["name"] for entry in items(result, "datasets")] == ["d2.csv", "d1.csv"]
    assert part(result, "total") == 3
    assert part(result, "not_shown") == 1
    assert part(result, "other_files", 0, "name") == "notes.pdf"
    assert part(result, "dataset", "name") == "d2.csv"


BROKEN = b'{"model":"gpt-4o"}\n{oops}\n'
TOOLS = ("usage_summary", "cost_breakdown", "latency_analysis", "usage_pattern", "describe_dataset", "query_dataset")


def query(tool: str) -> dict[str, object]:
    return {"sql": "SELECT * FROM data"} if tool == "query_dataset" else {}


@pytest.mark.parametrize("tool", TOOLS)
async def test_a_broken_upload_gives_way_to_the_newest_that_can_be_read(tool: str) -> None:
    async with DataBench() as bench:
        await bench.put("old.csv", CONTENT + b"x,1\n")
        await bench.put("good.csv", CONTENT)
        await bench.put("header.csv", b"model,input_tokens\n")
        await bench.put("broken.jsonl", BROKEN)
        result = await bench.result(tool, **query(tool))
    # A query over no rows is an answer, not a failure.
    readable = "header.csv" if tool == "query_dataset" else "good.csv"
    assert part(result, "dataset", "name") == readable
    assert part(result, "dataset", "chosen_because") == "it is your newest dataset that can be read"
    note = str(part(result, "dataset", "note"))
    assert note.startswith(
        "broken.jsonl is newer, but cannot be read: broken.jsonl is not valid JSON: its last line (2)"
    )
    assert ("header.csv is newer, but cannot be read" in note) is (tool != "query_dataset")


async def test_a_broken_dataset_that_was_asked_for_is_an_error() -> None:
    async with DataBench() as bench:
        await bench.put("good.csv", CONTENT)
        broken = await bench.put("broken.jsonl", BROKEN)
        with pytest.raises(ToolError, match="not valid JSON"):
            await bench.call("usage_summary", dataset_id="broken.jsonl")
        with pytest.raises(ToolError, match="not valid JSON"):
            await bench.call("usage_summary", "see broken.jsonl")
        with pytest.raises(ToolError, match="not valid JSON"):
            await bench.call("usage_summary", "", (Reference(file_id=broken.file_id),))


@pytest.mark.parametrize(("broken", "sample"), [(MAX_SKIPPED - 1, False), (MAX_SKIPPED, True)])
async def test_the_sample_takes_the_place_of_many_broken_ones(broken: int, *, sample: bool) -> None:
    async with DataBench() as bench:
        await bench.put("good.csv", CONTENT)
        for index in range(broken):
            await bench.put(f"broken{index}.jsonl", BROKEN + f"{index}".encode())
        dataset = part(await bench.result("usage_pattern"), "dataset")
    assert part(dataset, "builtin_sample") is sample
    because = str(part(dataset, "chosen_because"))
    assert because == (SAMPLE_INSTEAD if sample else "it is your newest dataset that can be read")
    assert len(str(part(dataset, "note"))) <= MAX_NOTE_CHARACTERS


async def test_of_several_files_referred_to_the_first_is_analysed_and_that_is_said() -> None:
    async with DataBench() as bench:
        first = await bench.put("a.csv", CONTENT)
        second = await bench.put("b.csv", CONTENT + b"x,1\n")
        references = (Reference(file_id=first.file_id), Reference(file_id=second.file_id))
        output = await bench.call("usage_summary", "Compare the two files", references)
    assert part(output.result, "dataset", "name") == "a.csv"
    note = str(part(output.result, "dataset", "note"))
    assert (
        note == "One dataset is analysed at a time: this is a.csv, the first of those that you refer to, without b.csv."
    )


async def test_summaries_count_one_as_one() -> None:
    async with DataBench() as bench:
        await bench.put("one.csv", table("timestamp,model,input_tokens,latency_ms", "2026-01-01,nobody-knows,1,5"))
        summaries = [(await bench.call(tool, "", (), **query(tool))).summary for tool in TOOLS]
    assert not [summary for summary in summaries if "1 requests" in summary or "1 rows" in summary]
    assert any("1 request" in summary for summary in summaries)
