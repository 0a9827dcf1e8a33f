"""What storage and the registry hold, as the contract shows it."""

import json
from typing import Final

from pydantic import BaseModel

from agent_service.api.wire_events import EFFECTS, REASONS
from agent_service.api.wire_values import EnumMap, to_timestamp
from agent_service.engine.agent import Agent
from agent_service.engine.broadcast import ThreadChange, ThreadChangeKind
from agent_service.engine.errors import ErrorReason
from agent_service.engine.tool import Tool
from generated.apex.agent.v1 import agent_pb2 as pb
from storage.records import FileRecord, MessageRecord, MessageRole, RunRecord, RunStatus, ThreadRecord

RUN_STATUSES: Final = EnumMap(RunStatus, pb.RunStatus, "RUN_STATUS")
ROLES: Final = EnumMap(MessageRole, pb.MessageRole, "MESSAGE_ROLE")
CHANGES: Final = EnumMap(ThreadChangeKind, pb.ThreadChange, "THREAD_CHANGE")


def run_to_wire(run: RunRecord) -> pb.Run:
    """Return a run."""
    return pb.Run(
        run_id=run.run_id,
        thread_id=run.thread_id,
        user_message_id=run.user_message_id,
        client_message_id=run.client_message_id,
        agent=run.agent,
        status=RUN_STATUSES.to_wire(run.status),
        attempt=run.attempt,
        last_seq=run.last_seq,
        create_time=to_timestamp(run.create_time),
        start_time=None if run.start_time is None else to_timestamp(run.start_time),
        end_time=None if run.end_time is None else to_timestamp(run.end_time),
        error_reason=(
            REASONS.to_wire(ErrorReason(run.error_reason)) if run.error_reason else pb.ERROR_REASON_UNSPECIFIED
        ),
        superseded_by_run_id=run.superseded_by_run_id or "",
    )


def active_run_to_wire(run: RunRecord) -> pb.ActiveRun:
    """Return what a fresh session is told about an open run."""
    return pb.ActiveRun(
        run_id=run.run_id, thread_id=run.thread_id, last_seq=run.last_seq, status=RUN_STATUSES.to_wire(run.status)
    )


def thread_to_wire(thread: ThreadRecord) -> pb.Thread:
    """Return a thread."""
    return pb.Thread(
        thread_id=thread.thread_id,
        title=thread.title,
        create_time=to_timestamp(thread.create_time),
        update_time=to_timestamp(thread.update_time),
    )


def change_to_wire(change: ThreadChange) -> pb.ThreadChanged:
    """Return what happened to a thread."""
    return pb.ThreadChanged(change=CHANGES.to_wire(change.kind), thread=thread_to_wire(change.thread))


def message_to_wire(message: MessageRecord) -> pb.Message:
    """Return a saved message."""
    return pb.Message(
        message_id=message.message_id,
        thread_id=message.thread_id,
        run_id=message.run_id,
        role=ROLES.to_wire(message.role),
        content=message.content,
        create_time=to_timestamp(message.create_time),
        superseded_by_run_id=message.superseded_by_run_id or "",
    )


def file_to_wire(file: FileRecord) -> pb.File:
    """Return what is known about a file."""
    return pb.File(
        file_id=file.file_id,
        name=file.name,
        media_type=file.media_type,
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        create_time=to_timestamp(file.create_time),
        run_id=file.run_id or "",
        description=file.description,
    )


def agent_to_wire(agent: Agent) -> pb.Agent:
    """Return an agent of the catalogue."""
    return pb.Agent(name=agent.name, title=agent.title, description=agent.description, tool_names=agent.tools)


def tool_to_wire(tool: Tool[BaseModel]) -> pb.Tool:
    """Return a tool of the catalogue."""
    return pb.Tool(
        name=tool.name,
        description=tool.description,
        argument_schema=json.dumps(tool.args.model_json_schema(), sort_keys=True),
        effect=EFFECTS.to_wire(tool.effect),
        timeout_ms=tool.timeout_ms,
        scopes=sorted(tool.scopes),
    )
