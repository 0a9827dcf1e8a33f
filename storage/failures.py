"""What a failure of the database means: ours to mend, worth another try, or the database's trouble."""

import sqlite3

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError, SQLAlchemyError

from storage.errors import StorageUnavailableError

#: Our defects, not the database's troubles: these pass as they are.
DEFECTS = (IntegrityError, ProgrammingError, DataError, NotSupportedError)
SQLITE_DEFECTS = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    sqlite3.NotSupportedError,
    sqlite3.InterfaceError,
)

#: PostgreSQL's codes for "roll back and do it again": serialization failure, deadlock.
DO_AGAIN_CODES = frozenset({"40001", "40P01"})


class DoAgainError(StorageUnavailableError):
    """Nothing was done, and the same may well succeed now."""


def unavailable(
    error: SQLAlchemyError | OSError | sqlite3.Error, *, commit_sent: bool = False
) -> StorageUnavailableError:
    """Return a failure of the database as ours. `commit_sent`: whether it is done is not known."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    message = describe(cause)
    if commit_sent:
        return StorageUnavailableError(message, outcome_unknown=True)
    if isinstance(error, DBAPIError) and (
        error.connection_invalidated or getattr(cause, "sqlstate", None) in DO_AGAIN_CODES
    ):
        return DoAgainError(message)
    return StorageUnavailableError(message)


def describe(cause: BaseException) -> str:
    """Return one line that says what the database said."""
    return f"the database did not do what was asked: {type(cause).__name__}: {cause}".splitlines()[0]
