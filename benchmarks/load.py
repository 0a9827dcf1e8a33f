"""The load generator: a process of its own, so that it takes nothing from those that it measures; run with `python -m`.

It reads where to go and how much to do from standard input, and writes the figures to standard output, both as JSON.
"""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from benchmarks.deployments import ROOT, Target
from benchmarks.figures import Round
from benchmarks.plan import Sizes
from benchmarks.scenarios import Measured, Place, measure

TIMEOUT_S: Final = 120.0
"""All that one round of one mode may take."""


class LoadFailedError(Exception):
    """The load generator could not finish; the text is what it said."""


class Order(msgspec.Struct):
    """What the load generator is told."""

    target: Target
    sizes: Sizes


def run_load(target: Target, sizes: Sizes) -> Round:
    """Measure everything once, from a process of its own. Raises `LoadFailedError`."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.load"],
            input=msgspec.json.encode(Order(target, sizes)),
            capture_output=True,
            cwd=Path(ROOT),
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LoadFailedError(f"it took longer than {TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        raise LoadFailedError(done.stderr.decode(errors="replace"))
    return msgspec.json.decode(done.stdout, type=dict[str, float])


async def _measure(order: Order) -> Measured:
    target = order.target
    async with asyncio.timeout(TIMEOUT_S):
        return await measure(Place(target.port, target.secret, target.watched), order.sizes)


def main() -> None:
    """Do what standard input says."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(_measure(order))))


if __name__ == "__main__":
    main()
