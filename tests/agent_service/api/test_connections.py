import asyncio

import pytest

from agent_service.api.connections import Connections
from agent_service.engine.errors import ApexError, ErrorReason
from tests.support.waiting import eventually


class Socket:
    """A connection that answers probes, or does not."""

    def __init__(self, connections: Connections, *, answers: bool = True) -> None:
        self.probes = 0
        self.evicted = False
        self._connections = connections
        self._answers = answers

    def probe(self, timeout_ms: int) -> None:
        self.probes += 1
        if self._answers:
            self._connections.answered("ann", self)

    def evict(self) -> None:
        self.evicted = True


@pytest.fixture
def connections() -> Connections:
    return Connections(3, probe_timeout_ms=50)


async def test_up_to_the_limit_nobody_is_asked(connections: Connections) -> None:
    sockets = [Socket(connections) for _ in range(3)]
    for socket in sockets:
        await connections.enter("ann", socket)
    assert connections.count("ann") == 3
    assert [socket.probes for socket in sockets] == [0, 0, 0]


async def test_when_all_answer_the_new_one_is_refused_at_once() -> None:
    patient = Connections(3, probe_timeout_ms=60_000)
    sockets = [Socket(patient) for _ in range(3)]
    for socket in sockets:
        await patient.enter("ann", socket)
    with pytest.raises(ApexError) as failure:
        await asyncio.wait_for(patient.enter("ann", Socket(patient)), 5)
    assert failure.value.reason is ErrorReason.TOO_MANY_CONNECTIONS
    assert [socket.probes for socket in sockets] == [1, 1, 1]
    assert patient.count("ann") == 3


async def test_the_oldest_silent_one_loses_its_place(connections: Connections) -> None:
    alive, first_dead, second_dead = Socket(connections), *(Socket(connections, answers=False) for _ in range(2))
    for socket in (alive, first_dead, second_dead):
        await connections.enter("ann", socket)
    await connections.enter("ann", Socket(connections))
    assert [socket.evicted for socket in (alive, first_dead, second_dead)] == [False, True, False]
    assert connections.count("ann") == 3


async def test_an_answer_in_the_very_moment_of_the_timeout_counts() -> None:
    class Late(Socket):
        def probe(self, timeout_ms: int) -> None:
            loop = asyncio.get_running_loop()
            loop.call_later(timeout_ms / 1000, late.answered, "ann", self)

    late = Connections(1, probe_timeout_ms=0)
    sitting = Late(late)
    await late.enter("ann", sitting)
    with pytest.raises(ApexError) as failure:
        await late.enter("ann", Socket(late))
    assert failure.value.reason is ErrorReason.TOO_MANY_CONNECTIONS
    assert not sitting.evicted


async def test_a_place_that_is_given_back_is_taken_at_once() -> None:
    patient = Connections(1, probe_timeout_ms=60_000)
    leaving = Socket(patient, answers=False)
    await patient.enter("ann", leaving)
    entering = asyncio.create_task(patient.enter("ann", Socket(patient)))
    await eventually(lambda: leaving.probes == 1, what="the probe")
    patient.leave("ann", leaving)
    await asyncio.wait_for(entering, 5)
    assert not leaving.evicted


async def test_more_that_wait_than_there_are_places_are_refused_at_once() -> None:
    patient = Connections(1, probe_timeout_ms=60_000)
    await patient.enter("ann", Socket(patient, answers=False))
    waiting = asyncio.create_task(patient.enter("ann", Socket(patient)))
    await asyncio.sleep(0)
    with pytest.raises(ApexError):
        await patient.enter("ann", Socket(patient))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert patient.count("ann") == 1


async def test_users_do_not_count_for_each_other_and_leave_twice(connections: Connections) -> None:
    mine, of_bob = Socket(connections), Socket(connections)
    await connections.enter("ann", mine)
    await connections.enter("bob", of_bob)
    assert (connections.count("ann"), connections.count("bob")) == (1, 1)
    for _ in range(2):
        connections.leave("ann", mine)
    connections.answered("ann", mine)
    assert connections.count("ann") == 0
