"""A deployment whose two processes say what they hold: tasks, objects, descriptors, memory, and their metrics."""

import json
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.support.deployment import ROOT, Deployment
from tests.support.descriptors import open_descriptors
from tests.support.metrics import Metrics
from tests.support.processes import ChildProcess, free_ports


class Census(msgspec.Struct):
    """What is alive in a process. `ours` counts the instances of our own classes."""

    tasks: int
    objects: int
    ours: dict[str, int]


@dataclass(frozen=True)
class Holding:
    """What a process holds at a moment, after a collection of garbage."""

    census: Census
    descriptors: int
    memory_kib: int


class WatchedProcess:
    """A running process with a census on a Unix socket."""

    def __init__(self, child: ChildProcess, census: Path, admin: str) -> None:
        self._pid = child.pid
        self._census = census
        self.metrics = Metrics(admin)

    def holding(self) -> Holding:
        """Return what it holds now."""
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self._census))
            data = b"".join(iter(lambda: line.recv(65_536), b""))
        status = Path(f"/proc/{self._pid}/status").read_text(encoding="ascii")
        memory = next(text for text in status.splitlines() if text.startswith("VmRSS:"))
        return Holding(msgspec.convert(json.loads(data), Census), open_descriptors(self._pid), int(memory.split()[1]))


class WatchedDeployment(Deployment):
    """The scripted service and the bridge, both watched."""

    def __init__(self, folder: Path) -> None:
        service_admin, bridge_admin = (f"127.0.0.1:{port}" for port in free_ports(2))
        settings = {
            "APEX_SERVICE_ADMIN_ADDRESS": service_admin,
            "APEX_BRIDGE_ADMIN_ADDRESS": bridge_admin,
            "APEX_MAX_CONNECTIONS_PER_USER": "20",
            "APEX_MAX_MESSAGES_PER_MINUTE": "100000",
            "APEX_MAX_CONCURRENT_AGENTS": "64",
        }
        super().__init__(folder, service_module="tests.support.scripted_service_main", settings=settings)
        self._admins = {"ws_bridge": bridge_admin}
        self._service_admin = service_admin
        self._watched: dict[str, WatchedProcess] = {}

    @property
    def processes(self) -> dict[str, WatchedProcess]:
        """Both processes by the module that they run."""
        return self._watched

    def _start(self, module: str) -> ChildProcess:
        census = self._folder / f"{len(self._watched)}.sock"  # the name of such a socket may have 107 bytes in all
        argv = [sys.executable, "-m", "tests.support.census_main", str(census), module]
        child = ChildProcess(argv, output_file=self._folder / f"{module}.log", env=self._env, cwd=ROOT)
        child.wait_for_output(" listening on ")
        self._watched[module] = WatchedProcess(child, census, self._admins.get(module, self._service_admin))
        return child
