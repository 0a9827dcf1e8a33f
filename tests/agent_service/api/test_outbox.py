import asyncio

from agent_service.api.outbox import MAX_RESPONSE_BYTES, MAX_WAITING_BYTES, Outbox


async def settled() -> None:
    """Let every task run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_response_holds_all_that_is_ready_in_order() -> None:
    outbox = Outbox()
    for frame in (b"a", b"b", b"c"):
        outbox.put(frame)
    assert await outbox.take() == b"abc"


async def test_take_waits_for_the_first_frame_only() -> None:
    outbox = Outbox()
    taking = asyncio.create_task(outbox.take())
    await settled()
    assert not taking.done()
    outbox.put(b"a")
    assert await taking == b"a"


async def test_a_response_ends_with_the_frame_that_reaches_its_bound() -> None:
    outbox = Outbox()
    half = b"x" * (MAX_RESPONSE_BYTES // 2)
    for _ in range(3):
        outbox.put(half)
    assert len(await outbox.take()) == MAX_RESPONSE_BYTES
    assert len(await outbox.take()) == MAX_RESPONSE_BYTES // 2


async def test_deliver_returns_when_its_own_frames_were_taken() -> None:
    outbox = Outbox()
    outbox.put(b"x" * MAX_RESPONSE_BYTES)
    delivering = asyncio.create_task(outbox.deliver([b"a", b"b"]))
    await settled()
    await outbox.take()
    await settled()
    assert not delivering.done()
    outbox.put(b"later")
    assert await outbox.take() == b"ablater"
    await asyncio.wait_for(delivering, 1)


async def test_a_cancelled_delivery_holds_nobody_up() -> None:
    outbox = Outbox()
    first, second = (asyncio.create_task(outbox.deliver([frame])) for frame in (b"a", b"b"))
    await settled()
    first.cancel()
    await settled()
    await outbox.take()
    await asyncio.wait_for(second, 1)


async def test_room_is_there_until_too_much_waits() -> None:
    outbox = Outbox()
    outbox.put(b"x" * MAX_WAITING_BYTES)
    await asyncio.wait_for(outbox.room(), 1)
    outbox.put(b"y")
    waiting = asyncio.create_task(outbox.room())
    await settled()
    assert not waiting.done()
    await outbox.take()
    await asyncio.wait_for(waiting, 1)


async def test_flushed_waits_for_what_was_put_before() -> None:
    outbox = Outbox()
    await asyncio.wait_for(outbox.flushed(), 1)
    outbox.put(b"a")
    flushing = asyncio.create_task(outbox.flushed())
    await settled()
    assert not flushing.done()
    await outbox.take()
    await asyncio.wait_for(flushing, 1)
