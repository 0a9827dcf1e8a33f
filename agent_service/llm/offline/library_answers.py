"""The answers of the corpus admin. What documents say is quoted and escaped: it is no part of the answer's own text."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from agent_service.engine.events import JsonObject
from agent_service.llm.offline.conversation import Exchange, child, children, names, number, text
from agent_service.llm.offline.format import count, counted, minute, table

QUOTED_HITS: Final = 3
"""Passages that an answer quotes; further ones stand in its list of sources."""

_MARKS: Final = re.compile(r"([\\`*_\[\]<>~|#!$])|(?<=https)(?=:)|(?<=http)(?=:)")
_LINE_MARK: Final = re.compile(r"^(\s*\d{0,9})([-+=.)])", re.MULTILINE)


def answer(exchange: Exchange, notes: Sequence[str]) -> list[str]:
    """Return the answer to a call that went well."""
    result = exchange.result or {}
    write = {
        "search_corpus": searched,
        "add_documents": added,
        "update_document": updated,
        "delete_document": deleted_document,
        "delete_corpus": deleted_corpus,
        "corpus_stats": described,
        "export_corpus": exported,
    }[exchange.tool_name]
    first, *rest = write(result)
    return [first, *(["", *notes] if notes else []), *rest]


def searched(result: JsonObject) -> list[str]:
    """Quote the best passages with their sources, or say what was searched in vain."""
    hits = children(result, "hits")
    query = plain(text(result, "query"))
    if not hits:
        return _nothing(result, query)
    best = hits[0]
    place = f"{plain(text(best, 'document'))}, passage {count(number(best, 'passage'))}"
    lines = [f"**The best match for “{query}” is in {place} ({plain(text(best, 'corpus'))}).**", ""]
    if child(result, "as_beginnings") is True:
        lines += ["No passage has exactly these words; these have words that begin with them.", ""]
    for hit in hits[:QUOTED_HITS]:
        lines += [*_quote(hit), "", f"[{plain(text(hit, 'cite')[1:-1])}]", ""]
    found = number(result, "found") or 0
    rows = [
        [
            plain(text(hit, "document")),
            count(number(hit, "passage")),
            plain(text(hit, "heading")),
            plain(text(hit, "corpus")),
            plain(text(hit, "source")),
        ]
        for hit in hits
    ]
    lines += ["### Sources", "", *_sources(rows), ""]
    shown = f"the {len(hits)} best of {count(found)} passages" if found > len(hits) else counted(len(hits), "passage")
    lines += [f"*Quoted word for word from your documents: {shown} with these words, {_extent(result)} searched.*", ""]
    return [*lines, *_next(f"What is in the {plain(text(best, 'corpus'))} knowledge base?", "List my knowledge bases")]


def _sources(rows: Sequence[Sequence[str]]) -> list[str]:
    heads = ["Document", "Passage", "Under", "Knowledge base", "From"]
    return [line.replace("---:", ":---") for line in table(heads, rows, texts=5)]


def _nothing(result: JsonObject, query: str) -> list[str]:
    corpora = [plain(text(corpus, "name")) for corpus in children(result, "corpora")]
    where = ", ".join(corpora[:QUOTED_HITS]) + (" and others" if len(corpora) > QUOTED_HITS else "")
    return [
        f"**I found nothing about “{query}” in {where}.** So I have no answer to give from your documents.",
        "",
        f"I searched {_extent(result)} for these words in all their forms, and for words that begin with them.",
        "",
        *_next("List my knowledge bases", "Add the file guide.md to the knowledge base"),
        "- Or ask with other words for the same thing.",
    ]


def created(result: JsonObject) -> list[str]:
    """Say that a knowledge base is there, and how to fill it."""
    name = plain(text(result, "corpus", "name"))
    documents = number(result, "corpus", "documents") or 0
    if child(result, "created") is True:
        opening = f"**The knowledge base {name} is ready.** It is empty so far."
    else:
        opening = f"**The knowledge base {name} is there already, with {counted(documents, 'document')}.**"
    return [
        opening,
        "",
        "Upload text, Markdown, HTML or PDF files, and say for example:",
        "",
        f"- “Add runbook.md to the {name} knowledge base”",
        f"- “Add this to the {name} knowledge base:”, followed by the text",
    ]


def added(result: JsonObject) -> list[str]:
    """Say what was added, what was there, and what could not be read."""
    documents, failed = children(result, "documents"), children(result, "failed")
    name = plain(text(result, "corpus", "name"))
    new = [entry for entry in documents if text(entry, "change") == "added"]
    total = counted(number(result, "corpus", "documents"), "document")
    opening = f"**{counted(len(new), 'document')} added to {name}, which now has {total}.**"
    if not new:
        opening = f"**Nothing new: {name} has exactly this text already.**"
    rows = [
        [
            plain(text(entry, "title")),
            plain(text(entry, "source")),
            "added" if entry in new else "there already",
            count(number(entry, "passages")),
            count(number(entry, "size_bytes")),
        ]
        for entry in documents
    ]
    lines = [opening, "", *table(["Document", "From", "Outcome", "Passages", "Bytes"], rows, texts=3), ""]
    if text(result, "chosen_because").startswith("it is your newest"):
        lines += ["You named no file, so I took the newest upload that can be added.", ""]
    if failed:
        lines += ["### What could not be added", ""]
        lines += [f"- **{plain(text(entry, 'source'))}**: {plain(text(entry, 'why'))}" for entry in failed]
        lines += [""]
    title = plain(text(documents[0], "title")) if documents else name
    return [*lines, *_next(f"What do our docs say about {title}?", f"What is in the {name} knowledge base?")]


def updated(result: JsonObject) -> list[str]:
    """Say what became of a document."""
    title, name = plain(text(result, "document", "title")), plain(text(result, "corpus", "name"))
    if text(result, "document", "change") == "unchanged":
        return [f"**{title} in {name} is as it was: the text is the same.**"]
    before, now = number(result, "passages_before"), number(result, "document", "passages")
    return [
        f"**{title} in {name} has its new text.** It had {counted(before, 'passage')}, now it has {count(now)}.",
        "",
        *_next(f"What do our docs say about {title}?"),
    ]


def deleted_document(result: JsonObject) -> list[str]:
    """Say that a document is gone."""
    asked = plain(text(result, "asked_for"))
    if child(result, "deleted") is not True:
        return [f"**There is no document “{asked}”, so nothing was deleted.**", "", *_next("List my knowledge bases")]
    title, name = plain(text(result, "document", "title")), plain(text(result, "corpus", "name"))
    left = counted(number(result, "corpus", "documents"), "document")
    return [f"**{title} is deleted from {name}**, which has {left} left."]


def deleted_corpus(result: JsonObject) -> list[str]:
    """Say that a knowledge base is gone, and what is left."""
    left = [plain(name) for name in names(result, "left")]
    rest = f"You still have: {', '.join(left)}." if left else "You have no other."
    if child(result, "deleted") is not True:
        return [f"**There is no knowledge base “{plain(text(result, 'asked_for'))}”: nothing was deleted.** {rest}"]
    documents = counted(number(result, "corpus", "documents"), "document")
    return [f"**The knowledge base {plain(text(result, 'corpus', 'name'))} is deleted, with {documents}.** {rest}"]


def described(result: JsonObject) -> list[str]:
    """Say what a knowledge base holds."""
    corpus, documents = child(result, "corpus"), children(result, "documents")
    name = plain(text(corpus, "name"))
    held = f"{counted(number(corpus, 'documents'), 'document')} in {counted(number(corpus, 'passages'), 'passage')}"
    lines = [f"**{name} holds {held}, {count(number(corpus, 'size_bytes'))} bytes of text.**", ""]
    rows = [
        [
            plain(text(entry, "title")),
            plain(text(entry, "source")),
            minute(text(entry, "update_time")),
            count(number(entry, "passages")),
            count(number(entry, "size_bytes")),
        ]
        for entry in documents
    ]
    lines += [*table(["Document", "From", "Changed", "Passages", "Bytes"], rows, texts=3), ""]
    more = number(result, "documents_not_shown")
    lines += [f"… and {count(more)} more.", ""] if more else []
    title = plain(text(documents[0], "title")) if documents else name
    return [*lines, *_next(f"What do our docs say about {title}?", f"Export the {name} knowledge base")]


def exported(result: JsonObject) -> list[str]:
    """Say where the file is."""
    name, file_name = plain(text(result, "corpus", "name")), plain(text(result, "file_name"))
    form = "one passage a line, as JSON" if text(result, "format") == "jsonl" else "a Markdown file for each document"
    held = counted(number(result, "corpus", "documents"), "document")
    return [f"**{name} is exported as {file_name}: {held}, {form}.** The file is attached to this answer."]


def listed(corpora: Sequence[JsonObject]) -> list[str]:
    """List the knowledge bases."""
    if not corpora:
        return none_yet()
    rows = [
        [
            plain(text(corpus, "name")),
            minute(text(corpus, "update_time")),
            count(number(corpus, "documents")),
            count(number(corpus, "passages")),
        ]
        for corpus in corpora
    ]
    first = plain(text(corpora[0], "name"))
    return [
        f"**You have {counted(len(corpora), 'knowledge base')}.**",
        "",
        *table(["Name", "Changed", "Documents", "Passages"], rows, texts=2),
        "",
        *_next(f"What is in the {first} knowledge base?", f"Export the {first} knowledge base"),
    ]


def none_yet() -> list[str]:
    """Say that there is none, and how to make one."""
    return [
        "**You have no knowledge base yet, so there is nothing to look into.**",
        "",
        "Upload text, Markdown, HTML or PDF files, then say for example:",
        "",
        "- “Create a knowledge base for our runbooks”",
        "- “Add runbook.md to the runbooks knowledge base”",
    ]


def which(corpora: Sequence[JsonObject], named: str) -> list[str]:
    """Ask which one is meant."""
    known = "; ".join(plain(text(corpus, "name")) for corpus in corpora)
    opening = f"There is no knowledge base “{plain(named)}”." if named else "You have several knowledge bases."
    ask = f"There are: {known}. Say which one you mean"
    return [f"**{opening}** {ask}{', or “create a knowledge base called ' + plain(named) + '”' if named else ''}."]


def which_document() -> list[str]:
    """Ask which document is meant."""
    return [
        "**Which document do you mean?** Name it by its title or file name, for example:",
        "",
        "- “Update runbook.md” (after uploading the new one under the same name)",
        "- “Delete the document Old guide from the runbooks knowledge base”",
    ]


def failed(exchange: Exchange) -> list[str]:
    """Say what went wrong, and that nothing was changed where that is so."""
    why = plain(exchange.error or exchange.summary or exchange.status)
    if exchange.tool_name.startswith("delete_"):
        return [f"**Nothing was deleted.** {why}"]
    return [f"**That did not work:** {why}"]


def plain(said: str) -> str:
    """Return text of others for a line of ours: one line, with no mark that Markdown would act on."""
    return _MARKS.sub(r"\\\1", " ".join(said.split()))


def _quote(hit: JsonObject) -> list[str]:
    """Return the snippet as a quote, with the words that were found in bold."""
    snippet = text(hit, "snippet")
    parts, end = [], 0
    for start, stop in _highlights(hit, len(snippet)):
        if start >= end:
            parts += [_escaped(snippet[end:start]), f"**{_escaped(snippet[start:stop])}**"]
            end = stop
    marked = "".join([*parts, _escaped(snippet[end:])])
    before = "… " if child(hit, "cut_before") is True else ""
    after = " …" if child(hit, "cut_after") is True else ""
    lines = _LINE_MARK.sub(r"\1\\\2", f"{before}{marked}{after}").split("\n")
    return [f"> {line.strip()}".rstrip() for line in lines]


def _highlights(hit: JsonObject, length: int) -> list[tuple[int, int]]:
    found = child(hit, "highlights")
    pairs = found if isinstance(found, Sequence) and not isinstance(found, str) else []
    places = []
    for pair in pairs:
        if isinstance(pair, Sequence) and not isinstance(pair, str | Mapping) and len(pair) == 2:  # noqa: PLR2004
            start, stop = pair
            if isinstance(start, int) and isinstance(stop, int) and 0 <= start < stop <= length:
                places.append((start, stop))
    return sorted(places)


def _escaped(part: str) -> str:
    return _MARKS.sub(r"\\\1", part)


def _extent(result: JsonObject) -> str:
    documents = counted(number(result, "documents_searched"), "document")
    return f"{documents} with {counted(number(result, 'passages_searched'), 'passage')}"


def _next(*messages: str) -> list[str]:
    return ["### What you could ask next", "", *(f"- “{message}”" for message in messages)]
