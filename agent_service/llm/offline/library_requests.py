"""What a message asks of knowledge bases: which operation, on which one, about which document, with which words."""

import re
from enum import StrEnum
from typing import Final

from agent_service.llm.offline.understanding import Facet, Understanding
from agent_service.llm.offline.words import READ_CHARACTERS


class Operation(StrEnum):
    """What is to be done."""

    CREATE = "create"
    ADD = "add"
    UPDATE = "update"
    DELETE = "delete"
    EXPORT = "export"
    LIST = "list"
    SEARCH = "search"


_POLITE: Final = r"^\W*(?:(?:please|ok|okay|now|then|and|also|hi|hello|hey|kindly|just|let's|go|,) *)*"
_WISH: Final = (
    r"(?:(?:can|could|would|will) (?:you|we|i) (?:please )?"
    r"|(?:i|we)(?:'d| would)? (?:want|like|need|have) (?:you )?to |help (?:me|us) (?:to )?)?"
)
_LIST: Final = (
    r"(?:(?:list|show|see|display)\b(?: me)?(?: (?:all|of|my|our|the|every|existing))* "
    r"(?:\w+ )?(?:knowledge ?bases?|corpora|corpus|collections?|documents|docs)\b"
    r"|how (?:many|big|large)\b|(?:which|what) (?:knowledge ?bases?|corpora|collections)\b"
    r"|(?:which|what) (?:documents|docs) (?:are|do (?:i|we) have)\b"
    r"|what(?:'s| is) in (?:my|our|the) (?:\w+ ){0,3}(?:knowledge ?base|corpus|collection)\b"
    r"|(?:statistics|stats|overview|size)\b)"
)
_SEARCH: Final = (
    r"(?:search|find|look|query|grep|ask|according to|tell|what|how|where|when|who|why|which|does|do|did|is|are|can|"
    r"should|must|may)\b"
)
_VERBS: Final = (
    (Operation.LIST, _LIST),
    (Operation.DELETE, r"(?:delete|remove|erase|wipe|drop|purge|discard|get rid of|throw (?:away|out))\b"),
    (Operation.EXPORT, r"(?:export|download|back ?up|dump|archive)\b"),
    (Operation.UPDATE, r"(?:update|replace|revise|refresh|overwrite|amend|correct|edit|change|swap)\b"),
    (Operation.CREATE, r"(?:create|build|make|set ?up|start|establish|open|spin up|new)\b"),
    (Operation.ADD, r"(?:add|put|upload|import|ingest|index|load|append|insert|include|store|save|remember|feed)\b"),
    (Operation.SEARCH, _SEARCH),
)
_OPENINGS: Final = tuple((operation, re.compile(f"{_POLITE}{_WISH}{verbs}")) for operation, verbs in _VERBS)

_BY_FACET: Final = (
    (Facet.SEARCH, Operation.SEARCH),
    (Facet.EXPORT, Operation.EXPORT),
    (Facet.DELETE, Operation.DELETE),
    (Facet.UPDATE, Operation.UPDATE),
    (Facet.CREATE, Operation.CREATE),
    (Facet.ADD, Operation.ADD),
    (Facet.STATISTICS, Operation.LIST),
)

_THING: Final = r"(?:knowledge ?base|corpus|kb|collection|library|wiki)"
_QUOTED: Final = r"[\"“'`](?P<name>[^\"”'`\n]{1,80})[\"”'`]"
_CALLED: Final = r"\b(?:called|named|titled) (?P<name>\w[\w-]*(?: (?!from|with|and|for|of|out|using|in)\w[\w-]*){0,3})"
_THING_FOR: Final = (
    rf"\b{_THING} (?:for|of|about|on|from|out of) (?:all )?(?:of )?(?:(?:our|my|the|these|this|your) )?"
    r"(?P<name>\w[\w-]*(?: (?!from|with|and|using|so|to|in|as)\w[\w-]*){0,2})"
)
_THE_THING: Final = (
    r"\b(?:the|our|my|to|into|in|from|a|an) (?P<name>"
    r"(?!(?:the|our|my|a|an|new|searchable|old|whole|entire)\b)\w[\w-]*"
    rf"(?: \w[\w-]*)?) {_THING}\b"
)
_NAMES: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b(?:called|named|titled) {_QUOTED}",
        rf"{_QUOTED} {_THING}\b",
        rf"\b{_THING} {_QUOTED}",
        _CALLED,
        _THE_THING,
    )
)
_MADE_FOR: Final = re.compile(_THING_FOR, re.IGNORECASE)
_NO_NAME: Final = frozenset(
    {"it", "this", "that", "them", "these", "those", "the", "a", "an", "my", "our", "new", "old", "file", "files"}
    | {"document", "documents"}
)

DEFAULT_NAME: Final = "Documents"
"""Of a knowledge base that nobody gave a name. It is said."""

_ENDINGS: Final = r"\.(?:md|markdown|txt|text|rst|log|html?|pdf|docx?)\b"
FILE: Final = re.compile(rf"[\w][\w.()+@-]*{_ENDINGS}", re.IGNORECASE)
FILE_ENDING: Final = re.compile(f"{_ENDINGS}$", re.IGNORECASE)
_UPLOADS: Final = re.compile(
    r"\b(?:this|these|those|the|my|our|attached|uploaded) (?:\w+ ){0,2}?(?:files?|uploads?|pdfs?|attachments?)\b"
    r"|\b(?:i|we) (?:just |have )*uploaded\b",
    re.IGNORECASE,
)

_KIND: Final = r"(?:document|page|article|note|file|entry|guide|runbook)"
_CHANGE: Final = (
    r"\b(?:update|replace|revise|refresh|overwrite|amend|correct|edit|change|swap|delete|remove|erase|drop|discard)\w* "
    r"(?:(?:the|our|my|this|whole|entire) )*"
)
_END: Final = r"(?:(?= (?:in|from|of|with|by|to)\b)|\s*[:!?]|\.(?=\s|$)|\s*$)"
_TITLE: Final = r"[\"“'`]?(?P<name>\w[\w .-]{0,80}?)[\"”'`]?"
_DOCUMENTS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_CHANGE}(?:old )?{_KIND} (?:called |named |titled )?{_TITLE}{_END}",
        rf"{_CHANGE}(?:old )?{_TITLE} {_KIND}\b",
        rf"{_CHANGE}{_TITLE}{_END}",
    )
)
_IS_DOCUMENT: Final = re.compile(rf"\b{_KIND}\b(?! (?:knowledge|corpus|collection))", re.IGNORECASE)
_DELETES_CORPUS: Final = re.compile(
    rf"\b(?:delete|remove|erase|wipe|drop|purge|discard)\w* (?:\w+ ){{0,3}}{_THING}\b", re.IGNORECASE
)
_IS_CORPUS: Final = re.compile(rf"\b{_THING}\b", re.IGNORECASE)
_TEXT_BEGINS: Final = re.compile(r":(?=\s)|\n")
MIN_TEXT_CHARACTERS: Final = 10
"""Fewer characters after a colon are no text to keep."""

_SAYING: Final = re.compile(
    r"^\W*(?:(?:please|can you|could you|tell (?:me|us)|search|find|look (?:up|for|in|into|through)|ask|query|"
    r"what(?:'s)?|which|where|does|do|did|is|are|there|according to|anything|something|is there)\b\W*)*"
    r"(?:(?:(?:the|our|my) )?(?:\w+ ){1,2}?(?:says?|tells?|mentions?|covers?|states?|explains?)\b)?",
    re.IGNORECASE,
)
_PLACES: Final = re.compile(
    r"\b(?:(?:in|from|of|to|through|into) )?(?:(?:our|my|the|your|all|any) )*(?:docs?|documents?|documentation|"
    r"knowledge ?bases?|corpus|corpora|files)\b(?: (?:say|says|tell|tells|mention|mentions|have|has|state|states)\b)?",
    re.IGNORECASE,
)
_FILLERS: Final = re.compile(r"^\W*(?:(?:us|me|about|on|for|say|says|regarding|concerning)\b\W*)+", re.IGNORECASE)
MAX_QUERY_CHARACTERS: Final = 300


def operation_of(request: str, understanding: Understanding) -> Operation:
    """Return what the message asks for: by the verb that it opens with, else by what is in it."""
    plain = " ".join(_head(request).lower().split())
    by_verb = next((operation for operation, opening in _OPENINGS if opening.match(plain)), None)
    if by_verb is not None:
        return by_verb
    by_facet = (operation for facet, operation in _BY_FACET if facet in understanding.facets)
    return next(by_facet, Operation.SEARCH)


def corpus_named(request: str, understanding: Understanding) -> str:
    """Return the name of a knowledge base, empty where the message names none."""
    # "A knowledge base for our runbooks" names one that is to be made; "search it for X" names what to search for.
    searches = operation_of(request, understanding) is Operation.SEARCH
    matches = (pattern.search(_head(request)) for pattern in (_NAMES if searches else (*_NAMES, _MADE_FOR)))
    for name in (understanding.entities.corpus, *(match["name"] for match in matches if match)):
        plain = name.strip()
        if plain and plain.lower().split()[0] not in _NO_NAME:
            return FILE_ENDING.sub("", plain)
    return ""


def title_of(name: str) -> str:
    """Return a name as a new knowledge base shows it: `runbooks` → `Runbooks`."""
    return f"{name[0].upper()}{name[1:]}" if name else DEFAULT_NAME


def files_named(request: str, understanding: Understanding) -> list[str]:
    """Return the names of files in the message, in order."""
    return list(dict.fromkeys([*FILE.findall(_head(request)), *understanding.entities.files]))


def means_uploads(request: str) -> bool:
    """True when the message speaks of files that were uploaded, whether or not it names them."""
    return bool(_UPLOADS.search(_head(request)))


def document_named(request: str) -> str:
    """Return the title or file name of the document that is to be changed or deleted; empty where none is named."""
    match = next((found for pattern in _DOCUMENTS if (found := pattern.search(_head(request)))), None)
    name = match["name"].strip() if match else ""
    return "" if name.lower() in _NO_NAME or _IS_CORPUS.search(name) else name


def is_about_document(request: str) -> bool:
    """True when a deletion is of a document and not of a whole knowledge base."""
    head = _head(request)
    return bool(FILE.search(head) or (_IS_DOCUMENT.search(head) and not _DELETES_CORPUS.search(head)))


def text_given(request: str) -> str:
    """Return the text that the message brings, after a colon or on its own lines; empty where it brings none."""
    begin = _TEXT_BEGINS.search(request)
    given = request[begin.end() :].strip() if begin else ""
    return given if len(given) >= MIN_TEXT_CHARACTERS else ""


def query_of(request: str, understanding: Understanding) -> str:
    """Return the words to search for: as understood, else the message without what only asks."""
    if understanding.entities.query:
        return understanding.entities.query[:MAX_QUERY_CHARACTERS]
    plain = " ".join(request[: MAX_QUERY_CHARACTERS * 2].split())
    words = _PLACES.sub(" ", _SAYING.sub("", plain))
    query = " ".join(_FILLERS.sub("", words.strip()).strip(" ?!.,:;").split())
    return (query or plain)[:MAX_QUERY_CHARACTERS]


def _head(request: str) -> str:
    """Return the part of a message that is understood."""
    return request[:READ_CHARACTERS]
