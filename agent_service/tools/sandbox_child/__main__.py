"""The start of the child process: bounds what it may use, then serves.

The arguments: its memory in MiB, and the largest file that it may write, in bytes (0: none).
"""

import sys
from pathlib import Path
from typing import Final

ADDRESS_SPACE_HEADROOM_BYTES: Final = 2 * 1024**3
"""Beyond the database's memory: the interpreter, libraries, and what they reserve without using it."""


def limit_resources(memory_mib: int, max_written_bytes: int) -> None:
    """Let the system refuse what the database's own limits let through: written bytes, a core, too much memory."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    wanted = memory_mib * 1024**2 + ADDRESS_SPACE_HEADROOM_BYTES
    for what, limit in (
        (resource.RLIMIT_FSIZE, max_written_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, wanted),
    ):
        hard = resource.getrlimit(what)[1]
        value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (value, value))


def main() -> None:
    """Serve on standard input and output."""
    limit_resources(int(sys.argv[1]), int(sys.argv[2]))
    # Isolated, Python looks for modules in this folder first; from here on in the one that holds `agent_service`.
    sys.path[0] = str(Path(__file__).parents[3])
    from agent_service.tools.sandbox_child.server import Server

    Server(sys.stdin.buffer, sys.stdout.buffer).serve()


if __name__ == "__main__":
    main()
