"""Why the service ended a call while we were still writing.

grpc.aio sets a call's status to INTERNAL when a write fails, and a write fails when the service has ended the call at
that moment. The service's own status comes a moment later, or came a moment earlier and was overwritten.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import grpc

Value = TypeVar("Value")

LOOKS: Final = 20
PAUSE_S: Final = 0.01
"""Between two looks at the status, in seconds."""


class EarlyEnd:
    """Watches one call from its beginning."""

    def __init__(self, call: grpc.aio.Call) -> None:
        self._call = call
        self._first: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._on_done)

    async def reason(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Return the error that the service ended the call with; `error` is what a write raised."""
        for _ in range(LOOKS):
            if error.code() is not grpc.StatusCode.INTERNAL:
                return error
            if self._first is not None:
                return self._first
            await asyncio.sleep(PAUSE_S)
            error = _error(
                await self._call.code(),
                await self._call.initial_metadata(),
                await self._call.trailing_metadata(),
                await self._call.details(),
            )
        return error

    def _on_done(self, _: object) -> None:
        code = _at_once(self._call.code())
        trailing = _at_once(self._call.trailing_metadata())
        if code is not None and code is not grpc.StatusCode.INTERNAL:
            self._first = _error(code, None, trailing, _at_once(self._call.details()))


def _error(
    code: grpc.StatusCode,
    initial: grpc.aio.Metadata | None,
    trailing: grpc.aio.Metadata | None,
    details: str | None,
) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, initial or grpc.aio.Metadata(), trailing or grpc.aio.Metadata(), details)


def _at_once(coroutine: Coroutine[Any, Any, Value]) -> Value | None:
    """Run a coroutine that has nothing to wait for: a call that is done knows its status."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: Value = end.value
        return value
    coroutine.close()
    return None
