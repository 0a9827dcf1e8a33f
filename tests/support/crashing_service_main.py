"""A service that dies at a commit point when its plan says so; run with `python -m`.

The rest is the product: acceptance, worker, dispatcher, journal, broadcast, both transports. Its supervisor plays one
script, whose tools leave their effects in a file outside the service: the file that `EFFECTS_FILE` names.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec
import uvloop
from pydantic import BaseModel

from agent_service import app
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.events import (
    AgentProgress,
    AgentThinking,
    Effect,
    FinalResponse,
    PartialResult,
    ProgressStage,
)
from agent_service.engine.ports import ToolCall
from agent_service.engine.tool import Tool, ToolContext, ToolOutput
from agent_service.engine.work import Work
from agent_service.settings import load_settings
from tests.support.consent import call_with_consent
from tests.support.crash_points import append_line, open_crashing_storage
from tests.support.waiting import eventually

EFFECTS_VARIABLE: Final = "EFFECTS_FILE"
GO_NAME: Final = "go"
"""A file in the data directory: while it is not there, the tool of a HELD message waits for it."""

HELD_TIMEOUT_S: Final = 20.0
TOOL_TIMEOUT_MS: Final = 25_000
AGENT: Final = "data"
STEP_ID: Final = "1-data"
LOOK, NOTE, PAY = "look", "note", "pay"
PIECES: Final = ("Looked, noted, ", "and paid once. ", "x" * 4_000, " That is all.")


class Script(StrEnum):
    """How a run goes; a message begins with one of these words."""

    ANSWER = "answer"
    #: It fails when all tools have run.
    FAIL = "fail"
    #: It begins to write, and waits to be stopped.
    STOP = "stop"
    #: Its unsafe tool takes effect, and waits to be stopped.
    STOP_PAYING = "stop_paying"
    #: Its first tool waits for the file `GO_NAME`.
    HELD = "held"

    @classmethod
    def of(cls, content: str) -> "Script":
        """Return the script that a message names."""
        return cls(content.split(" ", 1)[0])


class NoArguments(BaseModel):
    """The arguments of a tool that takes none."""


class Note(msgspec.Struct, frozen=True):
    """One effect of one call, as it stands in the file."""

    tool: str
    run_id: str
    tool_call_id: str


def read_effects(path: Path) -> Sequence[Note]:
    """Return all effects, oldest first."""
    lines = path.read_bytes().splitlines() if path.exists() else ()
    return [msgspec.json.decode(line, type=Note) for line in lines]


def make_tools(effects_file: Path, go_file: Path) -> Sequence[Tool[BaseModel]]:
    """Return one tool of each kind of effect."""

    async def leave(context: ToolContext, tool: str) -> ToolOutput:
        note = msgspec.json.encode(Note(tool, context.run_id, context.tool_call_id))
        await asyncio.to_thread(append_line, effects_file, note)
        return ToolOutput(f"{tool} is done.", {"tool": tool})

    async def look(context: ToolContext, _: BaseModel) -> ToolOutput:
        if Script.of(context.message) is Script.HELD:
            await eventually(go_file.exists, what="the test lets it go on", timeout_s=HELD_TIMEOUT_S)
        return await leave(context, LOOK)

    async def note(context: ToolContext, _: BaseModel) -> ToolOutput:
        await context.progress("Half.", 0.5)
        return await leave(context, NOTE)

    async def pay(context: ToolContext, _: BaseModel) -> ToolOutput:
        output = await leave(context, PAY)
        if Script.of(context.message) is Script.STOP_PAYING:
            await asyncio.Event().wait()
        return output

    return (
        Tool(LOOK, "Look at something.", NoArguments, Effect.READ_ONLY, TOOL_TIMEOUT_MS, look),
        Tool(NOTE, "Note something.", NoArguments, Effect.IDEMPOTENT, TOOL_TIMEOUT_MS, note),
        Tool(PAY, "Pay something.", NoArguments, Effect.UNSAFE, TOOL_TIMEOUT_MS, pay),
    )


class ScriptedSupervisor:
    """Implements `RunSupervisor`: a step per tool, with a checkpoint after each, then the answer."""

    async def run(self, work: Work) -> FinalResponse:
        steps: Sequence[Callable[[Work], Awaitable[None]]] = (self._look, self._note, self._pay)
        done = int(work.checkpoint or b"0")
        for number, step in enumerate(steps[done:], done + 1):
            await step(work)
            work.emitter.save_checkpoint(str(number).encode())
            progress = AgentProgress(ProgressStage.STEP, "On.", step=number, total_steps=3, discard_partial=True)
            await work.emitter.emit(AGENT, progress)
        return await self._answer(work)

    async def _look(self, work: Work) -> None:
        await self._think(work, "Let me look.")
        await work.emitter.emit(AGENT, PartialResult(work.message_id, "Perhaps I know it already."))
        await self._call(work, LOOK)

    async def _note(self, work: Work) -> None:
        await self._call(work, NOTE)

    async def _pay(self, work: Work) -> None:
        await self._think(work, "Now it must be paid.")
        status = await self._call(work, PAY)
        await self._think(work, f"Paying ended as {status}.")

    async def _answer(self, work: Work) -> FinalResponse:
        script = Script.of(work.command.content)
        if script is Script.FAIL:
            raise ApexError(ErrorReason.TOOL_FAILED, "It was not to be.")
        for piece in PIECES:
            await work.emitter.emit(AGENT, PartialResult(work.message_id, piece))
            if script in {Script.STOP, Script.STOP_PAYING}:
                await work.emitter.flush()
                await asyncio.Event().wait()
        return FinalResponse(work.message_id, work.emitter.state.text)

    async def _think(self, work: Work, thought: str) -> None:
        await work.emitter.emit(AGENT, AgentThinking(thought))

    async def _call(self, work: Work, tool: str) -> str:
        call = ToolCall(tool, tool, {})
        if tool == PAY:
            return (await call_with_consent(work, AGENT, STEP_ID, call)).status
        outcome = await work.dispatcher.call(AGENT, STEP_ID, call, frozenset({tool}))
        return outcome.status


async def main() -> None:
    """Serve until SIGTERM, then stop as the product does."""
    settings = load_settings(os.environ)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    tools = make_tools(Path(os.environ[EFFECTS_VARIABLE]), settings.data_dir / GO_NAME)
    async with app.open_app(
        settings, tools=tools, supervisor=ScriptedSupervisor(), opener=open_crashing_storage
    ) as service:
        print(f"crashing service listening on {settings.grpc_address}", flush=True)  # noqa: T201 - the sign of readiness
        await stopping.wait()
        print("draining", flush=True)  # noqa: T201 - likewise
        await service.drain()


if __name__ == "__main__":
    sys.setswitchinterval(app.SWITCH_INTERVAL_S)
    uvloop.run(main())
