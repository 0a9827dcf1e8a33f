"""Lives of the service from seeds: no promise is broken, every life can be lived again, and known bugs are found."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.simulation.bugs import BUGS
from tests.simulation.simulation import first_failure, simulate
from tests.simulation.verdict import BrokenPromiseError

ROOT: Final = Path(__file__).parents[2]
#: `make simulation` lives through more.
SEEDS: Final = 100
AT_ONCE: Final = 10
#: Every bug is found within these.
BUG_SEEDS: Final = 150

#: A life takes a fifth of a second, on a busy machine a whole one.
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_no_promise_is_broken(first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        outcome = simulate(seed)
        assert outcome.runs > 10
        assert outcome.callbacks > 200


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str) -> None:
    assert first_failure(bug, range(BUG_SEEDS)) is not None


def test_a_seed_lives_the_same_life_in_any_process() -> None:
    seeds = [0, 1, 2, 3]
    here = [simulate(seed).digest for seed in seeds]
    assert len(set(here)) == len(seeds)
    assert [simulate(seed, trace=True).digest for seed in seeds] == here
    program = f"from tests.simulation.simulation import simulate; print(*[simulate(s).digest for s in {seeds}])"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        there = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
        )
        assert there.stdout.split() == here


def test_a_failing_seed_says_how_to_live_it_again() -> None:
    stories = []
    for _ in range(2):
        with pytest.raises(BrokenPromiseError) as broken:
            simulate(0, bug="delivery before the commit")
        stories.append(str(broken.value))
    assert stories[0] == stories[1]
    assert stories[0].startswith("seed 0, 200 steps, ")
    assert "was seen before it was committed" in stories[0]
    assert stories[0].endswith(
        """again: make simulation ARGS="--seed 0 --steps 200 --bug 'delivery before the commit' --trace\""""
    )
