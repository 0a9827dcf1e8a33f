"""Reads one PDF or HTML file and writes its title and text as JSON. Arguments: kind, path, memory in MiB, text bytes.

What such a file holds can hurt this process, never the service: its memory is bounded here, its time by who started it.
"""

import json
import sys
from pathlib import Path
from typing import Final

ADDRESS_SPACE_HEADROOM_BYTES: Final = 512 * 1024**2
"""Beyond the memory it was given: the interpreter and libraries, and what they reserve without using it."""


def limit_resources(memory_mib: int) -> None:
    """Let the system refuse what a file has no business to need: written bytes, a core, more memory."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    wanted = memory_mib * 1024**2 + ADDRESS_SPACE_HEADROOM_BYTES
    # A pipe is no file: what is written to it does not count.
    for what, limit in ((resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, wanted)):
        hard = resource.getrlimit(what)[1]
        value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (value, value))


def main() -> None:
    """Read and write."""
    kind, path, memory_mib, max_bytes = sys.argv[1:]
    limit_resources(int(memory_mib))
    # Isolated, Python looks for modules in this folder first; from here on in the one that holds `agent_service`.
    sys.path[0] = str(Path(__file__).parents[4])
    from agent_service.tools.corpus.reader_child.reading import UnreadableError, read_html, read_pdf

    try:
        read = read_pdf if kind == "pdf" else read_html
        title, text = read(Path(path), int(max_bytes))
        answer = {"title": title, "text": text}
    except UnreadableError as error:
        answer = {"error": error.kind}
    except MemoryError:
        answer = {"error": "memory"}
    except Exception:  # noqa: BLE001 - whatever a broken file makes a reader raise
        answer = {"error": "broken"}
    sys.stdout.buffer.write(json.dumps(answer).encode())


if __name__ == "__main__":
    main()
