"""Live through many lives, seed by seed: `make simulation ARGS="--seeds 500 --steps 200"`.

Stops at the first seed in which a promise is broken, and says how to live it again.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.simulation.bugs import BUGS
from tests.simulation.simulation import STEPS, Outcome, first_failure, simulate
from tests.simulation.verdict import BrokenPromiseError

SEEDS = 500


def main() -> int:
    """Return 0 when no promise was broken, or when every planted bug was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many seeds (default: {SEEDS})")
    parser.add_argument("--first", type=int, default=0, help="the first one (default: 0)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"what happens in each life (default: {STEPS} acts)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="print everything that happens in it")
    parser.add_argument("--bug", default="", choices=["", *BUGS], metavar="NAME", help="plant this bug first")
    parser.add_argument("--bugs", action="store_true", help="plant each bug in turn, and tell which seed finds it")
    options = parser.parse_args()
    if options.seed is not None:
        return _live_one(options.seed, options.steps, options.bug, trace=options.trace)
    seeds = range(options.first, options.first + options.seeds)
    if options.bugs:
        return _plant_all(seeds, options.steps, options.jobs)
    return _live_all(seeds, options.steps, options.bug, options.jobs)


def _live_one(seed: int, steps: int, bug: str, *, trace: bool) -> int:
    try:
        outcome = simulate(seed, steps=steps, bug=bug, trace=trace)
    except BrokenPromiseError as error:
        _say(error)
        return 1
    if trace:
        _say("\n".join(outcome.lines))
    _say(f"seed {seed}, {steps} steps, {outcome.weather}: no promise was broken; digest {outcome.digest}")
    return 0


def _live_all(seeds: Sequence[int], steps: int, bug: str, jobs: int) -> int:
    began = time.perf_counter()
    outcomes: list[Outcome] = []
    with _processes(jobs) as pool:
        try:
            for outcome in pool.map(partial(simulate, steps=steps, bug=bug), seeds, chunksize=5):
                outcomes.append(outcome)  # noqa: PERF402 - what came before an error counts
        except BrokenPromiseError as error:
            pool.shutdown(wait=False, cancel_futures=True)
            _say(error)
            return 1
    seconds = time.perf_counter() - began
    _say(
        f"{len(outcomes)} seeds of {steps} steps in {seconds:.1f} s: no promise was broken in "
        f"{sum(one.runs for one in outcomes)} runs, {sum(one.events for one in outcomes)} events, "
        f"{sum(one.callbacks for one in outcomes)} callbacks, "
        f"{sum(one.virtual_s for one in outcomes) / 3600:.1f} hours of their own time"
    )
    return 0


def _plant_all(seeds: Sequence[int], steps: int, jobs: int) -> int:
    missed = 0
    with _processes(jobs) as pool:
        for name, found in zip(BUGS, pool.map(partial(first_failure, seeds=seeds, steps=steps), BUGS), strict=True):
            missed += found is None
            _say(f"{name:50} {'NOT FOUND' if found is None else found:.160}")
    _say(f"{len(BUGS)} bugs planted, {missed} not found")
    return min(missed, 1)


def _processes(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(max_workers=jobs, mp_context=multiprocessing.get_context("spawn"))


def _say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
