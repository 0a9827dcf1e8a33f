"""Whatever the contract has, everything around it has too: what is new in the contract turns these tests red.

The checks themselves are tried on a newer contract: they name each part that its additions lack.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Final, get_args

import pytest
from google.protobuf.descriptor import FieldDescriptor

from agent_service.api.status import CODES
from agent_service.api.wire_events import BODY_READERS
from agent_service.engine.errors import ErrorReason
from agent_service.engine.run import RETRYABLE_REASONS
from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.bodies import KINDS
from tests.support.completeness import (
    EVENT,
    Parts,
    choice_gaps,
    choices,
    enum_gaps,
    enum_texts,
    event_gaps,
    gaps,
    reason_gaps,
    rpc_gaps,
    rpcs,
)
from tests.support.grammar import EVENT_TYPES
from tests.support.journals import read_journals
from tests.support.newer_contract import NEW_CASES, NEW_EVENT, NEW_RPC, NEW_VALUE, NewerContract
from tests.support.node import run_module
from tests.support.protocol_doc import codes, read_tables
from tests.support.rules import ID
from ws_bridge import frames as fr
from ws_bridge.close_codes import MEANINGS, CloseCode
from ws_bridge.wire.client_frames import MESSAGE_TYPES, NOT_YET, READERS, client_frame
from ws_bridge.wire.events import PAYLOADS, EventTexts
from ws_bridge.wire.items import items_of

HERE: Final = Path(__file__).parent
GOLDEN: Final = HERE.parent / "ws_bridge" / "golden"

IGNORED_BY_THE_PAGE: Final = {"pong"}
"""Frames that the page has no use for: whatever arrives shows that the line lives."""

DOC: Final = read_tables()
THREAD_FRAMES: Final = {f"thread_{text}" for text in enum_texts(pb.DESCRIPTOR)["ThreadChange"]}
SERVER_FRAMES: Final = {
    name: kind
    for kind in get_args(fr.ServerFrame)
    for name in (THREAD_FRAMES if kind is fr.ThreadFrame else {kind.type})
}
"""What the bridge can send beside events, by type."""

CLIENT_FRAMES: Final = MESSAGE_TYPES | READERS.keys()


@pytest.fixture(scope="module")
def page() -> Mapping[str, list[str]]:
    """Which types the page has something for: `events`, `frames`, `controls`."""
    tables: Mapping[str, list[str]] = run_module(HERE / "page_tables.mjs")
    return tables


@pytest.fixture(scope="module")
def newer() -> NewerContract:
    return NewerContract()


def golden(folder: str = "") -> set[str]:
    """Return the types that have a golden file; `type.variant.json` is one of `type`."""
    return {path.name.split(".")[0] for path in (GOLDEN / folder).glob("*.json")} - {"unknown_event"}


def event_parts(page: Mapping[str, list[str]]) -> Parts:
    return {
        "class in engine/events.py": KINDS,
        "reader in api/wire_events.py": BODY_READERS,
        "mapping in ws_bridge/wire/events.py": PAYLOADS,
        "golden file": golden(),
        "handler in run_state.js": page["events"],
        "kind of the grammar checker": EVENT_TYPES,
        "event in the journals": {case for journal in read_journals().values() for case in journal.cases},
        "row in docs/protocol.md": DOC["Events"],
    }


def choice_parts(page: Mapping[str, list[str]]) -> Mapping[str, Parts]:
    """Return the parts of every oneof; each has its table in the docs."""
    documented = {name: {"row in docs/protocol.md": DOC.get(name, {})} for name in choices(pb.DESCRIPTOR)}
    taken = {
        "AttachResponse.Item.item": {"reader in ws_bridge/wire/items.py": items_taken()},
        "Reference.reference": {"form in a user_message": references_taken()},
        "CancelRunRequest.target": {"form in a stop_agent": targets_taken()},
    }
    combined = {name: {**parts, **taken.get(name, {})} for name, parts in documented.items()}
    return {**combined, EVENT: event_parts(page)}


def items_taken() -> list[str]:
    """Return the items of the Attach call that the bridge makes something of."""
    made = {}
    for case in pb.AttachResponse.Item.DESCRIPTOR.oneofs_by_name["item"].fields:
        item = pb.AttachResponse.Item(session_id=ID)
        getattr(item, case.name).SetInParent()
        made[case.name] = list(items_of([item], EventTexts()))
    return [name for name, values in made.items() if values]


def references_taken() -> list[str]:
    """Return the kinds of references that a client can put into a message."""
    taken: list[str] = []
    for case in pb.Reference.DESCRIPTOR.oneofs_by_name["reference"].fields:
        frame = sent("user_message", content="Hi", references=[{case.name: ID}])
        if isinstance(frame, fr.UserMessage) and frame.request.references[0].WhichOneof("reference") == case.name:
            taken.append(case.name)
    return taken


def targets_taken() -> list[str]:
    """Return the ways in which a client can name the run to be stopped."""
    frames = [sent("stop_agent", **{name: ID}) for name in ("run_id", "message_id")]
    return [frame.request.WhichOneof("target") or "" for frame in frames if isinstance(frame, fr.StopAgent)]


def sent(kind: str, **payload: object) -> fr.ClientFrame:
    return client_frame(json.dumps({"type": kind, "payload": payload}), 8_192, ID)


def enum_parts() -> Mapping[str, Mapping[str, list[str]]]:
    rows = {name: codes(cells[0]) for name, cells in DOC["Values"].items()}
    return {"row in docs/protocol.md": {**rows, "ErrorReason": list(DOC["Errors"])}}


def reason_parts() -> Parts:
    return {
        "reason in engine/errors.py": [reason.value for reason in ErrorReason],
        "gRPC code in api/status.py": [reason.value for reason in CODES],
        "meaning in ws_bridge/close_codes.py": [reason.value for reason in MEANINGS],
        "row in docs/protocol.md": DOC["Errors"],
    }


# ── the contract of this version is complete ──


def test_every_kind_of_event_has_all_its_parts(page: Mapping[str, list[str]]) -> None:
    assert event_gaps(pb.DESCRIPTOR, event_parts(page)) == []


def test_every_choice_has_all_its_parts(page: Mapping[str, list[str]]) -> None:
    assert choice_gaps(pb.DESCRIPTOR, choice_parts(page)) == []


def test_every_value_has_its_text() -> None:
    assert enum_gaps(pb.DESCRIPTOR, enum_parts()) == []


def test_every_reason_has_all_its_parts() -> None:
    assert reason_gaps(pb.DESCRIPTOR, reason_parts()) == []


def test_every_frame_of_the_server_has_its_parts(page: Mapping[str, list[str]]) -> None:
    handled = {*page["frames"], *page["controls"]}
    assert handled & IGNORED_BY_THE_PAGE == set()
    parts = {
        "handler in the page": handled | IGNORED_BY_THE_PAGE,
        "golden file": golden("server_frames"),
        "row in docs/protocol.md": DOC["Frames of the server"],
    }
    assert gaps(SERVER_FRAMES, parts) == []


def test_every_frame_of_the_client_has_its_parts() -> None:
    parts = {"golden file": golden("client_frames"), "row in docs/protocol.md": DOC["Frames of the client"]}
    assert gaps(CLIENT_FRAMES, parts) == []
    assert gaps(NOT_YET, {"row in docs/protocol.md": DOC["Frames that are not there yet"]}) == []


# ── what the docs say is so ──


def test_the_docs_name_every_field_of_every_event() -> None:
    for case in pb.AgentEvent.DESCRIPTOR.oneofs_by_name["event"].fields:
        assert codes(DOC["Events"][case.name][0]) == _fields_of(case), case.name
    for name, cells in DOC["Objects in events"].items():
        assert codes(cells[0]) == [field.name for field in getattr(pb, name).DESCRIPTOR.fields], name


def test_the_docs_name_every_field_of_attach() -> None:
    for message in (pb.AttachRequest, pb.AttachResponse.Item):
        (oneof,) = message.DESCRIPTOR.oneofs
        table = DOC[oneof.full_name.removeprefix("apex.agent.v1.")]
        for case in oneof.fields:
            if case.message_type is not pb.AgentEvent.DESCRIPTOR:
                assert codes(table[case.name][0]) == _fields_of(case), case.name


def _fields_of(case: FieldDescriptor) -> list[str]:
    assert case.message_type is not None
    return [field.name for field in case.message_type.fields]


def test_the_docs_name_every_field_of_every_frame_of_the_server() -> None:
    for name, kind in SERVER_FRAMES.items():
        named = [field.name for field in fields(kind) if field.name != "type"]
        assert codes(DOC["Frames of the server"][name][0]) == named, name
    inner: dict[str, list[str]] = {
        kind.__name__: [f.name for f in fields(kind)] for kind in (fr.ActiveRun, fr.Violation)
    }
    inner["Thread"] = [field.name for field in pb.Thread.DESCRIPTOR.fields]
    assert {name: codes(cells[0]) for name, cells in DOC["Objects in frames"].items()} == inner


def test_the_docs_name_what_clients_can_send() -> None:
    """A row may be of several types: together, their golden files show every field that the row names."""
    shown: dict[tuple[str, ...], set[str]] = {}
    for path in (GOLDEN / "client_frames").glob("*.json"):
        frame = json.loads(path.read_text(encoding="utf-8"))["frame"]
        shown.setdefault(tuple(DOC["Frames of the client"][frame["type"]]), set()).update(frame["payload"])
    for cells, names in shown.items():
        assert set(codes(cells[0])) == names, cells


def test_the_docs_tell_what_every_reason_means() -> None:
    for reason, meaning in MEANINGS.items():
        code = CODES[ErrorReason(reason.value)].name
        retryable = ErrorReason(reason.value) in RETRYABLE_REASONS
        closes = "" if meaning.close_code is None else str(meaning.close_code.value)
        told = DOC["Errors"][reason.value][:4]
        assert told == [f"`{code}`", str(meaning.http_status), "yes" if retryable else "no", closes], reason
        assert meaning.retryable == retryable


def test_the_docs_name_every_close_code() -> None:
    assert list(DOC["Close codes"]) == [str(code.value) for code in sorted(CloseCode)]


# ── the checks find what is missing ──


def _about(case: str, found: list[str]) -> list[str]:
    """Return the gaps of one case: what else is missing is another test's affair."""
    return [gap for gap in found if gap.startswith(f"{case}: ")]


def test_a_new_kind_of_event_lacks_every_part(newer: NewerContract, page: Mapping[str, list[str]]) -> None:
    parts = event_parts(page)
    assert _about(NEW_EVENT, event_gaps(newer.file, parts)) == [f"{NEW_EVENT}: no {part}" for part in parts]


def test_a_new_case_of_any_choice_is_found(newer: NewerContract, page: Mapping[str, list[str]]) -> None:
    found = choice_gaps(newer.file, choice_parts(page))
    for message, case in NEW_CASES.items():
        assert [gap for gap in found if f"{case}: no row in docs/protocol.md" in gap], message
    without = {name: parts for name, parts in choice_parts(page).items() if name != "Reference.reference"}
    assert "Reference.reference: no the list of oneofs" in choice_gaps(pb.DESCRIPTOR, without)


def test_a_new_value_of_any_enum_lacks_its_text(newer: NewerContract) -> None:
    new = {name: NEW_VALUE if name == "ErrorReason" else NEW_VALUE.lower() for name in enum_texts(newer.file)}
    expected = {f"{name} {text}: no row in docs/protocol.md" for name, text in new.items()}
    assert expected <= set(enum_gaps(newer.file, enum_parts()))
    assert len(expected) == len(pb.DESCRIPTOR.enum_types_by_name)


def test_a_new_reason_lacks_every_part(newer: NewerContract) -> None:
    parts = reason_parts()
    assert _about(NEW_VALUE, reason_gaps(newer.file, parts)) == [f"{NEW_VALUE}: no {part}" for part in parts]


def test_a_new_rpc_is_found(newer: NewerContract) -> None:
    assert rpc_gaps(newer.file, {"server": rpcs(pb.DESCRIPTOR)}) == [f"AgentService.{NEW_RPC}: no server"]


@pytest.mark.parametrize("case", choices(pb.DESCRIPTOR)[EVENT])
def test_a_part_that_loses_a_case_is_found(case: str, page: Mapping[str, list[str]]) -> None:
    for part, has in event_parts(page).items():
        left = set(has) - {case}
        assert _about(case, event_gaps(pb.DESCRIPTOR, {part: left})) == [f"{case}: no {part}"]


def test_a_part_with_more_than_the_contract_is_found() -> None:
    parts = {"page": [*choices(pb.DESCRIPTOR)[EVENT], "agent_gone"]}
    assert event_gaps(pb.DESCRIPTOR, parts) == ["agent_gone: only in page"]
