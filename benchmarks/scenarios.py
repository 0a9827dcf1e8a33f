"""What the load generator does, one scenario after the other, and the figures that each gives."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import jwt

from benchmarks.figures import percentile
from benchmarks.follower import Follower, Timings
from benchmarks.plan import CPU_RUNS, RUNS_AT_ONCE, SHORT, SOCKETS_PER_USER, Sizes
from benchmarks.proc import DATABASE, Watched, machine_busy_s
from benchmarks.workload import Script, Stamp

CONNECTING_AT_ONCE: Final = 8
"""Below the bridge's bound for sockets of one address that have not signed in."""

CALM_S: Final = 0.005
"""Between two runs that shall not be in each other's way."""

STAGGER: Final = 0.3
"""Over which share of their length the paced runs begin, so that their pieces do not come in step."""

MIN_OVERLAP: Final = 0.1
"""For which share of their length all paced runs must speak at once; else there is no figure."""

EVENTS_UNIT: Final = 100_000
"""CPU time is given for so many events."""

_MS: Final = 1e6
_TOKEN_LIFETIME: Final = timedelta(hours=1)

Measured = dict[str, float]
Work = Callable[[Follower], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the load goes to."""

    port: int
    secret: str
    watched: Watched

    def follower(self, number: int) -> Follower:
        """Return a socket; each `SOCKETS_PER_USER` of them belong to one user."""
        return Follower(self.port, self._token(f"user-{number // SOCKETS_PER_USER}"))

    def _token(self, user: str) -> str:
        if not self.secret:
            return ""
        now = datetime.now(UTC)
        claims = {"sub": user, "iss": "apex", "aud": "apex", "iat": now, "exp": now + _TOKEN_LIFETIME, "jti": user}
        return jwt.encode(claims, self.secret, algorithm="HS256")


@asynccontextmanager
async def connected(place: Place, count: int) -> AsyncIterator[Sequence[Follower]]:
    """Connect so many sockets, and close them at the end."""
    followers = [place.follower(number) for number in range(count)]
    turn = asyncio.Semaphore(CONNECTING_AT_ONCE)

    async def connect(follower: Follower) -> None:
        async with turn:
            await follower.connect()

    try:
        await asyncio.gather(*map(connect, followers))
        yield followers
    finally:
        for follower in followers:
            follower.close()
        await asyncio.sleep(CALM_S * 10)  # the other side needs a moment to give the places back


async def measure(place: Place, sizes: Sizes) -> Measured:
    """Run every scenario once and return all figures."""
    await warm_up(place)
    begin, busy_s = _count(place, ()), machine_busy_s()
    # Memory comes first: what the others leave free would hide what sockets need.
    measured = {
        **await idle(place, sizes),
        **await alone(place, sizes),
        **await together(place, sizes),
        **await throughput(place, sizes),
        **await paced(place, sizes),
        **await replay(place, sizes),
    }
    end = _count(place, ())
    ours_s = sum(end.cpu_s.values()) - sum(begin.cpu_s.values())
    return {**measured, "others_busy": max(0.0, machine_busy_s() - busy_s - ours_s) / (end.at_s - begin.at_s)}


async def warm_up(place: Place) -> None:
    """Let everything happen that happens only once."""
    async with connected(place, 2 * SOCKETS_PER_USER) as followers:
        for _ in range(2):
            await asyncio.gather(*(follower.run(Script()) for follower in followers))


async def idle(place: Place, sizes: Sizes) -> Measured:
    """Memory per signed-in socket that does nothing."""
    await asyncio.sleep(sizes.settle_s)
    before = place.watched.memory_kib()
    async with connected(place, sizes.idle_sockets):
        await asyncio.sleep(sizes.settle_s)
        after = place.watched.memory_kib()
    each = {f"idle_{name}": (after[name] - before[name]) / sizes.idle_sockets for name in before}
    return {**each, "idle_product": sum(each.values())}


async def alone(place: Place, sizes: Sizes) -> Measured:
    """How long the beginning of a run takes when nothing else happens."""
    timings = []
    async with connected(place, 1) as (follower,):
        for _ in range(sizes.alone):
            await asyncio.sleep(CALM_S)
            timings.append(await follower.run(SHORT))
    return _beginnings(timings, "alone")


async def together(place: Place, sizes: Sizes) -> Measured:
    """How long the beginning of a run takes when many begin in one moment."""
    timings: list[Timings] = []
    async with connected(place, sizes.wave) as followers:
        for _ in range(sizes.waves):
            timings += await asyncio.gather(*(follower.run(SHORT) for follower in followers))
            await asyncio.sleep(CALM_S * 10)
    return _beginnings(timings, "together")


def _beginnings(timings: Sequence[Timings], name: str) -> Measured:
    spans = {
        "ack": [run.ack_ns / _MS for run in timings if run.ack_ns],  # the floor acknowledges nothing
        "first_event": [run.first_event_ns / _MS for run in timings],
        "worker_event": [run.worker_event_ns / _MS for run in timings],
    }
    return {
        f"{kind}_{name}_p{round(share * 100)}": percentile(values, share)
        for kind, values in spans.items()
        if values
        for share in (0.5, 0.99)
    }


@dataclass(slots=True)
class _Count:
    """Events and CPU time up to a moment."""

    at_s: float
    events: int
    cpu_s: Mapping[str, float]


def _count(place: Place, followers: Sequence[Follower]) -> _Count:
    own = os.times()
    cpu = {**place.watched.cpu_s(), "load": own.user + own.system}
    return _Count(time.monotonic(), sum(follower.events for follower in followers), cpu)


async def throughput(place: Place, sizes: Sizes) -> Measured:
    """Events per second with runs one after the other on 1, 10 and 100 sockets."""
    measured: Measured = {}
    for runs in RUNS_AT_ONCE:
        begin, end = await _one_after_the_other(place, runs, sizes)
        measured[f"events_per_s_{runs}"] = (end.events - begin.events) / (end.at_s - begin.at_s)
        if runs == CPU_RUNS:
            measured |= _cpu(begin, end, "cpu")
            measured["load_busy"] = (end.cpu_s["load"] - begin.cpu_s["load"]) / (end.at_s - begin.at_s)
    return measured


async def _one_after_the_other(place: Place, runs: int, sizes: Sizes) -> tuple[_Count, _Count]:
    stopping = False

    async def repeat(follower: Follower) -> None:
        while not stopping:
            await follower.run(Script())

    async with connected(place, runs) as followers, asyncio.TaskGroup() as group:
        for follower in followers:
            group.create_task(repeat(follower))
        await asyncio.sleep(sizes.warm_up_s)
        begin = _count(place, followers)
        await asyncio.sleep(sizes.window_s)
        end = _count(place, followers)
        stopping = True
    return begin, end


def _cpu(begin: _Count, end: _Count, prefix: str) -> Measured:
    events = max(1, end.events - begin.events)
    used = {
        name: (end.cpu_s[name] - begin.cpu_s.get(name, 0.0)) * EVENTS_UNIT / events
        for name in end.cpu_s
        if prefix == "cpu" or name != "load"
    }
    product = sum(value for name, value in used.items() if name not in {"load", DATABASE})
    return {**{f"{prefix}_{name}": value for name, value in used.items()}, f"{prefix}_product": product}


class _Pieces:
    """When pieces came, and how long they took from their emission and from when they were due."""

    def __init__(self, runs: int) -> None:
        self.all_speak = asyncio.Event()
        self._silent = runs
        self._taken: list[tuple[int, int, int]] = []

    def follow(self, follower: Follower) -> None:
        """Take this follower's pieces."""
        speaks = False

        def take(stamp: Stamp, now_ns: int) -> None:
            nonlocal speaks
            added_ns = now_ns - stamp.emitted_ns
            self._taken.append((now_ns, added_ns, added_ns + stamp.late_us * 1000))
            if not speaks:
                speaks = True
                self._silent -= 1
                if not self._silent:
                    self.all_speak.set()

        follower.on_piece = take

    def latencies(self, from_s: float, to_s: float) -> Measured:
        """Return the percentiles of what came between two moments."""
        taken = [piece for piece in self._taken if from_s <= piece[0] / 1e9 <= to_s]
        return {
            f"{name}_latency_p{round(share * 100)}": percentile([piece[index] / _MS for piece in taken], share)
            for index, name in ((1, "added"), (2, "due"))
            for share in (0.5, 0.99)
        }


async def paced(place: Place, sizes: Sizes) -> Measured:
    """What is added to each piece's way while many runs go on at the pace of a language model.

    Only while all of them speak: their beginning and their end are other figures' matter. No figures where the last
    one begins so late that the first one ends.
    """
    script = Script(pieces=sizes.paced_pieces, pause_ms=sizes.pause_ms)
    length_s = script.pieces * script.pause_ms / 1000
    taken = _Pieces(sizes.paced_runs)
    async with connected(place, sizes.paced_runs) as followers, asyncio.TaskGroup() as group:
        runs: list[asyncio.Task[Timings]] = []
        for follower in followers:
            taken.follow(follower)
            runs.append(group.create_task(follower.run(script)))
            await asyncio.sleep(STAGGER * length_s / sizes.paced_runs)
        await taken.all_speak.wait()
        begin = _count(place, followers)
        await asyncio.wait(runs, return_when=asyncio.FIRST_COMPLETED)
        end = _count(place, followers)
    if end.at_s - begin.at_s < MIN_OVERLAP * length_s:
        return {}
    return {**taken.latencies(begin.at_s, end.at_s), **_cpu(begin, end, "cpu_paced")}


async def replay(place: Place, sizes: Sizes) -> Measured:
    """How long a client that missed everything waits for a long run. The floor streams such a run anew."""
    script = sizes.replayed
    spans: list[float] = []
    async with connected(place, 1) as (follower,):
        run_id = (await follower.run(script)).run_id
        place.watched.reset_peak()
        before = place.watched.memory_kib()
        for _ in range(sizes.replays):
            async with connected(place, 1) as (late,):
                again = await (late.resume(script, run_id) if place.secret else late.run(script))
                spans.append(again.end_ns / _MS)
        peak = place.watched.peak_kib()
    return {
        "replay_p50": percentile(spans, 0.5),
        "replay_p95": percentile(spans, 0.95),
        **{f"replay_peak_{name}": peak[name] - before[name] for name in before},
    }
