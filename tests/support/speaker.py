"""A supervisor whose runs say what a test wants said, at the moment and in the amount that it wants."""

import asyncio
from collections.abc import Mapping

from agent_service.engine.events import AgentThinking, FinalResponse
from agent_service.engine.work import Work
from tests.support.waiting import eventually


class Talk:
    """One run at work. It says nothing by itself, and ends when it is told to, or when it is cancelled."""

    def __init__(self, work: Work) -> None:
        self.run_id = work.run.run_id
        self._emitter = work.emitter
        self._over = asyncio.Event()

    async def say(self, characters: int, *, times: int = 1) -> int:
        """Emit so many thoughts of this length; return the last seq when all of them are committed."""
        for _ in range(times):
            await self._emitter.emit("data", AgentThinking("x" * characters))
        await self._emitter.flush()
        return self._emitter.state.last_seq

    def finish(self) -> None:
        """Let the run end well."""
        self._over.set()

    async def over(self) -> None:
        """Return when the run shall end."""
        await self._over.wait()


class Speaker:
    """Implements `RunSupervisor`."""

    def __init__(self) -> None:
        self._talks: dict[str, Talk] = {}

    @property
    def talks(self) -> Mapping[str, Talk]:
        """The runs at work, by id."""
        return self._talks

    async def run(self, work: Work) -> FinalResponse:
        talk = self._talks[work.run.run_id] = Talk(work)
        try:
            await talk.over()
        finally:
            del self._talks[work.run.run_id]
        return FinalResponse(work.message_id, "That is all.")

    async def talk(self, run_id: str) -> Talk:
        """Return a run when it is at work."""
        await eventually(lambda: run_id in self._talks, what="the run is at work")
        return self._talks[run_id]
