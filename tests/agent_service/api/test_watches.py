import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from agent_service.api.auth import token_expired
from agent_service.api.metrics import ApiMetrics
from agent_service.api.outbox import Outbox
from agent_service.api.watches import MAX_UNSENT_BYTES, Watches, WatchServices
from agent_service.engine.broadcast import Broadcast
from agent_service.engine.clock import SystemIds
from agent_service.engine.events import PartialResult
from generated.apex.agent.v1 import agent_pb2 as pb
from storage.memory import MemoryEventLog
from storage.memory_state import MemoryState
from storage.records import RunRecord, StoredEvent
from tests.support.face import Face, signed_in, user_of
from tests.support.gates import settle
from tests.support.waiting import eventually

KEY = "0197f000-0000-7000-8000-00000000000a"


class BrokenLog(MemoryEventLog):
    """A log with a defect."""

    def __init__(self) -> None:
        super().__init__(MemoryState(lambda: datetime.now(UTC)))

    async def read(
        self, user_id: str, run_id: str, after_seq: int, *, max_events: int, max_bytes: int
    ) -> Sequence[StoredEvent]:
        raise RuntimeError("a secret of ours")


async def started_run(face: Face) -> RunRecord:
    request = pb.StartRunRequest(run=pb.RunAgentRequest(content="hello"))
    return await face.run((await face.agents.StartRun(request, metadata=signed_in())).run_id)


def watches_into(face: Face, outbox: Outbox) -> Watches:
    services = WatchServices(face.stage.broadcast, SystemIds(), ApiMetrics(CollectorRegistry()))
    return Watches("s", outbox, services)


async def items_of(outbox: Outbox) -> list[pb.AttachResponse.Item]:
    return list(pb.AttachResponse.FromString(await outbox.take()).items)


async def test_a_watch_puts_little_into_an_outbox_that_nobody_empties(face: Face) -> None:
    run, outbox, size = await started_run(face), Outbox(), 10_000
    watches_into(face, outbox).start(user_of("ann"), pb.WatchRunItem(watch_id="w", run_id=run.run_id))
    await items_of(outbox)
    await settle()
    before = outbox.put_bytes
    for _ in range(30):
        await face.stage.emit(run, PartialResult(KEY, "y" * size))
        await settle()
    # One event passes the bound, and one more waits for its turn outside the broadcast's queue.
    assert MAX_UNSENT_BYTES < outbox.put_bytes - before < MAX_UNSENT_BYTES + 2.5 * size


async def test_a_watch_whose_gateway_does_not_read_is_slow_and_no_other_is(face: Face) -> None:
    run = await started_run(face)
    unread, read = Outbox(), Outbox()
    watches_into(face, unread).start(user_of("ann"), pb.WatchRunItem(watch_id="w", run_id=run.run_id))
    watches_into(face, read).start(user_of("ann"), pb.WatchRunItem(watch_id="w", run_id=run.run_id))
    assert [item.event.seq for item in await items_of(unread)] == [1]
    assert [item.event.seq for item in await items_of(read)] == [1]
    for _ in range(10):  # both watches reach the end of the log: from here on they are live
        await asyncio.sleep(0)
    for _ in range(30):
        (event,) = await face.stage.emit(run, PartialResult(KEY, "y" * 60_000))
        assert [item.event.seq for item in await items_of(read)] == [event.seq]
    seen = [1]
    ended: list[pb.WatchEnded] = []
    while not ended:
        items = await items_of(unread)
        seen += [item.event.seq for item in items if item.HasField("event")]
        ended = [item.watch_ended for item in items if item.HasField("watch_ended")]
    assert seen == list(range(1, len(seen) + 1))
    assert (ended[0].reason, ended[0].last_seq) == (pb.ERROR_REASON_SLOW_CONSUMER, seen[-1])


async def test_a_watch_that_is_ended_says_the_last_event_that_goes_before_its_end(face: Face) -> None:
    run = await started_run(face)
    outbox = Outbox()
    watches = watches_into(face, outbox)
    watches.start(user_of("ann"), pb.WatchRunItem(watch_id="w", run_id=run.run_id))
    for _ in range(10):  # the event is in the outbox, and nobody has taken it
        await asyncio.sleep(0)
    watches.stop_all(token_expired())
    event, ended = await items_of(outbox)
    assert event.event.seq == 1
    assert (ended.watch_ended.reason, ended.watch_ended.last_seq) == (pb.ERROR_REASON_TOKEN_EXPIRED, 1)


async def test_a_defect_ends_its_watch_with_an_error_id_and_nothing_of_itself(face: Face) -> None:
    run = await started_run(face)
    outbox = Outbox()
    broken = Broadcast(BrokenLog(), face.storage.runs)
    services = WatchServices(broken, SystemIds(), ApiMetrics(CollectorRegistry()))
    watches = Watches("s", outbox, services)
    watches.start(user_of("ann"), pb.WatchRunItem(watch_id="w", run_id=run.run_id))
    ended = (await items_of(outbox))[0].watch_ended
    assert ended.reason == pb.ERROR_REASON_INTERNAL
    assert ended.error_id in ended.message
    assert "secret" not in ended.message


@pytest.mark.parametrize("end", ["stop", "stop_all"])
async def test_a_stopped_watch_leaves_nothing_behind(face: Face, end: str) -> None:
    run = await started_run(face)
    name = f"watch-{run.run_id}"
    watches = watches_into(face, Outbox())
    watches.start(user_of("ann"), pb.WatchRunItem(watch_id="w", run_id=run.run_id, after_seq=1))
    await asyncio.sleep(0)
    assert name in {task.get_name() for task in asyncio.all_tasks()}
    watches.stop("w") if end == "stop" else watches.stop_all(None)
    await eventually(
        lambda: name not in {task.get_name() for task in asyncio.all_tasks()}, what="the watch's task has ended"
    )


async def test_nothing_comes_behind_the_end_of_a_watch(face: Face) -> None:
    run, outbox = await started_run(face), Outbox()
    watches = watches_into(face, outbox)
    watches.start(user_of("ann"), pb.WatchRunItem(watch_id="w", run_id=run.run_id))
    await items_of(outbox)
    await settle()
    watches.stop_all(token_expired())
    await face.stage.emit(run, PartialResult(KEY, "too late"))
    (ended,) = await items_of(outbox)
    assert ended.watch_ended.last_seq == 1
    await settle()
    assert outbox.has_taken(outbox.put_bytes)
