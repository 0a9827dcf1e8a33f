"""Knowledge bases: one behaviour, whatever the storage."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, literal_column, select, table
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.corpora import READ_PASSAGES, SqlCorpora
from storage.database import open_database
from storage.errors import CorpusLimitError, DuplicateDocumentError, InvalidPageTokenError, RecordNotFoundError
from storage.full_text import CANDIDATES
from storage.interfaces import Storage
from storage.migrating import migrate
from storage.records import CorpusRecord, DocumentChange, DocumentRecord, NewDocument, SearchResult
from storage.schema import corpus_passages
from tests.support.corpora import PLENTY, a_corpus, a_document
from tests.support.storage import a_run, at, working


async def made(storage: Storage, name: str = "Runbooks", user_id: str = "ada") -> CorpusRecord:
    return await storage.corpora.create(a_corpus(user_id, name), max_corpora=50)


async def added(storage: Storage, document: NewDocument) -> DocumentRecord:
    record, change = await storage.corpora.add_document(document, **PLENTY)
    assert change is DocumentChange.ADDED
    return record


async def found(storage: Storage, query: str, *, corpus_ids: Sequence[str] = (), limit: int = 10) -> SearchResult:
    return await storage.corpora.search("ada", query, corpus_ids=corpus_ids, limit=limit)


async def texts(storage: Storage, query: str, *, corpus_ids: Sequence[str] = (), limit: int = 10) -> list[str]:
    result = await found(storage, query, corpus_ids=corpus_ids, limit=limit)
    return [hit.passage.text for hit in result.hits]


async def test_a_corpus_comes_back_as_it_was_made(storage: Storage) -> None:
    new = a_corpus(at_s=3)
    assert await storage.corpora.create(new, max_corpora=1) == new
    assert await storage.corpora.get("ada", new.corpus_id) == new
    assert await storage.corpora.list("ada") == [new]


@pytest.mark.parametrize("name", ["Runbooks", "  runBOOKS ", "RUNBOOKS"], ids=["same", "spaces", "capitals"])
async def test_the_same_name_is_the_same_corpus(storage: Storage, name: str) -> None:
    first = await made(storage)
    assert await storage.corpora.create(a_corpus(name=name, at_s=9), max_corpora=1) == first
    assert await storage.corpora.list("ada") == [first]


async def test_racing_creations_of_one_name_make_one_corpus(storage: Storage) -> None:
    corpora = await asyncio.gather(*(made(storage) for _ in range(5)))
    assert len({corpus.corpus_id for corpus in corpora}) == 1


async def test_a_name_is_its_users_own(storage: Storage) -> None:
    first, second = await made(storage), await made(storage, user_id="bob")
    assert first.corpus_id != second.corpus_id
    assert [corpus.corpus_id for corpus in await storage.corpora.list("ada")] == [first.corpus_id]


async def test_corpora_are_bounded_for_each_user(storage: Storage) -> None:
    for name in ("one", "two"):
        await storage.corpora.create(a_corpus(name=name), max_corpora=2)
    with pytest.raises(CorpusLimitError) as refusal:
        await storage.corpora.create(a_corpus(name="three"), max_corpora=2)
    assert (refusal.value.what, refusal.value.limit) == ("knowledge bases", 2)
    await storage.corpora.create(a_corpus("bob", name="three"), max_corpora=2)
    assert (await storage.corpora.create(a_corpus(name="two"), max_corpora=2)).name == "two"


async def test_they_are_listed_by_name(storage: Storage) -> None:
    for name in ("beta", "Alpha", "gamma"):
        await made(storage, name)
    assert [corpus.name for corpus in await storage.corpora.list("ada")] == ["Alpha", "beta", "gamma"]


async def test_a_document_is_counted(storage: Storage) -> None:
    corpus = await made(storage)
    first = await added(storage, a_document(corpus, "One.", "Two.", at_s=5))
    await added(storage, a_document(corpus, "Grüße.", at_s=6))
    held = await storage.corpora.get("ada", corpus.corpus_id)
    assert (held.documents, held.passages, held.size_bytes) == (2, 3, len("One.\nTwo.") + len("Grüße.".encode()))
    assert held.update_time == at(6)
    assert await storage.corpora.get_document("ada", first.document_id) == first
    assert (first.passages, first.create_time, first.title, first.source) == (2, at(5), "Guide", "guide.md")


async def test_the_same_text_is_kept_once(storage: Storage) -> None:
    corpus = await made(storage)
    first = await added(storage, a_document(corpus, "One."))
    again = await storage.corpora.add_document(a_document(corpus, "One.", title="Other"), **PLENTY)
    assert again == (first, DocumentChange.UNCHANGED)
    other = await made(storage, "Other")
    await added(storage, a_document(other, "One."))


async def test_racing_additions_of_one_text_keep_it_once(storage: Storage) -> None:
    corpus = await made(storage)
    new = [a_document(corpus, "One.") for _ in range(5)]
    results = await asyncio.gather(*(storage.corpora.add_document(one, **PLENTY) for one in new))
    assert sorted(change.value for _, change in results) == ["added", *["unchanged"] * 4]
    assert await texts(storage, "one") == ["One."]


async def test_documents_and_passages_are_bounded(storage: Storage) -> None:
    corpus = await made(storage)
    for text in ("a", "b"):
        await storage.corpora.add_document(a_document(corpus, text), max_documents=2, max_passages=3)
    with pytest.raises(CorpusLimitError, match="2 documents"):
        await storage.corpora.add_document(a_document(corpus, "c"), max_documents=2, max_passages=3)
    with pytest.raises(CorpusLimitError, match="3 passages"):
        await storage.corpora.add_document(a_document(corpus, "c", "d"), max_documents=3, max_passages=3)
    await storage.corpora.add_document(a_document(corpus, "c"), max_documents=3, max_passages=3)
    assert (await storage.corpora.get("ada", corpus.corpus_id)).passages == 3


async def test_a_document_is_replaced_whole(storage: Storage) -> None:
    corpus = await made(storage)
    old = await added(storage, a_document(corpus, "Retry twice.", "Then stop."))
    new = a_document(corpus, "Wait a minute.", title="New", document_id=old.document_id, at_s=7)
    record, change = await storage.corpora.replace_document(new, max_passages=2)
    assert change is DocumentChange.UPDATED
    assert (record.title, record.passages, record.create_time, record.update_time) == ("New", 1, at(0), at(7))
    assert await texts(storage, "retry") == []
    assert await texts(storage, "minute") == ["Wait a minute."]
    assert await storage.corpora.replace_document(new, max_passages=2) == (record, DocumentChange.UNCHANGED)


async def test_a_replacement_is_held_to_the_same_rules(storage: Storage) -> None:
    corpus = await made(storage)
    one = await added(storage, a_document(corpus, "One.", title="First"))
    two = await added(storage, a_document(corpus, "Two.", "Three."))
    with pytest.raises(DuplicateDocumentError) as refusal:
        await storage.corpora.replace_document(a_document(corpus, "One.", document_id=two.document_id), max_passages=9)
    assert refusal.value.title == "First"
    longer = a_document(corpus, "Two.", "More.", document_id=one.document_id)
    with pytest.raises(CorpusLimitError, match="3 passages"):
        await storage.corpora.replace_document(longer, max_passages=3)
    await storage.corpora.replace_document(longer, max_passages=4)
    with pytest.raises(RecordNotFoundError):
        await storage.corpora.replace_document(a_document(corpus, "x"), max_passages=9)


async def test_a_refused_replacement_leaves_the_document_as_it_was(storage: Storage) -> None:
    corpus = await made(storage)
    one = await added(storage, a_document(corpus, "Retry twice."))
    version = await storage.corpora.version("ada")
    with pytest.raises(CorpusLimitError):
        await storage.corpora.replace_document(
            a_document(corpus, "a", "b", document_id=one.document_id), max_passages=1
        )
    assert await texts(storage, "retry") == ["Retry twice."]
    assert await storage.corpora.version("ada") == version


async def test_what_is_deleted_is_not_found(storage: Storage) -> None:
    corpus = await made(storage)
    one = await added(storage, a_document(corpus, "Retry once."))
    await added(storage, a_document(corpus, "Retry twice."))
    await storage.corpora.delete_document("ada", one.document_id, at(9))
    assert await texts(storage, "retry") == ["Retry twice."]
    left = await storage.corpora.get("ada", corpus.corpus_id)
    assert (left.documents, left.passages, left.update_time) == (1, 1, at(9))
    await storage.corpora.delete("ada", corpus.corpus_id)
    assert await texts(storage, "retry") == []
    for call in (
        storage.corpora.get("ada", corpus.corpus_id),
        storage.corpora.delete("ada", corpus.corpus_id),
        storage.corpora.get_document("ada", one.document_id),
        storage.corpora.delete_document("ada", one.document_id, at(9)),
        storage.corpora.list_documents("ada", corpus.corpus_id, page_size=1),
        storage.corpora.add_document(a_document(corpus, "x"), **PLENTY),
        found(storage, "x", corpus_ids=[corpus.corpus_id]),
    ):
        with pytest.raises(RecordNotFoundError):
            await call


async def test_a_threads_end_is_not_a_corpus_end(storage: Storage) -> None:
    run = await working(storage, a_run())
    corpus = await made(storage)
    await storage.threads.delete("ada", run.thread_id)
    assert await storage.corpora.list("ada") == [corpus]


async def test_documents_are_listed_by_pages_newest_first(storage: Storage) -> None:
    corpus = await made(storage)
    ids = [(await added(storage, a_document(corpus, str(n), at_s=n // 2))).document_id for n in range(5)]
    first = await storage.corpora.list_documents("ada", corpus.corpus_id, page_size=3)
    rest = await storage.corpora.list_documents("ada", corpus.corpus_id, page_size=3, page_token=first.next_page_token)
    assert [one.document_id for one in (*first.items, *rest.items)] == ids[::-1]
    assert not rest.next_page_token
    other = await made(storage, "Other")
    with pytest.raises(InvalidPageTokenError):
        await storage.corpora.list_documents("ada", other.corpus_id, page_size=3, page_token=first.next_page_token)


async def test_all_passages_are_read_in_order(storage: Storage) -> None:
    corpus = await made(storage)
    count = READ_PASSAGES + 1
    late = a_document(corpus, *(f"late {n}" for n in range(count)), title="Late", at_s=2)
    await added(storage, late)
    await added(storage, a_document(corpus, "early 0", "early 1", heading="Head", title="Early", at_s=1))
    read = [passage async for passage in storage.corpora.read("ada", corpus.corpus_id)]
    assert [one.text for one in read] == ["early 0", "early 1", *(f"late {n}" for n in range(count))]
    assert [one.position for one in read] == [1, 2, *range(1, count + 1)]
    assert (read[0].title, read[0].heading, read[2].title, read[2].source) == ("Early", "Head", "Late", "guide.md")


# ── search ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_hit_says_where_it_is(storage: Storage) -> None:
    corpus = await made(storage)
    document = await added(storage, a_document(corpus, "Nothing here.", "We retried it twice.", heading="Errors"))
    (hit,) = (await found(storage, "retries")).hits
    assert (hit.corpus_id, hit.corpus_name) == (corpus.corpus_id, "Runbooks")
    assert (hit.passage.document_id, hit.passage.title, hit.passage.position) == (document.document_id, "Guide", 2)
    assert (hit.passage.heading, hit.passage.source) == ("Errors", "guide.md")
    assert [hit.passage.text[start:end] for start, end in hit.spans] == ["retried"]
    assert hit.score > 0


WRITTEN = {
    "retries": "We RETRIED.",
    "cafe": "The Café is closed.",
    "Größe": "groesse or grösse",
    "max_retries": "Set max retries to 3.",
    "error 429": "Answer 429 means slow down.",
    "ERR-1234": "It logs err 1234.",
    "api.example.com": "Call api.example.com for that.",
    "重試": "請重試一次",
    "re\u0301sume\u0301": "Send your résumé.",
    "what is it": "It is what it is.",
}


async def test_words_are_found_as_people_write_them(storage: Storage) -> None:
    for query, text in WRITTEN.items():
        corpus = await made(storage, query)
        await added(storage, a_document(corpus, text, "zebra"))
        assert await texts(storage, query, corpus_ids=[corpus.corpus_id]) == [text], query


async def test_the_rarer_word_and_the_more_words_count(storage: Storage) -> None:
    corpus = await made(storage)
    await added(storage, a_document(corpus, *(f"The service has a timeout. Case {n}." for n in range(8))))
    await added(storage, a_document(corpus, "The breaker opens after a timeout of the service.", title="B"))
    await added(storage, a_document(corpus, "A breaker protects what is behind it, mostly.", title="C"))
    assert (await texts(storage, "breaker timeout"))[:2] == [
        "The breaker opens after a timeout of the service.",
        "A breaker protects what is behind it, mostly.",
    ]


async def test_headings_and_titles_are_searched_and_weigh_more(storage: Storage) -> None:
    corpus = await made(storage)
    await added(storage, a_document(corpus, "Wait, then a rollback, then look again.", title="A"))
    await added(storage, a_document(corpus, "Take the last good version and ship it.", heading="Rollback", title="B"))
    await added(storage, a_document(corpus, "Something about something else entirely.", title="Rollback notes"))
    found_texts = await texts(storage, "rollback")
    assert found_texts[0].startswith("Take the last good version")
    assert len(found_texts) == 3


async def test_part_of_a_word_is_found_where_no_word_is(storage: Storage) -> None:
    corpus = await made(storage)
    await added(storage, a_document(corpus, "Use authentication.", "An author wrote."))
    result = await found(storage, "authentic")
    assert [hit.passage.text for hit in result.hits] == ["Use authentication."]
    result = await found(storage, "autho")
    assert result.as_beginnings
    assert [hit.passage.text[start:end] for hit in result.hits for start, end in hit.spans] == ["author"]
    result = await found(storage, "au")
    assert (result.hits, result.found, result.as_beginnings) == ((), 0, False)


async def test_only_the_named_corpora_are_searched(storage: Storage) -> None:
    one, two = await made(storage, "One"), await made(storage, "Two")
    theirs = await made(storage, "Theirs", user_id="bob")
    for corpus in (one, two, theirs):
        await added(storage, a_document(corpus, f"Retry, says {corpus.name}."))
    assert set(await texts(storage, "retry")) == {"Retry, says One.", "Retry, says Two."}
    assert await texts(storage, "retry", corpus_ids=[two.corpus_id]) == ["Retry, says Two."]
    with pytest.raises(RecordNotFoundError):
        await found(storage, "retry", corpus_ids=[one.corpus_id, theirs.corpus_id])


async def test_what_others_have_does_not_move_a_users_hits(storage: Storage) -> None:
    corpus = await made(storage)
    await added(storage, a_document(corpus, "Alpha is mentioned here once.", "Beta is mentioned here once."))
    before = await found(storage, "alpha beta")
    theirs = await made(storage, "Theirs", user_id="bob")
    await added(storage, a_document(theirs, *(f"Alpha alpha {n}" for n in range(30))))
    assert await found(storage, "alpha beta") == before


async def test_hits_are_limited_and_counted(storage: Storage) -> None:
    corpus = await made(storage)
    await added(storage, a_document(corpus, *(f"Retry number {n}." for n in range(CANDIDATES + 5))))
    result = await found(storage, "retry", limit=3)
    assert (len(result.hits), result.found) == (3, CANDIDATES)


async def test_a_query_without_words_finds_nothing(storage: Storage) -> None:
    await added(storage, a_document(await made(storage), "Retry twice."))
    for query in ("", "   ", "!!!", "\"'()*:^-", "🙂"):
        assert await found(storage, query) == SearchResult((), (), 0, as_beginnings=False)


async def test_syntax_in_a_query_is_words(storage: Storage) -> None:
    await added(storage, a_document(await made(storage), "Retry twice."))
    for query in (
        'retry" OR corpus_id : "x',
        "retry' | 'x':* & !y",
        "retry AND OR NOT NEAR(",
        "retry*^+{}()<->\\",
        "words : retry; DROP TABLE corpora; --",
        "retry \ud800 %_ \x00",
    ):
        assert await texts(storage, query) == ["Retry twice."], query


async def test_no_corpora_no_hits(storage: Storage) -> None:
    assert (await found(storage, "retry")).hits == ()
    await made(storage)
    assert (await found(storage, "retry")).hits == ()


# ── versions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_version_changes_with_every_change_and_only_then(storage: Storage) -> None:
    corpora = storage.corpora
    seen = [await corpora.version("ada")]

    async def changed() -> None:
        seen.append(await corpora.version("ada"))
        assert await corpora.version("ada") == seen[-1]

    corpus = await made(storage)
    await changed()
    document = await added(storage, a_document(corpus, "One."))
    await changed()
    two = await added(storage, a_document(corpus, "Two."))
    await changed()
    await corpora.replace_document(a_document(corpus, "Three.", document_id=two.document_id), max_passages=9)
    await changed()
    await corpora.delete_document("ada", document.document_id, at(9))
    await changed()
    other = await made(storage, "Other")
    await changed()
    assert len(set(seen)) == len(seen)

    await made(storage)
    await corpora.add_document(a_document(corpus, "Three."), **PLENTY)
    await made(storage, user_id="bob")
    await found(storage, "three")
    assert await corpora.version("ada") == seen[-1]

    await corpora.delete("ada", other.corpus_id)
    assert await corpora.version("ada") == seen[-2]  # exactly what there was


# ── the databases alone ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_deleted_corpus_leaves_nothing_behind(database_url: str) -> None:
    database = open_database(database_url)
    await migrate(database)
    corpora = SqlCorpora(database)
    corpus = await corpora.create(a_corpus(), max_corpora=1)
    document, _ = await corpora.add_document(a_document(corpus, "Retry twice.", "Once."), **PLENTY)
    await corpora.replace_document(a_document(corpus, "Wait.", document_id=document.document_id), max_passages=9)
    await corpora.delete("ada", corpus.corpus_id)

    async def rows(connection: AsyncConnection) -> int:
        left = select(func.count()).select_from(corpus_passages)
        count = int((await connection.execute(left)).scalar_one())
        if connection.dialect.name == "sqlite":
            index = select(func.count(literal_column("id"))).select_from(table("corpus_index_docsize"))
            count += int((await connection.execute(index)).scalar_one())
            await connection.exec_driver_sql("INSERT INTO corpus_index (corpus_index) VALUES ('integrity-check')")
        return count

    assert await database.write(rows) == 0
    await database.close()


async def test_a_large_document_is_found_quickly(database_url: str) -> None:
    database = open_database(database_url)
    await migrate(database)
    corpora = SqlCorpora(database)
    corpus = await corpora.create(a_corpus(), max_corpora=1)
    passages = [f"Passage {n} about topic{n % 97} and more words that stand around it." * 5 for n in range(2_000)]
    await corpora.add_document(a_document(corpus, *passages), max_documents=9, max_passages=2_000)
    began = time.perf_counter()
    result = await corpora.search("ada", "topic13 words", corpus_ids=(), limit=5)
    assert time.perf_counter() - began < 2
    assert all("topic13" in hit.passage.text for hit in result.hits)
    await database.close()


# ── equal on every storage, for whatever is asked ────────────────────────────────────────────────────────────────────

WORDS = st.sampled_from(["retry", "retries", "cache", "caching", "Zürich", "v2", "e-mail", "429", "router", "route"])
TEXTS = st.lists(st.lists(WORDS, min_size=1, max_size=8).map(" ".join), min_size=1, max_size=6)


@pytest.mark.postgres
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(passages=TEXTS, query=st.lists(WORDS, min_size=1, max_size=3).map(" ".join))
async def test_every_storage_finds_the_same(every_storage: Sequence[Storage], passages: list[str], query: str) -> None:
    answers = []
    for storage in every_storage:
        for corpus in await storage.corpora.list("ada"):
            await storage.corpora.delete("ada", corpus.corpus_id)
        corpus = await made(storage)
        await added(storage, a_document(corpus, *passages))
        result = await found(storage, query)
        hits = [(hit.passage.position, hit.spans, round(hit.score, 6)) for hit in result.hits]
        answers.append((result.terms, result.found, result.as_beginnings, hits))
    assert answers[0] == answers[1] == answers[2]
