"""Rounds: many users at once, a service that dies at a commit point, and the history held against the log afterwards.

Every round has users of its own, so the history of a round is whole. Rounds of one stage follow each other on the same
database, with the same bridge, which stays up.
"""

import asyncio
import math
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final

from tests.support.crash_points import CrashFiles, Death, Plan, Point, Side
from tests.support.crashing_service_main import EFFECTS_VARIABLE, GO_NAME, Script, read_effects
from tests.support.deployment import Deployment
from tests.support.forked_service import ForkedDeployment
from tests.support.history import History, ToolEffect, check_history
from tests.support.stored_log import read_runs
from tests.support.waiting import eventually
from tests.support.witnesses import Arrival, Caller, ComingSocket, KeptSocket, Notebook

SERVICE: Final = "tests.support.crashing_service_main"
ROUND_TIMEOUT_S: Final = 100.0
TEST_TIMEOUT_S: Final = 120
SLOTS: Final = 4
"""Runs at work at once: fewer than a round has, so that some wait."""

KEEPS, HURRIES, CALLS = "ann", "dan", "eve"
"""The users of a socket that stays, of one that never waits for its ack, and of gRPC."""

KILLED: Final = -9
"""What a process gives as its exit code after SIGKILL."""


class Stage:
    """One deployment whose service dies and is started again. `apex` runs it.

    `effects_file` is where the tools of all services of one database leave what they did. `forked`: the service is
    started by a fork, not as a program.
    """

    def __init__(
        self, folder: Path, *, database_url: str = "", effects_file: Path | None = None, forked: bool = False
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.effects_file = effects_file or folder / "effects"
        self.database_url = database_url
        settings = {
            EFFECTS_VARIABLE: str(self.effects_file),
            "APEX_MAX_CONCURRENT_AGENTS": str(SLOTS),
            "APEX_MAX_CONNECTIONS_PER_USER": "100",
            **({"APEX_DATABASE_URL": database_url} if database_url else {}),
        }
        make = ForkedDeployment if forked else Deployment
        self.apex = make(folder, service_module=SERVICE, settings=settings)
        self.apex.data_dir.mkdir()
        self.crash = CrashFiles(self.apex.data_dir)
        self.go_file = self.apex.data_dir / GO_NAME

    async def died(self) -> None:
        """Return when the service was killed."""
        service = self.apex.service
        assert service is not None
        await eventually(lambda: service.poll() is not None, what="the service is killed", timeout_s=math.inf)
        assert service.poll() == KILLED, f"it ended by itself:\n{service.output}"
        service.kill()  # what it had started

    def stop(self) -> None:
        """End the service, if there is one."""
        if self.apex.service is not None:
            self.apex.service.terminate()

    async def be_up(self) -> None:
        """Start the service if there is none, and let it live."""
        self.crash.disarm()
        if self.apex.service is None or self.apex.service.poll() is not None:
            await asyncio.to_thread(self.apex.start_service)

    async def keep_up(self, again: Sequence[Plan] = ()) -> None:
        """Start the service again whenever it was killed, the next times with these plans, until cancelled."""
        plans = iter(again)
        while True:
            await self.died()
            for plan in islice(plans, 1):
                self.crash.arm(plan)
            await asyncio.to_thread(self.apex.start_service)

    async def history(self, notebook: Notebook, users: Sequence[str]) -> History:
        """Return the history of these users, whose runs have all ended."""
        runs = await read_runs(self.database_url, self.apex.data_dir, users)
        run_ids = {run.record.run_id for run in runs}
        notes = [note for note in read_effects(self.effects_file) if note.run_id in run_ids]
        effects = [ToolEffect(note.run_id, note.tool_call_id) for note in notes]
        return History(runs, notebook.sent, notebook.acks, notebook.seen, effects)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a round. `recoveries_s` has, for each death, how long each kept client waited for a new event."""

    deaths: Sequence[Death]
    history: History
    compared: int
    recoveries_s: Sequence[Sequence[float]]

    @property
    def events(self) -> int:
        """Events in the log of this round's runs."""
        return sum(len(run.events) for run in self.history.runs)


class Cast:
    """The clients of one round, and what they have written down."""

    def __init__(self, stage: Stage) -> None:
        self.notebook = Notebook()
        self._stage = stage
        self._round = uuid.uuid4().hex[:12]
        self._users: set[str] = set()
        self._kept: list[KeptSocket] = []

    def user(self, name: str) -> str:
        """Return this round's user of that name."""
        user_id = f"{name}-{self._round}"
        self._users.add(user_id)
        return user_id

    def keeper(self, user_id: str, *scripts: Script, one_thread: bool = False) -> KeptSocket:
        """Return a client that keeps its socket."""
        client = KeptSocket(self._stage.apex, self.notebook, user_id, scripts, one_thread=one_thread)
        self._kept.append(client)
        return client

    def comer(self, user_id: str, name: str, *, restless: bool = False) -> ComingSocket:
        """Return a client that comes back."""
        return ComingSocket(self._stage.apex, self.notebook, user_id, name, restless=restless)

    def caller(self, user_id: str, *first: str) -> Caller:
        """Return a client over gRPC, which tries the `first` addresses before the stage's own."""
        apex = self._stage.apex
        return Caller((*first, apex.grpc_target), self.notebook, user_id, apex.token(user_id))

    async def everybody(self) -> None:
        """Let clients of every kind have runs of every kind, all at once."""
        keepers = (
            self.keeper(self.user(KEEPS), Script.ANSWER, Script.ANSWER, Script.ANSWER, one_thread=True),
            self.keeper(self.user("bob"), Script.ANSWER, Script.FAIL),
            self.keeper(self.user(Script.STOP), Script.STOP),
            self.keeper(self.user(Script.STOP_PAYING), Script.STOP_PAYING),
        )
        # Nothing happens before every socket that is to be kept is there.
        together = asyncio.Barrier(len(keepers) + 1)
        async with asyncio.TaskGroup() as group:
            for keeper in keepers:
                group.create_task(keeper.live(together))
            await together.wait()
            group.create_task(self._shadow(keepers[0], self.user(KEEPS)))
            group.create_task(self.hurry(self.user(HURRIES)))
            group.create_task(self._call(self.user(CALLS)))

    async def _shadow(self, kept: KeptSocket, user_id: str) -> None:
        """Follow the first and the second run of somebody else's socket over one that comes and goes."""
        for _ in range(2):
            ack = await kept.acked.get()
            await self.comer(user_id, "restless socket", restless=True).follow(ack.run_id)

    async def hurry(self, user_id: str) -> None:
        """Send without waiting for the ack, send again, follow."""
        client = self.comer(user_id, "hasty socket")
        ack = await client.send_without_ack(Script.ANSWER)
        await client.follow(ack.run_id)

    async def _call(self, user_id: str) -> None:
        """Start over gRPC, and watch."""
        caller = self.caller(user_id)
        ack = await caller.start(Script.ANSWER)
        await caller.watch(ack.run_id)

    async def across(self, other: str) -> None:
        """Let callers start runs of every kind at another service, and follow them over sockets of this stage."""
        scripts = (Script.FAIL, Script.STOP, Script.STOP_PAYING, Script.ANSWER, Script.ANSWER)
        async with asyncio.TaskGroup() as group:
            for script in scripts:
                group.create_task(self._follow_across(other, script))

    async def _follow_across(self, other: str, script: Script) -> None:
        user_id = self.user(script)
        caller, kept = self.caller(user_id, other), self.keeper(user_id)
        ack = await caller.start(script)
        kept.give(ack.run_id, script)
        restless = self.comer(user_id, "restless socket", restless=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(kept.live())
            group.create_task(restless.follow(ack.run_id))
            group.create_task(caller.watch(ack.run_id))

    def check_outages(self, deaths: Sequence[Death]) -> None:
        """Raise unless each kept socket was told of every outage's beginning and end.

        One of them must have been told, if any was there before a death and went on after it: on a busy machine all may
        have seen their runs' ends before, or have come later.
        """
        told = [kept.outages for kept in self._kept]
        assert all(outages == ["degraded", "recovered"] * (len(outages) // 2) for outages in told), told
        went_on = any(_lived_through(kept.arrivals, death) for kept in self._kept for death in deaths)
        assert any(told) or not went_on, "nobody noticed that the service died"

    async def come_later(self) -> None:
        """Let clients come after the end, over both transports and from two cursors."""
        lengths = {seen.run_id: len(seen.items) for seen in self.notebook.seen}
        async with asyncio.TaskGroup() as group:
            for ack in self.notebook.acks:
                group.create_task(self.comer(ack.user_id, "late socket").follow(ack.run_id))
                for after_seq in (0, lengths[ack.run_id] // 2):
                    group.create_task(self.caller(ack.user_id).watch(ack.run_id, after_seq))

    async def settle(self, deaths: Sequence[Death] = ()) -> Outcome:
        """Let the late clients come, read the log, and check everything. All other clients are done."""
        await self.come_later()
        history = await self._stage.history(self.notebook, sorted(self._users))
        compared = check_history(history)
        recoveries = [
            [span for kept in self._kept if (span := _recovery_s(kept.arrivals, death)) is not None] for death in deaths
        ]
        return Outcome(deaths, history, compared, recoveries)


async def play_crash(stage: Stage, plan: Plan, *again: Plan) -> Outcome:
    """Play a round on one service, which dies as planned, and then as each plan of `again` says."""
    await stage.be_up()
    before = len(stage.crash.deaths())
    cast = Cast(stage)
    stage.crash.arm(plan)
    async with asyncio.timeout(ROUND_TIMEOUT_S), kept_up(stage, again):
        await cast.everybody()
        deaths = stage.crash.deaths()[before:]
        assert not stage.crash.disarm(), f"nothing came to its plan; there were {deaths}"
        assert [death.plan for death in deaths] == [plan, *again]
        cast.check_outages(deaths)
        return await cast.settle(deaths)


async def die_at_acceptance(stage: Stage, side: Side) -> tuple[Side, int]:
    """Let the service die while it accepts a lone message; return where it did, and how many runs are saved."""
    await stage.be_up()
    cast = Cast(stage)
    user_id = cast.user(CALLS)
    stage.crash.arm(Plan(Point.ACCEPT, side))
    async with asyncio.timeout(ROUND_TIMEOUT_S), asyncio.TaskGroup() as group:
        call = group.create_task(cast.caller(user_id).start(Script.ANSWER))
        await stage.died()
        runs = await read_runs(stage.database_url, stage.apex.data_dir, [user_id])
        call.cancel()
    return stage.crash.deaths()[-1].side, len(runs)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two services on one database; the first one dies, the clients are at the second one."""

    first: Stage
    second: Stage


async def play_takeover(pair: Pair, plan: Plan) -> Outcome:
    """Play a round on two services, of which the first dies as planned and stays away."""
    await pair.first.be_up()
    before = len(pair.first.crash.deaths())
    pair.first.crash.arm(plan)
    async with asyncio.timeout(ROUND_TIMEOUT_S):
        while True:
            cast = Cast(pair.second)
            await cast.across(pair.first.apex.grpc_target)
            deaths = pair.first.crash.deaths()[before:]
            outcome = await cast.settle(deaths)
            # The second one may have taken the very run that the plan waits for: then there is another round.
            if deaths:
                await pair.first.died()
                return outcome


@asynccontextmanager
async def kept_up(stage: Stage, again: Sequence[Plan] = ()) -> AsyncIterator[None]:
    """Start the service again whenever it dies in the body; if it cannot be, that ends the body."""
    async with asyncio.TaskGroup() as group:
        keeper = group.create_task(stage.keep_up(again))
        yield
        keeper.cancel()


def _lived_through(arrivals: Sequence[Arrival], death: Death) -> bool:
    """Tell whether a socket was there before a death, and got events that were made after it."""
    was_there = bool(arrivals) and arrivals[0].time_s < death.monotonic_s
    return was_there and _recovery_s(arrivals, death) is not None


def _recovery_s(arrivals: Sequence[Arrival], death: Death) -> float | None:
    """Return the time from a death to the first event that was made after it; None if there was none."""
    for arrival in arrivals:
        made = arrival.frame.get("timestamp")
        if made is not None and datetime.fromisoformat(made).timestamp() > death.time_s:
            return arrival.time_s - death.monotonic_s
    return None
