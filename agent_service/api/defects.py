"""The border behind which an exception of ours stays: the log gets all of it, the caller an id."""

from structlog.typing import FilteringBoundLogger

from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.ports import Ids


def report_defect(logger: FilteringBoundLogger, ids: Ids, error: Exception) -> tuple[ApexError, str]:
    """Log an unexpected exception under a new `error_id`; return what the caller may know, and that id."""
    error_id = ids.new()
    logger.error("defect", error_id=error_id, exc_info=error)
    text = f"Something went wrong on our side. If it happens again, report the error id {error_id}."
    return ApexError(ErrorReason.INTERNAL, text), error_id
