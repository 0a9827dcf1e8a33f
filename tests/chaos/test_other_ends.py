"""Ends that are no death of the service: SIGTERM in the middle of runs, and `kill -9` of the bridge."""

import asyncio
import signal
from collections.abc import Callable, Iterator

import pytest

from agent_service.engine.events import ToolCompleted, ToolStatus
from storage.records import RunStatus
from tests.support.chaos_report import note_round
from tests.support.crash_rounds import ROUND_TIMEOUT_S, TEST_TIMEOUT_S, Cast, Outcome, Stage
from tests.support.crashing_service_main import Script
from tests.support.history import events_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(TEST_TIMEOUT_S)

Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, *, forked: bool) -> Iterator[Stage]:
    stage = Stage(tmp_path_factory.mktemp("other"), forked=forked)
    with stage.apex:
        yield stage


@pytest.fixture
def cast(stage: Stage) -> Cast:
    stage.go_file.unlink(missing_ok=True)
    return Cast(stage)


async def test_a_service_that_is_told_to_stop_hands_its_runs_over(
    stage: Stage, cast: Cast, record_property: Record
) -> None:
    async with asyncio.timeout(ROUND_TIMEOUT_S), asyncio.TaskGroup() as group:
        held = await begin_held_run(cast, group)
        group.create_task(cast.everybody())
        service = stage.apex.service
        assert service is not None
        service.send_signal(signal.SIGTERM)
        await eventually(lambda: "draining" in service.output, what="it drains", timeout_s=ROUND_TIMEOUT_S)
        stage.go_file.touch()
        assert await asyncio.to_thread(service.wait) == 0
        await asyncio.to_thread(stage.apex.start_service)
    outcome = await cast.settle()
    note_round(record_property, "SQLite, other ends", outcome, ("service", "SIGTERM"))
    assert_held_run(outcome, held, attempt=2)
    statuses = {
        event.body.status
        for run in outcome.history.runs
        if run.record.status is not RunStatus.CANCELLED  # somebody stopped it while it paid
        for event in events_of(run)
        if isinstance(event.body, ToolCompleted)
    }
    assert ToolStatus.OUTCOME_UNKNOWN not in statuses, "nothing was in flight when it left"


async def test_a_killed_bridge_takes_nothing_with_it(stage: Stage, cast: Cast, record_property: Record) -> None:
    async with asyncio.timeout(ROUND_TIMEOUT_S), asyncio.TaskGroup() as group:
        held = await begin_held_run(cast, group)
        group.create_task(cast.hurry(cast.user("dan")))
        stage.apex.kill_bridge()
        stage.go_file.touch()
        await asyncio.to_thread(stage.apex.start_bridge)
    outcome = await cast.settle()
    note_round(record_property, "SQLite, other ends", outcome, ("bridge", "killed"))
    assert_held_run(outcome, held, attempt=1)


async def begin_held_run(cast: Cast, group: asyncio.TaskGroup) -> str:
    """Start a run and return its id when its first tool is at work, where it stays; two clients follow it."""
    user_id, at_work = cast.user("flo"), asyncio.Event()
    ack = await cast.comer(user_id, "first").send_without_ack(Script.HELD)
    group.create_task(cast.comer(user_id, "socket").follow(ack.run_id, reached=at_work))
    group.create_task(cast.comer(user_id, "restless socket", restless=True).follow(ack.run_id))
    group.create_task(cast.caller(user_id).watch(ack.run_id))
    await at_work.wait()
    return ack.run_id


def assert_held_run(outcome: Outcome, run_id: str, *, attempt: int) -> None:
    (record,) = [run.record for run in outcome.history.runs if run.record.run_id == run_id]
    assert (record.status, record.attempt) == (RunStatus.COMPLETED, attempt)
