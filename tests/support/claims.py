"""How a test holds a worker's claims up, and takes a run away from it."""

from agent_service.api.wire import ProtoCodec
from agent_service.engine.clock import SystemClock
from agent_service.engine.emitter import RunEmitter
from agent_service.engine.run import RunState
from storage.records import RunRecord, RunStatus
from tests.support.workshop import LEASE_MS, Workshop


async def beats(shop: Workshop, count: int) -> None:
    """Wait while the worker beats so many times more: as long as it works on something."""
    gate = shop.storage.gates["beat"]
    await gate.reached(gate.arrivals + count)


async def stop_claiming(shop: Workshop) -> None:
    """Hold the worker up before its next claim."""
    gate = shop.storage.gates["claim"]
    gate.close()
    await gate.reached(gate.arrivals + 1)


async def with_claim_under_way(shop: Workshop, content: str, *, accepted_by: Workshop | None = None) -> RunRecord:
    """Accept a run and hold its claim up on the way back: the run is claimed, and the worker does not know it yet."""
    await stop_claiming(shop)
    run = await (accepted_by or shop).accept(content)
    back = shop.storage.returns["claim"]
    back.close()
    shop.storage.gates["claim"].open()
    await back.reached(back.arrivals + 1)
    assert (await shop.now(run)).status is RunStatus.RUNNING
    return run


async def take_away(shop: Workshop, run: RunRecord) -> None:
    """Let a worker of another process have the run."""
    await stop_claiming(shop)
    record = await shop.now(run)
    assert await shop.inner.runs.release(run.run_id, record.epoch)
    taken = await shop.inner.runs.claim("other", lease_ms=LEASE_MS, limit=1)
    assert [(one.run_id, one.epoch) for one in taken] == [(run.run_id, record.epoch + 1)]


async def end_elsewhere(shop: Workshop, run: RunRecord) -> None:
    """Let a worker of another process take the run and end it."""
    record = await shop.now(run)
    assert await shop.inner.runs.release(run.run_id, record.epoch)
    taken = await shop.inner.runs.claim_run(run.user_id, run.run_id, "other", lease_ms=LEASE_MS)
    assert taken is not None
    async with Workshop(shop.inner, worker_id="other", alone=False) as other:
        await stop_claiming(other)
        emitter = RunEmitter(
            RunState.unread(run.run_id, run.thread_id, taken.last_seq),
            other.journal.open_run(taken),
            ProtoCodec(),
            SystemClock(),
            SystemClock().now(),
        )
        await emitter.cancel("It was time.")
