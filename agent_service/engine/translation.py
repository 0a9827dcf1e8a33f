"""Storage's errors in the words of people: one table for every call that a user makes."""

from collections.abc import Iterator
from contextlib import contextmanager

from agent_service.engine.errors import ApexError, ErrorReason, Violation
from storage.errors import (
    FileTooLargeError,
    IdempotencyMismatchError,
    InvalidPageTokenError,
    RecordNotFoundError,
    StorageUnavailableError,
    ThreadBusyError,
    TooManyOpenRunsError,
)


def invalid(field: str, description: str) -> ApexError:
    """Return the error for one invalid field of a request."""
    return ApexError(ErrorReason.INVALID_ARGUMENT, description, violations=(Violation(field, description),))


@contextmanager
def translated() -> Iterator[None]:
    """Turn the storage errors of the body into `ApexError`."""
    try:
        yield
    except RecordNotFoundError as error:
        kind = {"corpus": "knowledge base"}.get(error.kind, error.kind)
        raise ApexError(ErrorReason.NOT_FOUND, f"There is no such {kind}.") from error
    except IdempotencyMismatchError as error:
        text = "This id belongs to another message. Use a new one for each message."
        raise invalid("client_message_id", text) from error
    except ThreadBusyError as error:
        text = "A run of this thread is still at work. Wait for its end, or choose another conflict policy."
        raise ApexError(ErrorReason.RUN_CONFLICT, text) from error
    except TooManyOpenRunsError as error:
        text = "You have as many open runs as there may be. Wait until one has ended."
        raise ApexError(ErrorReason.TOO_MANY_RUNS, text, retry_after_ms=5000) from error
    except InvalidPageTokenError as error:
        raise invalid("page_token", "This token is not from this listing. Begin with an empty one.") from error
    except FileTooLargeError as error:
        text = f"The file is larger than {error.limit_bytes} bytes, the most that is taken."
        raise ApexError(ErrorReason.MESSAGE_TOO_LARGE, text) from error
    except StorageUnavailableError as error:
        text = "The database does not answer right now. Nothing is lost; try again in a moment."
        raise ApexError(ErrorReason.STORAGE_UNAVAILABLE, text, retry_after_ms=1000) from error
