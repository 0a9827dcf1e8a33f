"""The offline model as the corpus admin: which knowledge base is meant, what to do with it, then the answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.llm.offline import library_answers
from agent_service.llm.offline.conversation import (
    Call,
    Conversation,
    Exchange,
    Saying,
    Thought,
    Words,
    child,
    children,
    text,
)
from agent_service.llm.offline.facts import SUCCESS
from agent_service.llm.offline.library_requests import (
    Operation,
    corpus_named,
    document_named,
    files_named,
    is_about_document,
    means_uploads,
    operation_of,
    query_of,
    text_given,
    title_of,
)
from agent_service.llm.offline.understanding import Understanding, understand

MAX_FILES: Final = 20
"""Files that one call adds."""

_MARKDOWN: Final = re.compile(r"\b(?:markdown|md|zip)\b")


def can_play(conversation: Conversation) -> bool:
    """True when the tools on offer are those of the corpus admin."""
    return "search_corpus" in conversation.tools


def reply(conversation: Conversation) -> list[Saying]:
    """Return the next turn: tool calls, or the answer.

    What documents say never decides what is called: only the person's words, and which knowledge bases there are.
    """
    understanding = understand(conversation.request, conversation.earlier, conversation.now)
    request = _Request(conversation, understanding, operation_of(conversation.request, understanding))
    said = request.next()
    calls = [saying for saying in said if isinstance(saying, Call)]
    if all(call.tool_name in conversation.tools for call in calls):
        return said
    absent = calls[0].tool_name
    return [Words(f"**That is not possible here: the tool {absent} is not available to this agent.**\n")]


@dataclass(frozen=True, slots=True)
class _Request:
    """A message on its way to an answer; every turn decides anew from the calls so far."""

    conversation: Conversation
    understanding: Understanding
    operation: Operation

    def next(self) -> list[Saying]:
        """Return the next turn."""
        last = self.conversation.exchanges[-1] if self.conversation.exchanges else None
        if last is None:
            return self._first()
        if last.status != SUCCESS or last.result is None:
            return _words(library_answers.failed(last))
        if last.tool_name == "list_corpora":
            return self._with_corpora(children(last.result, "corpora"))
        if last.tool_name == "create_corpus":
            return self._after_creation(last.result)
        return [Thought("That is what there is. I write it up."), *_words(library_answers.answer(last, self._notes()))]

    @property
    def _message(self) -> str:
        return self.conversation.request

    @property
    def _named(self) -> str:
        return corpus_named(self._message, self.understanding)

    @property
    def _files(self) -> list[str]:
        return files_named(self._message, self.understanding)[:MAX_FILES]

    def _first(self) -> list[Saying]:
        if self.operation is Operation.CREATE:
            call = Call("create_corpus", {"name": title_of(self._named)})
            return [Thought("I make the knowledge base, or find the one of this name."), call]
        return [Thought("I look at which knowledge bases there are."), Call("list_corpora", {})]

    def _after_creation(self, result: JsonObject) -> list[Saying]:
        """Go on with the documents, where the message names or brings any."""
        referred = [text(entry, "file_id") for entry in children(result, "referenced_files")]
        documents = self._documents(referred)
        if not documents and self.operation is Operation.CREATE and not means_uploads(self._message):
            return _words(library_answers.created(result))
        corpus = text(result, "corpus", "corpus_id")
        return [Thought("It is there. I add the documents."), Call("add_documents", {"corpus": corpus, **documents})]

    def _documents(self, referred: Sequence[str] = ()) -> dict[str, JsonValue]:
        """Return what to add: files named, else those referred to, else the text in the message."""
        files = self._files or list(referred)
        if files:
            return {"files": files}
        given = text_given(self._message)
        return {"texts": [{"text": given}]} if given else {}

    def _with_corpora(self, corpora: Sequence[JsonObject]) -> list[Saying]:
        """Return the call on the knowledge base that is meant, or say which there are."""
        meant = meant_by(corpora, self._named)
        if not corpora:
            return self._without_any()
        if self.operation is Operation.SEARCH:
            return self._search(meant)
        if self.operation is Operation.LIST and meant is None:
            return _words(library_answers.listed(corpora))
        if self._is_about_document():
            return self._on_document(meant)
        chosen = meant or (corpora[0] if len(corpora) == 1 and not self._named else None)
        return self._on_corpus(chosen) if chosen else _words(library_answers.which(corpora, self._named))

    def _without_any(self) -> list[Saying]:
        if self.operation is not Operation.ADD:
            return _words(library_answers.none_yet())
        call = Call("create_corpus", {"name": title_of(self._named)})
        return [Thought("There is no knowledge base yet, so I make one for them."), call]

    def _search(self, meant: JsonObject | None) -> list[Saying]:
        query = query_of(self._message, self.understanding)
        within: dict[str, JsonValue] = {"corpora": [text(meant, "corpus_id")]} if meant is not None else {}
        where = text(meant, "name") if meant is not None else "your knowledge bases"
        return [Thought(f"I search {where} for “{query}”."), Call("search_corpus", {"query": query, **within})]

    def _is_about_document(self) -> bool:
        deletes = self.operation is Operation.DELETE and is_about_document(self._message)
        return deletes or self.operation is Operation.UPDATE

    def _on_document(self, corpus: JsonObject | None) -> list[Saying]:
        files, given = self._files, text_given(self._message)
        named = document_named(self._message.partition("\n")[0]) or (files[0] if files else "")
        if not named:
            return _words(library_answers.which_document())
        arguments: dict[str, JsonValue] = {"document": named}
        if corpus is not None:
            arguments["corpus"] = text(corpus, "corpus_id")
        if self.operation is Operation.DELETE:
            return [Thought("I delete the document, if that is approved."), Call("delete_document", arguments)]
        # "Replace a.md with b.md" names the new text's file; "update a.md" means the newest upload of that name.
        others = [file for file in files if file != named]
        if others:
            arguments["file"] = others[-1]
        elif given:
            arguments["text"] = given
        return [Thought("I give the document its new text."), Call("update_document", arguments)]

    def _on_corpus(self, corpus: JsonObject) -> list[Saying]:
        corpus_id, name = text(corpus, "corpus_id"), text(corpus, "name")
        if self.operation is Operation.DELETE:
            return [Thought(f"I delete {name}, if that is approved."), Call("delete_corpus", {"corpus": name})]
        if self.operation is Operation.EXPORT:
            form = "markdown" if _MARKDOWN.search(self._message.lower()) else "jsonl"
            return [Thought(f"I export {name}."), Call("export_corpus", {"corpus": corpus_id, "format": form})]
        if self.operation is Operation.ADD:
            return [Thought(f"I add it to {name}."), Call("add_documents", {"corpus": corpus_id, **self._documents()})]
        return [Thought(f"I look at what {name} holds."), Call("corpus_stats", {"corpus": corpus_id})]

    def _notes(self) -> list[str]:
        """Return what a reader should know of how the request was taken."""
        made = [exchange for exchange in self.conversation.exchanges if exchange.tool_name == "create_corpus"]
        if made and child(made[-1].result, "created") is True and not self._named:
            return [f"You gave no name, so the knowledge base is called {text(made[-1].result, 'corpus', 'name')}."]
        searched = _searched(self.conversation.exchanges)
        if searched is not None and self._named and not child(searched.args, "corpora"):
            return [f"There is no knowledge base that is called like “{self._named}”, so all were searched."]
        return []


def meant_by(corpora: Sequence[JsonObject], named: str) -> JsonObject | None:
    """Return the knowledge base that a name means: exactly, else as the only one with its words; None where unclear."""
    wanted = _words_of(named)
    if not wanted:
        return None
    exact = [corpus for corpus in corpora if _words_of(text(corpus, "name")) == wanted]
    found = exact or [
        corpus
        for corpus in corpora
        if set(wanted) <= set(_words_of(text(corpus, "name"))) or set(_words_of(text(corpus, "name"))) <= set(wanted)
    ]
    return found[0] if len(found) == 1 else None


def _words_of(name: str) -> list[str]:
    """Return the words of a name, one and many being the same."""
    return [word.removesuffix("s") for word in re.findall(r"\w+", name.lower())]


def _searched(exchanges: Sequence[Exchange]) -> Exchange | None:
    found = [exchange for exchange in exchanges if exchange.tool_name == "search_corpus"]
    return found[-1] if found else None


def _words(lines: Sequence[str]) -> list[Saying]:
    return [Words("\n".join(lines).strip() + "\n")]
