"""Apex on PostgreSQL: one service or two of them, whichever dies."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import pytest

from generated.apex.agent.v1 import agent_pb2 as pb
from storage.opening import migrate_storage
from tests.support.commands import run_apex
from tests.support.deployment import Deployment
from tests.support.grammar import check_frames
from tests.support.postgres import PostgresServer, fresh_database
from tests.support.scripted_service_main import script
from tests.support.service_client import TIMEOUT_S, ServiceClient, check_events, failing
from tests.support.waiting import wait_until

pytestmark = pytest.mark.postgres

QUESTION: Final = "Analyze my AI costs"
STEPS: Final = len(script("", ""))
BEAT_S: Final = 2.0
LEASE_S: Final = 6.0
SLACK_S: Final = 4.0
"""What a busy machine needs beside."""


def migrated(url: str) -> dict[str, str]:
    """Prepare a database as an operator does; return the settings of a service that uses it."""
    done = run_apex("migrate", APEX_DATABASE_URL=url)
    assert done.code == 0, done.err
    return {"APEX_DATABASE_URL": url}


# ---- One service ----


@pytest.fixture(scope="module")
def apex(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("apex")
    with Deployment(folder, settings=migrated(postgres_url)) as deployment:
        yield deployment


async def test_a_whole_run_over_the_socket(apex: Deployment) -> None:
    content = b"timestamp,model,input_tokens,output_tokens\n2026-01-01T00:00:00Z,gpt-4o,1000000,100000\n"
    file_id = apex.upload("ann", "june.csv", content)
    async with apex.socket("ann") as client:
        await client.expect("connection_established")
        await client.send("user_message", content=QUESTION, references=[{"file_id": file_id}])
        frames = await client.receive_until("agent_completed", "agent_error")
    events = [frame for frame in frames if "seq" in frame]
    check_frames(events)
    assert "$3.50" in events[-2]["payload"]["content"]
    assert apex.request("GET", f"/api/v1/runs/{events[0]['run_id']}/events", "ann")["events"] == events


async def test_a_killed_service_goes_on_with_the_run_and_the_socket_sees_all_of_it(apex: Deployment) -> None:
    async with apex.socket("survivor") as client:
        await client.expect("connection_established")
        await client.send("user_message", content=QUESTION)
        frames = await client.receive_until("tool_executing")
        apex.kill_service()
        apex.start_service()
        frames += await client.receive_until("agent_completed", "agent_error")
    events = [frame for frame in frames if "seq" in frame]
    check_frames(events)
    assert {event["attempt"] for event in events} == {1, 2}
    assert events[-1]["payload"]["status"] == "success"
    statuses = [frame["payload"]["status"] for frame in frames if frame["type"] == "server_status"]
    assert statuses == ["degraded", "recovered"]
    apex.wait_until_attached()


# ---- Two services ----


@dataclass(frozen=True, slots=True)
class Pair:
    """Two services with scripted supervisors. `run_id` is a run that the first one works on."""

    first: Deployment
    second: Deployment
    run_id: str


MESSAGE: Final = "two of us"


@pytest.fixture(scope="module")
def shared(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The settings of services on a database that no other test uses: whoever uses it works on its runs."""
    with fresh_database(postgres_server) as url:
        asyncio.run(migrate_storage(url, tmp_path_factory.mktemp("migrate")))
        yield {"APEX_DATABASE_URL": url}


@pytest.fixture
def pair(shared: dict[str, str], tmp_path: Path) -> Iterator[Pair]:
    services: list[Deployment] = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        module = "tests.support.scripted_service_main"
        services.append(Deployment(tmp_path / name, service_module=module, settings=shared))
    first, second = services
    first.start_service()
    with client_of(first) as client:
        run_id = client.start(MESSAGE).run_id
        # Only then does the other one come: who has the run is no matter of luck.
        wait_until(lambda: client.get(run_id).status == pb.RUN_STATUS_RUNNING, what="the first one has the run")
        second.start_service()
        yield Pair(first, second, run_id)
    for deployment in services:
        assert deployment.service is not None
        deployment.service.terminate()


def client_of(deployment: Deployment) -> ServiceClient:
    return ServiceClient(deployment.grpc_target, deployment.token("ann"))


def test_a_run_and_a_file_of_one_service_are_seen_on_the_other(pair: Pair) -> None:
    content = b"model,tokens\n" * 50_000
    with client_of(pair.first) as client:
        file = client.upload("usage.csv", content)
    with client_of(pair.second) as client:
        watch = client.watch(pair.run_id)
        events = [next(watch)]
        for _ in range(3):
            pair.first.say(MESSAGE)
            events.append(next(watch))  # before the next one is made
        pair.first.say(MESSAGE, STEPS - 3 + 1)
        events += watch
        check_events(events)
        download = pb.DownloadFileRequest(file_id=file.file_id)
        head, *rest = client.files.DownloadFile(download, metadata=client.metadata, timeout=TIMEOUT_S)
        assert head.file == file
        assert b"".join(part.chunk for part in rest) == content
        client.files.DeleteFile(pb.DeleteFileRequest(file_id=file.file_id), metadata=client.metadata)
    with client_of(pair.first) as client:
        assert list(client.watch(pair.run_id)) == events
        with failing("NOT_FOUND", grpc.StatusCode.NOT_FOUND):
            list(client.files.DownloadFile(download, metadata=client.metadata, timeout=TIMEOUT_S))


def test_a_run_of_one_service_is_cancelled_through_the_other(pair: Pair) -> None:
    with client_of(pair.second) as client:
        watch = client.watch(pair.run_id)
        events = [next(watch)]
        asked = time.monotonic()
        client.cancel(run_id=pair.run_id)
        with client_of(pair.first) as near:
            wait_until(lambda: near.get(pair.run_id).status == pb.RUN_STATUS_CANCELLED, what="the run is cancelled")
        assert time.monotonic() - asked < BEAT_S + SLACK_S
        events += watch
    check_events(events)
    assert {event.attempt for event in events} == {1}, "its own worker has ended it"


def test_a_run_of_a_killed_service_is_taken_over_by_the_other(pair: Pair) -> None:
    with client_of(pair.second) as client:
        watch = client.watch(pair.run_id)
        events = [next(watch)]
        pair.first.kill_service()
        killed = time.monotonic()
        wait_until(lambda: client.get(pair.run_id).attempt == 2, what="it is taken over", timeout_s=LEASE_S + SLACK_S)
        assert time.monotonic() - killed > LEASE_S - BEAT_S - SLACK_S / 2, "the lease was respected"
        pair.second.say(MESSAGE, STEPS + 1)
        events += watch
    check_events(events)
    assert [event.attempt for event in events] == [1] + [2] * (len(events) - 1)
    assert events[1].agent_progress.stage == pb.PROGRESS_STAGE_RESUMED
    assert events[-1].agent_completed.status == pb.COMPLETION_STATUS_SUCCESS
