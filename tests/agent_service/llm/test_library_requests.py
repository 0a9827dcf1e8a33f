"""What a message asks of knowledge bases, by its own words."""

import time
from datetime import UTC, datetime

import pytest

from agent_service.llm.offline.library_requests import (
    DEFAULT_NAME,
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

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def understood(message: str) -> Understanding:
    return understand(message, (), NOW)


OPERATIONS = {
    "create a knowledge base for our runbooks": "create",
    "Please set up a corpus for the billing procedures": "create",
    "could you build me a searchable wiki from our incident guides": "create",
    "add runbook.md to the runbooks knowledge base": "add",
    "I want to put our FAQ into something I can search": "add",
    "index these documents so the team can search them": "add",
    "what do our docs say about retries?": "search",
    "what do our docs say about how to delete a runbook?": "search",
    "Search the handbook for the refund policy": "search",
    "according to the documentation, how do we rotate keys?": "search",
    "is there anything about SLAs in our wiki?": "search",
    "update the escalation document in the runbooks": "update",
    "replace the old refund policy document with refunds-v2.txt": "update",
    "change the vacation policy document in the hr handbook": "update",
    "delete the knowledge base named scratch": "delete",
    "get rid of the handbook corpus": "delete",
    "export the runbooks knowledge base": "export",
    "list my knowledge bases": "list",
    "show me all the knowledge bases I have": "list",
    "how big is our support knowledge base?": "list",
    "What's in the runbooks knowledge base?": "list",
}


@pytest.mark.parametrize(("message", "operation"), list(OPERATIONS.items()), ids=list(OPERATIONS))
def test_operations(message: str, operation: str) -> None:
    assert operation_of(message, understood(message)).value == operation


NAMES = {
    "create a knowledge base for our runbooks": "runbooks",
    'create a knowledge base called "Platform Guides" from a.md': "platform guides",
    "create a knowledge base named billing notes from a.md": "billing notes",
    "add a.md to the support knowledge base": "support",
    "export the runbooks knowledge base": "runbooks",
    "delete the old knowledge base": "",
    "build a knowledge base": "",
    "make a corpus out of these files": "",
    "start a knowledge base with the files I just uploaded": "",
    "new corpus from handbook.pdf": "handbook",
    "search the knowledge base for rate limits": "",
    "show me all the knowledge bases I have": "",
    "add this to it": "",
}


@pytest.mark.parametrize(("message", "name"), list(NAMES.items()), ids=list(NAMES))
def test_names(message: str, name: str) -> None:
    assert corpus_named(message, understood(message)).lower() == name


def test_titles() -> None:
    assert title_of("runbooks") == "Runbooks"
    assert title_of("AWS guides") == "AWS guides"
    assert title_of("") == DEFAULT_NAME


QUERIES = {
    "what do our docs say about retries?": "retries",
    "what do our docs say about refund policies": "refund policies",
    "do the runbooks say how to drain a node?": "how to drain a node",
    "what's in our docs about SSO?": "SSO",
    "search our docs for rate limits": "rate limits",
    "is there anything about SLAs in our docs?": "SLAs",
    "search": "search",
}


@pytest.mark.parametrize(("message", "query"), list(QUERIES.items()), ids=list(QUERIES))
def test_queries(message: str, query: str) -> None:
    assert query_of(message, understood(message)).lower() == query.lower()


DOCUMENTS = {
    "update the escalation document in the runbooks": "escalation",
    "replace the old refund policy document with refunds-v2.txt": "refund policy",
    "update rollback.md in the runbooks: Press the button.": "rollback.md",
    "delete the document Old guide from the runbooks": "Old guide",
    "remove rollback.md": "rollback.md",
    "update it": "",
}


@pytest.mark.parametrize(("message", "document"), list(DOCUMENTS.items()), ids=list(DOCUMENTS))
def test_documents(message: str, document: str) -> None:
    assert document_named(message) == document


def test_a_whole_knowledge_base_is_no_document() -> None:
    assert is_about_document("delete rollback.md from the runbooks knowledge base")
    assert is_about_document("delete the page Old from the wiki")
    assert not is_about_document("delete the runbook knowledge base")
    assert not is_about_document("delete the runbooks")


def test_uploads_are_meant() -> None:
    assert means_uploads("create a knowledge base from the files I just uploaded")
    assert means_uploads("create a knowledge base with these PDFs")
    assert not means_uploads("create a knowledge base for our runbooks")


def test_texts_and_files() -> None:
    assert text_given("add this to the notes: Deploys happen on Tuesdays.") == "Deploys happen on Tuesdays."
    assert text_given("add this\n\n# Head\nText: more") == "# Head\nText: more"
    assert text_given("add runbook.md") == ""
    message = "add A.md, b.pdf and A.md and usage.csv"
    assert files_named(message, understood(message)) == ["A.md", "b.pdf", "usage.csv"]


PIECES = ("a", "\n", ": ", "in ", "the a ", "a-", "a.", "delete the ", '"', "knowledge base ", ",")


@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_any_message_is_understood_in_time(piece: str) -> None:
    message = "create " + piece * (100_000 // len(piece))
    began = time.perf_counter()
    known = understood(message)
    operation_of(message, known)
    corpus_named(message, known)
    files_named(message, known)
    document_named(message)
    is_about_document(message)
    means_uploads(message)
    text_given(message)
    query_of(message, known)
    assert time.perf_counter() - began < 5
