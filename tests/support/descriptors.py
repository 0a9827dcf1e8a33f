"""Open file descriptors, as Linux counts them."""

import os
from pathlib import Path


def open_descriptors(pid: int | None = None) -> int:
    """Return how many descriptors a process has open; without an id, this one."""
    folder = Path("/proc") / str(pid or os.getpid()) / "fd"
    return sum(1 for _ in folder.iterdir())
