"""Errors as answers of HTTP: of REST, and of upgrades that are refused."""

from contextlib import AsyncExitStack
from typing import Final

import grpc.aio
import httpx
import pytest
from websockets.exceptions import InvalidStatus

from agent_service.api.options import ApiOptions
from tests.support.bridge_server import running_bridge
from tests.support.provocations.registry import Provocations, Told, Transport
from tests.support.provocations.scenes import IMPATIENT, WITHOUT_ISSUER, busy, stubborn
from tests.support.waiting import eventually
from tests.support.whole_system import Setup, WholeSystem, bearer, options
from ws_bridge.http_guard import MAX_BODY_BYTES
from ws_bridge.sockets import MAX_UNSIGNED_PER_ADDRESS

THREADS: Final = "/api/v1/threads"
FILES: Final = "/api/v1/files"
FOREIGN: Final = "https://evil.example"

REST: Final = Provocations(Transport.HTTP)


def told_by(answer: httpx.Response) -> Told:
    """Return what the answer says: the body of an error frame, and in the headers the same."""
    told = Told.by_frame(answer.json(), answer.status_code)
    assert answer.headers["content-type"] == "application/json"
    seconds = -(-told.retry_after_ms // 1000) if told.retry_after_ms else None
    assert answer.headers.get("retry-after") == (None if seconds is None else str(seconds))
    assert answer.headers.get("www-authenticate") == ("Bearer" if answer.status_code == 401 else None)
    return told


async def upgrade_refused(system: WholeSystem, origin: str | None = "default") -> Told:
    """Open a socket, which is refused before it is one."""
    with pytest.raises(InvalidStatus) as refused:
        async with system.bridge.socket(origin=origin):
            pass
    answer = refused.value.response
    return told_by(
        httpx.Response(answer.status_code, headers=list(answer.headers.raw_items()), content=bytes(answer.body))
    )


@REST.of("UNAUTHENTICATED")
async def no_token(system: WholeSystem) -> Told:
    return told_by(await system.http.get(THREADS))


@REST.of("UNAUTHENTICATED")
async def token_of_nobody(system: WholeSystem) -> Told:
    return told_by(await system.http.get(THREADS, headers={"Authorization": "Bearer nonsense"}))


@REST.of("TOKEN_EXPIRED")
async def old_token(system: WholeSystem) -> Told:
    return told_by(await system.http.get(THREADS, headers=bearer(lifetime_s=-1)))


@REST.of("PERMISSION_DENIED", Setup(options=options(dev_tokens=False)))
async def development_token_where_there_are_none(system: WholeSystem) -> Told:
    return told_by(await system.http.post("/auth/dev-token"))


@REST.of("PERMISSION_DENIED")
async def request_of_a_foreign_page(system: WholeSystem) -> Told:
    return told_by(await system.http.get(THREADS, headers={**bearer(), "Origin": FOREIGN}))


@REST.of("PERMISSION_DENIED")
async def upgrade_of_a_foreign_page(system: WholeSystem) -> Told:
    return await upgrade_refused(system, FOREIGN)


@REST.of("NOT_FOUND")
async def run_of_somebody_else(system: WholeSystem) -> Told:
    run_id = (await system.start(user="bob")).run_id
    return told_by(await system.http.get(f"/api/v1/runs/{run_id}", headers=bearer()))


@REST.of("NOT_FOUND")
async def path_that_does_not_exist(system: WholeSystem) -> Told:
    return told_by(await system.http.get("/api/v1/nothing", headers=bearer()))


@REST.of("INVALID_ARGUMENT", violations=["run_id"])
async def id_that_is_none(system: WholeSystem) -> Told:
    return told_by(await system.http.get("/api/v1/runs/5", headers=bearer()))


@REST.of("INVALID_ARGUMENT", violations=["title"])
async def body_of_the_wrong_form(system: WholeSystem) -> Told:
    return told_by(await system.http.post(THREADS, headers=bearer(), json={"title": 5}))


@REST.of("INVALID_ARGUMENT", violations=["file"])
async def form_without_a_file(system: WholeSystem) -> Told:
    return told_by(await system.http.post(FILES, headers=bearer(), files={"other": ("a.csv", b"x")}))


@REST.of("MESSAGE_TOO_LARGE", Setup(options=options(max_upload_bytes=10)))
async def file_over_the_services_limit(system: WholeSystem) -> Told:
    return told_by(await system.http.post(FILES, headers=bearer(), files={"file": ("a.csv", b"x" * 11)}))


@REST.of("MESSAGE_TOO_LARGE", Setup(bridge={"max_upload_bytes": 10}))
async def file_over_the_bridges_limit(system: WholeSystem) -> Told:
    return told_by(await system.http.post(FILES, headers=bearer(), files={"file": ("a.csv", b"x" * 11)}))


@REST.of("MESSAGE_TOO_LARGE")
async def body_over_the_limit(system: WholeSystem) -> Told:
    return told_by(await system.http.post(THREADS, headers=bearer(), content=b"{}".ljust(MAX_BODY_BYTES + 1)))


@REST.of("MALFORMED_JSON")
async def body_that_is_no_json(system: WholeSystem) -> Told:
    headers = {**bearer(), "Content-Type": "application/json"}
    return told_by(await system.http.post(THREADS, headers=headers, content=b"{'title': 1}"))


@REST.of("UNKNOWN_TYPE")
async def service_of_yesterday(_: WholeSystem) -> Told:
    older = grpc.aio.server()
    port = older.add_insecure_port("127.0.0.1:0")
    await older.start()
    try:
        async with running_bridge(f"127.0.0.1:{port}") as bridge, httpx.AsyncClient(base_url=bridge.url) as client:
            return told_by(await client.get(THREADS, headers=bearer()))
    finally:
        await older.stop(None)


@REST.of("UNSUPPORTED_FILE")
async def file_without_content(system: WholeSystem) -> Told:
    return told_by(await system.http.post(FILES, headers=bearer(), files={"file": ("a.csv", b"")}))


@REST.of("RATE_LIMITED", Setup(options=ApiOptions("127.0.0.1:0", max_calls_at_once=1)))
async def one_call_too_many(system: WholeSystem) -> Told:
    # The one call is the bridge's own, which carries all sockets.
    return told_by(await system.http.get(THREADS, headers=bearer()))


@REST.of("TOO_MANY_CONNECTIONS")
async def one_socket_without_a_sign_in_too_many(system: WholeSystem) -> Told:
    async with AsyncExitStack() as stack:
        for _ in range(MAX_UNSIGNED_PER_ADDRESS):
            await stack.enter_async_context(system.bridge.socket())
        return await upgrade_refused(system)


@REST.of("RUN_CONFLICT")
async def deleted_thread_whose_run_does_not_end(system: WholeSystem) -> Told:
    started, gate = await stubborn(system)
    try:
        return told_by(await system.http.delete(f"{THREADS}/{started.thread_id}", headers=bearer()))
    finally:
        gate.open()


@REST.of("CURSOR_AHEAD")
async def cursor_beyond_the_log(system: WholeSystem) -> Told:
    path = f"/api/v1/runs/{(await busy(system)).run_id}/events"
    return told_by(await system.http.get(path, headers=bearer(), params={"after_seq": 99}))


@REST.of("DEADLINE_EXCEEDED", IMPATIENT)
async def call_that_takes_too_long(system: WholeSystem) -> Told:
    system.shop.storage.gates["list"].close()
    return told_by(await system.http.get(THREADS, headers=bearer()))


@REST.of("STORAGE_UNAVAILABLE")
async def database_away(system: WholeSystem) -> Told:
    system.shop.storage.cut.add("threads")
    return told_by(await system.http.get(THREADS, headers=bearer()))


@REST.of("SERVICE_UNAVAILABLE")
async def service_away(system: WholeSystem) -> Told:
    await system.server.stop(0)
    await eventually(lambda: not system.bridge.bridge.ready, what="the bridge has noticed")
    return told_by(await system.http.get(THREADS, headers=bearer()))


@REST.of("SERVICE_UNAVAILABLE", WITHOUT_ISSUER)
async def issuer_away(system: WholeSystem) -> Told:
    return told_by(await system.http.get(THREADS, headers=bearer()))


@REST.of("DRAINING")
async def events_of_a_service_that_ends(system: WholeSystem) -> Told:
    path = f"/api/v1/runs/{(await busy(system)).run_id}/events"
    await system.server.drain()
    return told_by(await system.http.get(path, headers=bearer()))


@REST.of("DRAINING")
async def upgrade_at_a_bridge_that_ends(system: WholeSystem) -> Told:
    await system.bridge.bridge.sockets.drain()
    return await upgrade_refused(system)


@REST.of("INTERNAL")
async def defect(system: WholeSystem) -> Told:
    system.shop.storage.defective.add("list")
    return told_by(await system.http.get(THREADS, headers=bearer()))
