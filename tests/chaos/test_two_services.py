"""Two services on one PostgreSQL, and one is killed: the other goes on with its runs, and clients see all of them."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import pytest

from storage.opening import migrate_storage
from tests.support.chaos_report import note_round
from tests.support.crash_plans import PAID, Deaths, every_one
from tests.support.crash_points import Plan, Point, Side
from tests.support.crash_rounds import TEST_TIMEOUT_S, Pair, Stage, play_takeover

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(TEST_TIMEOUT_S)]

FEW: Final[Sequence[Deaths]] = ((PAID,),)

TAKEOVER_S: Final = 20.0
"""A lease (6 s), a poll of the worker and one of the watches (1 s each), and what a busy machine needs beside."""


def all_rounds(seed: int) -> Sequence[Deaths]:
    # Clients stop their runs through the survivor, and all of them send alike.
    plans = [plan for (plan,) in every_one(seed, again=False) if plan.point not in {Point.ACCEPT, Point.CANCEL}]
    return [(plan,) for plan in (*(Plan(Point.ACCEPT, side, occurrence=3) for side in Side), *plans)]


@pytest.fixture(scope="module")
def pair(postgres_url: str, tmp_path_factory: pytest.TempPathFactory, *, forked: bool) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    asyncio.run(migrate_storage(postgres_url, folder))
    first, second = (
        Stage(folder / name, database_url=postgres_url, effects_file=folder / "effects", forked=forked)
        for name in ("first", "second")
    )
    with second.apex:
        yield Pair(first, second)
        first.stop()


async def test_the_other_one_takes_over(
    pair: Pair, deaths: Deaths, record_property: Callable[[str, object], None]
) -> None:
    outcome = await play_takeover(pair, *deaths)
    note_round(record_property, "PostgreSQL, two services", outcome)
    assert max(map(max, outcome.recoveries_s)) < TAKEOVER_S
