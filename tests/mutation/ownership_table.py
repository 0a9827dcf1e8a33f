"""Each condition of the service on a user, and the test that notices when it is lifted, or why nobody could."""

from collections.abc import Iterator, Mapping
from typing import Final

from tests.mutation.mutants import Kind, Mutant
from tests.mutation.ownership import ownership_sites

STORAGE: Final = "tests/storage"
OTHERS: Final = f"{STORAGE}/test_ownership.py::test_somebody_else_finds_nothing_and_changes_nothing"

NOTICED_BY: Final[Mapping[str, str]] = {
    "agent_service/api/session.py::Session._renew user.user_id != self._user.user_id": (
        "tests/agent_service/api/test_attach.py::test_a_token_of_another_user_ends_the_session"
    ),
    "agent_service/engine/beginnings.py::Beginnings.find beginning.user_id == user_id": (
        "tests/agent_service/engine/test_beginnings.py::test_it_is_its_users_alone"
    ),
    "storage/acceptance.py::Acceptance.__init__._count_open runs.c.user_id == user_id": (
        f"{STORAGE}/test_acceptance.py::test_the_cap_of_open_runs[sqlite]"
    ),
    "storage/acceptance.py::Acceptance.__init__._enter_thread threads.c.user_id == user_id": (
        f"{STORAGE}/test_acceptance.py::test_somebody_elses_thread_is_unknown[sqlite]"
    ),
    "storage/acceptance.py::Acceptance.__init__._find runs.c.user_id == user_id": (
        f"{STORAGE}/test_acceptance.py::test_the_key_is_the_users_own[sqlite]"
    ),
    "storage/corpora.py::SqlCorpora.create corpora.c.user_id == corpus.user_id": (
        f"{STORAGE}/test_corpora.py::test_a_name_is_its_users_own[sqlite]"
    ),
    "storage/corpora.py::SqlCorpora.list corpora.c.user_id == user_id": f"{OTHERS}[sqlite-Corpora.list]",
    "storage/corpora.py::SqlCorpora.search.work corpora.c.user_id == user_id": f"{OTHERS}[sqlite-Corpora.search]",
    "storage/corpora.py::SqlCorpora.version corpora.c.user_id == user_id": f"{OTHERS}[sqlite-Corpora.version]",
    "storage/corpora.py::_is corpora.c.user_id == user_id": f"{OTHERS}[sqlite-Corpora.get]",
    "storage/corpora.py::_get_document corpus_documents.c.user_id == user_id": (
        f"{OTHERS}[sqlite-Corpora.get_document]"
    ),
    "storage/event_log.py::SqlEventLog.read runs.c.user_id == user_id": f"{OTHERS}[sqlite-EventLog.read]",
    "storage/file_backing.py::ChunkRows.piece file_chunks.c.user_id == user_id": (
        f"{STORAGE}/test_file_content.py::test_content_in_postgres_is_its_users_own"
    ),
    "storage/files.py::_is_content file_contents.c.user_id == user_id": (
        f"{STORAGE}/test_files.py::test_two_users_with_the_same_content_are_apart[sqlite]"
    ),
    "storage/files.py::_get files.c.user_id == user_id": f"{OTHERS}[sqlite-Files.get]",
    "storage/files.py::SqlFiles.list files.c.user_id == user_id": f"{OTHERS}[sqlite-Files.list]",
    "storage/files.py::SqlFiles._delete.work files.c.user_id == user_id #2": (
        f"{STORAGE}/test_files.py::test_what_others_keep_does_not_keep_a_users_content[sqlite]"
    ),
    "storage/memory_corpora.py::MemoryCorpora.get corpus.user_id != user_id": f"{OTHERS}[memory-Corpora.get]",
    "storage/memory_corpora.py::MemoryCorpora.list corpus.user_id == user_id": f"{OTHERS}[memory-Corpora.list]",
    "storage/memory_corpora.py::MemoryCorpora.get_document document.user_id != user_id": (
        f"{OTHERS}[memory-Corpora.get_document]"
    ),
    "storage/memory_corpora.py::MemoryCorpora.version corpus.user_id == user_id": (f"{OTHERS}[memory-Corpora.version]"),
    "storage/memory_files.py::MemoryFiles._get record.user_id != user_id": f"{OTHERS}[memory-Files.get]",
    "storage/memory_files.py::MemoryFiles.delete (other.user_id, other.sha256) != key": (
        f"{STORAGE}/test_files.py::test_what_others_keep_does_not_keep_a_users_content[memory]"
    ),
    "storage/memory_files.py::MemoryFiles.list record.user_id == user_id": f"{OTHERS}[memory-Files.list]",
    "storage/memory_runs.py::MemoryRuns.list run.user_id == user_id": f"{OTHERS}[memory-Runs.list]",
    "storage/memory_runs.py::MemoryRuns._find (run.user_id, run.client_message_id) == wanted": (
        f"{STORAGE}/test_acceptance.py::test_the_key_is_the_users_own[memory]"
    ),
    "storage/memory_runs.py::MemoryRuns._open_runs run.user_id == user_id": (
        f"{STORAGE}/test_acceptance.py::test_the_cap_of_open_runs[memory]"
    ),
    "storage/memory_state.py::MemoryState.thread thread.user_id != user_id": f"{OTHERS}[memory-Threads.get]",
    "storage/memory_state.py::MemoryState.run run.user_id != user_id": f"{OTHERS}[memory-Runs.get]",
    "storage/memory_threads.py::MemoryThreads.list thread.user_id == user_id": f"{OTHERS}[memory-Threads.list]",
    "storage/memory_threads.py::MemoryThreads.history message.user_id == user_id": (
        f"{OTHERS}[memory-Threads.history]"
    ),
    'storage/waiting.py::Waiting.__init__ runs.c.user_id == bindparam("user_id")': (f"{OTHERS}[sqlite-Runs.resolve]"),
    "storage/memory_plans.py::MemoryActionPlans.list plan.user_id == user_id": f"{OTHERS}[memory-ActionPlans.list]",
    "storage/plans.py::_is action_plans.c.user_id == user_id": f"{OTHERS}[sqlite-ActionPlans.get]",
    "storage/plans.py::SqlActionPlans.list action_plans.c.user_id == user_id": (f"{OTHERS}[sqlite-ActionPlans.list]"),
    "storage/runs.py::_is runs.c.user_id == user_id": f"{OTHERS}[sqlite-Runs.get]",
    "storage/runs.py::SqlRuns.find_by_client_message runs.c.user_id == user_id": (
        f"{OTHERS}[sqlite-Runs.find_by_client_message]"
    ),
    "storage/runs.py::SqlRuns.list runs.c.user_id == user_id": f"{OTHERS}[sqlite-Runs.list]",
    "storage/threads.py::_is threads.c.user_id == user_id": f"{OTHERS}[sqlite-Threads.get]",
    "storage/threads.py::SqlThreads.list threads.c.user_id == user_id": f"{OTHERS}[sqlite-Threads.list]",
}

UNSEEN: Final[Mapping[str, str]] = {
    "storage/acceptance.py::Acceptance.__init__._open_in_thread runs.c.user_id == user_id": (
        "the thread was entered under the user in the statement before, and its runs are of its user"
    ),
    "storage/files.py::SqlFiles._delete.work files.c.user_id == user_id": (
        "the record was found under the user by `get`, which every deletion begins with"
    ),
    "storage/threads.py::_visible_messages messages.c.user_id == user_id": (
        "the run beside it is the user's; both at once are a mutant in the table of runs"
    ),
    "storage/threads.py::_visible_messages runs.c.user_id == user_id": (
        "the message beside it is the user's; both at once are a mutant in the table of runs"
    ),
    "storage/threads.py::SqlThreads._matches messages.c.user_id == threads.c.user_id": (
        "the messages of a thread are of its user: the condition is there for the index"
    ),
}
"""Conditions that stand beside another one, which already holds what they hold."""


def ownership_mutants() -> Iterator[Mutant]:
    """Yield one mutant for each condition that the table knows; `test_mutants.py` sees to it that it knows all."""
    for site in ownership_sites():
        if site.edit and site.name in NOTICED_BY:
            yield Mutant(f"{site.name} lifted", Kind.OWNERSHIP, (site.edit,), (NOTICED_BY[site.name],))
