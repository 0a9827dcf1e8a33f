"""A service whose supervisor says what a test lets it say, one event at a time; run with `python -m`.

The rest is the product: acceptance, journal, broadcast, both transports. A run goes on by one event whenever the test
writes a line with the run's message into the socket `steps.sock` in the data directory.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import uvloop

from agent_service import app
from agent_service.engine.events import (
    AgentHandoff,
    AgentProgress,
    AgentThinking,
    ApprovalDecision,
    ApprovalRequested,
    ApprovalResolved,
    ArtifactCreated,
    Body,
    Effect,
    FinalResponse,
    PartialResult,
    PlannedStep,
    ProgressStage,
    ToolCompleted,
    ToolExecuting,
    ToolStatus,
)
from agent_service.engine.work import Work
from agent_service.settings import Settings, load_settings

SOCKET_NAME: Final = "steps.sock"
REWRITE: Final = "rewrite"
"""A message that begins so ends with another text than the one that was streamed."""

FILE_ID: Final = "01a1fc18-206c-75fd-8b61-b07e7ac9c185"


def script(message_id: str, content: str) -> Sequence[Body]:
    """Return one of every kind of event, in an order that the grammar permits, between acceptance and the end."""
    later = datetime.now(UTC) + timedelta(hours=1)
    return (
        AgentProgress(ProgressStage.CLASSIFIED, "A question.", intent="cost_analysis", confidence=0.9),
        AgentProgress(ProgressStage.PLANNED, "The plan.", planned_steps=(PlannedStep("data", "Measure"),)),
        AgentHandoff("supervisor", "data", "It measures."),
        AgentProgress(ProgressStage.STEP, "Measure", step=1, total_steps=1),
        AgentThinking("Let me look.", 1, 1),
        ApprovalRequested(FILE_ID, "look", {"deep": True}, "It costs.", later),
        ApprovalResolved(FILE_ID, ApprovalDecision.APPROVED, "ann", "Go on."),
        ToolExecuting("c1", "look", "Look closely", {"deep": True, "n": 3}, Effect.READ_ONLY),
        AgentProgress(ProgressStage.TOOL, "Half.", fraction=0.5, tool_call_id="c1"),
        ToolCompleted("c1", "look", ToolStatus.SUCCESS, "Seen.", {"rows": [1, 2.5, None, "x"]}, execution_time_ms=3),
        ArtifactCreated(FILE_ID, "chart.svg", "image/svg+xml", 12, "A chart"),
        AgentProgress(ProgressStage.DEGRADED, "Less than it could be."),
        PartialResult(message_id, "Draft."),
        AgentProgress(ProgressStage.STEP, "Anew.", discard_partial=True),
        PartialResult(message_id, f"You said: {content[:100]}"),
        PartialResult(message_id, " That is all."),
    )


class Prompter:
    """Implements `RunSupervisor`: plays the script, each event after a line from the test; resumes where it was."""

    def __init__(self) -> None:
        self._lines: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(0))

    async def run(self, work: Work) -> FinalResponse:
        bodies = script(work.message_id, work.command.content)
        said = int(work.checkpoint or b"0")  # by a worker before this one
        for number, body in enumerate(bodies[said:], said + 1):
            await self._lines[work.command.content].acquire()
            work.emitter.save_checkpoint(str(number).encode())
            await work.emitter.emit("data", body)
        await self._lines[work.command.content].acquire()
        rewritten = work.command.content.startswith(REWRITE)
        content = "Something else." if rewritten else work.emitter.state.text
        return FinalResponse(work.message_id, content, suggestions=("Ask again",))

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take the test's lines."""
        while line := await reader.readline():
            self._lines[line.decode().strip()].release()
        writer.close()


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[None]:
    """Serve until the block is left."""
    prompter = Prompter()
    async with app.open_app(settings, supervisor=prompter):
        path = Path(settings.data_dir) / SOCKET_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        async with await asyncio.start_unix_server(prompter.listen, path):
            yield


async def main() -> None:
    """Serve until the process is ended."""
    settings = load_settings(os.environ)
    async with serving(settings):
        print(f"scripted service listening on {settings.grpc_address}", flush=True)  # noqa: T201 - the sign of readiness
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
