"""Which dataset is meant: references → a name in the text → the newest → the sample."""

import asyncio
import sys

import pytest

from agent_service.engine.commands import Reference
from agent_service.engine.tool import ToolError
from agent_service.tools.datasets import format_of, resolve
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
