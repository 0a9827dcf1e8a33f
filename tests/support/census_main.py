"""Runs a module, and says on a Unix socket what is alive in its process.

`python -m tests.support.census_main SOCKET MODULE`. The module knows nothing of it: a thread of its own counts, after
a collection of garbage.
"""

import asyncio
import gc
import json
import runpy
import socket
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Final

OURS: Final = ("agent_service.", "ws_bridge.", "storage.")
NOT_HELD: Final = "storage.schema."
"""Types of columns, which SQLAlchemy copies into statements that it caches."""


def census() -> bytes:
    """Return as JSON how many tasks, objects in all, and instances of each class of ours there are."""
    gc.unfreeze()  # what was there when a process began to serve counts too
    gc.collect()
    objects = gc.get_objects()
    kinds = Counter(f"{type(found).__module__}.{type(found).__qualname__}" for found in objects)
    tasks = sum(isinstance(found, asyncio.Task) and not found.done() for found in objects)
    ours = {kind: count for kind, count in kinds.items() if kind.startswith(OURS) and not kind.startswith(NOT_HELD)}
    return json.dumps({"tasks": tasks, "objects": len(objects), "ours": ours}).encode()


def answer(path: Path) -> None:
    """Give every connection one census."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        while True:
            line, _ = listener.accept()
            with line:
                line.sendall(census())


def main(path: str, module: str) -> None:
    """Run the module, and count meanwhile."""
    threading.Thread(target=answer, args=(Path(path),), daemon=True).start()
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
