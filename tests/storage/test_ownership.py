"""Every method of storage that asks for a user, called by somebody else: it finds nothing and changes nothing."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pytest

from storage.errors import RecordNotFoundError
from storage.interfaces import ActionPlans, EventLog, Files, Runs, Storage, Threads
from storage.records import Page, RunRecord
from tests.support.storage import LEASE_MS, a_plan, a_run, accepted, an_ending, at, save_file, working

OWNER: Final = "ada"
STRANGER: Final = "bob"
KEY: Final = "key"
MAKES_SOMETHING_NEW: Final = frozenset({"Files.upload"})


@dataclass(frozen=True, slots=True)
class Belongings:
    """What the owner has: a thread with a finished and an open run, a file, and a plan."""

    finished: RunRecord
    run: RunRecord
    file_id: str
    plan_id: str


async def owned_in(storage: Storage) -> Belongings:
    finished = await working(storage, a_run(OWNER, key="first"))
    await storage.events.append([an_ending(finished)])
    run = await accepted(storage, a_run(OWNER, thread_id=finished.thread_id, key=KEY))
    plan = await storage.plans.create(a_plan(finished.thread_id, OWNER))
    return Belongings(finished, run, (await save_file(storage, b"content", OWNER)).file_id, plan.plan_id)


async def content(storage: Storage, user: str, file_id: str) -> Sequence[bytes]:
    return [piece async for piece in storage.files.read(user, file_id)]


CALLS: Final[Mapping[str, Callable[[Storage, str, Belongings], Awaitable[object]]]] = {
    "EventLog.read": lambda storage, user, its: storage.events.read(
        user, its.run.run_id, 0, max_events=9, max_bytes=999
    ),
    "Runs.claim_run": lambda storage, user, its: storage.runs.claim_run(user, its.run.run_id, "w9", lease_ms=LEASE_MS),
    "Runs.request_cancel": lambda storage, user, its: storage.runs.request_cancel(user, its.run.run_id, "Stop."),
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
    "ActionPlans.get": lambda storage, user, its: storage.plans.get(user, its.plan_id),
    "ActionPlans.list": lambda storage, user, _: storage.plans.list(user, limit=9),
    "ActionPlans.replace": lambda storage, user, its: storage.plans.replace(
        user, its.plan_id, b"changed", version=1, update_time=at(500)
    ),
}


async def everything(storage: Storage, its: Belongings) -> Sequence[object]:
    """Return all that the owner sees."""
    return (
        await storage.runs.list(OWNER, page_size=9),
        await storage.threads.list(OWNER, page_size=9),
        await storage.threads.list_messages(OWNER, its.run.thread_id, page_size=9),
        await storage.events.read(OWNER, its.run.run_id, 0, max_events=9, max_bytes=999),
        await storage.files.list(OWNER, page_size=9),
        await content(storage, OWNER, its.file_id),
        await storage.plans.list(OWNER, limit=9),
    )


@pytest.mark.parametrize("method", CALLS)
async def test_somebody_else_finds_nothing_and_changes_nothing(storage: Storage, method: str) -> None:
    its = await owned_in(storage)
    before = await everything(storage, its)
    try:
        found = await CALLS[method](storage, STRANGER, its)
    except RecordNotFoundError:
        found = ()
    assert not (found.items if isinstance(found, Page) else found)
    assert await everything(storage, its) == before
    # The owner's own call does find or change something: else the one above would prove nothing.
    found = await CALLS[method](storage, OWNER, its)
    assert (found.items if isinstance(found, Page) else found) or method.endswith(".delete")


def test_every_method_that_asks_for_a_user_is_called() -> None:
    asking = {
        f"{protocol.__name__}.{name}"
        for protocol in (EventLog, Runs, Threads, Files, ActionPlans)
        for name, method in inspect.getmembers(protocol, inspect.isfunction)
        if "user_id" in inspect.signature(method).parameters
    }
    assert asking - MAKES_SOMETHING_NEW == CALLS.keys()
