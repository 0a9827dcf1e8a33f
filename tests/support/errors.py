"""What a failed call says: the details of its `google.rpc.Status`."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

DETAILS_KEY = "grpc-status-details-bin"


@dataclass
class Failure:
    """The details of an error; empty until the call has failed."""

    message: str = ""
    reason: str = ""
    domain: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: Sequence[str] = ()
    retry_after_ms: int | None = None


def failure_of(error: grpc.aio.AioRpcError) -> Failure:
    """Return what the error says."""
    return details_of(error.trailing_metadata())


def details_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> Failure:
    """Return what the trailing metadata of a failed call says."""
    details = dict(metadata or ()).get(DETAILS_KEY, b"")
    assert isinstance(details, bytes)
    status = Status.FromString(details)
    failure = Failure(message=status.message)
    for packed in status.details:
        info, invalid, retry = ErrorInfo(), BadRequest(), RetryInfo()
        if packed.Unpack(info):
            failure.reason, failure.domain, failure.metadata = info.reason, info.domain, dict(info.metadata)
        elif packed.Unpack(invalid):
            failure.violations = [violation.field for violation in invalid.field_violations]
        elif packed.Unpack(retry):
            failure.retry_after_ms = retry.retry_delay.ToMilliseconds()
    return failure


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Return the reason of the error's `ErrorInfo`."""
    return failure_of(error).reason


@asynccontextmanager
async def failed_with(reason: str, code: grpc.StatusCode) -> AsyncIterator[Failure]:
    """Expect the body's call to fail so; the value holds the details afterwards."""
    failure = Failure()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield failure
    found = failure_of(caught.value)
    assert (found.reason, caught.value.code()) == (reason, code), found
    assert found.domain == "apex.agent.v1"
    failure.__dict__.update(found.__dict__)
