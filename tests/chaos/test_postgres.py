"""`kill -9` of a service on PostgreSQL: its runs are taken up when its leases have run out."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import pytest

from storage.opening import migrate_storage
from storage.records import RunStatus
from tests.support.chaos_report import note_round
from tests.support.crash_plans import PAID, Deaths, every_one
from tests.support.crash_points import Plan, Point, Side
from tests.support.crash_rounds import TEST_TIMEOUT_S, Stage, die_at_acceptance, play_crash

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(TEST_TIMEOUT_S)]

FEW: Final[Sequence[Deaths]] = (
    (Plan(Point.ACCEPT, Side.AFTER),),
    (PAID,),
    (Plan(Point.ENDING, Side.INSIDE, RunStatus.COMPLETED),),
)
all_rounds = every_one


@pytest.fixture(scope="module")
def stage(postgres_url: str, tmp_path_factory: pytest.TempPathFactory, *, forked: bool) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("postgres")
    asyncio.run(migrate_storage(postgres_url, folder))
    stage = Stage(folder, database_url=postgres_url, forked=forked)
    with stage.apex:
        yield stage


async def test_nothing_is_lost(stage: Stage, deaths: Deaths, record_property: Callable[[str, object], None]) -> None:
    note_round(record_property, "PostgreSQL", await play_crash(stage, *deaths))


@pytest.mark.parametrize(("side", "saved"), [(Side.BEFORE, 0), (Side.INSIDE, 0), (Side.AFTER, 1)])
async def test_a_death_comes_where_it_was_planned(stage: Stage, side: Side, saved: int) -> None:
    assert await die_at_acceptance(stage, side) == (side, saved)
