"""What one step may do to the outside: the loop's side of the run's events, tools, checkpoint and budget."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent_service.engine.budget import Budget
from agent_service.engine.checkpoint import LoopState, RunProgress
from agent_service.engine.events import AgentProgress, AgentThinking, JsonObject, PartialResult, ProgressStage, Usage
from agent_service.engine.ports import ToolCall, ToolOutcome
from agent_service.engine.run import MAX_PIECE_CHARACTERS
from agent_service.engine.work import Work

MAX_ANSWER_BYTES: Final = 400 * 1024
"""The contract's bound of an answer, UTF-8."""

MAX_THOUGHT_CHARACTERS: Final = 4_000
"""Of one thought; the rest is cut."""

CUT_NOTICE: Final = "\n\n*The answer was cut here: it is longer than 400 KiB.*"


@dataclass(frozen=True, slots=True)
class StepPlace:
    """Which step this is, of `total`. Step 0 is triage, before there is a plan. `step_id` prefixes its calls' ids."""

    agent_name: str
    number: int
    total: int

    @property
    def step_id(self) -> str:
        """Unique in the run, and the same when another worker goes on."""
        return f"{self.number}-{self.agent_name}"


class RunStepSink:
    """Implements `ports.StepSink` over the run's emitter and dispatcher, for one try of a step with one model.

    Nothing is held back to be batched.
    """

    def __init__(
        self,
        work: Work,
        place: StepPlace,
        permitted: frozenset[str],
        progress: RunProgress,
        budget: Budget,
        *,
        model: str,
    ) -> None:
        self._work = work
        self._place = place
        self._permitted = permitted
        self._progress = progress
        self._budget = budget
        self._model = model
        self._answer_bytes = 0
        self._cut = False

    async def thought(self, text: str) -> None:
        if text.strip():
            body = AgentThinking(text.strip()[:MAX_THOUGHT_CHARACTERS], self._place.number, self._place.total)
            await self._work.emitter.emit(self._place.agent_name, body)

    async def text(self, piece: str) -> None:
        if self._cut or not piece:
            return
        piece = piece.replace("\x00", "\ufffd")  # PostgreSQL keeps no NUL in text
        size = len(piece.encode())
        if self._answer_bytes + size > MAX_ANSWER_BYTES - len(CUT_NOTICE.encode()):
            self._cut = True
            piece = CUT_NOTICE
        self._answer_bytes += size
        for start in range(0, len(piece), MAX_PIECE_CHARACTERS):
            body = PartialResult(self._work.message_id, piece[start : start + MAX_PIECE_CHARACTERS])
            await self._work.emitter.emit(self._place.agent_name, body)

    async def discard_text(self) -> None:
        self._answer_bytes = 0
        self._cut = False
        body = AgentProgress(
            ProgressStage.STEP,
            "The answer is not finished: more has to be looked up.",
            step=self._place.number,
            total_steps=self._place.total,
            discard_partial=True,
        )
        await self._work.emitter.emit(self._place.agent_name, body)

    async def call_tool(self, call: ToolCall) -> ToolOutcome:
        outcome = await self._work.dispatcher.call(self._place.agent_name, self._place.step_id, call, self._permitted)
        note_missing(self._progress.missing, call.args, outcome.result)
        return outcome

    def save(self, state: bytes) -> None:
        self._progress.loops[self._place.number] = LoopState(self._model, state)
        self._work.emitter.save_checkpoint(self._progress.encode(self._budget.spent))

    async def before_model_request(self) -> None:
        self._budget.check()

    def used(self, usage: Usage) -> None:
        self._budget.add(usage)
        self._work.emitter.add_usage(usage)


def note_missing(missing: dict[str, str], args: JsonObject, result: JsonObject | None) -> None:
    """Add what a tool's result says the data lacks, by the tools' convention, to `missing`.

    A column that the call itself declared absent is a question of "what if", not a gap in the data.
    """
    entries = result.get("missing") if result else None
    corrections = args.get("columns")
    blanked = [name for name, column in corrections.items() if not column] if isinstance(corrections, Mapping) else []
    for entry in entries if isinstance(entries, list | tuple) else ():
        if isinstance(entry, Mapping) and isinstance(column := entry.get("column"), str) and column not in blanked:
            why, how = entry.get("why_it_matters", ""), entry.get("how_to_supply", "")
            missing.setdefault(column, f"{column}: {why} {how}".strip())
