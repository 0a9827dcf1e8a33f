"""What the transports are told: settings whose absence shows only under load, or on a line that dies silently."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc.aio
import pytest
from websockets.asyncio.client import connect

from agent_service import terminal
from agent_service.api import server
from tests.support.manual_socket import manual_socket
from tests.support.stack import Stack
from ws_bridge.channels import attach_channel, call_channel
from ws_bridge.line import USER_TIMEOUT_MS, LineProtocol

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("agent_service", "storage", "ws_bridge")
Options = dict[str, int]


class OptionsSeenError(Exception):
    """A channel would have been made."""


def options_of(make: Callable[[str], grpc.aio.Channel], monkeypatch: pytest.MonkeyPatch) -> Options:
    """Return the options with which a channel is made."""
    seen: Options = {}

    def note(_target: str, *, options: tuple[tuple[str, int], ...]) -> grpc.aio.Channel:
        seen.update(options)
        raise OptionsSeenError

    with monkeypatch.context() as patched:
        patched.setattr(grpc.aio, "insecure_channel", note)
        with pytest.raises(OptionsSeenError):
            make("127.0.0.1:1")
    return seen


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """The options of every channel that we make."""
    made = [options_of(make, monkeypatch) for make in (attach_channel, call_channel)]
    return [dict(terminal.CHANNEL_OPTIONS), *made]


def test_no_client_pings_more_often_than_the_service_permits(clients: list[Options]) -> None:
    permitted = dict(server.CHANNEL_OPTIONS)["grpc.http2.min_recv_ping_interval_without_data_ms"]
    assert all(client["grpc.keepalive_time_ms"] > permitted for client in clients)


def test_nobody_probes_the_bandwidth(clients: list[Options]) -> None:
    assert all(options["grpc.http2.bdp_probe"] == 0 for options in (dict(server.CHANNEL_OPTIONS), *clients))


def test_streams_of_one_run_look_ahead_little(clients: list[Options]) -> None:
    terminal_ahead, attach_ahead, call_ahead = (client["grpc.http2.lookahead_bytes"] for client in clients)
    assert terminal_ahead == call_ahead == 64 * 1024
    assert attach_ahead == 1024 * 1024


def test_no_channel_repeats_calls_by_itself(clients: list[Options]) -> None:
    assert not any({"grpc.service_config", "grpc.enable_retries"} & client.keys() for client in clients)


@pytest.mark.parametrize("name", ["PyJWKClient", "MessageToDict", "run_stream_events"])
def test_what_blocks_or_is_slow_is_not_used(name: str) -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert files
    assert [str(path) for path in files if name in path.read_text("utf-8")] == []


async def test_a_line_that_dies_silently_is_broken_by_the_kernel(stack: Stack) -> None:
    async with manual_socket(stack.bridge.port, stack.service.token()) as client:
        await client.next_text("connection_established")
        (line,) = [found for found in stack.bridge.server.server_state.connections if isinstance(found, LineProtocol)]
        peer = line.transport.get_extra_info("socket")
        assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT_MS


async def test_a_client_that_offers_compression_gets_none(stack: Stack) -> None:
    headers = {"Authorization": f"Bearer {stack.service.token()}"}
    url = f"ws://127.0.0.1:{stack.bridge.port}/ws"
    async with connect(url, additional_headers=headers, compression="deflate") as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers
