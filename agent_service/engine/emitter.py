"""The one way in which a working run speaks: state machine, codec and journal in one line."""

from collections.abc import Callable, Sequence
from datetime import datetime

from agent_service.engine.errors import ApexError, GrammarError, HandoverError
from agent_service.engine.events import AgentProgress, Body, Event, FinalResponse, ToolCompleted, Usage
from agent_service.engine.journal import RunWriter
from agent_service.engine.ports import Clock, EventCodec
from agent_service.engine.run import RunState
from storage.records import Checkpoint, Ending, MessageRecord, RunStatus, StoredEvent

MAX_EVENT_BYTES = 512 * 1024
"""Of one encoded event; what is larger must be an artifact."""

CHECKPOINT_VERSION = 1
"""The version of what the supervisor saves; a checkpoint of another version is not used."""


class RunEmitter:
    """Emits the events of one claimed run, in order.

    Raises `FencedError` when another worker has the run: let it through. Raises `HandoverError` at a safe point
    after `request_handover`, and from then on.
    """

    def __init__(self, state: RunState, writer: RunWriter, codec: EventCodec, clock: Clock, started: datetime) -> None:
        self.state = state
        self.usage = Usage(tool_calls=sum(call.completed is not None for call in state.tools.values()))
        self._writer = writer
        self._codec = codec
        self._clock = clock
        self._started = started
        self._checkpoint: bytes | None = None
        self._handover = False
        self._left = False

    async def emit(self, agent_name: str, body: Body) -> None:
        """Emit; return as soon as it is queued for the next commit, waiting only when too much is uncommitted."""
        # Room first: from here to the journal nothing waits, so a cancelled task never leaves a gap behind.
        if not self._writer.has_room:
            await self._writer.room()
        if self._left:
            raise HandoverError(self.state.run_id)
        event = self.state.draft(self._clock.now(), agent_name, body)
        stored = self._stored(event)
        self.state.apply(event)
        self._writer.append(stored, checkpoint=self._take_checkpoint(event.seq))
        if self._handover and self._is_safe_point(body):
            self._left = True
            await self._writer.flush()
            raise HandoverError(self.state.run_id)

    async def commit(self, agent_name: str, body: Body) -> None:
        """Emit, and return when it is committed."""
        await self.emit(agent_name, body)
        await self._writer.flush()

    async def flush(self) -> None:
        """Return when all that was emitted is committed."""
        await self._writer.flush()

    def resume(self) -> None:
        """Emit what a worker says and closes when it takes the run up again: perhaps nothing."""
        for stored in self._tried(lambda: self.state.resume(self._clock.now())):
            self._writer.append(stored)

    async def complete(self, final: FinalResponse, message: MessageRecord) -> None:
        """End the run with success: last events, assistant message and status in one transaction."""
        now = self._clock.now()
        span = self.execution_time_ms(now)
        stored = self._tried(lambda: self.state.complete(now, final, span, self.usage))
        await self._end(stored, Ending(RunStatus.COMPLETED, now, message))

    async def cancel(self, reason: str) -> None:
        """End the run as cancelled, in one transaction."""
        now = self._clock.now()
        span = self.execution_time_ms(now)
        stored = self._tried(lambda: self.state.cancel(now, reason, span, self.usage))
        await self._end(stored, Ending(RunStatus.CANCELLED, now))

    async def fail(self, error: ApexError, error_id: str) -> None:
        """End the run with an error, in one transaction."""
        now = self._clock.now()
        span = self.execution_time_ms(now)
        stored = self._tried(lambda: self.state.fail(now, error, error_id, span, self.usage))
        await self._end(stored, Ending(RunStatus.FAILED, now, error_reason=error.reason))

    def _tried(self, make: Callable[[], Sequence[Event]]) -> Sequence[StoredEvent]:
        """Return the events that `make` gives, encoded. Where one does not fit, the run stays as it was: no gap."""
        with self.state.all_or_nothing():
            return [self._stored(event) for event in make()]

    async def _end(self, stored: Sequence[StoredEvent], ending: Ending) -> None:
        for event in stored[:-1]:
            self._writer.append(event)
        self._writer.append(stored[-1], ending=ending)
        await self._writer.flush()

    def save_checkpoint(self, data: bytes) -> None:
        """Set what goes into the transaction of the next emitted event."""
        self._checkpoint = data

    def add_usage(self, usage: Usage) -> None:
        """Add to the run's totals."""
        self.usage += usage

    def request_handover(self) -> None:
        """Make the next safe point the last: `HandoverError` follows it."""
        self._handover = True

    def execution_time_ms(self, now: datetime) -> int:
        """Return the milliseconds since work on the run began, over all attempts, without the wait for people."""
        return max(0, round((now - self._started - self.state.waited(now)).total_seconds() * 1000))

    def _is_safe_point(self, body: Body) -> bool:
        return isinstance(body, (ToolCompleted, AgentProgress)) and not self.state.open_tools

    def _take_checkpoint(self, seq: int) -> Checkpoint | None:
        data, self._checkpoint = self._checkpoint, None
        return None if data is None else Checkpoint(seq, CHECKPOINT_VERSION, data)

    def _stored(self, event: Event) -> StoredEvent:
        data = self._codec.encode(event)
        if len(data) > MAX_EVENT_BYTES:
            raise GrammarError(f"run {event.run_id}: an event of {len(data)} bytes; at most {MAX_EVENT_BYTES} fit")
        return StoredEvent(event.run_id, event.seq, data, event.terminal)
