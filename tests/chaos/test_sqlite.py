"""`kill -9` of the embedded service at every commit point, under clients of every kind."""

from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.support.chaos_report import note_round
from tests.support.crash_plans import Deaths, every_one, once_each
from tests.support.crash_points import Side
from tests.support.crash_rounds import TEST_TIMEOUT_S, Stage, die_at_acceptance, play_crash

pytestmark = pytest.mark.timeout(TEST_TIMEOUT_S)

FEW: Final = once_each()
all_rounds = every_one


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, *, forked: bool) -> Iterator[Stage]:
    stage = Stage(tmp_path_factory.mktemp("sqlite"), forked=forked)
    with stage.apex:
        yield stage


async def test_nothing_is_lost(stage: Stage, deaths: Deaths, record_property: Callable[[str, object], None]) -> None:
    note_round(record_property, "SQLite", await play_crash(stage, *deaths))


@pytest.mark.parametrize(("side", "saved"), [(Side.BEFORE, 0), (Side.INSIDE, 0), (Side.AFTER, 1)])
async def test_a_death_comes_where_it_was_planned(stage: Stage, side: Side, saved: int) -> None:
    assert await die_at_acceptance(stage, side) == (side, saved)
