"""Health and metrics for operators, over HTTP."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from agent_service.admin import AdminServer
from storage.errors import StorageUnavailableError
from tests.support.processes import free_port, is_listening
from tests.support.waiting import eventually


@dataclass
class Service:
    """What the endpoints look at."""

    database_answers: bool = True
    draining: bool = False

    async def ping(self) -> None:
        if not self.database_answers:
            raise StorageUnavailableError("no answer")


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    metrics = CollectorRegistry()
    Counter("apex_tests", "Counts.", registry=metrics).inc(3)
    port = free_port()
    server = AdminServer(f"127.0.0.1:{port}", metrics, service.ping, lambda: service.draining)
    await server.start()
    await eventually(lambda: is_listening(port), what="the admin server listens")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client
    await server.close()
    assert not is_listening(port)


async def test_a_process_that_runs_is_healthy(http: httpx.AsyncClient, service: Service) -> None:
    service.database_answers = False
    answer = await http.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_it_is_ready_while_it_takes_runs(http: httpx.AsyncClient, service: Service) -> None:
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.text) == (200, "ready\n")
    service.database_answers = False
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "the database does not answer\n")
    service.draining = True
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "draining\n")


async def test_metrics_are_prometheus_text(http: httpx.AsyncClient) -> None:
    answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "apex_tests_total 3.0" in answer.text


async def test_nothing_else_is_there(http: httpx.AsyncClient) -> None:
    for path in ("/", "/docs", "/openapi.json"):
        assert (await http.get(path)).status_code == 404


async def test_a_taken_address_is_an_error_at_once(http: httpx.AsyncClient) -> None:
    taken = f"127.0.0.1:{http.base_url.port}"
    server = AdminServer(taken, CollectorRegistry(), Service().ping, lambda: False)
    with pytest.raises(OSError, match="Address already in use"):
        await server.start()
    await server.close()
