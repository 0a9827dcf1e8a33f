import asyncio
from collections.abc import AsyncIterator, Collection

import grpc
import pytest

from agent_service.api.session import MAX_WAITING_REQUESTS
from agent_service.api.watches import MAX_WATCHES
from agent_service.engine.clock import SystemIds
from agent_service.engine.events import PartialResult
from generated.apex.agent.v1 import agent_pb2 as pb
from storage.records import Page, RunRecord, RunStatus
from tests.support.face import Face, make_token, signed_in
from tests.support.gates import Gate
from tests.support.gateway import Gateway, open_gateway

SESSION = "0197f000-0000-7000-8000-00000000000a"
OTHER = "0197f000-0000-7000-8000-00000000000b"
UNKNOWN = "0197f000-0000-7000-8000-0000000000ff"


@pytest.fixture
async def gateway(face: Face) -> AsyncIterator[Gateway]:
    async with open_gateway(face.sessions) as attached:
        yield attached


async def queued_run(face: Face, user_id: str = "ann") -> RunRecord:
    request = pb.StartRunRequest(run=pb.RunAgentRequest(content="hello"))
    started = await face.agents.StartRun(request, metadata=signed_in(user_id))
    return await face.run(started.run_id, user_id)


async def test_a_session_is_told_who_it_is_and_what_is_open(face: Face, gateway: Gateway) -> None:
    run = await queued_run(face)
    await gateway.open(SESSION, make_token("ann", {"scope": "b a"}))
    ready = (await gateway.expect("session_ready", SESSION)).session_ready
    assert (ready.user_id, list(ready.scopes)) == ("ann", ["a", "b"])
    assert [(active.run_id, active.last_seq) for active in ready.active_runs] == [(run.run_id, 1)]


async def test_a_watch_gets_what_follows_its_cursor_then_live_then_its_end(face: Face, gateway: Gateway) -> None:
    run = await queued_run(face)
    await face.stage.emit(run, PartialResult(UNKNOWN, "a"), PartialResult(UNKNOWN, "b"))
    await gateway.signed_in(SESSION)
    await gateway.watch(SESSION, "w", run.run_id, after_seq=1)
    assert [(await gateway.expect("event")).event.seq for _ in range(2)] == [2, 3]
    await face.stage.answer(run)
    last = [await gateway.expect("event") for _ in range(2)]
    assert [item.event.seq for item in last] == [4, 5]
    assert {(item.session_id, item.watch_id) for item in last} == {(SESSION, "w")}
    # The thread was touched by the answer only in storage; nothing else may come between.
    ended = (await gateway.expect("watch_ended")).watch_ended
    assert (ended.reason, ended.last_seq) == (pb.ERROR_REASON_UNSPECIFIED, 5)


async def test_an_id_can_be_opened_again_right_after_it_was_closed(gateway: Gateway) -> None:
    await gateway.signed_in(SESSION)
    await gateway.say(close_session=pb.CloseSession(session_id=SESSION))
    await gateway.open(SESSION, make_token("ann"))
    await gateway.expect("session_ended", SESSION)
    await gateway.expect("session_ready", SESSION)


async def test_the_event_in_an_item_is_the_committed_one(face: Face, gateway: Gateway) -> None:
    run = await queued_run(face)
    await gateway.signed_in(SESSION)
    await gateway.watch(SESSION, "w", run.run_id)
    stored = await face.storage.events.read("ann", run.run_id, 0, max_events=1, max_bytes=1_000_000)
    item = await gateway.expect("event")
    assert item.event == pb.AgentEvent.FromString(stored[0].data)


async def test_what_is_ready_shares_a_response(face: Face, gateway: Gateway) -> None:
    run = await queued_run(face)
    await face.stage.emit(run, *(PartialResult(UNKNOWN, "x") for _ in range(500)))
    await gateway.signed_in(SESSION)
    before = gateway.responses
    await gateway.watch(SESSION, "w", run.run_id)
    seqs = [(await gateway.expect("event")).event.seq for _ in range(501)]
    assert seqs == list(range(1, 502))
    assert gateway.responses - before < 10


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("nonsense", pb.ERROR_REASON_UNAUTHENTICATED),
        (make_token(lifetime_s=-1), pb.ERROR_REASON_TOKEN_EXPIRED),
        (make_token(secret="another secret that is long enough, too"), pb.ERROR_REASON_UNAUTHENTICATED),
    ],
)
async def test_a_bad_token_ends_its_session_and_no_other(
    gateway: Gateway, token: str, reason: pb.ErrorReason.ValueType
) -> None:
    await gateway.signed_in(OTHER)
    await gateway.open(SESSION, token)
    ended = await gateway.expect("session_ended", SESSION)
    assert ended.session_ended.reason == reason
    assert token not in ended.session_ended.message
    await gateway.open(OTHER)
    await gateway.expect("session_ready", OTHER)


async def test_a_watch_that_cannot_begin_ends_with_its_reason(face: Face, gateway: Gateway) -> None:
    run, of_bob = await queued_run(face), await queued_run(face, "bob")
    await gateway.signed_in(SESSION)
    for run_id, after_seq, reason in (
        (UNKNOWN, 0, pb.ERROR_REASON_NOT_FOUND),
        (of_bob.run_id, 0, pb.ERROR_REASON_NOT_FOUND),
        (run.run_id, 7, pb.ERROR_REASON_CURSOR_AHEAD),
        ("not an id", 0, pb.ERROR_REASON_INVALID_ARGUMENT),
    ):
        await gateway.watch(SESSION, "w", run_id, after_seq)
        item = await gateway.expect("watch_ended", SESSION)
        assert (item.watch_id, item.watch_ended.reason) == ("w", reason)


async def test_a_watch_of_a_thread_is_not_there_yet(gateway: Gateway) -> None:
    await gateway.signed_in(SESSION)
    request = pb.WatchThreadItem(session_id=SESSION, watch_id="w", thread_id=UNKNOWN)
    await gateway.say(watch_thread=request)
    ended = (await gateway.expect("watch_ended", SESSION)).watch_ended
    assert ended.reason == pb.ERROR_REASON_UNKNOWN_TYPE


async def test_requests_about_no_session(gateway: Gateway) -> None:
    await gateway.watch(SESSION, "w", UNKNOWN)
    item = await gateway.expect("watch_ended", SESSION)
    assert item.watch_ended.reason == pb.ERROR_REASON_NOT_FOUND
    await gateway.call.write(pb.AttachRequest())
    item = await gateway.expect("session_ended")
    assert item.session_ended.reason == pb.ERROR_REASON_INVALID_ARGUMENT
    # Ends that meet nothing are fine, and the call goes on.
    await gateway.say(close_session=pb.CloseSession(session_id=SESSION))
    await gateway.say(unwatch=pb.Unwatch(session_id=SESSION, watch_id="w"))
    await gateway.say(session_alive=pb.SessionAlive(session_id=SESSION))
    await gateway.signed_in(SESSION)


async def test_a_watch_starts_again_from_a_new_cursor(face: Face, gateway: Gateway) -> None:
    run = await queued_run(face)
    await gateway.signed_in(SESSION)
    await gateway.watch(SESSION, "w", run.run_id)
    assert (await gateway.expect("event")).event.seq == 1
    await gateway.watch(SESSION, "w", run.run_id)
    assert (await gateway.expect("event")).event.seq == 1
    await face.stage.emit(run, PartialResult(UNKNOWN, "a"))
    assert (await gateway.expect("event")).event.seq == 2
    await gateway.say(unwatch=pb.Unwatch(session_id=SESSION, watch_id="w"))
    await gateway.open(SESSION)
    await gateway.expect("session_ready")
    await face.stage.answer(run)
    await gateway.say(close_session=pb.CloseSession(session_id=SESSION))
    await gateway.expect("session_ended")


async def test_thread_changes_reach_every_session_of_the_user_only(face: Face, gateway: Gateway) -> None:
    await gateway.signed_in(SESSION)
    await gateway.signed_in(OTHER, user_id="bob")
    created = await face.threads.CreateThread(pb.CreateThreadRequest(title="New"), metadata=signed_in())
    item = await gateway.expect("thread_changed", SESSION)
    assert item.thread_changed.change == pb.THREAD_CHANGE_CREATED
    assert item.thread_changed.thread == created.thread
    delete = pb.DeleteThreadRequest(thread_id=created.thread.thread_id)
    await face.threads.DeleteThread(delete, metadata=signed_in())
    item = await gateway.expect("thread_changed", SESSION)
    assert item.thread_changed.change == pb.THREAD_CHANGE_DELETED


async def test_a_change_while_a_session_begins_is_not_missed(
    face: Face, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, listing = Gate(is_open=False), face.storage.runs.list

    async def read_slowly(
        user_id: str,
        *,
        thread_id: str | None = None,
        statuses: Collection[RunStatus] = (),
        page_size: int,
        page_token: str = "",
    ) -> Page[RunRecord]:
        found = await listing(
            user_id, thread_id=thread_id, statuses=statuses, page_size=page_size, page_token=page_token
        )
        await reading.passage()
        return found

    monkeypatch.setattr(face.storage.runs, "list", read_slowly)
    await gateway.open(SESSION)
    await reading.reached()
    created = await face.threads.CreateThread(pb.CreateThreadRequest(title="New"), metadata=signed_in())
    reading.open()
    await gateway.expect("session_ready", SESSION)
    item = await gateway.expect("thread_changed", SESSION)
    assert item.thread_changed.thread == created.thread


async def test_the_tokens_end_is_announced_and_ends_watches_with_their_last_seq(face: Face, gateway: Gateway) -> None:
    run = await queued_run(face)
    await gateway.open(SESSION, make_token(lifetime_s=0.8))
    await gateway.expect("session_ready")
    expiring = (await gateway.expect("session_expiring")).session_expiring
    assert 0 < expiring.expires_in_ms <= 800
    await gateway.watch(SESSION, "w", run.run_id)
    await gateway.expect("event")
    watch = await gateway.expect("watch_ended", SESSION)
    assert (watch.watch_ended.reason, watch.watch_ended.last_seq) == (pb.ERROR_REASON_TOKEN_EXPIRED, 1)
    assert (await gateway.expect("session_ended")).session_ended.reason == pb.ERROR_REASON_TOKEN_EXPIRED


async def test_a_fresh_token_renews_the_session_and_its_watches_go_on(face: Face, gateway: Gateway) -> None:
    run = await queued_run(face)
    await gateway.open(SESSION, make_token(lifetime_s=0.8))
    await gateway.expect("session_ready")
    await gateway.expect("session_expiring")
    await gateway.watch(SESSION, "w", run.run_id)
    await gateway.expect("event")
    await gateway.open(SESSION, make_token(lifetime_s=1_000))
    renewed = (await gateway.expect("session_ready")).session_ready
    assert renewed.active_runs[0].run_id == run.run_id
    await face.stage.answer(run)
    assert [(await gateway.expect("event")).event.seq for _ in range(2)] == [2, 3]


async def test_a_session_is_not_renewed_with_a_bad_token(gateway: Gateway) -> None:
    await gateway.signed_in(SESSION)
    await gateway.open(SESSION, "nonsense")
    ended = (await gateway.expect("session_ended", SESSION)).session_ended
    assert ended.reason == pb.ERROR_REASON_UNAUTHENTICATED


async def test_a_token_of_another_user_ends_the_session(gateway: Gateway) -> None:
    await gateway.signed_in(SESSION)
    await gateway.open(SESSION, user_id="bob")
    ended = (await gateway.expect("session_ended", SESSION)).session_ended
    assert ended.reason == pb.ERROR_REASON_PERMISSION_DENIED


async def test_the_fourth_connection_takes_the_place_of_one_that_does_not_answer(gateway: Gateway) -> None:
    first, second, third, fourth = (SystemIds().new() for _ in range(4))
    for session_id in (first, second, third):
        await gateway.signed_in(session_id)
    await gateway.open(fourth)
    for _ in range(3):
        probe = await gateway.expect("session_probe")
        assert probe.session_probe.timeout_ms == 2_000
        if probe.session_id != second:
            await gateway.say(session_alive=pb.SessionAlive(session_id=probe.session_id))
    items = {item.session_id: item for item in (await gateway.item(), await gateway.item())}
    assert items[second].session_ended.reason == pb.ERROR_REASON_TOO_MANY_CONNECTIONS
    assert items[fourth].WhichOneof("item") == "session_ready"


async def test_the_fourth_connection_is_refused_when_all_answer(gateway: Gateway) -> None:
    for _ in range(3):
        await gateway.signed_in(SystemIds().new())
    await gateway.open(SESSION)
    for _ in range(3):
        probe = await gateway.expect("session_probe")
        await gateway.say(session_alive=pb.SessionAlive(session_id=probe.session_id))
    ended = (await gateway.expect("session_ended", SESSION)).session_ended
    assert ended.reason == pb.ERROR_REASON_TOO_MANY_CONNECTIONS
    assert ended.retry_after_ms > 0


async def test_connections_are_counted_over_all_gateways_and_given_back(face: Face, gateway: Gateway) -> None:
    async with open_gateway(face.sessions) as second:
        for _ in range(3):
            await second.signed_in(SystemIds().new())
    await gateway.signed_in(SESSION)


async def test_closing_a_session_gives_its_place_back(gateway: Gateway) -> None:
    ids = [SystemIds().new() for _ in range(3)]
    for session_id in ids:
        await gateway.signed_in(session_id)
    await gateway.say(close_session=pb.CloseSession(session_id=ids[0]))
    ended = (await gateway.expect("session_ended", ids[0])).session_ended
    assert ended.reason == pb.ERROR_REASON_UNSPECIFIED
    await gateway.signed_in(SESSION)


async def test_a_session_has_a_bounded_number_of_watches(face: Face, gateway: Gateway) -> None:
    run = await queued_run(face)
    await gateway.signed_in(SESSION)
    for number in range(MAX_WATCHES + 1):
        await gateway.watch(SESSION, f"w{number}", run.run_id)
    items = [await gateway.item() for _ in range(MAX_WATCHES + 1)]
    refused = [item for item in items if item.HasField("watch_ended")]
    assert [item.watch_id for item in refused] == [f"w{MAX_WATCHES}"]
    assert refused[0].watch_ended.reason == pb.ERROR_REASON_RATE_LIMITED


async def test_a_session_that_is_flooded_ends(gateway: Gateway) -> None:
    for _ in range(3):
        await gateway.signed_in(SystemIds().new())
    await gateway.open(SESSION)  # waits for probes, so that its requests pile up
    for _ in range(MAX_WAITING_REQUESTS + 1):
        await gateway.watch(SESSION, "w", UNKNOWN)
    ended = await gateway.until("session_ended")
    assert ended.session_id == SESSION


async def test_draining_ends_every_session_then_the_call(face: Face, gateway: Gateway) -> None:
    run = await queued_run(face)
    await gateway.signed_in(SESSION)
    await gateway.watch(SESSION, "w", run.run_id)
    await gateway.expect("event")
    await face.server.drain()
    watch = (await gateway.expect("watch_ended")).watch_ended
    assert (watch.reason, watch.last_seq) == (pb.ERROR_REASON_DRAINING, 1)
    ended = (await gateway.expect("session_ended")).session_ended
    assert ended.reason == pb.ERROR_REASON_DRAINING
    assert ended.retry_after_ms > 0
    assert await gateway.ended()
    assert await gateway.call.code() is grpc.StatusCode.OK


async def test_a_gateway_that_ends_its_side_ends_the_call(face: Face, gateway: Gateway) -> None:
    await gateway.signed_in(SESSION)
    await gateway.call.done_writing()
    async with asyncio.timeout(5):
        assert await gateway.call.code() is grpc.StatusCode.OK
    assert face.metrics.get_sample_value("apex_sessions") == 0
