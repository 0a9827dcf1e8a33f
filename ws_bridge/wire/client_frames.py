"""JSON text of a client → a frame. Whatever comes in, a frame comes out: what cannot be handled becomes `Refused`.

Two steps check a frame: its shape (types, names, depth) here, then the contract's own rules on the request that is
built from it. Fields that are not known are ignored, as in the contract everywhere else: it grows by addition.
"""

import re
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from google.protobuf.struct_pb2 import Struct

from generated.apex.agent.v1 import agent_pb2 as pb
from ws_bridge.close_codes import Reason
from ws_bridge.frames import (
    Authenticate,
    ClientFrame,
    DecideApproval,
    Failure,
    Ping,
    Pong,
    Refused,
    Resume,
    StopAgent,
    UserMessage,
    Violation,
)
from ws_bridge.wire.validation import broken_rules, invalid_message
from ws_bridge.wire.values import struct_of

MAX_JSON_DEPTH = 24
"""Objects and lists inside each other, the frame itself included. Protobuf could carry little more."""
MAX_TYPE_LENGTH = 64
"""Characters of an unknown type that are repeated in the error."""
NOT_YET = frozenset({"watch_thread", "unwatch_thread", "chunk"})
"""Types of the contract that are refused so far."""
MESSAGE_TYPES = frozenset({"user_message", "chat", "agent_message", "start_agent"})
"""Types that carry a message to be run."""

Uint32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Nonce = Annotated[str, msgspec.Meta(max_length=128)] | Int64 | None


class _Envelope(msgspec.Struct):
    type: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")


class _Settings(msgspec.Struct):
    model: str | None = None
    temperature: float | None = None
    max_output_tokens: Uint32 | None = None
    timeout_ms: Int64 | None = None
    budget_usd: float | None = None
    require_approval: bool | None = None
    use_cache: bool | None = None


class _Reference(msgspec.Struct):
    file_id: str | None = None
    message_id: str | None = None
    corpus_id: str | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    text: str | None = None
    thread_id: str | None = None
    message_id: str | None = None
    agent: str | None = None
    context: dict[str, object] | None = None
    settings: _Settings | None = None
    references: list[_Reference] | None = None
    conflict_policy: Literal["enqueue", "reject", "interrupt", "rollback"] | None = None


class _Stop(msgspec.Struct):
    run_id: str | None = None
    message_id: str | None = None


class _Approval(msgspec.Struct):
    run_id: str = ""
    approval_id: str = ""
    decision: Literal["approve", "reject", "edit"] | None = None
    comment: str | None = None
    edited_args: dict[str, object] | None = None


class _Resume(msgspec.Struct):
    run_id: str = ""
    after_seq: Uint32 = 0


class _Authenticate(msgspec.Struct):
    token: Annotated[str, msgspec.Meta(min_length=1, max_length=8192)]


class _Ping(msgspec.Struct):
    nonce: Nonce = None


class _Ids(msgspec.Struct):
    message_id: object = None
    run_id: object = None


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_MESSAGE = msgspec.json.Decoder(_Message)
_STOP = msgspec.json.Decoder(_Stop)
_APPROVAL = msgspec.json.Decoder(_Approval)
_RESUME = msgspec.json.Decoder(_Resume)
_AUTHENTICATE = msgspec.json.Decoder(_Authenticate)
_PING = msgspec.json.Decoder(_Ping)
_IDS = msgspec.json.Decoder(_Ids)
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKETS = re.compile(r"[\[\]{}]")
_SHAPE_ERROR = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)


class _InvalidError(Exception):
    """A frame's content is refused."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def binary_frame() -> Refused:
    """Return the refusal of a binary frame: whoever sends one does not speak this protocol."""
    text = "Binary frames are not part of this protocol: send one JSON object per text frame."
    return Refused(Failure(Reason.MALFORMED_JSON, text), fatal=True)


def client_frame(text: str, max_bytes: int, new_id: str) -> ClientFrame:
    """Return the frame that a client's text means. `new_id` is the `message_id` of a message that brings none."""
    size = len(text) if text.isascii() else len(text.encode())
    envelope = _envelope(text)
    if size > max_bytes:
        told = f"The frame has {size} bytes; at most {max_bytes} are permitted. Put long text into a file."
        failure = Failure(Reason.MESSAGE_TOO_LARGE, told)
        return Refused(failure) if isinstance(envelope, Refused) else _refused(envelope, failure)
    return envelope if isinstance(envelope, Refused) else _typed_frame(envelope, new_id)


def _envelope(text: str) -> _Envelope | Refused:
    if _too_deep(text):
        return _malformed(f"objects and lists are nested more than {MAX_JSON_DEPTH} deep")
    try:
        return _ENVELOPE.decode(text)
    except msgspec.ValidationError as error:
        return _malformed(f'expected an object with "type" and "payload" ({error})')
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        return _malformed(str(error))


def _typed_frame(envelope: _Envelope, new_id: str) -> ClientFrame:
    kind = envelope.type
    try:
        if kind in MESSAGE_TYPES:
            return UserMessage(kind, _message(_MESSAGE.decode(envelope.payload), new_id))
        decode = READERS.get(kind)
        if decode is not None:
            return decode(envelope.payload)
    except _InvalidError as error:
        return _refused(envelope, error.failure)
    except msgspec.ValidationError as error:
        return _refused(envelope, _misshapen(error))
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        return _refused(envelope, _malformed(str(error)).failure)
    shown = kind[:MAX_TYPE_LENGTH].encode(errors="replace").decode()
    told = "is not supported yet" if kind in NOT_YET else "is not known"
    return _refused(envelope, Failure(Reason.UNKNOWN_TYPE, f'The frame type "{shown}" {told}.'))


def _message(payload: _Message, new_id: str) -> pb.RunAgentRequest:
    request = pb.RunAgentRequest(
        thread_id=payload.thread_id or "",
        content=payload.content or payload.text or "",
        client_message_id=payload.message_id or new_id,
        agent=payload.agent or "",
        context=_struct("context", payload.context),
        settings=_settings(payload.settings),
        references=[_reference(index, item) for index, item in enumerate(payload.references or [])],
        conflict_policy=_conflict_policy(payload.conflict_policy),
    )
    _check(broken_rules(request, renamed={"client_message_id": "message_id"}))
    return request


def _stop(payload: msgspec.Raw) -> StopAgent:
    stop = _STOP.decode(payload)
    if stop.run_id:
        request = pb.CancelRunRequest(run_id=stop.run_id)
    elif stop.message_id:
        request = pb.CancelRunRequest(client_message_id=stop.message_id)
    else:
        raise _invalid("target", "must be run_id or message_id")
    _check(broken_rules(request, renamed={"client_message_id": "message_id"}))
    return StopAgent(request)


def _approval(payload: msgspec.Raw) -> DecideApproval:
    approval = _APPROVAL.decode(payload)
    request = pb.ResolveApprovalRequest(
        run_id=approval.run_id,
        approval_id=approval.approval_id,
        decision=pb.ApprovalChoice.Value(f"APPROVAL_CHOICE_{(approval.decision or 'unspecified').upper()}"),
        comment=approval.comment or "",
        edited_args=_struct("edited_args", approval.edited_args),
    )
    _check(broken_rules(request))
    return DecideApproval(request)


def _resume(payload: msgspec.Raw) -> Resume:
    resume = _RESUME.decode(payload)
    _check(broken_rules(pb.WatchRunRequest(run_id=resume.run_id, after_seq=resume.after_seq)))
    return Resume(resume.run_id, resume.after_seq)


def _authenticate(payload: msgspec.Raw) -> Authenticate:
    return Authenticate(_AUTHENTICATE.decode(payload).token)


def _ping(payload: msgspec.Raw) -> Ping:
    return Ping(_PING.decode(payload).nonce)


READERS: dict[str, Callable[[msgspec.Raw], ClientFrame]] = {
    "stop_agent": _stop,
    "resolve_approval": _approval,
    "resume": _resume,
    "authenticate": _authenticate,
    "ping": _ping,
    "pong": lambda _: Pong(),
}
"""What reads the payload of each type beside `MESSAGE_TYPES`."""


def _struct(field: str, value: dict[str, object] | None) -> Struct | None:
    if value is None:
        return None
    try:
        return struct_of(value)
    except (ValueError, OverflowError) as error:
        raise _invalid(field, f"holds a value that cannot be sent on: {error}") from error


def _settings(settings: _Settings | None) -> pb.RunSettings | None:
    if settings is None:
        return None
    return pb.RunSettings(
        model=settings.model or "",
        temperature=settings.temperature,
        max_output_tokens=settings.max_output_tokens,
        timeout_ms=settings.timeout_ms or 0,
        budget_usd=settings.budget_usd,
        require_approval=settings.require_approval or False,
        use_cache=settings.use_cache,
    )


def _reference(index: int, reference: _Reference) -> pb.Reference:
    given = [value for value in (reference.file_id, reference.message_id, reference.corpus_id) if value is not None]
    if len(given) > 1:
        raise _invalid(f"references[{index}].reference", "must be one of file_id, message_id, corpus_id")
    if reference.file_id is not None:
        return pb.Reference(file_id=reference.file_id)
    if reference.message_id is not None:
        return pb.Reference(message_id=reference.message_id)
    return pb.Reference() if reference.corpus_id is None else pb.Reference(corpus_id=reference.corpus_id)


def _conflict_policy(name: str | None) -> pb.ConflictPolicy.ValueType:
    return pb.ConflictPolicy.Value(f"CONFLICT_POLICY_{(name or 'unspecified').upper()}")


def _check(failure: Failure | None) -> None:
    if failure is not None:
        raise _InvalidError(failure)


def _invalid(field: str, description: str) -> _InvalidError:
    violations = (Violation(field, description),)
    return _InvalidError(Failure(Reason.INVALID_ARGUMENT, invalid_message(violations), violations=violations))


def _misshapen(error: msgspec.ValidationError) -> Failure:
    """Return the failure for a payload of the wrong shape: `Expected ... - at `$.settings.model``."""
    found = _SHAPE_ERROR.fullmatch(str(error))
    what = found["what"] if found else str(error)
    path = (found["path"] or "" if found else "").removeprefix(".")
    violations = (Violation(path, f"{what[:1].lower()}{what[1:]}"),)
    return Failure(Reason.INVALID_ARGUMENT, invalid_message(violations), violations=violations)


def _malformed(what: str) -> Refused:
    return Refused(Failure(Reason.MALFORMED_JSON, f"The frame is not usable JSON: {what}."))


def _refused(envelope: _Envelope, failure: Failure) -> Refused:
    """Return a refusal that names its request, so far as the request can be read."""
    shown = envelope.type[:MAX_TYPE_LENGTH].encode(errors="replace").decode()
    try:
        ids = _IDS.decode(envelope.payload)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return Refused(failure, shown)
    return Refused(failure, shown, _id(ids.message_id), _id(ids.run_id))


def _id(value: object) -> str | None:
    return value[:MAX_TYPE_LENGTH] if isinstance(value, str) and value else None


def _too_deep(text: str) -> bool:
    if text.count("{") + text.count("[") <= MAX_JSON_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_JSON_DEPTH:
            return True
    return False
