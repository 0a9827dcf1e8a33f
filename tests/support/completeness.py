"""What the contract asks of everything around it, read from a descriptor: whoever lacks a part is told by name.

Each check takes the contract's file and the parts that are there, and returns one line per gap: a case that a part
lacks, or a part's entry that the contract does not have (any more). No line: complete.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from google.protobuf.descriptor import Descriptor, FileDescriptor, OneofDescriptor

EVENT: Final = "AgentEvent.event"
REASONS: Final = "ErrorReason"
UNSPECIFIED: Final = "UNSPECIFIED"

Parts = Mapping[str, Collection[str]]
"""The name of a part → the cases that it has."""


def gaps(cases: Iterable[str], parts: Parts) -> list[str]:
    """Return what each part lacks of the cases, and what it has beyond them."""
    wanted = list(cases)
    lacking = [f"{case}: no {part}" for part, has in parts.items() for case in wanted if case not in has]
    stale = [f"{case}: only in {part}" for part, has in parts.items() for case in has if case not in wanted]
    return lacking + stale


def choices(file: FileDescriptor) -> dict[str, list[str]]:
    """Return the cases of every oneof of the file by its name, `Message.oneof`; optional fields are none."""
    return {
        oneof.full_name.removeprefix(f"{file.package}."): [field.name for field in oneof.fields]
        for message in messages(file)
        for oneof in message.oneofs
        if not _is_optional_field(oneof)
    }


def messages(file: FileDescriptor) -> list[Descriptor]:
    """Return the messages of the file, nested ones after theirs."""
    return [found for message in file.message_types_by_name.values() for found in _with_nested(message)]


def enum_texts(file: FileDescriptor) -> dict[str, list[str]]:
    """Return the JSON texts of every enum by the contract's rule, in the order of the file, UNSPECIFIED left out.

    The rule: the value's name without the prefix of its type, in lower case; error reasons in upper case.
    """
    found: dict[str, list[str]] = {}
    for enum in file.enum_types_by_name.values():
        prefix = f"{_in_capitals(enum.name)}_"
        names = [value.name.removeprefix(prefix) for value in enum.values]
        found[enum.name] = [name if enum.name == REASONS else name.lower() for name in names if name != UNSPECIFIED]
    return found


def rpcs(file: FileDescriptor) -> list[str]:
    """Return every rpc as `Service.Method`."""
    return [f"{service.name}.{rpc.name}" for service in file.services_by_name.values() for rpc in service.methods]


def event_gaps(file: FileDescriptor, parts: Parts) -> list[str]:
    """Check the cases of `AgentEvent`."""
    return gaps(choices(file)[EVENT], parts)


def choice_gaps(file: FileDescriptor, parts: Mapping[str, Parts]) -> list[str]:
    """Check every oneof; `parts` are those of each oneof, by its name."""
    cases = choices(file)
    unknown = gaps(cases, {"the list of oneofs": parts.keys()})
    return unknown + [
        f"{name} {gap}" for name, of_oneof in parts.items() if name in cases for gap in gaps(cases[name], of_oneof)
    ]


def enum_gaps(file: FileDescriptor, parts: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """Check the texts of every enum; `parts` are, by part, the texts of each enum that the part has."""
    texts = enum_texts(file)
    found: list[str] = []
    for part, has in parts.items():
        found += gaps(texts, {part: has.keys()})
        for name in texts.keys() & has.keys():
            found += [f"{name} {gap}" for gap in gaps(texts[name], {part: has[name]})]
    return found


def reason_gaps(file: FileDescriptor, parts: Parts) -> list[str]:
    """Check the error reasons."""
    return gaps(enum_texts(file)[REASONS], parts)


def rpc_gaps(file: FileDescriptor, parts: Parts) -> list[str]:
    """Check the rpcs."""
    return gaps(rpcs(file), parts)


def _with_nested(message: Descriptor) -> list[Descriptor]:
    if message.GetOptions().map_entry:
        return []
    return [message, *(found for nested in message.nested_types for found in _with_nested(nested))]


def _is_optional_field(oneof: OneofDescriptor) -> bool:
    return oneof.name.startswith("_")


def _in_capitals(name: str) -> str:
    """Return `ToolStatus` as `TOOL_STATUS`."""
    return "".join(f"_{letter}" if letter.isupper() and index else letter for index, letter in enumerate(name)).upper()
