import pytest

from agent_service.engine.beginnings import MAX_BEGINNING_BYTES, MAX_BEGINNINGS_BYTES, Beginnings
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.events import AgentCompleted
from storage.memory import MemoryStorage
from storage.records import StoredEvent
from tests.support.gates import Gate
from tests.support.workshop import Workshop, held, user


def events(run_id: str, first: int, last: int, *, size: int = 1, terminal: bool = False) -> list[StoredEvent]:
    return [StoredEvent(run_id, seq, b"x" * size, terminal and seq == last) for seq in range(first, last + 1)]


def begun(user_id: str = "ann", run_id: str = "r", *, size: int = 1) -> Beginnings:
    beginnings = Beginnings()
    beginnings.begin(user_id, run_id, events(run_id, 1, 1, size=size))
    return beginnings


def test_a_beginning_grows_with_what_is_committed() -> None:
    beginnings = begun()
    beginnings.extend("r", events("r", 2, 4))
    assert [event.seq for event in beginnings.find("ann", "r")] == [1, 2, 3, 4]


def test_it_is_its_users_alone() -> None:
    assert not begun().find("bob", "r")


def test_a_run_that_did_not_begin_here_is_left_to_the_log() -> None:
    beginnings = begun()
    beginnings.extend("other", events("other", 1, 2))
    assert not beginnings.find("ann", "other")


@pytest.mark.parametrize("first", [1, 3])
def test_what_does_not_continue_it_ends_it(first: int) -> None:
    beginnings = begun()
    beginnings.extend("r", events("r", first, first))
    assert not beginnings.find("ann", "r")


def test_the_end_of_the_run_ends_it() -> None:
    beginnings = begun()
    beginnings.extend("r", events("r", 2, 3, terminal=True))
    assert not beginnings.find("ann", "r")


def test_one_that_grows_too_large_is_forgotten() -> None:
    beginnings = begun()
    beginnings.extend("r", events("r", 2, 2, size=MAX_BEGINNING_BYTES - 1))
    assert beginnings.find("ann", "r")
    beginnings.extend("r", events("r", 3, 3))
    assert not beginnings.find("ann", "r")


def test_the_oldest_go_when_all_together_are_too_large() -> None:
    beginnings = Beginnings()
    fitting = MAX_BEGINNINGS_BYTES // MAX_BEGINNING_BYTES
    for number in range(fitting):
        beginnings.begin("ann", str(number), events(str(number), 1, 1, size=MAX_BEGINNING_BYTES))
    assert beginnings.find("ann", "0")
    beginnings.begin("ann", "one more", events("one more", 1, 1))
    assert not beginnings.find("ann", "0")
    assert all(beginnings.find("ann", str(number)) for number in range(1, fitting))


def test_what_has_not_grown_for_a_while_is_forgotten() -> None:
    beginnings = begun()
    beginnings.tick()
    beginnings.extend("r", events("r", 2, 2))
    beginnings.tick()
    assert beginnings.find("ann", "r")
    beginnings.tick()
    assert not beginnings.find("ann", "r")


async def test_the_database_is_not_asked_about_what_was_just_accepted(memory: MemoryStorage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(memory, poll_interval_ms=60_000) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await shop.accept("hello")
        await gate.reached()
        shop.storage.failing.add("get")
        shop.storage.log.reads.close()
        watch = await shop.broadcast.watch(user("ann"), run.run_id, 0)
        assert (await anext(watch))[0].seq == 1
        with pytest.raises(ApexError) as refusal:
            await shop.broadcast.watch(user("bob"), run.run_id, 0)
        assert refusal.value.reason is ErrorReason.STORAGE_UNAVAILABLE  # asked, as about any run that is not his
        shop.storage.failing.clear()
        shop.storage.log.reads.open()
        gate.open()
        assert (await shop.told(run)).of(AgentCompleted)
        watch.close()


async def test_a_new_run_that_another_process_works_on_is_looked_up_soon(memory: MemoryStorage) -> None:
    async with (
        Workshop(memory, slots=0, poll_interval_ms=60_000, broadcast_poll_ms=60_000) as here,
        Workshop(memory, alone=False, worker_id="other", poll_interval_ms=1) as there,
    ):
        run = await here.accept("hello")
        assert (await there.told(run)).of(AgentCompleted)
        assert (await here.told(run)).of(AgentCompleted)
