"""Every method of storage that asks for a user, called by somebody else: it finds nothing and changes nothing."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pytest

from storage.errors import RecordNotFoundError
from storage.interfaces import ActionPlans, Corpora, EventLog, Files, Runs, Storage, Threads
from storage.records import Page, Resolution, RunRecord, SearchResult
from tests.support.corpora import Room, a_corpus, a_document
from tests.support.storage import LEASE_MS, a_plan, a_run, accepted, an_ending, at, events, save_file, working

OWNER: Final = "ada"
STRANGER: Final = "bob"
KEY: Final = "key"
ROOM: Final = Room(max_documents=9, max_passages=9)
FIRST: Final = "approval-1"
SECOND: Final = "approval-2"
MAKES_SOMETHING_NEW: Final = frozenset({"Files.upload"})


@dataclass(frozen=True, slots=True)
class Belongings:
    """What the owner has.

    A thread with a finished and an open run, a run that waits for a decision, a file, a corpus with a document, a plan.
    """

    finished: RunRecord
    run: RunRecord
    waiting: RunRecord
    file_id: str
    corpus_id: str
    document_id: str
    plan_id: str


async def owned_in(storage: Storage) -> Belongings:
    finished = await working(storage, a_run(OWNER, key="first"))
    await storage.events.append([an_ending(finished)])
    run = await accepted(storage, a_run(OWNER, thread_id=finished.thread_id, key=KEY))
    waiting = await working(storage, a_run(OWNER))
    await storage.runs.wait(waiting.run_id, waiting.epoch, [FIRST, SECOND], wait_ms=LEASE_MS)
    await storage.runs.resolve(OWNER, replace(an_answer_to(waiting, FIRST), goes_on=False, edited_args={FIRST: b"{}"}))
    waiting = await storage.runs.get(OWNER, waiting.run_id)
    file_id = (await save_file(storage, b"content", OWNER)).file_id
    corpus = await storage.corpora.create(a_corpus(OWNER), max_corpora=9)
    document, _ = await storage.corpora.add_document(a_document(corpus, "Retry twice."), **ROOM)
    plan = await storage.plans.create(a_plan(finished.thread_id, OWNER))
    return Belongings(finished, run, waiting, file_id, corpus.corpus_id, document.document_id, plan.plan_id)


async def passages(storage: Storage, user: str, corpus_id: str) -> Sequence[object]:
    return [passage async for passage in storage.corpora.read(user, corpus_id)]


def an_answer_to(run: RunRecord, approval_id: str = SECOND) -> Resolution:
    told = events(run, run.last_seq, b"resolved")
    return Resolution(run.run_id, run.epoch, run.last_seq, told, (approval_id,), goes_on=True)


async def content(storage: Storage, user: str, file_id: str) -> Sequence[bytes]:
    return [piece async for piece in storage.files.read(user, file_id)]


CALLS: Final[Mapping[str, Callable[[Storage, str, Belongings], Awaitable[object]]]] = {
    "EventLog.read": lambda storage, user, its: storage.events.read(
        user, its.run.run_id, 0, max_events=9, max_bytes=999
    ),
    "Runs.claim_run": lambda storage, user, its: storage.runs.claim_run(user, its.run.run_id, "w9", lease_ms=LEASE_MS),
    "Runs.request_cancel": lambda storage, user, its: storage.runs.request_cancel(user, its.run.run_id, "Stop."),
    "Runs.resolve": lambda storage, user, its: storage.runs.resolve(user, an_answer_to(its.waiting)),
    "Runs.edited_args": lambda storage, user, its: storage.runs.edited_args(user, its.waiting.run_id),
    "Runs.get": lambda storage, user, its: storage.runs.get(user, its.run.run_id),
    "Runs.find_by_client_message": lambda storage, user, _: storage.runs.find_by_client_message(user, KEY),
    "Runs.list": lambda storage, user, _: storage.runs.list(user, page_size=9),
    "Threads.get": lambda storage, user, its: storage.threads.get(user, its.run.thread_id),
    "Threads.list": lambda storage, user, _: storage.threads.list(user, page_size=9),
    "Threads.rename": lambda storage, user, its: storage.threads.rename(user, its.run.thread_id, "Mine", at(500)),
    "Threads.delete": lambda storage, user, its: storage.threads.delete(user, its.run.thread_id),
    "Threads.list_messages": lambda storage, user, its: storage.threads.list_messages(
        user, its.run.thread_id, page_size=9
    ),
    "Threads.history": lambda storage, user, its: storage.threads.history(
        user, its.run.thread_id, before_position=9, limit=9
    ),
    "Files.get": lambda storage, user, its: storage.files.get(user, its.file_id),
    "Files.list": lambda storage, user, _: storage.files.list(user, page_size=9),
    "Files.delete": lambda storage, user, its: storage.files.delete(user, its.file_id),
    "Files.read": lambda storage, user, its: content(storage, user, its.file_id),
    "Files.local_path": lambda storage, user, its: storage.files.local_path(user, its.file_id),
    "Corpora.get": lambda storage, user, its: storage.corpora.get(user, its.corpus_id),
    "Corpora.list": lambda storage, user, _: storage.corpora.list(user),
    "Corpora.delete": lambda storage, user, its: storage.corpora.delete(user, its.corpus_id),
    "Corpora.get_document": lambda storage, user, its: storage.corpora.get_document(user, its.document_id),
    "Corpora.list_documents": lambda storage, user, its: storage.corpora.list_documents(
        user, its.corpus_id, page_size=9
    ),
    "Corpora.delete_document": lambda storage, user, its: storage.corpora.delete_document(
        user, its.document_id, at(500)
    ),
    "Corpora.read": lambda storage, user, its: passages(storage, user, its.corpus_id),
    "Corpora.search": lambda storage, user, _: storage.corpora.search(user, "retries", corpus_ids=(), limit=9),
    "Corpora.version": lambda storage, user, _: changed_version(storage, user),
    # These name their user within the record.
    "Corpora.add_document": lambda storage, user, its: storage.corpora.add_document(
        a_document(its.corpus_id, "Something else.", user_id=user), **ROOM
    ),
    "Corpora.replace_document": lambda storage, user, its: storage.corpora.replace_document(
        a_document(its.corpus_id, "Something else.", user_id=user, document_id=its.document_id), max_passages=9
    ),
    "ActionPlans.get": lambda storage, user, its: storage.plans.get(user, its.plan_id),
    "ActionPlans.list": lambda storage, user, _: storage.plans.list(user, limit=9),
    "ActionPlans.replace": lambda storage, user, its: storage.plans.replace(
        user, its.plan_id, b"changed", version=1, update_time=at(500)
    ),
}
IN_RECORDS: Final = frozenset({"Corpora.add_document", "Corpora.replace_document"})


async def everything(storage: Storage, its: Belongings) -> Sequence[object]:
    """Return all that the owner sees."""
    return (
        await storage.runs.list(OWNER, page_size=9),
        await storage.threads.list(OWNER, page_size=9),
        await storage.threads.list_messages(OWNER, its.run.thread_id, page_size=9),
        await storage.events.read(OWNER, its.run.run_id, 0, max_events=9, max_bytes=999),
        await storage.events.read(OWNER, its.waiting.run_id, 0, max_events=9, max_bytes=999),
        await storage.files.list(OWNER, page_size=9),
        await content(storage, OWNER, its.file_id),
        await storage.corpora.list(OWNER),
        await storage.corpora.version(OWNER),
        await passages(storage, OWNER, its.corpus_id),
        await storage.plans.list(OWNER, limit=9),
    )


async def changed_version(storage: Storage, user: str) -> str:
    """Return the version of a user's corpora where it is not that of somebody who has none."""
    version = await storage.corpora.version(user)
    return "" if version == await storage.corpora.version("nobody") else version


def items(found: object) -> object:
    """Return what is in a page or a search result."""
    if isinstance(found, SearchResult):
        return found.hits
    return found.items if isinstance(found, Page) else found


@pytest.mark.parametrize("method", CALLS)
async def test_somebody_else_finds_nothing_and_changes_nothing(storage: Storage, method: str) -> None:
    its = await owned_in(storage)
    before = await everything(storage, its)
    try:
        found = await CALLS[method](storage, STRANGER, its)
    except RecordNotFoundError:
        found = ()
    assert not items(found)
    assert await everything(storage, its) == before
    # The owner's own call does find or change something: else the one above would prove nothing.
    found = await CALLS[method](storage, OWNER, its)
    assert items(found) or method.endswith((".delete", ".delete_document"))


def test_every_method_that_asks_for_a_user_is_called() -> None:
    asking = {
        f"{protocol.__name__}.{name}"
        for protocol in (EventLog, Runs, Threads, Files, Corpora, ActionPlans)
        for name, method in inspect.getmembers(protocol, inspect.isfunction)
        if "user_id" in inspect.signature(method).parameters
    }
    assert (asking | IN_RECORDS) - MAKES_SOMETHING_NEW == CALLS.keys()
