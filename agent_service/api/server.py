"""The gRPC server: services, health, reflection, flow control, and an orderly end."""

from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from agent_service.api.agents_servicer import AgentServicer
from agent_service.api.auth import TokenIssuer, TokenVerifier
from agent_service.api.call import Lifetimes
from agent_service.api.connections import Connections
from agent_service.api.files_servicer import FileServicer
from agent_service.api.handlers import service_handler
from agent_service.api.interceptors import Border
from agent_service.api.metrics import ApiMetrics
from agent_service.api.options import ApiOptions, TlsFiles
from agent_service.api.rates import MessageRates
from agent_service.api.session import SessionServices
from agent_service.api.sessions_servicer import SessionServicer
from agent_service.api.threads_servicer import ThreadServicer
from agent_service.engine.broadcast import Broadcast
from agent_service.engine.files import Files
from agent_service.engine.ports import Clock, Ids
from agent_service.engine.registry import Registry
from agent_service.engine.runs import Runs
from agent_service.engine.threads import Threads
from generated.apex.agent.v1 import agent_pb2 as pb

MAX_RECEIVE_BYTES: Final = 1024 * 1024
"""Of one request message; the largest are pieces of uploads with 256 KiB."""

MAX_METADATA_BYTES: Final = 16 * 1024
"""Of a call's metadata: a token of 8 KiB fits."""

CHANNEL_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA_BYTES),
    ("grpc.http2.bdp_probe", 0),  # with it a stalled stream pins megabytes
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Strictly below the clients' keepalive period (30 s), or the server takes their pings for an attack.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)

SERVICES: Final = tuple(pb.DESCRIPTOR.services_by_name.values())


class AddressInUseError(Exception):
    """The address cannot be listened on. The text is for the person who started the service."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What of the engine the gRPC face serves."""

    runs: Runs
    threads: Threads
    files: Files
    broadcast: Broadcast
    registry: Registry
    clock: Clock
    ids: Ids


class ApiServer:
    """The service's gRPC face. `start`, then `drain` and `stop` at the end."""

    def __init__(
        self,
        options: ApiOptions,
        engine: Engine,
        *,
        verifier: TokenVerifier,
        issuer: TokenIssuer | None,
        metrics: CollectorRegistry,
    ) -> None:
        self._options = options
        self._server = grpc.aio.server(options=CHANNEL_OPTIONS, maximum_concurrent_rpcs=options.max_calls_at_once)
        self._health = health.aio.HealthServicer()
        self._lifetimes = Lifetimes(engine.clock)
        self._logger = structlog.get_logger("apex.grpc")
        counters = ApiMetrics(metrics)
        self._sessions = SessionServicer(
            _session_services(options, engine, verifier, counters), issuer if options.dev_tokens else None
        )
        self._add_services(engine, Border(verifier, options.deadlines, counters, engine.ids), counters)

    async def start(self) -> int:
        """Listen and serve; return the port. Raises `AddressInUseError`."""
        address = self._options.address
        try:
            port = self._bind(address, self._options.tls)
        except RuntimeError:
            text = f"{address} cannot be listened on: another program may use it. Set APEX_GRPC_ADDRESS to a free one."
            raise AddressInUseError(text) from None
        await self._server.start()
        for name in ("", *_served_names()):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._logger.info("serving", address=address, port=port, tls=self._options.tls is not None)
        return port

    async def drain(self) -> None:
        """Say NOT_SERVING, and end streams and sessions with DRAINING and their last seq."""
        await self._health.enter_graceful_shutdown()
        self._sessions.drain()
        self._lifetimes.drain()

    async def stop(self, grace_s: float) -> None:
        """Stop listening; calls that are still open have this many seconds to end."""
        await self._server.stop(grace_s)

    def _bind(self, address: str, tls: TlsFiles | None) -> int:
        if tls is None:
            return self._server.add_insecure_port(address)
        credentials = grpc.ssl_server_credentials(
            [(tls.key, tls.certificate)],
            root_certificates=tls.client_ca,
            require_client_auth=tls.client_ca is not None,
        )
        return self._server.add_secure_port(address, credentials)

    def _add_services(self, engine: Engine, border: Border, metrics: ApiMetrics) -> None:
        servicers = {
            "AgentService": AgentServicer(
                engine.runs,
                engine.broadcast,
                engine.registry,
                MessageRates(self._options.max_messages_per_minute),
                self._lifetimes,
                metrics,
            ),
            "ThreadService": ThreadServicer(engine.threads),
            "FileService": FileServicer(engine.files, self._lifetimes, self._options.max_upload_bytes),
            "SessionService": self._sessions,
        }
        self._server.add_generic_rpc_handlers(
            tuple(service_handler(service, servicers[service.name], border) for service in SERVICES)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if self._options.reflection:
            names = (*_served_names(), health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)


def _served_names() -> tuple[str, ...]:
    return tuple(service.full_name for service in SERVICES)


def _session_services(
    options: ApiOptions, engine: Engine, verifier: TokenVerifier, metrics: ApiMetrics
) -> SessionServices:
    return SessionServices(
        verifier=verifier,
        connections=Connections(options.max_connections_per_user),
        runs=engine.runs,
        broadcast=engine.broadcast,
        clock=engine.clock,
        ids=engine.ids,
        metrics=metrics,
    )
