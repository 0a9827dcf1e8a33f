"""The composition root: the only place where concrete classes meet."""

import asyncio
import gc
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeAlias

import structlog
import uvloop
from prometheus_client import CollectorRegistry, Counter
from pydantic import BaseModel

from agent_service.admin import AdminServer
from agent_service.api.auth import PRINTABLE, KeySource, SecretKey, TokenIssuer, TokenVerifier
from agent_service.api.jwks import JwksKeys
from agent_service.api.options import ApiOptions, TlsFiles
from agent_service.api.server import AddressInUseError, ApiServer, Engine
from agent_service.api.wire import ProtoCodec
from agent_service.catalogue import open_models, open_registry
from agent_service.engine.agent import Agent
from agent_service.engine.answer_cache import AnswerCache, version_of_files
from agent_service.engine.approvals import Approvals
from agent_service.engine.attempt import Attempts, RunSupervisor
from agent_service.engine.broadcast import Broadcast
from agent_service.engine.clock import SystemClock, SystemIds
from agent_service.engine.files import Files
from agent_service.engine.journal import Journal
from agent_service.engine.limits import ToolLimits
from agent_service.engine.registry import Registry
from agent_service.engine.runs import Runs
from agent_service.engine.supervisor import Supervisor
from agent_service.engine.threads import Threads
from agent_service.engine.tool import Tool
from agent_service.engine.worker import Worker
from agent_service.llm.loop import ModelLoop
from agent_service.llm.models import ModelSetupError, ModelSource
from agent_service.llm.prices import are_priced
from agent_service.logs import configure_logs
from agent_service.settings import Settings, StartError, development_secret
from agent_service.specialists import OWN_AGENTS, Workplace, own_tools
from agent_service.tools.actions.webhook import Webhook
from agent_service.tools.datasets import is_data
from configuration.variables import SettingsError
from storage.caches import open_cache
from storage.data_dir import database_path
from storage.database import sqlite_url
from storage.errors import DataDirLockedError, SchemaMismatchError, StorageUnavailableError
from storage.interfaces import Storage
from storage.opening import migrate_storage, open_storage

DRAIN_GRACE_MS: Final = 10_000
"""How long runs may go on after SIGTERM before they are handed over."""

CLOSE_GRACE_S: Final = 5
"""How long calls may take to end after that."""

SWITCH_INTERVAL_S: Final = 0.0002
"""How long one thread may keep the others from running Python."""

STOP_LIMIT_S: Final = 28
"""After SIGTERM the process is gone within this time, whatever hangs."""

StorageOpener: TypeAlias = Callable[[str, Path], Awaitable[Storage]]
"""Opens what `storage.opening.open_storage` opens, from the same arguments; raises what that raises."""

_START_ERRORS: Final = (
    AddressInUseError,
    DataDirLockedError,
    ModelSetupError,
    SchemaMismatchError,
    StorageUnavailableError,
)


@dataclass(frozen=True, slots=True)
class App:
    """A service that listens. `port` is the one that was bound."""

    server: ApiServer
    runs: Runs
    worker: Worker
    port: int

    async def drain(self, grace_ms: int = DRAIN_GRACE_MS) -> None:
        """Take nothing more; end or hand over what is at work; tell every client to come back."""
        self.runs.drain()
        await self.server.drain()
        await self.worker.drain(grace_ms=grace_ms)


@asynccontextmanager
async def open_app(
    settings: Settings,
    *,
    agents: Sequence[Agent] = (),
    tools: Sequence[Tool[BaseModel]] = (),
    models: ModelSource | None = None,
    supervisor: RunSupervisor | None = None,
    opener: StorageOpener = open_storage,
) -> AsyncIterator[App]:
    """Open everything, listen, and close everything in the opposite order.

    `agents` and `tools` come beside ours; `models`, `supervisor` and `opener` replace ours.
    """
    clock, ids, codec, metrics = SystemClock(), SystemIds(), ProtoCodec(), CollectorRegistry()
    async with AsyncExitStack() as stack:
        if models is None:
            models = await stack.enter_async_context(open_models(settings, metrics))
        with _data_dir(settings):
            storage = await opener(settings.database_url, settings.data_dir)
        stack.push_async_callback(storage.close)
        place = Workplace()
        stack.push_async_callback(place.close)
        cache = open_cache(settings.redis_url, clock.now)
        stack.push_async_callback(cache.close)
        broadcast = Broadcast(storage.events, storage.runs)
        journal = Journal(storage.events, broadcast.publish)
        given = [*own_tools(storage, place, clock, analyzed_databases(settings), _webhook(settings)), *tools]
        registry = await stack.enter_async_context(open_registry(settings, [*OWN_AGENTS, *agents], given, metrics))
        _check_timeouts(settings, registry)
        attempts = Attempts(
            storage=storage,
            journal=journal,
            broadcast=broadcast,
            supervisor=supervisor
            or Supervisor(
                registry=registry,
                loop=ModelLoop(models, step_timeout_ms=round(settings.agent_execution_timeout_s * 1000)),
                clock=clock,
                step_timeout_ms=round(settings.agent_execution_timeout_s * 1000),
                run_timeout_ms=round(settings.run_timeout_s * 1000),
                larger_model=settings.larger_model,
                degraded=counted_in(metrics),
                cache=AnswerCache(
                    cache,
                    storage.files,
                    clock,
                    versions=(version_of_files(storage.files, is_data), storage.corpora.version),
                    live_tools=registry.live_tools,
                    edition="-".join(map(version, ("apex-agents", "genai-prices"))),
                ),
            ),
            tools=registry.tools,
            limits=ToolLimits(),
            codec=codec,
            clock=clock,
            ids=ids,
            run_timeout_ms=round(settings.run_timeout_s * 1000),
            max_history=settings.max_history_size,
            approval_timeout_ms=round(settings.approval_timeout_s * 1000),
        )
        approvals = Approvals(storage, broadcast, registry.tools, codec, clock)
        worker = Worker(storage.runs, attempts, approvals, worker_id=ids.new(), slots=settings.max_concurrent_agents)
        runs = Runs(
            storage=storage,
            broadcast=broadcast,
            workforce=worker,
            registry=registry,
            models=are_priced(models, larger=settings.larger_model),
            codec=codec,
            clock=clock,
            ids=ids,
        )
        engine = Engine(
            runs=runs,
            threads=Threads(storage.threads, runs, broadcast, clock, ids),
            files=Files(storage.files, clock, ids, max_upload_bytes=settings.max_upload_bytes),
            broadcast=broadcast,
            registry=registry,
            clock=clock,
            ids=ids,
        )
        server = ApiServer(
            api_options(settings),
            engine,
            verifier=TokenVerifier(
                _keys(settings), issuer=settings.jwt_issuer, audience=settings.jwt_audience, clock=clock
            ),
            issuer=_issuer(settings) if settings.environment.is_local and not settings.jwks_url else None,
            metrics=metrics,
        )
        if settings.is_embedded:
            # The data directory is locked: whoever held these runs is gone.
            await storage.runs.release_all()
        async with _working(journal, broadcast, worker, place), _admin(settings, metrics, storage, runs):
            port = await server.start()
            try:
                yield App(server, runs, worker, port)
            finally:
                await server.stop(CLOSE_GRACE_S)


def counted_in(metrics: CollectorRegistry) -> Callable[[str], None]:
    """Return what counts the steps that did not go as they should, by agent."""
    name, help_text = "apex_degraded_steps", "Steps that failed, or went on with another model."
    counter = Counter(name, help_text, ["agent"], registry=metrics)
    return lambda agent_name: counter.labels(agent=agent_name).inc()


@asynccontextmanager
async def _working(journal: Journal, broadcast: Broadcast, worker: Worker, place: Workplace) -> AsyncIterator[None]:
    journal.start()
    broadcast.start()
    worker.start()
    warming = asyncio.create_task(place.reader.warm(), name="sandbox-warm")
    try:
        yield
    finally:
        await asyncio.gather(warming, return_exceptions=True)
        await worker.drain(grace_ms=0)
        await journal.close()
        await broadcast.close()


@asynccontextmanager
async def _admin(settings: Settings, metrics: CollectorRegistry, storage: Storage, runs: Runs) -> AsyncIterator[None]:
    if not settings.service_admin_address:
        yield
        return
    admin = AdminServer(settings.service_admin_address, metrics, storage.ping, lambda: runs.is_draining)
    try:
        await admin.start()
    except OSError as error:
        name = f"APEX_SERVICE_ADMIN_ADDRESS={settings.service_admin_address}"
        raise StartError(f"{name} cannot be listened on: {error.strerror}. Set it to a free address.") from error
    try:
        yield
    finally:
        await admin.close()


def run(settings: Settings, *, supervisor: RunSupervisor | None = None) -> None:
    """Run the service in this process until it is told to stop. Raises `StartError`.

    `supervisor` replaces ours.
    """
    os.umask(0o077)  # what is written holds people's messages and data
    # SQLite commits in a thread of its own, and every event waits for a commit: with the default of 5 ms that thread
    # waits many times as long for its turn as the commit takes.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    configure_logs()
    uvloop.run(serve(settings, supervisor=supervisor))


async def serve(settings: Settings, *, supervisor: RunSupervisor | None = None) -> None:
    """Run the service until SIGTERM or SIGINT, then stop in an orderly way within 30 s."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    host, _, _ = settings.grpc_address.rpartition(":")
    async with AsyncExitStack() as stack:
        try:
            app = await stack.enter_async_context(open_app(settings, supervisor=supervisor))
        except _START_ERRORS as error:
            raise StartError(str(error)) from error
        # What the start has made stays; the collector need not look at it again, which takes it tens of milliseconds.
        gc.collect()
        gc.freeze()
        sys.stdout.write(f"agent service listening on {host}:{app.port}\n")
        sys.stdout.flush()
        await stopping.wait()
        structlog.get_logger("apex").info("draining")
        asyncio.get_running_loop().call_later(STOP_LIMIT_S, _leave)
        await app.drain()


def _leave() -> None:
    """End the process although something hangs, a database that does not answer most likely. The log is safe in it."""
    structlog.get_logger("apex").error("stop_took_too_long", limit_s=STOP_LIMIT_S)
    os._exit(1)


async def migrate(settings: Settings) -> None:
    """Bring the database's schema up to date. Raises `StartError`."""
    try:
        with _data_dir(settings):
            await migrate_storage(settings.database_url, settings.data_dir)
    except _START_ERRORS as error:
        raise StartError(str(error)) from error


def issue_token(settings: Settings, user_id: str, scope: str, expires_in_s: int) -> str:
    """Return a token signed with this deployment's secret.

    Raises:
        SettingsError: the tokens of this deployment come from elsewhere.
        StartError: the development secret cannot be read.
        ValueError: no service would take a token of this user.
    """
    if settings.jwks_url:
        raise SettingsError(("APEX_JWKS_URL is set: the tokens of this deployment are made elsewhere",))
    if not PRINTABLE.fullmatch(user_id):
        raise ValueError("must be 1 to 128 printable ASCII characters without spaces")
    token, _ = _issuer(settings).issue(user_id, scope, expires_in_s * 1000)
    return token


def api_options(settings: Settings) -> ApiOptions:
    """Return what the gRPC face is told."""
    return ApiOptions(
        address=settings.grpc_address,
        tls=_tls(settings),
        reflection=settings.environment.is_local,
        dev_tokens=settings.environment.is_local,
        max_messages_per_minute=settings.messages_per_minute,
        max_connections_per_user=settings.max_connections_per_user,
        max_upload_bytes=settings.max_upload_bytes,
    )


@contextmanager
def _data_dir(settings: Settings) -> Iterator[None]:
    """Say in words that the data directory cannot be used."""
    try:
        yield
    except OSError as error:
        text = f"The data directory {str(settings.data_dir)!r} cannot be used: {error.strerror}."
        raise StartError(f"{text} Set APEX_DATA_DIR to one that you can write to.") from error


def _check_timeouts(settings: Settings, registry: Registry) -> None:
    """See to it that a step can wait for each of its tools. Raises `SettingsError`."""
    longest = max(registry.tools.values(), key=lambda tool: tool.timeout_ms)
    if settings.agent_execution_timeout_s * 1000 <= longest.timeout_ms:
        given = f"APEX_AGENT_EXECUTION_TIMEOUT_S={settings.agent_execution_timeout_s:g}"
        text = f"{given}: must be greater than {longest.timeout_ms / 1000:g}, the timeout of the tool {longest.name}"
        raise SettingsError((text,))


def analyzed_databases(settings: Settings) -> Mapping[str, str]:
    """Return the databases (name → URL) that may be looked at: those named; else, in development and test, our own."""
    named = settings.analyzed_databases
    if named is not None or not settings.environment.is_local:
        return named or {}
    return {"apex": settings.database_url or sqlite_url(database_path(settings.data_dir))}


def _tls(settings: Settings) -> TlsFiles | None:
    """Read the files of TLS. Raises `SettingsError` for what no server could use."""
    if settings.grpc_tls_cert is None or settings.grpc_tls_key is None:
        return None
    client_ca = settings.grpc_tls_client_ca
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.grpc_tls_cert, settings.grpc_tls_key, password=lambda: "")
        if client_ca:
            context.load_verify_locations(client_ca)
    except OSError as error:  # that of ssl among them
        names = "APEX_GRPC_TLS_CERT, APEX_GRPC_TLS_KEY and APEX_GRPC_TLS_CLIENT_CA"
        text = f"{names} must be a certificate, its key without a password, and an authority, as PEM: {error}"
        raise SettingsError((text,)) from error
    return TlsFiles(
        certificate=settings.grpc_tls_cert.read_bytes(),
        key=settings.grpc_tls_key.read_bytes(),
        client_ca=client_ca.read_bytes() if client_ca else None,
    )


def _webhook(settings: Settings) -> Webhook | None:
    """Return where policies are applied, None where nothing is configured."""
    secret = settings.policy_webhook_secret
    return Webhook(settings.policy_webhook_url, secret.get_secret_value().encode()) if secret is not None else None


def _keys(settings: Settings) -> KeySource:
    if settings.jwks_url:
        return JwksKeys(settings.jwks_url, algorithms=settings.algorithms, clock=SystemClock())
    return SecretKey(_secret(settings), settings.algorithms[0])


def _issuer(settings: Settings) -> TokenIssuer:
    return TokenIssuer(
        _secret(settings),
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        clock=SystemClock(),
        ids=SystemIds(),
        algorithm=settings.algorithms[0],
    )


def _secret(settings: Settings) -> str:
    if settings.jwt_secret is not None:
        return settings.jwt_secret.get_secret_value()
    with _data_dir(settings):
        return development_secret(settings.data_dir)
