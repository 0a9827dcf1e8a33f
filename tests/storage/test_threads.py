"""What threads, messages and the list of runs promise, on every storage."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import pytest

from storage.errors import InvalidPageTokenError, RecordNotFoundError
from storage.interfaces import Storage
from storage.records import AppendOutcome, Checkpoint, Page, RunStatus, ThreadConflict, ThreadRecord
from tests.support.storage import (
    LEASE_MS,
    a_run,
    accepted,
    an_append,
    an_ending,
    at,
    new_id,
    save_file,
    working,
)

T = TypeVar("T")


def a_thread(user_id: str = "ada", title: str = "A thread", *, at_s: float = 0) -> ThreadRecord:
    return ThreadRecord(new_id(), user_id, title, at(at_s), at(at_s))


async def all_pages(list_page: Callable[[str], Awaitable[Page[T]]]) -> list[Sequence[T]]:
    """Return every page of a listing; the first is asked for with an empty token."""
    pages = [await list_page("")]
    while pages[-1].next_page_token:
        pages.append(await list_page(pages[-1].next_page_token))
    return [page.items for page in pages]


async def test_a_thread_is_created_and_found(storage: Storage) -> None:
    thread = a_thread(title="Zürich \N{GRINNING FACE}")
    assert await storage.threads.create(thread) == thread
    assert await storage.threads.get("ada", thread.thread_id) == thread


async def test_threads_of_others_are_unknown(storage: Storage) -> None:
    thread = await storage.threads.create(a_thread("ada"))
    thread_id = thread.thread_id
    for user_id, wanted in (("bob", thread_id), ("ada", new_id())):
        with pytest.raises(RecordNotFoundError):
            await storage.threads.get(user_id, wanted)
        with pytest.raises(RecordNotFoundError):
            await storage.threads.rename(user_id, wanted, "mine", at(1))
        with pytest.raises(RecordNotFoundError):
            await storage.threads.delete(user_id, wanted)
        with pytest.raises(RecordNotFoundError):
            await storage.threads.list_messages(user_id, wanted, page_size=9)
        assert list(await storage.threads.history(user_id, wanted, before_position=9, limit=9)) == []
    assert await storage.threads.get("ada", thread_id) == thread
    assert (await storage.threads.list("bob", page_size=9)).items == []


async def test_renaming_sets_title_and_time(storage: Storage) -> None:
    thread = await storage.threads.create(a_thread())
    renamed = await storage.threads.rename("ada", thread.thread_id, "Costs", at(60))
    assert renamed == replace(thread, title="Costs", update_time=at(60))
    assert await storage.threads.get("ada", thread.thread_id) == renamed


async def test_threads_are_listed_by_update_time_newest_first(storage: Storage) -> None:
    old, middle, new = [await storage.threads.create(a_thread(at_s=second)) for second in (1, 2, 3)]
    await storage.threads.create(a_thread("bob"))
    assert list((await storage.threads.list("ada", page_size=9)).items) == [new, middle, old]
    touched = await storage.threads.rename("ada", old.thread_id, "again", at(4))
    assert list((await storage.threads.list("ada", page_size=9)).items) == [touched, new, middle]


@pytest.mark.parametrize(("page_size", "sizes"), [(1, [1] * 6), (2, [2, 2, 2]), (4, [4, 2]), (6, [6]), (7, [6])])
async def test_threads_by_pages(storage: Storage, page_size: int, sizes: list[int]) -> None:
    # Three share each time, so that only the id can tell them apart.
    threads = [await storage.threads.create(a_thread(at_s=number % 2)) for number in range(6)]
    pages = await all_pages(lambda token: storage.threads.list("ada", page_size=page_size, page_token=token))
    assert [len(page) for page in pages] == sizes
    expected = sorted(threads, key=lambda thread: (thread.update_time, thread.thread_id), reverse=True)
    assert [thread for page in pages for thread in page] == expected


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("COST", ["Costs of May"]),
        ("may", ["Costs of May", "Maybe"]),
        ("how MUCH", ["Said"]),
        ("nowhere", []),
        ("%", ["100 % sure"]),
        ("_", []),
        ("\\", []),
        ("'", ["It's"]),
    ],
)
async def test_threads_are_searched_in_titles_and_messages(storage: Storage, query: str, found: list[str]) -> None:
    for title in ("Costs of May", "Maybe", "100 % sure", "It's", "quiet"):
        await storage.threads.create(a_thread(title=title))
    await accepted(storage, replace(a_run(), new_thread_title="Said"))
    await accepted(storage, replace(a_run("bob"), new_thread_title="Costs, how much? It's 100 % \\ _ may"))
    page = await storage.threads.list("ada", query=query, page_size=9)
    assert sorted(thread.title for thread in page.items) == found


async def test_search_knows_more_letters_than_ascii(storage: Storage) -> None:
    await storage.threads.create(a_thread(title="Übersicht"))
    assert len((await storage.threads.list("ada", query="übersICHT", page_size=9)).items) == 1


async def test_an_assistants_words_are_found_but_superseded_ones_are_not(storage: Storage) -> None:
    run = await working(storage, replace(a_run(), content="alpha"))
    rollback = replace(a_run(thread_id=run.thread_id), conflict=ThreadConflict.ROLLBACK, content="gamma")
    successor = await accepted(storage, rollback)
    await storage.events.append([an_ending(run, answer="beta")])
    held = await storage.runs.claim_run("ada", successor.run_id, "w1", lease_ms=LEASE_MS)
    assert held is not None
    await storage.events.append([an_ending(held, answer="delta")])
    hits = {
        word: len((await storage.threads.list("ada", query=word, page_size=9)).items)
        for word in ("alpha", "beta", "gamma", "delta")
    }
    assert hits == {"alpha": 0, "beta": 0, "gamma": 1, "delta": 1}


async def test_deleting_a_thread_removes_all_of_it(storage: Storage) -> None:
    run = await working(storage, a_run(key="k1"))
    checkpoint = Checkpoint(2, 1, b"state")
    await storage.events.append([replace(an_append(run, b"step"), checkpoint=checkpoint)])
    ended = await working(storage, a_run(thread_id=run.thread_id))
    await storage.events.append([an_ending(ended)])
    other = await working(storage, a_run(key="k2"))
    await storage.events.append([replace(an_append(other, b"step"), checkpoint=checkpoint)])
    file = await save_file(storage, b"chart")
    await storage.threads.delete("ada", run.thread_id)
    with pytest.raises(RecordNotFoundError):
        await storage.threads.get("ada", run.thread_id)
    for gone in (run, ended):
        with pytest.raises(RecordNotFoundError):
            await storage.runs.get("ada", gone.run_id)
        with pytest.raises(RecordNotFoundError):
            await storage.events.read("ada", gone.run_id, 0, max_events=9, max_bytes=9)
    with pytest.raises(RecordNotFoundError):
        await storage.runs.find_by_client_message("ada", "k1")
    assert await storage.events.checkpoint(run.run_id) is None
    # A new run of the same id starts from nothing.
    await accepted(storage, replace(a_run(), run_id=run.run_id, user_message_id=run.user_message_id))
    assert len(await storage.events.read("ada", run.run_id, 0, max_events=9, max_bytes=9)) == 1
    # What belongs to others stays.
    assert (await storage.runs.find_by_client_message("ada", "k2")).last_seq == 2
    assert await storage.events.checkpoint(other.run_id) == checkpoint
    assert len(await storage.events.read("ada", other.run_id, 0, max_events=9, max_bytes=99)) == 2
    assert len((await storage.threads.list_messages("ada", other.thread_id, page_size=9)).items) == 1
    assert await storage.files.get("ada", file.file_id) == file


async def test_a_worker_of_a_deleted_thread_is_fenced(storage: Storage) -> None:
    run = await working(storage, a_run())
    await storage.threads.delete("ada", run.thread_id)
    assert list(await storage.events.append([an_ending(run)])) == [AppendOutcome.FENCED]
    (beat,) = await storage.runs.beat("w1", {run.run_id: run.epoch}, lease_ms=LEASE_MS)
    assert not beat.held


async def test_messages_are_listed_by_run_user_before_assistant(storage: Storage) -> None:
    first = await working(storage, replace(a_run(at_s=50), content="one"))
    second = await working(storage, replace(a_run(thread_id=first.thread_id, at_s=1), content="three"))
    # Neither the time nor the order of the endings matters.
    await storage.events.append([an_ending(second, at_s=2, answer="four")])
    await storage.events.append([an_ending(first, at_s=99, answer="two")])
    page = await storage.threads.list_messages("ada", first.thread_id, page_size=9)
    assert [message.content for message in page.items] == ["one", "two", "three", "four"]


@pytest.mark.parametrize(("page_size", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (3, [3, 2]), (5, [5])])
async def test_messages_by_pages(storage: Storage, page_size: int, sizes: list[int]) -> None:
    first = await working(storage, replace(a_run(), content="0"))
    second = await working(storage, replace(a_run(thread_id=first.thread_id), content="2"))
    await accepted(storage, replace(a_run(thread_id=first.thread_id), content="4"))
    await storage.events.append([an_ending(first, answer="1"), an_ending(second, answer="3")][:1])
    await storage.events.append([an_ending(second, answer="3")])
    pages = await all_pages(
        lambda token: storage.threads.list_messages("ada", first.thread_id, page_size=page_size, page_token=token)
    )
    assert [len(page) for page in pages] == sizes
    assert [message.content for page in pages for message in page] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("before_position", "limit", "expected"),
    [(1, 9, []), (2, 9, ["0", "1"]), (3, 9, ["0", "1", "2", "3"]), (3, 3, ["1", "2", "3"]), (9, 1, ["4"]), (9, 0, [])],
)
async def test_history_is_the_last_messages_of_earlier_runs(
    storage: Storage, before_position: int, limit: int, expected: list[str]
) -> None:
    first = await working(storage, replace(a_run(), content="0"))
    second = await working(storage, replace(a_run(thread_id=first.thread_id), content="2"))
    await accepted(storage, replace(a_run(thread_id=first.thread_id), content="4"))
    await storage.events.append([an_ending(second, answer="3")])
    await storage.events.append([an_ending(first, answer="1")])
    history = await storage.threads.history("ada", first.thread_id, before_position=before_position, limit=limit)
    assert [message.content for message in history] == expected


async def test_a_run_is_found_by_its_key(storage: Storage) -> None:
    run = await accepted(storage, a_run("ada", key="k1"))
    await accepted(storage, a_run("ada"))
    assert await storage.runs.find_by_client_message("ada", "k1") == run
    for user_id, key in (("bob", "k1"), ("ada", "k2"), ("ada", "")):
        with pytest.raises(RecordNotFoundError):
            await storage.runs.find_by_client_message(user_id, key)


async def test_somebody_elses_run_is_unknown(storage: Storage) -> None:
    run = await accepted(storage, a_run("ada"))
    for user_id, run_id in (("bob", run.run_id), ("ada", new_id())):
        with pytest.raises(RecordNotFoundError):
            await storage.runs.get(user_id, run_id)


async def test_runs_are_listed_newest_first(storage: Storage) -> None:
    first = await working(storage, a_run(at_s=1))
    await storage.events.append([an_ending(first)])
    second = await accepted(storage, a_run(thread_id=first.thread_id, at_s=2))
    third = await accepted(storage, a_run(at_s=3))
    await accepted(storage, a_run("bob", at_s=4))

    async def listed(*statuses: RunStatus, thread_id: str | None = None) -> list[str]:
        page = await storage.runs.list("ada", thread_id=thread_id, statuses=statuses, page_size=9)
        return [run.run_id for run in page.items]

    assert await listed() == [third.run_id, second.run_id, first.run_id]
    assert await listed(thread_id=first.thread_id) == [second.run_id, first.run_id]
    assert await listed(RunStatus.COMPLETED) == [first.run_id]
    assert await listed(RunStatus.COMPLETED, RunStatus.QUEUED) == [third.run_id, second.run_id, first.run_id]
    assert await listed(RunStatus.QUEUED, thread_id=first.thread_id) == [second.run_id]
    assert await listed(RunStatus.RUNNING) == []
    assert await listed(thread_id=new_id()) == []


@pytest.mark.parametrize(("page_size", "sizes"), [(1, [1] * 4), (3, [3, 1]), (4, [4])])
async def test_runs_by_pages(storage: Storage, page_size: int, sizes: list[int]) -> None:
    runs = [await accepted(storage, a_run(at_s=number % 2)) for number in range(4)]
    pages = await all_pages(lambda token: storage.runs.list("ada", page_size=page_size, page_token=token))
    assert [len(page) for page in pages] == sizes
    expected = sorted(runs, key=lambda run: (run.create_time, run.run_id), reverse=True)
    assert [run for page in pages for run in page] == expected


async def test_queued_runs_of_all_users_are_counted(storage: Storage) -> None:
    assert await storage.runs.count_queued() == 0
    for user_id in ("ada", "bob", "eve"):
        await accepted(storage, a_run(user_id))
    await storage.runs.claim("w1", lease_ms=LEASE_MS, limit=1)
    assert await storage.runs.count_queued() == 2


async def test_a_page_token_serves_its_own_listing_only(storage: Storage) -> None:
    first = await accepted(storage, a_run())
    await accepted(storage, a_run(thread_id=first.thread_id))
    await accepted(storage, a_run())
    token = (await storage.threads.list("ada", page_size=1)).next_page_token
    runs_token = (await storage.runs.list("ada", page_size=1)).next_page_token
    assert token
    assert runs_token
    with pytest.raises(InvalidPageTokenError):
        await storage.threads.list("ada", query="thread", page_size=1, page_token=token)
    with pytest.raises(InvalidPageTokenError):
        await storage.threads.list("bob", page_size=1, page_token=token)
    with pytest.raises(InvalidPageTokenError):
        await storage.runs.list("ada", page_size=1, page_token=token)
    with pytest.raises(InvalidPageTokenError):
        await storage.runs.list("ada", statuses=[RunStatus.QUEUED], page_size=1, page_token=runs_token)
    with pytest.raises(InvalidPageTokenError):
        await storage.threads.list_messages("ada", first.thread_id, page_size=1, page_token=token)
    with pytest.raises(InvalidPageTokenError):
        await storage.files.list("ada", page_size=1, page_token="nonsense")
