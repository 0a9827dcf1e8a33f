"""The command: run every mode in turn, round by round, and show what was measured."""

import argparse
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks import runs, tools
from benchmarks.deployments import ROOT, DeploymentError, Mode, deployed, postgres_answers
from benchmarks.figures import Round
from benchmarks.load import LoadFailedError, run_load
from benchmarks.plan import FULL, QUICK, TINY, Sizes
from benchmarks.report import Result, save, table

POSTGRES_URL: Final = "postgresql://postgres@127.0.0.1:5432/postgres"
OUTPUT: Final = ROOT / "build" / "bench.json"
WORK: Final = ROOT / "build" / "bench"
WHOLE_RUNS: Final = 20
"""Measured runs of each kind."""
TOOL_ROWS: Final = 1_000_000
TOOL_CALLS: Final = 3
"""Measured calls of each tool over each format."""
SIZES: Final[Mapping[str, Sizes]] = {"full": FULL, "quick": QUICK, "tiny": TINY}


def run(sizes: Sizes, modes: Sequence[Mode], work: Path, postgres_url: str) -> Result:
    """Measure all modes side by side: each round runs them one after the other, each with fresh processes.

    Raises `DeploymentError` and `LoadFailedError`; what the processes printed then stays in `work`.
    """
    begin = time.monotonic()
    rounds: dict[Mode, list[Round]] = {mode: [] for mode in modes}
    for number in range(1, sizes.rounds + 1):
        for mode in modes:
            folder = work / f"{mode}-{number}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _say(f"round {number} of {sizes.rounds}: {mode}")
            with deployed(mode, folder, postgres_url) as target:
                rounds[mode].append(run_load(target, sizes))
            shutil.rmtree(folder)
    return Result(sizes, rounds, time.monotonic() - begin)


def main() -> int:
    """Run with the arguments of the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Apex beside the floor, in one run.")
    parser.add_argument("--sizes", choices=SIZES, default="full", help="how much is measured")
    parser.add_argument("--modes", nargs="+", choices=list(Mode), default=list(Mode), help="what is measured")
    parser.add_argument("--postgres-url", default=POSTGRES_URL, help="a server where a database may be made")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the figures are kept")
    parser.add_argument("--tool-rows", type=int, default=TOOL_ROWS, help="rows that the tools analyse; 0: none")
    parser.add_argument("--whole-runs", type=int, default=WHOLE_RUNS, help="runs of each kind in one process; 0: none")
    arguments = parser.parse_args()
    postgres_url: str = arguments.postgres_url
    modes = [Mode(mode) for mode in arguments.modes]
    if Mode.POSTGRES in modes and not postgres_answers(postgres_url):
        _say(f"no PostgreSQL answers at {postgres_url}: measured without it")
        modes.remove(Mode.POSTGRES)
    try:
        result = run(SIZES[arguments.sizes], modes, WORK, postgres_url)
    except (DeploymentError, LoadFailedError) as error:
        _say(str(error))
        return 1
    output: Path = arguments.output
    save(result, output)
    sys.stdout.write(table(result))
    if arguments.whole_runs:
        _say(f"{arguments.whole_runs} whole runs of each kind")
        sys.stdout.write("\n" + runs.table(runs.measure(arguments.whole_runs)))
    if arguments.tool_rows:
        _say(f"tools over {arguments.tool_rows:,} rows")
        sys.stdout.write("\n" + tools.table(tools.measure(arguments.tool_rows, TOOL_CALLS)))
    _say(f"{output}, in {result.taken_s:.0f} s")
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
