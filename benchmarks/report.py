"""The table on the screen, and the file that keeps the figures."""

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from benchmarks.deployments import Mode
from benchmarks.figures import AIMS, FIGURES, Aim, Round, Spread, Verdict, figure, judge, ratio
from benchmarks.plan import Sizes

TITLES: Mapping[Mode, str] = {
    Mode.FLOOR_SINGLE: "floor, single",
    Mode.FLOOR: "floor, multiplexed",
    Mode.SQLITE: "SQLite",
    Mode.POSTGRES: "PostgreSQL",
}
LABEL_WIDTH = 56
CELL_WIDTH = 34
MAX_BUSY = 0.8
"""A load generator that uses more of a core than this may hold up what it measures."""
MAX_OTHERS = 0.15
"""Cores: with more than this in other hands, latencies are those of a crowded machine."""


@dataclass(frozen=True, slots=True)
class Result:
    """All rounds of all modes that were run; each mode has the same number of rounds."""

    sizes: Sizes
    rounds: Mapping[Mode, Sequence[Round]]
    taken_s: float

    @property
    def floor(self) -> Sequence[Round]:
        """The multiplexed floor's rounds: what everything is compared with."""
        return self.rounds.get(Mode.FLOOR, ())

    @property
    def product(self) -> Sequence[Mode]:
        """The modes that have aims."""
        return [mode for mode in self.rounds if not mode.is_floor]


def table(result: Result) -> str:
    """Return the figures, the aims, and a warning where the load generator was too busy."""
    return "\n".join([*_figures(result), "", *_aims(result), *_warnings(result), ""])


def _figures(result: Result) -> Iterator[str]:
    yield f"Medians of {result.sizes.rounds} (range), x: times the multiplexed floor of the same round"
    yield ""
    yield "".ljust(LABEL_WIDTH) + "".join(TITLES[mode].rjust(CELL_WIDTH) for mode in result.rounds)
    for line in FIGURES:
        cells = [
            _cell(figure(rounds, line.name), None if mode is Mode.FLOOR else ratio(rounds, result.floor, line.name))
            for mode, rounds in result.rounds.items()
        ]
        label = f"{line.label}, {line.unit}" if line.unit else line.label
        yield label.ljust(LABEL_WIDTH) + "".join(cell.rjust(CELL_WIDTH) for cell in cells)


def _cell(found: Spread | None, compared: Spread | None) -> str:
    if found is None:
        return "-"
    text = f"{_number(found.median)} ({_number(found.low)} to {_number(found.high)})"
    return text if compared is None else f"{text} {compared.median:.2f}x"


def _number(value: float) -> str:
    size = abs(value)
    return f"{value:.0f}" if size >= 1000 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"  # noqa: PLR2004 - three digits


def _aims(result: Result) -> Iterator[str]:
    yield "Aims".ljust(LABEL_WIDTH) + "".join(TITLES[mode].rjust(CELL_WIDTH) for mode in result.product)
    verdicts = {
        mode: {verdict.aim.name: verdict for verdict in judge(result.rounds[mode], result.floor)}
        for mode in result.product
    }
    for aim in AIMS:
        cells = [_verdict(verdicts[mode].get(aim.name)) for mode in result.product]
        yield _aim(aim).ljust(LABEL_WIDTH) + "".join(cell.rjust(CELL_WIDTH) for cell in cells)


def _aim(aim: Aim) -> str:
    line = next(line for line in FIGURES if line.name == aim.name)
    unit = "times the floor" if aim.is_ratio else line.unit
    return f"{line.label} {'≥' if aim.at_least else '≤'} {aim.limit:g} {unit}"


def _verdict(verdict: Verdict | None) -> str:
    if verdict is None:
        return "not measured"
    outcome = "met" if verdict.missed_by == 0 else f"missed by {verdict.missed_by:.0%}"
    return f"{_number(verdict.measured)} {outcome}"


def _warnings(result: Result) -> Iterator[str]:
    for mode, rounds in result.rounds.items():
        busy = figure(rounds, "load_busy")
        if busy is not None and busy.high > MAX_BUSY:
            yield f"Careful: the load generator used {busy.high:.0%} of a core with {TITLES[mode]}."
        others = figure(rounds, "others_busy")
        if others is not None and others.high > MAX_OTHERS:
            yield f"Careful: others used up to {others.high:.2f} cores while {TITLES[mode]} was measured."


def save(result: Result, path: Path) -> None:
    """Write everything as JSON: figures, ratios, aims, each round, and where it was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    modes = {
        mode.value: {
            "figures": {line.name: figure(rounds, line.name) for line in FIGURES},
            "ratios": {line.name: ratio(rounds, result.floor, line.name) for line in FIGURES},
            "aims": judge(rounds, result.floor) if mode in result.product else [],
            "rounds": rounds,
        }
        for mode, rounds in result.rounds.items()
    }
    machine = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
    content = {"machine": machine, "taken_s": result.taken_s, "sizes": asdict(result.sizes), "modes": modes}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content)))
