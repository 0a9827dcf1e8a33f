"""The command behind `make mutation`: runs mutants, shows a table, fails for what survives or is stale."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tests.mutation.catalogue import SAMPLE, all_mutants
from tests.mutation.mutants import Mutant, StaleAnchorError
from tests.mutation.runner import Result, Runner, Verdict

GOOD: Final = frozenset({Verdict.KILLED, Verdict.SKIPPED})
WIDTH: Final = 90


def main() -> int:
    """Return the exit code: 0 where every mutant was noticed, 1 otherwise, 2 where none has the name."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description="Take promises out, one by one.")
    parser.add_argument("names", nargs="*", help="parts of names, kinds or files; none means all mutants")
    parser.add_argument("--sample", action="store_true", help="only the few of the default test run")
    parser.add_argument("--list", action="store_true", help="show the mutants, run none")
    parser.add_argument("--stale", action="store_true", help="show the edits that fit the code no more, run none")
    parser.add_argument("--output", action="store_true", help="show what each test said")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4), help="mutants at once")
    asked = parser.parse_args()
    chosen = [mutant for mutant in all_mutants() if _is_asked(mutant, asked.names, sample=asked.sample)]
    if not chosen:
        sys.stderr.write("There is no such mutant.\n")
        return 2
    if asked.stale:
        return _show_stale(chosen)
    if asked.list:
        _print(*(f"{mutant.kind:12} {mutant.name}" for mutant in chosen), f"{len(chosen)} mutants")
        return 0
    return _run(chosen, asked.jobs, with_output=asked.output)


def _is_asked(mutant: Mutant, names: Sequence[str], *, sample: bool) -> bool:
    if sample and mutant.name not in SAMPLE:
        return False
    return not names or any(name in (mutant.kind, mutant.path) or name in mutant.name for name in names)


def _show_stale(mutants: Sequence[Mutant]) -> int:
    stale = 0
    for mutant in mutants:
        try:
            mutant.sources()
        except StaleAnchorError as error:
            stale += 1
            _print(f"{mutant.name}\n  {error}")
    _print(f"{stale} of {len(mutants)} mutants are stale")
    return 1 if stale else 0


def _run(mutants: Sequence[Mutant], jobs: int, *, with_output: bool) -> int:
    started = time.monotonic()
    results: list[Result] = []
    _print("First, the tests without a mutant …")
    for result in Runner(jobs).run(mutants):
        results.append(result)
        _print(_line(result))
        if with_output or result.verdict not in GOOD:
            _print(f"             {result.reason}", *([result.output] if with_output and result.output else []))
    counts = Counter(result.verdict for result in results)
    totals = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    _print(f"{len(results)} mutants in {time.monotonic() - started:.0f} s: {totals}")
    return 0 if GOOD.issuperset(counts) else 1


def _line(result: Result) -> str:
    mutant = result.mutant
    test = (result.test or mutant.tests[0]).removeprefix("tests/")
    return f"{result.verdict:9} {result.seconds:5.1f} s  {mutant.kind:11}  {mutant.name:{WIDTH}}  {mutant.path}  {test}"


def _print(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
