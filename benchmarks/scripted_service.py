"""The product's service with an agent that follows the script in the message; run with `python -m`.

Everything else is as in `python -m agent_service`: settings, acceptance, journal, broadcast, `Attach`, sign-in, logs.
"""

import asyncio
import os
from collections.abc import Iterator

from agent_service import app
from agent_service.engine.events import (
    AgentThinking,
    Body,
    Effect,
    FinalResponse,
    JsonObject,
    PartialResult,
    ToolCompleted,
    ToolExecuting,
    ToolStatus,
)
from agent_service.engine.work import Work
from agent_service.settings import load_settings
from benchmarks.workload import Script, pieces, script_of

AGENT_NAME = "data"


class ScriptedAgent:
    """Implements `RunSupervisor`: emits what the message asks for, as fast as the service takes it or at its pace."""

    async def run(self, work: Work) -> FinalResponse:
        script, emitter = script_of(work.command.content), work.emitter
        for body in steps(script):
            if isinstance(body, ToolExecuting):
                await emitter.commit(AGENT_NAME, body)  # as the dispatcher does: an effect is possible from here on
            else:
                await emitter.emit(AGENT_NAME, body)
        async for piece in pieces(script):
            await emitter.emit(AGENT_NAME, PartialResult(work.message_id, piece))
        return FinalResponse(work.message_id, emitter.state.text)


def steps(script: Script) -> Iterator[Body]:
    """Yield thinking, tool call and result, as often as the script says."""
    for number in range(1, script.tools + 1):
        call_id = f"call-{number}"
        rows: JsonObject = {"rows": number, "model": "gpt-4o"}
        yield AgentThinking("I look at the requests by model.", number, script.tools)
        yield ToolExecuting(call_id, "usage_summary", "Requests by model", {"by": "model"}, Effect.READ_ONLY)
        yield ToolCompleted(call_id, "usage_summary", ToolStatus.SUCCESS, "One model.", rows, execution_time_ms=1)


def main() -> None:
    """Serve until SIGTERM."""
    settings = load_settings(os.environ)
    asyncio.run(app.migrate(settings))
    app.run(settings, supervisor=ScriptedAgent())


if __name__ == "__main__":
    main()
