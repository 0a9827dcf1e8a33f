"""What Linux says about processes: CPU time and memory."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
DATABASE: Final = "database"
"""The name under which the CPU time of PostgreSQL's processes for one database is counted."""

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_RESET_PEAK: Final = "5"


@dataclass(frozen=True, slots=True)
class Watched:
    """The processes of one deployment by name; `database` names a database of a PostgreSQL on this machine, or none."""

    pids: Mapping[str, int]
    database: str = ""

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds that each process has used so far, all threads, children not included."""
        used = {name: cpu_s(pid) for name, pid in self.pids.items()}
        if self.database:
            used[DATABASE] = sum(cpu_s(pid) for pid in backends(self.database))
        return used

    def memory_kib(self) -> dict[str, float]:
        """Return the resident memory of each process."""
        return {name: status_kib(pid, "VmRSS") for name, pid in self.pids.items()}

    def peak_kib(self) -> dict[str, float]:
        """Return the highest resident memory of each process since `reset_peak`."""
        return {name: status_kib(pid, "VmHWM") for name, pid in self.pids.items()}

    def reset_peak(self) -> None:
        """Begin anew to look for the highest resident memory."""
        for pid in self.pids.values():
            (PROC / str(pid) / "clear_refs").write_text(_RESET_PEAK)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process; 0 for one that is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / _TICKS_PER_S


def machine_busy_s() -> float:
    """Return the CPU seconds that all processes of the machine have used so far, over all cores."""
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, *_ = (
        int(field) for field in (PROC / "stat").read_text().partition("\n")[0].split()[1:]
    )
    return (user + nice + system + interrupts + soft_interrupts) / _TICKS_PER_S


def status_kib(pid: int, name: str) -> float:
    """Return a size from a process's status, in KiB. Raises `OSError` for one that is gone."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1])
    return 0.0


def backends(database: str) -> Sequence[int]:
    """Return PostgreSQL's processes that serve connections to a database; each has its name in its title."""
    found = []
    for folder in PROC.iterdir():
        if folder.name.isdecimal():
            try:
                title = (folder / "cmdline").read_text()
            except OSError:
                continue
            if title.startswith("postgres:") and f" {database} " in title:
                found.append(int(folder.name))
    return found


def children(pid: int) -> Sequence[int]:
    """Return the processes that a process has started itself."""
    tasks = PROC / str(pid) / "task"
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]
