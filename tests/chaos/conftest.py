"""Rounds for every test that asks for `deaths`: few by default, all of them `--chaos-repeats` times."""

from collections.abc import Callable, Sequence
from typing import cast

import pytest

from tests.support.crash_plans import Deaths, name


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Take the module's `FEW` rounds, or those that its `all_rounds` gives for each repeat."""
    if "deaths" not in metafunc.fixturenames:
        return
    repeats: int = metafunc.config.getoption("--chaos-repeats")
    all_rounds = cast("Callable[[int], Sequence[Deaths]]", metafunc.module.all_rounds)
    rounds = [deaths for repeat in range(repeats) for deaths in all_rounds(repeat)] or metafunc.module.FEW
    metafunc.parametrize("deaths", rounds, ids=name)


@pytest.fixture(scope="session")
def forked(request: pytest.FixtureRequest) -> bool:
    """Whether services are forks. In the long form they are programs, so that recovery is what an operator sees."""
    return not request.config.getoption("--chaos-repeats")
