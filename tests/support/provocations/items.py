"""Errors as items of the Attach call: the end of a session or of a watch."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from agent_service.api.session import MAX_WAITING_REQUESTS
from agent_service.api.watches import MAX_WATCHES
from agent_service.engine.clock import SystemIds
from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.face import make_token
from tests.support.gateway import Gateway, open_gateway
from tests.support.provocations.registry import Provocations, Told, Transport
from tests.support.provocations.scenes import UNKNOWN, WITHOUT_ISSUER, big_run, busy
from tests.support.storage import new_id
from tests.support.waiting import eventually
from tests.support.whole_system import WholeSystem

SESSION: Final = "0197f000-0000-7000-8000-00000000000a"
WATCH: Final = "w"
INVALID: Final = re.compile(r"The request is not valid: ([^:]+): ")
"""An item has no list of violations: its text names the first."""

ITEMS: Final = Provocations(Transport.ITEM)


def told_by(item: pb.AttachResponse.Item) -> Told:
    """Return what the end of a session or of a watch says."""
    ended = item.session_ended if item.HasField("session_ended") else item.watch_ended
    path = INVALID.match(ended.message)
    return Told(
        reason=pb.ErrorReason.Name(ended.reason).removeprefix("ERROR_REASON_"),
        message=ended.message,
        everything=str(item),
        retry_after_ms=ended.retry_after_ms,
        violations=[path[1]] if path else [],
        error_id=ended.error_id,
    )


@asynccontextmanager
async def attached(system: WholeSystem) -> AsyncIterator[Gateway]:
    """A gateway with one session of `ann`."""
    async with open_gateway(system.sessions) as gateway:
        await gateway.signed_in(SESSION)
        yield gateway


async def session_refused(system: WholeSystem, token: str = "") -> Told:
    """Open a session, which the service ends."""
    async with open_gateway(system.sessions) as gateway:
        await gateway.open(SESSION, token)
        return told_by(await gateway.expect("session_ended", SESSION))


async def watch_refused(system: WholeSystem, run_id: str, after_seq: int = 0) -> Told:
    """Watch a run, which the service refuses."""
    async with attached(system) as gateway:
        await gateway.watch(SESSION, WATCH, run_id, after_seq)
        return told_by(await gateway.expect("watch_ended", SESSION))


@ITEMS.of("UNAUTHENTICATED")
async def session_of_nobody(system: WholeSystem) -> Told:
    return await session_refused(system, "nonsense")


@ITEMS.of("TOKEN_EXPIRED")
async def session_with_an_old_token(system: WholeSystem) -> Told:
    return await session_refused(system, make_token(lifetime_s=-1))


@ITEMS.of("TOKEN_EXPIRED")
async def session_whose_token_ends(system: WholeSystem) -> Told:
    async with open_gateway(system.sessions) as gateway:
        await gateway.open(SESSION, make_token(lifetime_s=1.5))
        await gateway.expect("session_ready", SESSION)
        return told_by(await gateway.until("session_ended"))


@ITEMS.of("PERMISSION_DENIED")
async def session_renewed_by_somebody_else(system: WholeSystem) -> Told:
    async with attached(system) as gateway:
        await gateway.open(SESSION, user_id="bob")
        return told_by(await gateway.expect("session_ended", SESSION))


@ITEMS.of("NOT_FOUND")
async def watch_of_a_run_of_somebody_else(system: WholeSystem) -> Told:
    return await watch_refused(system, (await system.start(user="bob")).run_id)


@ITEMS.of("NOT_FOUND")
async def watch_without_a_session(system: WholeSystem) -> Told:
    async with open_gateway(system.sessions) as gateway:
        await gateway.watch(SESSION, WATCH, UNKNOWN)
        return told_by(await gateway.expect("watch_ended", SESSION))


@ITEMS.of("INVALID_ARGUMENT", violations=["watch_run.run_id"])
async def watch_of_what_is_no_id(system: WholeSystem) -> Told:
    return await watch_refused(system, "5")


@ITEMS.of("UNKNOWN_TYPE")
async def watch_of_a_thread(system: WholeSystem) -> Told:
    async with attached(system) as gateway:
        await gateway.say(watch_thread=pb.WatchThreadItem(session_id=SESSION, watch_id=WATCH, thread_id=UNKNOWN))
        return told_by(await gateway.expect("watch_ended", SESSION))


@ITEMS.of("RATE_LIMITED")
async def one_watch_too_many(system: WholeSystem) -> Told:
    run_id = (await busy(system)).run_id
    async with attached(system) as gateway:
        for number in range(MAX_WATCHES + 1):
            await gateway.watch(SESSION, str(number), run_id)
        return told_by(await gateway.until("watch_ended"))


@ITEMS.of("RATE_LIMITED")
async def flooded_session(system: WholeSystem) -> Told:
    opening = system.shop.storage.gates["list"]
    opening.close()
    async with open_gateway(system.sessions) as gateway:
        await gateway.open(SESSION)
        await opening.reached()
        for _ in range(MAX_WAITING_REQUESTS + 1):
            await gateway.watch(SESSION, WATCH, UNKNOWN)
        await gateway.watch(UNKNOWN, WATCH, UNKNOWN)
        await gateway.expect("watch_ended", UNKNOWN)  # so all before it have arrived
        opening.open()
        return told_by(await gateway.until("session_ended"))


@ITEMS.of("TOO_MANY_CONNECTIONS")
async def one_session_too_many(system: WholeSystem) -> Told:
    async with open_gateway(system.sessions) as gateway:
        for _ in range(3):
            await gateway.signed_in(SystemIds().new())
        await gateway.open(SESSION)
        for _ in range(3):
            probe = await gateway.expect("session_probe")
            await gateway.say(session_alive=pb.SessionAlive(session_id=probe.session_id))
        return told_by(await gateway.expect("session_ended", SESSION))


@ITEMS.of("CURSOR_AHEAD")
async def watch_from_beyond_the_log(system: WholeSystem) -> Told:
    return await watch_refused(system, (await busy(system)).run_id, 99)


@ITEMS.of("SLOW_CONSUMER")
async def gateway_that_does_not_read(system: WholeSystem) -> Told:
    started, gate = await big_run(system)
    call = system.sessions.Attach()
    await call.write(pb.AttachRequest(open_session=pb.OpenSession(session_id=SESSION, token=make_token())))
    watch = pb.WatchRunItem(session_id=SESSION, watch_id=WATCH, run_id=started.run_id)
    await call.write(pb.AttachRequest(watch_run=watch))
    # A watch that still reads the log is never slow: this one has come to its end.
    await eventually(lambda: system.sample("apex_events_delivered_total") > 1, what="a live watch")
    gate.open()
    await eventually(lambda: not system.shop.supervisor.at_work, what="everything is said")
    seen = [0]
    while isinstance(response := await call.read(), pb.AttachResponse):
        for item in response.items:
            if item.HasField("watch_ended"):
                assert item.watch_ended.last_seq == seen[-1]
                call.cancel()
                return told_by(item)
            if item.HasField("event"):
                seen.append(item.event.seq)
                assert seen[-1] == seen[-2] + 1
    raise AssertionError("the watch has not ended")


@ITEMS.of("STORAGE_UNAVAILABLE")
async def session_while_the_database_is_away(system: WholeSystem) -> Told:
    system.shop.storage.cut.add("runs")
    return await session_refused(system)


@ITEMS.of("STORAGE_UNAVAILABLE")
async def watch_while_the_database_is_away(system: WholeSystem) -> Told:
    system.shop.storage.failing.add("get")
    return await watch_refused(system, new_id())


@ITEMS.of("SERVICE_UNAVAILABLE", WITHOUT_ISSUER)
async def session_while_the_issuer_is_away(system: WholeSystem) -> Told:
    return await session_refused(system)


@ITEMS.of("DRAINING")
async def session_of_a_service_that_ends(system: WholeSystem) -> Told:
    async with attached(system) as gateway:
        await system.server.drain()
        return told_by(await gateway.expect("session_ended", SESSION))


@ITEMS.of("DRAINING")
async def watch_of_a_service_that_ends(system: WholeSystem) -> Told:
    run_id = (await busy(system)).run_id
    async with attached(system) as gateway:
        await gateway.watch(SESSION, WATCH, run_id)
        await gateway.expect("event", SESSION)
        await system.server.drain()
        return told_by(await gateway.until("watch_ended"))


@ITEMS.of("INTERNAL")
async def session_that_meets_a_defect(system: WholeSystem) -> Told:
    system.shop.storage.defective.add("list")
    return await session_refused(system)


@ITEMS.of("INTERNAL")
async def watch_that_meets_a_defect(system: WholeSystem) -> Told:
    system.shop.storage.defective.add("get")
    return await watch_refused(system, new_id())
