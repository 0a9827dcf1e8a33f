"""Where a file's JSON breaks, for people: the database counts lines in its own way."""

import gzip
import json
from pathlib import Path
from typing import Final

from agent_service.tools.sandbox_child.refusal import REPAIR

MAX_SEARCHED_BYTES: Final = 32 * 1024**2
"""So far into the unpacked file the place is looked for."""


def malformed_json(path: Path) -> str:
    """Return the sentence for a person, with the line where it is found."""
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as file:
        data = file.read(MAX_SEARCHED_BYTES + 1)
    number = broken_line(data.decode("utf-8-sig", "replace"))
    lines = data.rstrip().count(b"\n") + 1
    if not number or (number >= lines and len(data) > MAX_SEARCHED_BYTES):
        return f"{{name}} is not valid JSON: one of its records cannot be read. {REPAIR}"
    if number >= lines:
        text = f"{{name}} is not valid JSON: its last line ({lines:,}) cannot be read; it may have been cut off."
        return f"{text} {REPAIR}"
    return f"{{name}} is not valid JSON: line {number:,} cannot be read. {REPAIR}"


def broken_line(text: str) -> int:
    """Return the number of the first line where the JSON breaks, 0 where none does: one record per line, or one text.

    A first line that is no record by itself, with a second one that is none either, is part of a longer text.
    """
    lines = text.split("\n")
    bad = (number for number, line in enumerate(lines, start=1) if line.strip() and not is_record(line))
    first = next(bad, 0)
    one_per_line = first > 1 or (len(lines) > 1 and is_record(lines[1]))
    if not first or (one_per_line and not text.lstrip().startswith("[")):
        return first
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.lineno
    except RecursionError:
        pass
    return 0


def is_record(line: str) -> bool:
    """Return whether the line is a whole JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except (json.JSONDecodeError, RecursionError):
        return False
