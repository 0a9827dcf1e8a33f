"""The shapes of REST answers, for OpenAPI and to hold the handlers to them. Fields are the contract's."""

from typing import Any, Literal

from pydantic import BaseModel, Field

RunStatusName = Literal["queued", "running", "waiting_approval", "completed", "failed", "cancelled"]


class Thread(BaseModel):
    """A conversation."""

    thread_id: str
    title: str
    create_time: str | None
    update_time: str | None


class ThreadPage(BaseModel):
    """A page of threads, most recently used first. An empty token: there is no more."""

    threads: list[Thread]
    next_page_token: str


class Message(BaseModel):
    """A saved message of a thread."""

    message_id: str
    thread_id: str
    run_id: str
    role: str
    content: str
    create_time: str | None
    superseded_by_run_id: str


class MessagePage(BaseModel):
    """A page of messages, oldest first."""

    messages: list[Message]
    next_page_token: str


class Run(BaseModel):
    """One message at work. `error_reason` is `UNSPECIFIED` unless the run failed."""

    run_id: str
    thread_id: str
    user_message_id: str
    client_message_id: str
    agent: str
    status: str
    attempt: int
    last_seq: int
    create_time: str | None
    start_time: str | None
    end_time: str | None
    error_reason: str
    superseded_by_run_id: str


class RunPage(BaseModel):
    """A page of runs, newest first."""

    runs: list[Run]
    next_page_token: str


class RunEvent(BaseModel):
    """An event, exactly as its frame on the socket. `payload` depends on `type`."""

    type: str
    run_id: str
    thread_id: str
    seq: int
    attempt: int
    agent_name: str
    timestamp: str | None
    payload: dict[str, Any]  # typed by the contract, one shape per type


class RunEvents(BaseModel):
    """Events of a run after the cursor, in order. There are more while the last seq here is below `last_seq`."""

    events: list[RunEvent]
    last_seq: int


class File(BaseModel):
    """What is known about a file. `run_id` is empty for an upload."""

    file_id: str
    name: str
    media_type: str
    size_bytes: int
    sha256: str
    create_time: str | None
    run_id: str
    description: str


class FilePage(BaseModel):
    """A page of files, newest first."""

    files: list[File]
    next_page_token: str


class Agent(BaseModel):
    """One agent of the catalogue."""

    name: str
    title: str
    description: str
    tool_names: list[str]


class Tool(BaseModel):
    """One tool of the catalogue. `argument_schema` is JSON Schema, as text."""

    name: str
    description: str
    argument_schema: str
    effect: str
    timeout_ms: int
    scopes: list[str]


class Catalogue(BaseModel):
    """The agents, in the order of the flow, and the tools, by name."""

    agents: list[Agent]
    tools: list[Tool]


class NewThread(BaseModel):
    """A thread to be made."""

    title: str = ""


class ThreadChange(BaseModel):
    """What to change of a thread; what is left out stays."""

    title: str | None = None


class Cancellation(BaseModel):
    """Why a run is to end."""

    reason: str = ""


class ApprovalVerdict(BaseModel):
    """What to do with a call that waits for a person. `edited_args` belong to `edit`, and only to it."""

    decision: Literal["approve", "reject", "edit"]
    comment: str = ""
    edited_args: dict[str, Any] | None = None  # the tool's own arguments


class ApprovalResolution(BaseModel):
    """The decision that holds: `approved`, `rejected` or `edited`."""

    decision: str


class DevTokenRequest(BaseModel):
    """Whose token to make."""

    user_id: str = "dev"
    scope: str = ""
    expires_in_s: int = Field(default=3600, ge=1, le=86_400)


class DevToken(BaseModel):
    """A token without a sign-in."""

    token: str
    token_type: Literal["Bearer"]
    expires_at: str
    user_id: str


class Violation(BaseModel):
    """One invalid field."""

    field: str
    description: str


class ErrorPayload(BaseModel):
    """Why a request failed."""

    code: str
    message: str
    retryable: bool
    retry_after_ms: int | None
    violations: list[Violation]
    message_id: str | None
    run_id: str | None
    request_type: str | None
    error_id: str


class Error(BaseModel):
    """The body of every error: the same as the socket's error frame."""

    type: Literal["error"]
    payload: ErrorPayload
