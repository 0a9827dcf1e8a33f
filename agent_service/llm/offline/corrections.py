"""Corrections of columns in the chat: "column ts is the timestamp", "no, GeneratedTokens is the output"."""

import re
from collections.abc import Iterator
from typing import Final

from agent_service.llm.offline.words import COMMON

_ROLE_NAMES: Final = {
    "timestamp": "timestamp",
    "time stamp": "timestamp",
    "time": "timestamp",
    "date": "timestamp",
    "input tokens": "input_tokens",
    "input token": "input_tokens",
    "input_tokens": "input_tokens",
    "prompt tokens": "input_tokens",
    "prompt_tokens": "input_tokens",
    "context tokens": "input_tokens",
    "tokens in": "input_tokens",
    "input": "input_tokens",
    "output tokens": "output_tokens",
    "output token": "output_tokens",
    "output_tokens": "output_tokens",
    "completion tokens": "output_tokens",
    "completion_tokens": "output_tokens",
    "generated tokens": "output_tokens",
    "tokens out": "output_tokens",
    "output": "output_tokens",
    "completion": "output_tokens",
    "cached tokens": "cached_tokens",
    "cached_tokens": "cached_tokens",
    "cached input tokens": "cached_tokens",
    "model": "model",
    "latency": "latency",
    "response time": "latency",
    "duration": "latency",
    "cost": "cost",
    "price": "cost",
    "status": "status",
    "status code": "status",
    "feature": "feature",
    "endpoint": "feature",
    "use case": "feature",
    "user": "user",
    "user id": "user",
    "customer": "user",
    "prompt": "prompt",
}
"""What people call a canonical column."""
_ROLES: Final = "|".join(sorted(_ROLE_NAMES, key=len, reverse=True))
_NAME: Final = r"[\"'`]?(?P<name>[A-Za-z_][\w.]*)[\"'`]?"
_IDENTIFIER: Final = (
    r"(?P<name>[A-Za-z]\w*_\w+|[A-Z]?[a-z]+\d*[A-Z]\w*|[A-Z]{2,}\d*|(?<=[\"'`])[A-Za-z_][\w. ]*(?=[\"'`]))"
)
"""What only a column is called: snake_case, CamelCase, or a name in quotes."""
_MEANS: Final = r"(?:is|are|holds?|means?|contains?|has|as|stands for|should be|=)"
_CORRECTIONS: Final = (
    re.compile(
        r"\b(?:column|field) (?:\"(?P<name>[^\"]{1,200})\"|'(?P<single>[^']{1,200})'|`(?P<back>[^`]{1,200})`) "
        rf"{_MEANS}"
        rf"(?: actually)? (?:the |our |my )?(?P<role>{_ROLES})\b",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?:column|field) {_NAME} {_MEANS}(?: actually)? (?:the |our |my )?(?P<role>{_ROLES})\b", re.IGNORECASE
    ),
    re.compile(
        rf"\b(?:use|take|treat|read|map|count) (?:the )?(?:column |field )?{_NAME} (?:as|to|for) (?:the )?"
        rf"(?P<role>{_ROLES})\b",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?P<role>{_ROLES}) (?:is|are) (?:called |in |named )?(?:the )?(?:column|field) {_NAME}(?=\W|$)",
        re.IGNORECASE,
    ),
    re.compile(
        rf"(?<![\w.-])[\"'`]?{_IDENTIFIER}[\"'`]? {_MEANS}(?: actually)? (?:the |our |my )?(?P<role>{_ROLES})\b"
    ),
    re.compile(
        rf"^\W*(?:(?:no|yes|nope|actually|sorry|well|and)\W+)*{_NAME} (?:is|are|means|holds) (?:the|our) "
        rf"(?P<role>{_ROLES})(?: column| field| count)?\W*$",
        re.IGNORECASE,
    ),
)


def find_corrections(message: str) -> tuple[tuple[str, str], ...]:
    """Return which of the file's own columns holds what, as pairs of a canonical name and the own one."""
    found: dict[str, str] = {}
    for role, name, _ in _found(message):
        found.setdefault(role, name)
    return tuple(found.items())


def without_corrections(message: str) -> str:
    """Return the message without what it says about columns: "latency" in it asks for nothing."""
    rest, before = [], 0
    for _, _, match in sorted(_found(message), key=lambda one: one[2].start()):
        if match.start() >= before:
            rest.append(message[before : match.start()])
            before = match.end()
    return "".join([*rest, message[before:]])


def _found(message: str) -> Iterator[tuple[str, str, re.Match[str]]]:
    for pattern in _CORRECTIONS:
        for match in pattern.finditer(message):
            groups = match.groupdict()
            name = groups["name"] or groups.get("single") or groups.get("back") or ""
            said_so = re.search(r"\b(?:column|field)\b", match[0], re.IGNORECASE)
            if said_so or (name.lower() not in COMMON and name.lower() not in _ROLE_NAMES):
                yield _ROLE_NAMES[match["role"].lower()], name, match
