"""SessionService: gateways and tokens."""

from collections.abc import AsyncIterator

from google.protobuf.message import Message

from agent_service.api.attach import AttachCall
from agent_service.api.auth import TokenIssuer
from agent_service.api.call import Call, draining_error, not_there_yet
from agent_service.api.session import SessionServices
from agent_service.api.wire_values import to_timestamp
from agent_service.engine.errors import ApexError, ErrorReason
from generated.apex.agent.v1 import agent_pb2 as pb

DEFAULT_USER_ID = "dev"
DEFAULT_LIFETIME_MS = 3_600_000
"""Of a development token."""
DEFAULT_SCOPE = "databases:read"
"""Of a development token: its holder works on this machine, and may look at the databases that are configured on it."""


class SessionServicer:
    """The methods carry the names of the contract; its comments say what they do. No issuer: no development tokens."""

    def __init__(self, services: SessionServices, issuer: TokenIssuer | None) -> None:
        self._services = services
        self._issuer = issuer
        self._gateways: set[AttachCall] = set()
        self._draining = False

    async def Attach(self, requests: AsyncIterator[pb.AttachRequest], call: Call) -> None:
        if self._draining:
            raise draining_error()
        gateway = AttachCall(self._services, call)
        self._gateways.add(gateway)
        try:
            await gateway.serve(requests)
        finally:
            self._gateways.discard(gateway)

    async def RevokeTokens(self, request: pb.RevokeTokensRequest, call: Call) -> Message:
        raise not_there_yet("RevokeTokens")

    async def CreateDevToken(self, request: pb.CreateDevTokenRequest, call: Call) -> pb.CreateDevTokenResponse:
        if self._issuer is None:
            text = "Development tokens exist in development and test only."
            raise ApexError(ErrorReason.PERMISSION_DENIED, text)
        user_id = request.user_id or DEFAULT_USER_ID
        token, expire_time = self._issuer.issue(
            user_id, request.scope or DEFAULT_SCOPE, request.expires_in_ms or DEFAULT_LIFETIME_MS
        )
        return pb.CreateDevTokenResponse(token=token, expire_time=to_timestamp(expire_time), user_id=user_id)

    def drain(self) -> None:
        """End every gateway's sessions and call; refuse new ones."""
        self._draining = True
        for gateway in tuple(self._gateways):
            gateway.drain()
