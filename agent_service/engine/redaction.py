"""Keeps secrets out of events: arguments are shown to the user, so credentials in them are not."""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from agent_service.engine.events import JsonObject, JsonValue

REDACTED: Final = "[redacted]"

#: Words that make a name secret.
_SECRET_WORD: Final = re.compile(
    "passw(or)?ds?|passphrase|pwd|secrets?|credentials?|cookies?|authorization|bearer|(api|access|private)keys?"
)
#: Words that make a name secret when "key" follows.
_KEY_KIND: Final = re.compile("api|access|private|signing|encryption")
#: Words that say that a token is a unit of text here, not a credential.
_COUNTING_WORD: Final = re.compile(
    "max|min|input|output|prompt|completion|cached?|context|generated|total|reasoning|new|(un)?used|avg|average|mean"
    "|median|sum|count|per|limit|budget|price|cost|usage|number|columns?|share|rate"
)
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

_SECRET_TEXT: Final = re.compile(
    r"""
    \b(?: sk-[\w-]{16,} | gh[pousr]_\w{20,} | xox[abprs]-[\w-]{10,} | AKIA[0-9A-Z]{16} | AIza[\w-]{35} )
    | \b Bearer \s+ [\w.~+/-]{16,} =*
    | \b eyJ[\w-]{8,} \. [\w-]{8,} \. [\w-]*
    | (?<= ://) [^\s:@/]* : [^\s/]+ (?= @)
    | (?<! \w) [\w-]{0,40} (?: passw(?:or)?d | pwd | secret | (?:api|access)[_-]?key | token ) \s* = \s*
      (?! \d+ \b ) ['"]? [^\s&;,'"]+
    | -----BEGIN\ [A-Z ]* PRIVATE\ KEY----- .*? (?: -----END\ [A-Z ]* PRIVATE\ KEY----- | \Z )
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


def redact(args: JsonObject) -> dict[str, JsonValue]:
    """Return a copy of `args` in which values under secret names and texts that look like credentials are replaced."""
    return {name: REDACTED if _is_secret(name, value) else _redact_value(value) for name, value in args.items()}


def unredacted(args: JsonObject, original: JsonObject) -> dict[str, JsonValue]:
    """Return a copy of `args` with what `redact` took out of `original`, wherever its mark still stands."""
    shown = redact(original)
    return {name: _restored(value, shown.get(name), original.get(name)) for name, value in args.items()}


def _restored(value: JsonValue, shown: JsonValue, original: JsonValue) -> JsonValue:
    if isinstance(shown, str) and REDACTED in shown and value == shown:
        return original
    if isinstance(value, Mapping) and isinstance(original, Mapping):
        return unredacted(value, original)
    if isinstance(value, list | tuple) and isinstance(shown, list | tuple) and isinstance(original, list | tuple):
        known = zip(value, shown, original, strict=False)
        restored = [_restored(item, as_shown, before) for item, as_shown, before in known]
        return [*restored, *value[len(restored) :]]
    return value


def _is_secret(name: str, value: JsonValue) -> bool:
    if value is None:
        return False
    words = [word.lower() for word in _WORD.findall(name)]
    if any(_SECRET_WORD.fullmatch(word) for word in words):
        return True
    if any(_KEY_KIND.fullmatch(word) and after in {"key", "keys"} for word, after in pairwise(words)):
        return True
    is_count = isinstance(value, int | float) or any(_COUNTING_WORD.fullmatch(word) for word in words)
    return not is_count and not {"token", "tokens"}.isdisjoint(words)


def _redact_value(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return _SECRET_TEXT.sub(REDACTED, value)
    if isinstance(value, Mapping):
        return redact(value)
    if isinstance(value, list | tuple):
        return [_redact_value(item) for item in value]
    return value
