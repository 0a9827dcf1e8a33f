"""`python -m ws_bridge` as a process: what it prints, how it ends, what it never writes."""

import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.processes import ChildProcess

COMMAND = [sys.executable, "-m", "ws_bridge"]
LOCAL = {"APEX_ENVIRONMENT": "test", "APEX_HTTP_ADDRESS": "127.0.0.1:0", "APEX_AGENT_TARGET": "127.0.0.1:9"}
TOKEN = "eyJ0b2tlbiI6InNlY3JldCJ9.very-secret.signature"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_well(tmp_path: Path, number: signal.Signals) -> None:
    with ChildProcess(COMMAND, output_file=tmp_path / "output", env=LOCAL) as child:
        url = child.wait_for_output(r"bridge listening on (http://127\.0\.0\.1:\d+)\n")[1]
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        assert httpx.get(f"{url}/readyz").status_code == 503
        child.send_signal(number)
        assert child.wait() == 0


def test_a_token_is_never_written(tmp_path: Path) -> None:
    with ChildProcess(COMMAND, output_file=tmp_path / "output", env=LOCAL) as child:
        url = child.wait_for_output(r"listening on (http://\S+)")[1]
        headers = {"Authorization": f"Bearer {TOKEN}"}
        httpx.get(f"{url}/api/v1/threads?token={TOKEN}", headers=headers)
        httpx.get(f"{url}/nothing?token={TOKEN}", headers=headers)
        with connect(f"ws{url[4:]}/ws?token={TOKEN}", additional_headers=headers):
            pass
        child.terminate()
        assert TOKEN not in child.output


def test_a_taken_port_is_a_clear_message_and_exit_code_1(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with ChildProcess(
            COMMAND, output_file=tmp_path / "output", env={**LOCAL, "APEX_HTTP_ADDRESS": address}
        ) as child:
            assert child.wait() == 1
            assert f"Cannot listen on {address}" in child.output
            assert "Traceback" not in child.output


def test_wrong_settings_are_all_named_and_exit_code_2(tmp_path: Path) -> None:
    env = {**LOCAL, "APEX_HTTP_ADDRESS": "0.0.0.0:1", "APEX_MAX_FRAME_BYTES": "1"}
    with ChildProcess(COMMAND, output_file=tmp_path / "output", env=env) as child:
        assert child.wait() == 2
        assert "APEX_HTTP_ADDRESS='0.0.0.0:1'" in child.output
        assert "APEX_MAX_FRAME_BYTES='1'" in child.output
        assert "Traceback" not in child.output


def test_the_admin_address_has_metrics(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        admin = f"127.0.0.1:{free.getsockname()[1]}"
    with ChildProcess(
        COMMAND, output_file=tmp_path / "output", env={**LOCAL, "APEX_BRIDGE_ADMIN_ADDRESS": admin}
    ) as child:
        child.wait_for_output("listening on")
        assert httpx.get(f"http://{admin}/healthz").status_code == 200
        metrics = httpx.get(f"http://{admin}/metrics").text
        assert "apex_bridge_sockets 0.0" in metrics
        assert "apex_bridge_attached 0.0" in metrics
        child.send_signal(signal.SIGTERM)
        assert child.wait() == 0
