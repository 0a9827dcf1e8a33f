"""Plans of actions: kept, changed by one at a time, gone with their thread."""

import pytest

from storage.errors import RecordNotFoundError
from storage.interfaces import Storage
from tests.support.storage import a_plan, a_run, accepted, at, new_id


async def a_thread(storage: Storage, user_id: str = "ada") -> str:
    return (await accepted(storage, a_run(user_id))).thread_id


async def test_a_plan_comes_back_as_it_was_saved(storage: Storage) -> None:
    plan = a_plan(await a_thread(storage), at_s=1.25, document=b"\x00{}\xff")
    assert await storage.plans.create(plan) == plan
    assert await storage.plans.get("ada", plan.plan_id) == plan


async def test_creating_it_again_keeps_what_has_changed_since(storage: Storage) -> None:
    plan = await storage.plans.create(a_plan(await a_thread(storage)))
    changed = await storage.plans.replace("ada", plan.plan_id, b"changed", version=1, update_time=at(5))
    assert await storage.plans.create(plan) == changed


async def test_a_change_counts_the_version_and_the_loser_of_a_race_changes_nothing(storage: Storage) -> None:
    plan = await storage.plans.create(a_plan(await a_thread(storage)))
    changed = await storage.plans.replace("ada", plan.plan_id, b"first", version=1, update_time=at(5))
    assert changed is not None
    assert (changed.version, changed.document, changed.update_time) == (2, b"first", at(5))
    assert changed.create_time == plan.create_time
    assert await storage.plans.replace("ada", plan.plan_id, b"second", version=1, update_time=at(6)) is None
    assert await storage.plans.get("ada", plan.plan_id) == changed


async def test_the_list_is_by_change_newest_first_and_bounded(storage: Storage) -> None:
    thread_id = await a_thread(storage)
    first, second, third = [await storage.plans.create(a_plan(thread_id, at_s=number)) for number in range(3)]
    await storage.plans.replace("ada", first.plan_id, b"changed", version=1, update_time=at(9))
    listed = await storage.plans.list("ada", limit=2)
    assert [plan.plan_id for plan in listed] == [first.plan_id, third.plan_id]
    assert [plan.plan_id for plan in await storage.plans.list("ada", limit=9)][-1] == second.plan_id


async def test_what_is_not_there_is_not_found(storage: Storage) -> None:
    with pytest.raises(RecordNotFoundError):
        await storage.plans.get("ada", new_id())
    with pytest.raises(RecordNotFoundError):
        await storage.plans.replace("ada", new_id(), b"", version=1, update_time=at(1))
    assert list(await storage.plans.list("ada", limit=9)) == []


async def test_a_plan_goes_with_its_thread_and_no_other(storage: Storage) -> None:
    gone, kept = await a_thread(storage), await a_thread(storage)
    lost = await storage.plans.create(a_plan(gone))
    stays = await storage.plans.create(a_plan(kept))
    await storage.threads.delete("ada", gone)
    assert [plan.plan_id for plan in await storage.plans.list("ada", limit=9)] == [stays.plan_id]
    with pytest.raises(RecordNotFoundError):
        await storage.plans.get("ada", lost.plan_id)
