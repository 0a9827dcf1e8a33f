"""Drawing in a child process: both libraries keep the interpreter to themselves while they work."""

import asyncio
import base64
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolError

MAX_AT_ONCE: Final = 2
"""Child processes of all runs together."""

CHARTS_TIMEOUT_S: Final = 14.0
"""Of drawing the charts of one call, with the wait for a free child."""

PDF_TIMEOUT_S: Final = 10.0
"""Of making one PDF, with the wait for a free child."""

MAX_HTML_CHARACTERS: Final = 4_000_000
"""Of what is made into a PDF."""

MAX_KEPT: Final = 32
"""Drawings that are kept, the newest: a report shows again what was drawn a moment ago."""

_CHILD: Final = Path(__file__).with_name("rendering_child.py")


class Renderer:
    """Starts a child for each request: it knows nothing of the service, and is killed when it is late."""

    def __init__(self, *, charts_timeout_s: float = CHARTS_TIMEOUT_S, pdf_timeout_s: float = PDF_TIMEOUT_S) -> None:
        self._charts_timeout_s = charts_timeout_s
        self._pdf_timeout_s = pdf_timeout_s
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._drawn: dict[bytes, str] = {}

    async def svgs(self, specs: Sequence[JsonObject]) -> list[str]:
        """Return one SVG for each Vega-Lite specification. Raises `ToolError`."""
        keys = [msgspec.json.encode(spec) for spec in specs]
        new = {key: spec for key, spec in zip(keys, specs, strict=True) if key not in self._drawn}
        if new:
            answer = await self._ask({"specs": list(new.values())}, self._charts_timeout_s, "The chart")
            found = answer.get("svgs")
            if not isinstance(found, list) or len(found) != len(new):
                raise ToolError("The chart could not be drawn. Try again.")
            self._drawn.update(zip(new, map(str, found), strict=True))
        drawn = [self._drawn[key] for key in keys]
        while len(self._drawn) > MAX_KEPT:
            del self._drawn[next(iter(self._drawn))]
        return drawn

    async def pdf(self, html: str) -> bytes | None:
        """Return the document as PDF, None where no PDF can be made in this installation. Raises `ToolError`."""
        if len(html) > MAX_HTML_CHARACTERS:
            raise ToolError("The report is too long for a PDF. Cite fewer calls, or take the HTML.")
        answer = await self._ask({"html": html}, self._pdf_timeout_s, "The PDF")
        found = answer.get("pdf")
        return base64.b64decode(found) if isinstance(found, str) else None

    async def _ask(self, request: JsonObject, timeout_s: float, what: str) -> JsonObject:
        try:
            async with asyncio.timeout(timeout_s), self._slots:
                return await _answer(request)
        except TimeoutError:
            raise ToolError(f"{what} was not ready within {timeout_s:g} seconds. Ask for less of it.") from None
        except (OSError, ValueError) as error:
            structlog.get_logger("apex.rendering").warning("rendering_failed", error=str(error)[:2_000])
            raise ToolError(f"{what} could not be made. Try again, or ask for less of it.") from None


async def _answer(request: JsonObject) -> dict[str, JsonValue]:
    """Raise `OSError` or `ValueError` for a child that fails or answers something else."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(_CHILD),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={},
        cwd="/",
    )
    try:
        out, problems = await process.communicate(json.dumps(request).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise OSError(problems.decode(errors="replace"))
    decoded = json.loads(out)
    return decoded if isinstance(decoded, dict) else {}
