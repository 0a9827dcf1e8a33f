"""The tools over knowledge bases: what each does, finds and refuses."""

import io
import json
import zipfile
from collections.abc import AsyncIterator

import pytest

from agent_service.engine.commands import Reference
from agent_service.engine.events import Effect, JsonObject
from agent_service.engine.tool import ToolError
from agent_service.tools.corpus.exporting import file_name
from agent_service.tools.corpus.limits import (
    MAX_CORPORA,
    MAX_DESCRIPTION_CHARACTERS,
    MAX_DOCUMENTS,
    MAX_FILES_AT_ONCE,
    MAX_HITS,
    MAX_NAME_CHARACTERS,
    MAX_QUERY_CHARACTERS,
    MAX_SNIPPET_CHARACTERS,
    SHOWN_DOCUMENTS,
)
from tests.support.corpora import CorpusBench, a_pdf
from tests.support.datasets import items, part

RETRIES = b"# Retries\n\nRetry twice, with backoff.\n\n## Limits\n\nNever more than 5 retries.\n"
ROLLBACK = b"# Rollback\n\nShip the last good version.\n"


@pytest.fixture
async def bench() -> AsyncIterator[CorpusBench]:
    bench = CorpusBench()
    yield bench
    await bench.close()


def marked(hit: JsonObject) -> list[str]:
    """Return the parts of the snippet that are highlighted."""
    places = hit["highlights"]
    assert isinstance(places, list)
    return [str(hit["snippet"])[start:end] for start, end in places]


async def filled(bench: CorpusBench) -> None:
    await bench.call("create_corpus", name="Runbooks")
    await bench.put("retries.md", RETRIES)
    await bench.put("rollback.md", ROLLBACK)
    await bench.call("add_documents", files=["retries.md", "rollback.md"])


async def refusal(bench: CorpusBench, tool: str, **args: object) -> str:
    with pytest.raises(ToolError) as refused:
        await bench.result(tool, **args)
    return str(refused.value)


WHAT = {"delete_corpus": "corpus", "delete_document": "document"}


def test_effects_and_approvals() -> None:
    tools = CorpusBench().tools
    reading = {name for name, tool in tools.items() if tool.effect is Effect.READ_ONLY}
    assert reading == {"search_corpus", "list_corpora", "corpus_stats"}
    assert {tool.effect for name, tool in tools.items() if name not in reading} == {Effect.IDEMPOTENT}
    reasons = {
        name: tool.needs_approval(tool.args.model_validate({WHAT[name]: "Runbooks"}))
        for name, tool in tools.items()
        if tool.needs_approval
    }
    assert set(reasons) == {"delete_corpus", "delete_document"}
    assert "“Runbooks” with all of its documents" in reasons["delete_corpus"]


async def test_a_corpus_is_made_once(bench: CorpusBench) -> None:
    first = await bench.call("create_corpus", name=" Our   Runbooks ", description="How we run things.")
    assert first.summary == "Knowledge base “Our Runbooks” made"
    assert part(first.result, "corpus", "name") == "Our Runbooks"
    again = await bench.result("create_corpus", name="our runbooks")
    assert part(again, "created") is False
    assert part(again, "corpus", "corpus_id") == part(first.result, "corpus", "corpus_id")


async def test_corpora_are_bounded_in_words(bench: CorpusBench) -> None:
    for number in range(MAX_CORPORA):
        await bench.call("create_corpus", name=f"Number {number}")
    assert f"more than the {MAX_CORPORA} knowledge bases" in await refusal(bench, "create_corpus", name="One more")


async def test_files_are_added_once(bench: CorpusBench) -> None:
    await filled(bench)
    again = await bench.call("add_documents", files=["retries.md"])
    assert again.summary == "0 documents added to “Runbooks”; 1 already there"
    assert [entry["change"] for entry in items(again.result, "documents")] == ["unchanged"]
    assert part(again.result, "corpus", "documents") == 2
    assert part(again.result, "corpus", "passages") == 3


async def test_titles_come_from_the_document_or_its_file(bench: CorpusBench) -> None:
    await bench.call("create_corpus", name="Runbooks")
    await bench.put("a.md", b"Intro.\n\n# The Heading\n\nText.")
    await bench.put("plain notes.txt", b"Just text.")
    await bench.put("page.html", b"<title>A page</title><h1>Head</h1><p>Words.")
    await bench.put("paper.pdf", a_pdf("Some words."))
    result = await bench.result("add_documents", files=["a.md", "plain notes.txt", "page.html", "paper.pdf"])
    titles = [entry["title"] for entry in items(result, "documents")]
    assert titles == ["The Heading", "plain notes", "A page", "paper"]


async def test_a_text_of_the_message_is_added(bench: CorpusBench) -> None:
    await bench.call("create_corpus", name="Notes")
    await bench.put("other.md", b"Not this one.")
    result = await bench.result(
        "add_documents", texts=[{"text": "Deploys happen on Tuesdays."}, {"text": "x", "title": "Own title"}]
    )
    documents = items(result, "documents")
    assert [entry["title"] for entry in documents] == ["Deploys happen on Tuesdays.", "Own title"]
    assert documents[0]["source"] == "the message"


async def test_the_files_that_a_message_refers_to_are_meant(bench: CorpusBench) -> None:
    record = await bench.put("first.md", b"First.")
    await bench.put("second.md", b"Second.")
    references = (Reference(file_id=record.file_id),)
    made = await bench.call("create_corpus", references, name="Notes")
    assert items(made.result, "referenced_files") == [{"file_id": record.file_id, "name": "first.md"}]
    added = await bench.call("add_documents", references)
    assert [entry["source"] for entry in items(added.result, "documents")] == ["first.md"]
    assert part(added.result, "chosen_because") == "the message refers to it"


async def test_with_nothing_said_the_newest_upload_is_meant(bench: CorpusBench) -> None:
    await bench.call("create_corpus", name="Notes")
    await bench.put("notes.md", b"Notes.")
    await bench.put("usage.csv", b"a,b\n1,2\n")
    await bench.put("made.md", b"By a run.", run_id="run")
    result = await bench.result("add_documents")
    assert [entry["source"] for entry in items(result, "documents")] == ["notes.md"]
    assert part(result, "chosen_because") == "it is your newest upload that can be added"


async def test_what_cannot_be_read_is_told_beside_what_can(bench: CorpusBench) -> None:
    await bench.call("create_corpus", name="Notes")
    await bench.put("good.md", b"Good.")
    await bench.put("bad.txt", b"\x00\x01")
    output = await bench.call("add_documents", files=["bad.txt", "good.md"])
    assert output.summary == "1 document added to “Notes”; 1 not readable"
    (failed,) = items(output.result, "failed")
    assert failed["source"] == "bad.txt"
    assert "is no text" in str(failed["why"])
    assert "is no text" in await refusal(bench, "add_documents", files=["bad.txt"])


async def test_what_is_not_there_is_said_with_what_is(bench: CorpusBench) -> None:
    assert "no knowledge base yet" in await refusal(bench, "add_documents")
    await bench.call("create_corpus", name="Alpha")
    assert "nothing to add" in await refusal(bench, "add_documents")
    assert "no file “x.md”" in await refusal(bench, "add_documents", files=["x.md"])
    await bench.call("create_corpus", name="Beta")
    assert await refusal(bench, "corpus_stats") == "Say which knowledge base is meant: “Alpha”, “Beta”."
    told = await refusal(bench, "corpus_stats", corpus="gamma")
    assert told == "There is no knowledge base that “gamma” could only mean. There are: “Alpha”, “Beta”."


async def test_a_corpus_is_named_by_a_part_of_its_name(bench: CorpusBench) -> None:
    made = await bench.result("create_corpus", name="Our Runbooks 2026")
    await bench.call("create_corpus", name="Handbook")
    for named in ("runbooks", str(part(made, "corpus", "corpus_id"))):
        assert part(await bench.result("corpus_stats", corpus=named), "corpus", "name") == "Our Runbooks 2026"
    referred = (Reference(corpus_id=str(part(made, "corpus", "corpus_id"))),)
    assert part((await bench.call("corpus_stats", referred)).result, "corpus", "name") == "Our Runbooks 2026"


async def test_other_users_have_their_own(bench: CorpusBench) -> None:
    await filled(bench)
    assert part((await bench.call("list_corpora", user_id="bob")).result, "total") == 0
    found = await bench.call("search_corpus", user_id="bob", query="retry")
    assert items(found.result, "hits") == []
    gone = await bench.call("delete_corpus", user_id="bob", corpus="Runbooks")
    assert part(gone.result, "deleted") is False
    assert part(await bench.result("list_corpora"), "total") == 1


# ── search ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_search_cites_and_shows_why(bench: CorpusBench) -> None:
    await filled(bench)
    output = await bench.call("search_corpus", query="how often may we retry?")
    assert output.summary == "2 passages in 1 knowledge base with 3 passages; the best is [Retries, passage 1]"
    first, second = items(output.result, "hits")
    assert (first["cite"], first["document"], first["passage"], first["source"]) == (
        "[Retries, passage 1]",
        "Retries",
        1,
        "retries.md",
    )
    assert second["cite"] == "[Retries: Limits, passage 2]"
    assert marked(second) == ["retries"]
    assert second["text"] == "Never more than 5 retries."


async def test_nothing_found_says_where_it_was_looked_for(bench: CorpusBench) -> None:
    await filled(bench)
    output = await bench.call("search_corpus", query="vacation policy")
    assert output.summary == "Nothing about “vacation policy” in 1 knowledge base with 3 passages"
    assert items(output.result, "hits") == []
    assert part(output.result, "documents_searched") == 2


async def test_a_snippet_is_a_window_with_most_of_what_was_found(bench: CorpusBench) -> None:
    await bench.call("create_corpus", name="Notes")
    text = "A retry. " + "Filler words stand here. " * 20 + "Retry the retry of a retry. " + "More filler. " * 30
    await bench.call("add_documents", texts=[{"text": text[:1_100], "title": "T"}])
    (hit,) = items(await bench.result("search_corpus", query="retry"), "hits")
    snippet = str(hit["snippet"])
    assert len(snippet) <= MAX_SNIPPET_CHARACTERS
    assert "Retry the retry of a retry" in snippet
    assert (hit["cut_before"], hit["cut_after"]) == (True, True)
    assert not snippet.startswith(" ")
    assert [word.lower() for word in marked(hit)] == ["retry"] * 3


async def test_a_result_stays_small_enough_to_be_shown(bench: CorpusBench) -> None:
    await bench.call("create_corpus", name="Notes")
    texts = [{"text": f"重試 {number} " + "字" * 1_100, "title": "標" * 200} for number in range(MAX_HITS)]
    await bench.call("add_documents", texts=texts)
    result = await bench.result("search_corpus", query="重試", limit=MAX_HITS)
    assert len(json.dumps(result, ensure_ascii=False).encode()) < 32 * 1024
    assert len(items(result, "hits")) >= 3


async def test_all_corpora_that_there_may_be_can_be_listed(bench: CorpusBench) -> None:
    for number in range(MAX_CORPORA):
        name = f"{number} " + "標" * (MAX_NAME_CHARACTERS - 3)
        await bench.call("create_corpus", name=name, description="字" * MAX_DESCRIPTION_CHARACTERS)
    result = await bench.result("list_corpora")
    assert len(items(result, "corpora")) == MAX_CORPORA
    assert len(json.dumps(result, ensure_ascii=False).encode()) < 32 * 1024


async def test_long_titles_leave_room_for_fewer_documents(bench: CorpusBench) -> None:
    await bench.call("create_corpus", name="Notes")
    texts = [{"text": f"字 {number}", "title": "標" * 200} for number in range(MAX_FILES_AT_ONCE)]
    for result in (await bench.result("add_documents", texts=texts), await bench.result("corpus_stats")):
        assert len(json.dumps(result, ensure_ascii=False).encode()) < 32 * 1024
        shown = len(items(result, "documents"))
        assert part(result, "documents_not_shown") == MAX_FILES_AT_ONCE - shown


@pytest.mark.parametrize("limit", [0, MAX_HITS + 1])
def test_the_number_of_hits_is_bounded(limit: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        CorpusBench().tools["search_corpus"].args.model_validate({"query": "x", "limit": limit})


def test_a_query_and_the_files_of_a_call_are_bounded() -> None:
    tools = CorpusBench().tools
    tools["search_corpus"].args.model_validate({"query": "x" * MAX_QUERY_CHARACTERS})
    with pytest.raises(ValueError, match="query"):
        tools["search_corpus"].args.model_validate({"query": "x" * (MAX_QUERY_CHARACTERS + 1)})
    tools["add_documents"].args.model_validate({"files": ["x"] * MAX_FILES_AT_ONCE})
    with pytest.raises(ValueError, match="files"):
        tools["add_documents"].args.model_validate({"files": ["x"] * (MAX_FILES_AT_ONCE + 1)})


async def test_only_the_named_or_referred_corpora_are_searched(bench: CorpusBench) -> None:
    await filled(bench)
    other = await bench.result("create_corpus", name="Other")
    await bench.call("add_documents", corpus="Other", texts=[{"text": "Retry elsewhere."}])
    corpora = [hit["corpus"] for hit in items(await bench.result("search_corpus", query="retry"), "hits")]
    assert set(corpora) == {"Runbooks", "Other"}
    (hit,) = items(await bench.result("search_corpus", query="retry", corpora=["other"]), "hits")
    assert hit["corpus"] == "Other"
    reference = Reference(corpus_id=str(part(other, "corpus", "corpus_id")))
    (hit,) = items((await bench.call("search_corpus", (reference,), query="retry")).result, "hits")
    assert hit["corpus"] == "Other"


# ── statistics, changes, exports ─────────────────────────────────────────────────────────────────────────────────────


async def test_statistics_list_the_newest_documents(bench: CorpusBench) -> None:
    await bench.call("create_corpus", name="Notes")
    count = SHOWN_DOCUMENTS + 2
    for start in range(0, count, MAX_FILES_AT_ONCE):
        texts = [{"text": f"note {number}"} for number in range(start, min(count, start + MAX_FILES_AT_ONCE))]
        await bench.call("add_documents", texts=texts)
    result = await bench.result("corpus_stats")
    documents = items(result, "documents")
    assert [entry["title"] for entry in documents[:2]] == [f"note {count - 1}", f"note {count - 2}"]
    assert len(documents) == SHOWN_DOCUMENTS
    assert part(result, "documents_not_shown") == 2
    size = sum(len(f"note {number}") for number in range(count))
    assert part(result, "corpus", "size_bytes") == size
    assert part(result, "bytes_per_passage") == round(size / count)


async def test_a_document_gets_a_new_text(bench: CorpusBench) -> None:
    await filled(bench)
    output = await bench.call("update_document", document="rollback", text="Press the big button.")
    assert output.summary == "“Rollback” has its new text"
    (hit,) = items(await bench.result("search_corpus", query="button"), "hits")
    assert hit["document"] == "Rollback"
    assert items(await bench.result("search_corpus", query="version"), "hits") == []
    again = await bench.call("update_document", document="Rollback", text="Press the big button.")
    assert part(again.result, "document", "change") == "unchanged"


async def test_a_newer_file_of_the_same_name_is_the_new_text(bench: CorpusBench) -> None:
    await filled(bench)
    await bench.put("retries.md", b"# Retries\n\nNever retry.")
    await bench.put("other.md", b"Not meant.")
    await bench.call("update_document", document="retries.md")
    (hit,) = items(await bench.result("search_corpus", query="never retry"), "hits")
    assert hit["text"] == "Never retry."
    await bench.call("add_documents", texts=[{"text": "Of no file.", "title": "Spoken"}])
    assert "Say which file" in await refusal(bench, "update_document", document="Spoken")
    assert "exactly this text" in await refusal(bench, "update_document", document="Spoken", file="rollback.md")
    assert "no document “nothing”" in await refusal(bench, "update_document", document="nothing", text="x")


async def test_two_documents_of_one_title_are_told_apart_by_id(bench: CorpusBench) -> None:
    await bench.call("create_corpus", name="Notes")
    result = await bench.result("add_documents", texts=[{"text": "a", "title": "T"}, {"text": "b", "title": "T"}])
    assert "2 documents called “T”" in await refusal(bench, "delete_document", document="T")
    first = str(items(result, "documents")[0]["document_id"])
    assert part(await bench.result("delete_document", document=first), "deleted") is True
    assert part(await bench.result("delete_document", document=first), "deleted") is False
    assert part(await bench.result("delete_document", document="T"), "deleted") is True


async def test_only_the_exact_name_deletes(bench: CorpusBench) -> None:
    await filled(bench)
    kept = await bench.call("delete_corpus", corpus="Runbook")
    assert kept.summary == "There is no knowledge base “Runbook”. There are: “Runbooks”"
    gone = await bench.call("delete_corpus", corpus="runbooks")
    assert gone.summary == "Knowledge base “Runbooks” deleted, with 2 documents"
    again = await bench.call("delete_corpus", corpus="runbooks")
    assert (part(again.result, "deleted"), part(again.result, "left")) == (False, [])


async def test_an_export_as_lines(bench: CorpusBench) -> None:
    await filled(bench)
    result = await bench.result("export_corpus")
    assert (part(result, "file_name"), part(result, "artifact_id")) == ("runbooks.jsonl", "artifact-runbooks.jsonl")
    media_type, content = bench.artifacts.kept["runbooks.jsonl"]
    lines = [json.loads(line) for line in content.splitlines()]
    assert media_type == "application/jsonl"
    assert [(line["document"], line["passage"], line["heading"], line["text"]) for line in lines] == [
        ("Retries", 1, "Retries", "Retry twice, with backoff."),
        ("Retries", 2, "Retries > Limits", "Never more than 5 retries."),
        ("Rollback", 1, "Rollback", "Ship the last good version."),
    ]


async def test_an_export_as_markdown(bench: CorpusBench) -> None:
    await filled(bench)
    await bench.call("add_documents", texts=[{"text": "Evil.", "title": "../../Retries"}])
    await bench.call("export_corpus", format="markdown")
    first = bench.artifacts.kept["runbooks.zip"][1]
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.namelist() == ["retries.md", "rollback.md", "retries-2.md"]
        said = archive.read("retries.md").decode()
    assert " ".join(said.split()) == (
        "# Retries Retry twice, with backoff. ## Retries > Limits Never more than 5 retries."
    )
    await bench.call("export_corpus", format="markdown")
    assert bench.artifacts.kept["runbooks.zip"][1] == first


async def test_an_empty_corpus_is_exported_empty(bench: CorpusBench) -> None:
    await bench.call("create_corpus", name="Empty")
    await bench.call("export_corpus")
    await bench.call("export_corpus", format="markdown")
    assert bench.artifacts.kept["empty.jsonl"][1] == b""


@pytest.mark.parametrize(
    ("title", "name"),
    [("A Guide!", "a-guide"), ("../..", "document"), ("Größe", "größe"), ("x" * 99, "x" * 60), ("", "document")],
    ids=["plain", "path", "letters", "long", "empty"],
)
def test_file_names_are_harmless(title: str, name: str) -> None:
    assert file_name(title) == name


async def test_documents_of_a_corpus_are_bounded_in_words(bench: CorpusBench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_DOCUMENTS == 1_000
    monkeypatch.setattr("agent_service.tools.corpus.changing.MAX_DOCUMENTS", 2)
    await bench.call("create_corpus", name="Notes")
    output = await bench.call("add_documents", texts=[{"text": word} for word in ("a", "b", "c")])
    (failed,) = items(output.result, "failed")
    assert "more than the 2 documents" in str(failed["why"])
