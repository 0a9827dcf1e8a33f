"""Makes gRPC handlers from the contract's descriptor and the servicers: every rpc of a service, or an error at start.

Requests are decoded here, so that bytes that are no message are answered as what they are. Responses may be messages or
bytes: committed events leave as they are.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from agent_service.api.call import Call
from agent_service.api.interceptors import Border, Method
from agent_service.api.validation import check
from agent_service.engine.errors import ApexError, ErrorReason

Request: TypeAlias = Message | AsyncIterator[Message]
Behaviour: TypeAlias = Callable[[Request, Call], Awaitable[Message | None]]
Context: TypeAlias = grpc.aio.ServicerContext[object, object]

WITHOUT_TOKEN: Final = frozenset({"Attach", "CreateDevToken"})
"""Methods that need no token: the sessions of Attach bring their own."""

CHECK_THEMSELVES: Final = frozenset({"Attach"})
"""Methods that check the rules themselves: a bad request of one session must not end the call of all."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A request that is no message of its type."""


def service_handler(service: ServiceDescriptor, servicer: object, border: Border) -> grpc.GenericRpcHandler:
    """Return the handler of a service. Raises `AttributeError` when the servicer lacks an rpc."""
    handlers = {
        method.name: _method_handler(method, getattr(servicer, method.name), border) for method in service.methods
    }
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _method_handler(
    descriptor: MethodDescriptor, behaviour: Behaviour, border: Border
) -> "grpc.RpcMethodHandler[Message | Unreadable, Message | bytes]":
    streams_in, streams_out = descriptor.client_streaming, descriptor.server_streaming
    checks_itself = descriptor.name in CHECK_THEMSELVES
    method = Method(
        name=descriptor.name,
        needs_token=descriptor.name not in WITHOUT_TOKEN,
        streams_in=streams_in,
        streams_out=streams_out,
    )

    async def handle(received: Message | Unreadable | AsyncIterator[Message | Unreadable], context: Context) -> object:
        async with border.around(method, context) as call:
            if isinstance(received, AsyncIterator):
                request: Request = _readable(received) if checks_itself else _checked_stream(received)
            else:
                request = _checked(received)
            return await behaviour(request, call)
        raise AssertionError("the border lets no error through silently")

    factory = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[streams_in, streams_out]
    return factory(handle, request_deserializer=_reader(descriptor), response_serializer=_encoded)


def _reader(descriptor: MethodDescriptor) -> Callable[[bytes], Message | Unreadable]:
    request_class = message_factory.GetMessageClass(descriptor.input_type)

    def read(data: bytes) -> Message | Unreadable:
        try:
            return request_class.FromString(data)
        except DecodeError:
            return Unreadable()

    return read


def _encoded(response: Message | bytes) -> bytes:
    return response if isinstance(response, bytes) else response.SerializeToString()


def _read(request: Message | Unreadable) -> Message:
    if isinstance(request, Unreadable):
        raise ApexError(ErrorReason.INVALID_ARGUMENT, "The request cannot be read.")
    return request


def _checked(request: Message | Unreadable) -> Message:
    """Return the request if it is one and keeps the contract's rules; else raise `ApexError`."""
    message = _read(request)
    check(message)
    return message


async def _readable(requests: AsyncIterator[Message | Unreadable]) -> AsyncIterator[Message]:
    async for request in requests:
        yield _read(request)


async def _checked_stream(requests: AsyncIterator[Message | Unreadable]) -> AsyncIterator[Message]:
    async for request in requests:
        yield _checked(request)
