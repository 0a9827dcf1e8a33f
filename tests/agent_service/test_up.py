"""`apex up`: both processes come up, stay up, and leave nothing behind, however they end."""

import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

from agent_service.processes import MAX_RESTARTS, Child
from tests.support.bridge_server import SocketClient
from tests.support.commands import APEX, children_of, is_running, run_apex
from tests.support.deployment import OpenSocket
from tests.support.grammar import check_frames
from tests.support.processes import ChildProcess
from tests.support.waiting import eventually, wait_until

STOP_TIMEOUT_S: Final = 10.0
"""With nothing at work; the promise is 35 s."""

SLOW_SQL: Final = "SELECT count(*) FROM range(1000000) a, range(1000000) b"


class Up:
    """A running `apex up`, on ports that the system chose."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.data_dir = folder / "data"
        ports = {"APEX_GRPC_ADDRESS": "127.0.0.1:0", "APEX_HTTP_ADDRESS": "127.0.0.1:0"}
        variables = {"APEX_ENVIRONMENT": "test", "APEX_DATA_DIR": str(self.data_dir), **ports, **(env or {})}
        argv = [APEX, "up", "--no-open"]
        self.process = ChildProcess(argv, output_file=folder / "up.log", env=variables)
        self.url = self.process.wait_for_output(r"Apex is ready: (http://\S+)")[1]
        self.grpc_port = self.grpc_ports()[0]

    def grpc_ports(self) -> list[str]:
        """The ports on which services of this run have listened, in order."""
        return re.findall(r'"port": (\d+)', self.process.output)

    def child(self, module: str) -> int:
        """The process id of a child."""
        (pid,) = [pid for pid, command in self.children().items() if command.endswith(f"-m {module}")]
        return pid

    def children(self) -> dict[int, str]:
        return children_of(self.process.pid)

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[SocketClient]:
        async with httpx.AsyncClient(base_url=self.url) as http:
            token = (await http.post("/auth/dev-token", json={})).json()["token"]
        async with OpenSocket(self.url.replace("http", "ws") + "/ws", token) as client:
            await client.expect("connection_established")
            yield client


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path)
    yield up
    up.process.terminate()


async def ask(client: SocketClient, content: str) -> None:
    """Ask, and see a whole run."""
    await client.send("user_message", content=content)
    frames = await client.receive_until("agent_completed", "agent_error")
    check_frames([frame for frame in frames if "seq" in frame])
    assert frames[-1]["payload"]["status"] == "success"


async def test_killed_children_are_started_again_where_they_were(up: Up) -> None:
    async with up.socket() as client:
        service = up.child("agent_service")
        os.kill(service, signal.SIGKILL)
        statuses = [(await client.expect("server_status"))["status"] for _ in range(2)]
        assert statuses == ["degraded", "recovered"]
        await ask(client, "Hello there")
        assert up.grpc_ports() == [up.grpc_port] * 2
        assert up.child("agent_service") != service
        os.kill(up.child("ws_bridge"), signal.SIGKILL)
        await client.closed()
    await eventually(lambda: answers(up.url), what="the bridge answers again")
    async with up.socket() as client:
        await ask(client, "Hello again")
    told = [line for line in up.process.output.splitlines() if "starting it again" in line]
    assert told == [f"{name} was killed (signal 9); starting it again" for name in ("agent_service", "ws_bridge")]


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_stops_everything_in_time(up: Up, number: signal.Signals) -> None:
    async with up.socket() as client:
        everybody = up.children()
        up.process.send_signal(number)
        assert up.process.wait(timeout_s=STOP_TIMEOUT_S) == 0
        frames = await client.receive_until("server_draining")
        assert frames[-1]["payload"]["reconnect_after_ms"] >= 0
    assert not [command for pid, command in everybody.items() if is_running(pid)]


async def test_a_second_signal_does_not_wait_for_a_run(up: Up) -> None:
    async with up.socket() as client:
        await client.send("start_agent", content=SLOW_SQL, agent="data")
        await client.receive_until("tool_executing")
        everybody = up.children()
        assert [command for command in everybody.values() if "sandbox_child" in command]
        up.process.send_signal(signal.SIGINT)
        await client.receive_until("server_draining")
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(timeout_s=2.0) == 0
    wait_until(lambda: not any(map(is_running, everybody)), what="the sandbox ends with its service")


async def test_nobody_outlives_a_killed_parent(up: Up) -> None:
    everybody = up.children()
    os.kill(up.process.pid, signal.SIGKILL)
    up.process.wait()
    wait_until(lambda: not any(map(is_running, everybody)), what="the children end", timeout_s=STOP_TIMEOUT_S)


async def test_a_child_that_gives_up_ends_the_other_one(up: Up) -> None:
    everybody = up.children()
    os.kill(up.child("agent_service"), signal.SIGTERM)
    assert up.process.wait(timeout_s=STOP_TIMEOUT_S) == 1
    assert "agent_service ended with exit code 0" in up.process.output
    assert not any(map(is_running, everybody))


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("APEX_GRPC_ADDRESS", "{taken}", 1),
        ("APEX_HTTP_ADDRESS", "{taken}", 1),
        ("APEX_MODEL", "nonsense", 2),
        ("APEX_MAX_FRAME_BYTES", "1", 2),
    ],
)
def test_a_child_that_cannot_start_says_why_and_gives_its_exit_code(
    tmp_path: Path, name: str, value: str, code: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        value = value.format(taken=f"127.0.0.1:{taken.getsockname()[1]}")
        env = {"APEX_DATA_DIR": str(tmp_path), "APEX_GRPC_ADDRESS": "127.0.0.1:0", "APEX_HTTP_ADDRESS": "127.0.0.1:0"}
        done = run_apex("up", **{**env, name: value})
    assert (done.code, done.out) == (code, "")
    assert name in done.err
    assert f" ended with exit code {code}\n" in done.err


def test_settings_come_from_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "apex.env"
    file.write_text(f"APEX_DATA_DIR={tmp_path / 'data'}\nAPEX_GRPC_ADDRESS=127.0.0.1:0\nAPEX_HTTP_ADDRESS=127.0.0.1:0")
    argv = [APEX, "up", "--no-open", "--env-file", str(file)]
    with ChildProcess(argv, output_file=tmp_path / "out") as child:
        child.wait_for_output("Apex is ready")
        assert child.terminate() == 0
    assert (tmp_path / "data" / "apex.db").exists()
    missing = run_apex("up", "--env-file", str(tmp_path / "missing"))
    assert (missing.code, missing.out) == (2, "")


def test_a_child_is_not_started_again_for_ever() -> None:
    child = Child("agent_service", {})
    assert not child.may_restart(0), "it ended by itself"
    assert not child.may_restart(1), "it failed by itself"
    assert [child.may_restart(-signal.SIGKILL) for _ in range(MAX_RESTARTS + 1)] == [True] * MAX_RESTARTS + [False]
