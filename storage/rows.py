"""Rows of the tables as records."""

from typing import TypeAlias

from sqlalchemy import Row, Select, select

from storage.records import (
    CorpusRecord,
    DocumentRecord,
    FileRecord,
    MessageRecord,
    MessageRole,
    PassageRecord,
    PlanRecord,
    RunRecord,
    RunStatus,
    ThreadRecord,
)
from storage.schema import run_requests, runs

#: A row's cells have the types of its columns, which SQLAlchemy's `Table` does not tell the type checker.
AnyRow: TypeAlias = Row[tuple[object, ...]]


def select_runs() -> Select[tuple[object, ...]]:
    """Return the query whose rows `run_record` takes."""
    return select(*runs.c, run_requests.c.request).join(run_requests, run_requests.c.run_id == runs.c.id)


def run_record(row: AnyRow) -> RunRecord:
    """Return a run."""
    return RunRecord(
        run_id=row.id,
        thread_id=row.thread_id,
        user_id=row.user_id,
        scopes=tuple(row.scopes),
        position=row.position,
        status=RunStatus(row.status),
        agent=row.agent,
        client_message_id=row.client_message_id or "",
        fingerprint=row.fingerprint,
        request=row.request,
        user_message_id=row.user_message_id,
        epoch=row.epoch,
        attempt=row.attempt,
        last_seq=row.last_seq,
        claims=row.claims,
        cancel_reason=row.cancel_reason,
        superseded_by_run_id=row.superseded_by_run_id,
        worker_id=row.worker_id,
        lease_expire_time=row.lease_expire_time,
        create_time=row.create_time,
        start_time=row.start_time,
        end_time=row.end_time,
        error_reason=row.error_reason,
    )


def thread_record(row: AnyRow) -> ThreadRecord:
    """Return a thread."""
    return ThreadRecord(row.id, row.user_id, row.title, row.create_time, row.update_time)


def message_record(row: AnyRow) -> MessageRecord:
    """Return a message; `superseded_by_run_id` is its run's."""
    return MessageRecord(
        message_id=row.id,
        thread_id=row.thread_id,
        run_id=row.run_id,
        user_id=row.user_id,
        role=MessageRole(row.role),
        content=row.content,
        create_time=row.create_time,
        superseded_by_run_id=row.superseded_by_run_id,
    )


def file_record(row: AnyRow) -> FileRecord:
    """Return a file."""
    return FileRecord(
        file_id=row.id,
        user_id=row.user_id,
        name=row.name,
        media_type=row.media_type,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        create_time=row.create_time,
        run_id=row.run_id,
        description=row.description,
    )


def corpus_record(row: AnyRow) -> CorpusRecord:
    """Return a corpus."""
    return CorpusRecord(
        corpus_id=row.id,
        user_id=row.user_id,
        name=row.name,
        description=row.description,
        create_time=row.create_time,
        update_time=row.update_time,
        documents=int(row.documents),
        passages=int(row.passages),
        size_bytes=int(row.size_bytes),
    )


def document_record(row: AnyRow) -> DocumentRecord:
    """Return a document."""
    return DocumentRecord(
        document_id=row.id,
        corpus_id=row.corpus_id,
        user_id=row.user_id,
        title=row.title,
        source=row.source,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        passages=row.passages,
        create_time=row.create_time,
        update_time=row.update_time,
    )


def passage_record(row: AnyRow) -> PassageRecord:
    """Return a passage; title and source are its document's."""
    return PassageRecord(row.document_id, row.title, row.source, row.position, row.heading, row.text)


def message_row(message: MessageRecord) -> dict[str, object]:
    """Return the message as a row of its table. What supersedes it is its run's matter, and no column here."""
    return {
        "id": message.message_id,
        "thread_id": message.thread_id,
        "run_id": message.run_id,
        "user_id": message.user_id,
        "role": message.role,
        "content": message.content,
        "create_time": message.create_time,
    }


def plan_record(row: AnyRow) -> PlanRecord:
    """Return a plan."""
    return PlanRecord(
        plan_id=row.id,
        user_id=row.user_id,
        thread_id=row.thread_id,
        version=row.version,
        document=row.document,
        create_time=row.create_time,
        update_time=row.update_time,
    )
