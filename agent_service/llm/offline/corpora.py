"""Knowledge bases, as a message speaks of them: which one, and what to search it for."""

import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from agent_service.llm.offline import data
from agent_service.llm.offline.words import as_written

_BASE: Final = r"(?:knowledge ?bases?|corpus|corpora|kb|(?:document|search) (?:library|index|collection)|collection)"
_DOCS: Final = (
    r"(?:docs?|documents?|documentation|runbooks?|playbooks?|handbooks?|wikis?|manuals?|faqs?|guides?|guidelines?|"
    r"articles?|polic(?:y|ies)|pages?|notes?|knowledge ?bases?|corpus|corpora|kb|procedures?|specs?)"
)
_OWN: Final = r"(?:our|my|the|your|all(?: of)?(?: our| my| the)?|these|those|this|that)"
_NAME: Final = r"(?P<name>[a-z0-9][\w.-]*(?: (?!{stop})[a-z0-9][\w.-]*){{0,3}})"
_STOP: Final = (
    r"(?:and|or|then|so|that|which|who|to|with|using|please|from|in|into|on|for|about|by|is|are|do|does|say|says|said|"
    r"tell|tells|mention|mentions|cover|covers|now|today|called|named|where|when|if|as|via|of|at|of the)\b"
)
_CALLED: Final = re.compile(
    rf"\b(?:{_BASE}|{_DOCS}|one|it) (?:called|named|titled|with the name)"
    r" (?:[\"'`](?P<quoted>[^\"'`]{1,80})[\"'`]|" + _NAME.format(stop=_STOP) + ")"
)
_CALL_IT: Final = re.compile(
    r"\b(?:call|name) it (?:[\"'`](?P<quoted>[^\"'`]{1,80})[\"'`]|(?P<name>[a-z0-9][\w.-]*(?: [a-z0-9][\w.-]*)?)\W*$)"
)
_QUOTED: Final = re.compile(
    rf"(?:\b{_BASE}|\b(?:in|into|to|from|of|are in|delete|export|search|update|drop|remove)) "
    r"[\"'`](?P<quoted>[^\"'`]{1,80})[\"'`]"
    rf"|[\"'`](?P<before>[^\"'`]{{1,80}})[\"'`] {_BASE}\b"
)
_BASE_OF: Final = re.compile(
    rf"\b{_BASE} (?:for|of|from|about|on|out of|with|containing|over|covering|based on) (?:{_OWN} )?"
    + _NAME.format(stop=_STOP)
)
_SEARCHES: Final = re.compile(r"\b(?:search|look|query|ask|find|grep|check|scan|browse|consult|according)\b")
_NAMED_BASE: Final = re.compile(
    rf"\b(?:{_OWN}|a|an|new) (?:new )?"
    rf"(?P<name>(?!{_STOP})[a-z0-9][\w.-]*(?: (?!{_STOP}|{_BASE}\b)[a-z0-9][\w.-]*){{0,2}}) {_BASE}\b"
)
_KIND: Final = re.compile(
    rf"\b(?:{_OWN}|in|into|to|from|search) "
    r"(?P<name>runbooks|playbooks|handbook|wiki|faqs?|guidelines|policies|procedures)\b"
)
"""A kind of documents that is as good as a name. "Docs" and "documents" are any."""

_NO_NAME: Final = re.compile(
    r"^(?:(?:new|old|whole|entire|searchable|same|other|first|second|last|current|existing|company|own|existing|list|"
    r"each|every|any|all|it|them|me|us|search|test|questions?|files?|documents?|docs|data|attachments?|uploads?|"
    r"single|separate|shared|internal|big|small|knowledge|base|document|library|index|attached|uploaded|these|those|"
    r"this|that|following|pdfs?|texts?)(?: |$))+$"
)

_ABOUT: Final = r"(?:about|on|regarding|concerning|for|of|with|re)"
_QUERY: Final = r"[^?!;\n]{1,200}"
"""What is searched for ends with the sentence."""


def _searches() -> tuple[re.Pattern[str], ...]:
    parts = {"<docs>": _DOCS, "<own>": _OWN, "<about>": _ABOUT, "<words>": r"(?:[\w'\"-]+ ){0,4}?"}
    rules = []
    for line in files(data).joinpath("searches.txt").read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        # A query at the end takes all that is left; one in the middle as little as can be.
        rule = re.sub("<what>$", lambda _: f"(?P<query>{_QUERY})", line)
        rule = rule.replace("<what>", f"(?P<query>{_QUERY}?)")
        for name, part in parts.items():
            rule = rule.replace(name, part)
        rules.append(re.compile(rule))
    return tuple(rules)


_QUERIES: Final = _searches()
_GOING_ON: Final = re.compile(
    r"^\W*(?:(?:and|ok|okay|now|also|then|but|or) )*(?:what|how) about (?P<query>[^?!;\n]{1,200})"
    r"|^\W*(?:and|also|now)(?: for| about| on)? (?P<more>[^?!;\n]{1,200})"
)
_TAIL: Final = re.compile(
    rf"(?:[\s.,:;]+|\b(?:please|thanks|thank you|now|for me)\b|"
    rf"\b(?:in|from|inside) {_OWN} (?:[\w'-]+ ){{0,2}}?{_DOCS}|[\"'`])+$"
)
_HEAD: Final = re.compile(
    r"^(?:[\s\"'`:,]+|(?:the|a|an|any|our|my|anything|something|passages?|everything|what (?:they|it) says?)\s|"
    r"(?:about|on|for|of|regarding) )+"
)
_NEXT_CLAUSE: Final = re.compile(
    r",? (?:and|then) (?:then )?"
    r"(?:put|create|make|write|give|generate|analy[sz]e|show|export|send|tell|how|what|which|why|when)\b"
)


@dataclass(frozen=True, slots=True)
class Library:
    """`corpus` is a knowledge base's name, `query` what to search for; empty where the message does not say."""

    corpus: str = ""
    query: str = ""


def find_library(message: str, normalised: str, *, goes_on: bool = False) -> Library:
    """Return the knowledge base and the search that a message names, as written; `goes_on` after an earlier search."""
    query = _query(message, normalised, goes_on=goes_on)
    return Library(_corpus(message, normalised), query)


def _corpus(message: str, text: str) -> str:
    speaks_of_one = re.search(rf"\b{_BASE}\b|\b{_DOCS}\b", text)
    # "Search the knowledge base for X" says what to find, "a knowledge base for X" what it holds.
    base_of = () if _SEARCHES.search(text) else (_BASE_OF,)
    patterns = (_CALLED, *((_QUOTED,) if speaks_of_one else ()), _CALL_IT, _NAMED_BASE, *base_of, _KIND)
    for pattern in patterns:
        for match in pattern.finditer(text):
            group = next(name for name, value in match.groupdict().items() if value)
            if group in {"quoted", "before"} or not _NO_NAME.match(match[group]):
                return as_written(message, *match.span(group)).strip(" .,-")
    return ""


def _query(message: str, text: str, *, goes_on: bool) -> str:
    for pattern in (*_QUERIES, *((_GOING_ON,) if goes_on else ())):
        match = pattern.search(text)
        if match:
            start, end = match.span("query" if match["query"] else "more")
            clause = _NEXT_CLAUSE.search(text, start, end)
            end = clause.start() if clause else end
            tail = _TAIL.search(text, start, end)
            end = tail.start() if tail else end
            head = _HEAD.match(text[start:end])
            start += head.end() if head else 0
            if start < end:
                return as_written(message, start, end)
    return ""
