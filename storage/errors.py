"""Errors of the storage layer. Every method of `storage.interfaces` names those that it raises."""

from pathlib import Path


class StorageError(Exception):
    """The base of all errors of this package."""


class RecordNotFoundError(StorageError):
    """There is no such record, or it belongs to somebody else: the two are never told apart."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"{kind} {key!r} was not found")
        self.kind = kind
        self.key = key


class IdempotencyMismatchError(StorageError):
    """The user's `client_message_id` is taken by a run whose content, thread or agent differs."""


class ThreadBusyError(StorageError):
    """The thread has an open run and the conflict policy is REJECT. Nothing was saved."""


class TooManyOpenRunsError(StorageError):
    """The user already has the permitted number of open runs. Nothing was saved."""


class InvalidPageTokenError(StorageError):
    """The page token was not made by this listing."""


class FileTooLargeError(StorageError):
    """The upload is larger than the limit. Nothing was kept."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the file is larger than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class CorpusLimitError(StorageError):
    """The user, or a corpus, has as many of something as there may be. Nothing was saved."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"there may be {limit} {what} at most")
        self.what = what
        self.limit = limit


class DuplicateDocumentError(StorageError):
    """Another document of the corpus has exactly this text. Nothing was saved."""

    def __init__(self, title: str) -> None:
        super().__init__(f"the document {title!r} has the same text")
        self.title = title


class DataDirLockedError(StorageError):
    """Another service uses the data directory. `pid` is its process, as far as it is known."""

    def __init__(self, path: Path, pid: int | None) -> None:
        owner = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"the data directory {path} is in use by {owner}: stop that one, or set APEX_DATA_DIR to another directory"
        )
        self.path = path
        self.pid = pid


class SchemaMismatchError(StorageError):
    """The database's tables are not those of this version."""

    def __init__(self, found: str | None, expected: str) -> None:
        super().__init__(
            f"the database is at schema revision {found or 'none'}, this version needs {expected}: "
            "run `apex migrate`, or, if the database is the newer one, a newer version of Apex"
        )
        self.found = found
        self.expected = expected


class StorageUnavailableError(StorageError):
    """The database cannot be reached or did not answer.

    `outcome_unknown` is true when a COMMIT was sent and its answer was lost: the caller reads the position
    (`EventLog.positions`) before it tries again. Otherwise nothing was saved.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown
