"""The watches of one session: each passes one run's events on, within its own bound."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from agent_service.api.defects import report_defect
from agent_service.api.framing import EventFramer, item_frame
from agent_service.api.metrics import ApiMetrics
from agent_service.api.outbox import Outbox
from agent_service.api.status import watch_ended
from agent_service.engine.broadcast import Broadcast
from agent_service.engine.context import UserExecutionContext
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.ports import Ids
from generated.apex.agent.v1 import agent_pb2 as pb
from storage.records import StoredEvent

MAX_WATCHES: Final = 100
"""Watches of one session."""


@dataclass(frozen=True, slots=True)
class WatchServices:
    """What watches work with."""

    broadcast: Broadcast
    ids: Ids
    metrics: ApiMetrics


MAX_UNSENT_BYTES: Final = 64 * 1024
"""Of one watch that go to the outbox without waiting; what comes beyond waits in the broadcast, which has a bound."""


class _Watching:
    """A watch at work, and how far it has come."""

    def __init__(self, framer: EventFramer, outbox: Outbox, metrics: ApiMetrics, last_seq: int) -> None:
        self.last_seq = last_seq
        self.task: asyncio.Task[None] | None = None
        self._framer = framer
        self._outbox = outbox
        self._metrics = metrics
        self._is_stopped = False
        self._unsent_bytes = 0
        self._put_up_to = 0

    def stop(self) -> None:
        """Let nothing more come."""
        self._is_stopped = True
        if self.task is not None:
            self.task.cancel()

    def frames(self, events: Sequence[StoredEvent]) -> list[bytes]:
        """Return the events as frames, and count them as delivered."""
        self.last_seq = events[-1].seq
        self._metrics.events.inc(len(events))
        return [self._framer.frame(event.data) for event in events]

    def take(self, events: Sequence[StoredEvent]) -> bool:
        """Put live events into the outbox, unless too much of this watch waits there already."""
        if self._outbox.has_taken(self._put_up_to):
            self._unsent_bytes = 0
        if self._is_stopped or self._unsent_bytes > MAX_UNSENT_BYTES:
            return False
        for frame in self.frames(events):
            self._outbox.put(frame)
            self._unsent_bytes += len(frame)
        self._put_up_to = self._outbox.put_bytes
        return True


class Watches:
    """Every watch ends with one `watch_ended`, unless the gateway stops or restarts it."""

    def __init__(self, session_id: str, outbox: Outbox, services: WatchServices) -> None:
        self._session_id = session_id
        self._outbox = outbox
        self._services = services
        self._watches: dict[str, _Watching] = {}

    def start(self, user: UserExecutionContext, request: pb.WatchRunItem) -> None:
        """Start a watch; one with the same id is stopped first."""
        self.stop(request.watch_id)
        if len(self._watches) >= MAX_WATCHES:
            text = f"A connection follows at most {MAX_WATCHES} runs at once."
            self.put_ended(request.watch_id, ApexError(ErrorReason.RATE_LIMITED, text), request.after_seq)
            return
        framer = EventFramer(self._session_id, request.watch_id)
        watching = _Watching(framer, self._outbox, self._services.metrics, request.after_seq)
        self._watches[request.watch_id] = watching
        watching.task = asyncio.create_task(self._run(user, request, watching), name=f"watch-{request.run_id}")

    def stop(self, watch_id: str) -> None:
        """Stop a watch without a word. An unknown one is fine."""
        watching = self._watches.pop(watch_id, None)
        if watching is not None:
            watching.stop()

    def stop_all(self, error: ApexError | None) -> None:
        """Stop every watch; with an error, each one says it together with its last seq."""
        for watch_id, watching in list(self._watches.items()):
            self.stop(watch_id)
            if error is not None:
                self.put_ended(watch_id, error, watching.last_seq)

    def put_ended(self, watch_id: str, error: ApexError | None, last_seq: int, error_id: str = "") -> None:
        """Say that a watch has ended; without an error: with its run."""
        ended = watch_ended(error, last_seq, error_id) if error else pb.WatchEnded(last_seq=last_seq)
        item = pb.AttachResponse.Item(session_id=self._session_id, watch_id=watch_id, watch_ended=ended)
        self._outbox.put(item_frame(item))

    async def _run(self, user: UserExecutionContext, request: pb.WatchRunItem, watching: _Watching) -> None:
        error: ApexError | None = None
        error_id = ""
        self._services.metrics.watches.inc()
        try:
            await self._pass_on(user, request, watching)
        except ApexError as reason:
            error = reason
        except Exception as defect:  # noqa: BLE001 - the border: it ends this watch, not the call
            logger = structlog.get_logger("apex.watch").bind(session_id=self._session_id)
            error, error_id = report_defect(logger, self._services.ids, defect)
        finally:
            self._services.metrics.watches.dec()
        if self._watches.get(request.watch_id) is watching:
            del self._watches[request.watch_id]
        self.put_ended(request.watch_id, error, watching.last_seq, error_id)

    async def _pass_on(self, user: UserExecutionContext, request: pb.WatchRunItem, watching: _Watching) -> None:
        """Deliver batch by batch; while the gateway is slow, what comes waits in the broadcast, which has a bound."""
        async with await self._services.broadcast.watch(user, request.run_id.lower(), request.after_seq) as watch:
            watch.pass_on_to(watching.take)
            async for batch in watch:
                # Into the outbox before any wait: it goes before whatever comes next, or ends the watch meanwhile.
                await self._outbox.deliver(watching.frames(batch))
