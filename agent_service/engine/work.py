"""What a worker hands to the supervisor: one claimed run, ready to go on."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent_service.engine.commands import RunCommand
from agent_service.engine.dispatcher import Dispatcher
from agent_service.engine.emitter import RunEmitter
from agent_service.engine.ports import HistoryMessage
from storage.records import RunRecord


@dataclass(frozen=True, slots=True)
class Work:
    """A claimed run. `checkpoint` is what `RunEmitter.save_checkpoint` stored last, on a resumed run.

    `message_id` is the assistant message's id, the same over all attempts. `history` is oldest first.
    """

    run: RunRecord
    command: RunCommand
    history: Sequence[HistoryMessage]
    emitter: RunEmitter
    dispatcher: Dispatcher
    checkpoint: bytes | None
    message_id: str
