"""Apex as people run it: the service and the bridge as processes of their own, on a data directory of the test's."""

import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.support.bridge_server import Frame, SocketClient
from tests.support.processes import ChildProcess, free_ports
from tests.support.scripted_service_main import SOCKET_NAME
from tests.support.tokens import make_token
from tests.support.waiting import wait_until

SECRET: Final = "a secret of the tests, with more than 32 bytes"
ROOT: Final = Path(__file__).parents[2]
REQUEST_TIMEOUT_S: Final = 10
OK: Final = 200


class Deployment:
    """One service and one bridge. Use as a context manager; both may be killed and started again on their ports."""

    def __init__(
        self, folder: Path, *, service_module: str = "agent_service", settings: Mapping[str, str] | None = None
    ) -> None:
        grpc_port, http_port = free_ports(2)
        self.grpc_target = f"127.0.0.1:{grpc_port}"
        self.url = f"http://127.0.0.1:{http_port}"
        self.data_dir = folder / "data"
        self._folder = folder
        self._service_module = service_module
        self._starts = 0
        self._env = {
            "APEX_ENVIRONMENT": "test",
            "APEX_DATA_DIR": str(self.data_dir),
            "APEX_GRPC_ADDRESS": self.grpc_target,
            "APEX_AGENT_TARGET": self.grpc_target,
            "APEX_HTTP_ADDRESS": f"127.0.0.1:{http_port}",
            "APEX_JWT_SECRET": SECRET,
            **(settings or {}),
        }
        self.service: ChildProcess | None = None
        self.bridge: ChildProcess | None = None

    def __enter__(self) -> Self:
        self.start_service()
        self.start_bridge()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in (self.bridge, self.service):
            if child is not None:
                child.terminate()

    def start_service(self) -> None:
        """Start the service and wait until it listens."""
        self.service = self._start(self._service_module)

    def start_bridge(self) -> None:
        """Start the bridge and wait until it listens."""
        self.bridge = self._start("ws_bridge")

    def wait_until_attached(self) -> None:
        """Wait until the bridge has found the service (again)."""
        wait_until(lambda: httpx.get(f"{self.url}/readyz").status_code == OK, what="the bridge is attached")

    def kill_service(self) -> None:
        """Kill the service as `kill -9` does: that process alone, without a chance to say anything."""
        assert self.service is not None
        os.kill(self.service.pid, signal.SIGKILL)
        self.service.wait()
        self.service.kill()

    def kill_bridge(self) -> None:
        """Kill the bridge likewise."""
        assert self.bridge is not None
        self.bridge.kill()

    def _start(self, module: str) -> ChildProcess:
        self._starts += 1
        output = self._folder / f"{module}-{self._starts}.log"
        child = ChildProcess([sys.executable, "-m", module], output_file=output, env=self._env, cwd=ROOT)
        child.wait_for_output(" listening on ")
        return child

    def say(self, message: str, times: int = 1) -> None:
        """Let the scripted supervisor (`scripted_service_main`) say so many more events of this message's run."""
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self.data_dir / SOCKET_NAME))
            line.sendall(f"{message}\n".encode() * times)

    def token(self, user: str, **claims: object) -> str:
        """Return a token that the service accepts, unless the claims say otherwise."""
        return make_token(user, secret=SECRET, claims=claims)

    def socket(self, user: str = "", *, token: str | None = None, path: str = "/ws") -> "OpenSocket":
        """Return a socket to be opened as a context manager, signed in with the Authorization header."""
        return OpenSocket(self.url.replace("http", "ws") + path, self.token(user) if token is None else token)

    def request(self, method: str, path: str, user: str) -> Frame:
        """Call the REST interface and return its JSON."""
        headers = {"Authorization": f"Bearer {self.token(user)}"}
        response = httpx.request(method, self.url + path, headers=headers, timeout=REQUEST_TIMEOUT_S)
        response.raise_for_status()
        answer: Frame = response.json()
        return answer

    def upload(self, user: str, name: str, content: bytes) -> str:
        """Upload a file and return its id."""
        headers = {"Authorization": f"Bearer {self.token(user)}"}
        files = {"file": (name, content)}
        response = httpx.post(f"{self.url}/api/v1/files", files=files, headers=headers, timeout=REQUEST_TIMEOUT_S)
        response.raise_for_status()
        return str(response.json()["file_id"])


class OpenSocket:
    """A socket as a context manager."""

    def __init__(self, url: str, token: str, *, subprotocols: tuple[str, ...] = ()) -> None:
        self._connection = connect(
            url,
            additional_headers={"Authorization": f"Bearer {token}"},
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            compression=None,
            max_size=None,
        )

    async def __aenter__(self) -> SocketClient:
        return SocketClient(await self._connection.__aenter__())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.__aexit__(kind, error, trace)
