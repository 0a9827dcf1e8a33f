"""The support that other tests stand on: a child that is not ready, ends early or will not end must be told apart."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.processes import ChildProcess, ProcessFailedError, free_port, free_ports, is_listening
from tests.support.waiting import wait_until

LISTENER = """
import signal, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready on", listener.getsockname()[1])
signal.pause()
"""
STUBBORN_PARENT = f"""
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", {LISTENER!r}, sys.argv[1]]).wait()
"""


def python(code: str, tmp_path: Path, *arguments: str, env: dict[str, str] | None = None) -> ChildProcess:
    argv: Sequence[str] = [sys.executable, "-c", code, *arguments]
    return ChildProcess(argv, output_file=tmp_path / "output.txt", env=env)


def test_waits_for_port_and_output_and_ends_the_child(tmp_path: Path) -> None:
    port = free_port()
    with python(LISTENER, tmp_path, str(port)) as child:
        child.wait_until_listening(port)
        assert child.wait_for_output(r"ready on (\d+)").group(1) == str(port)
        assert child.poll() is None
    assert child.poll() == -signal.SIGTERM
    assert not is_listening(port)


def test_early_end_is_an_error_with_the_output(tmp_path: Path) -> None:
    with python("import sys; sys.exit('no disk')", tmp_path) as child:
        with pytest.raises(ProcessFailedError, match=r"(?s)exit code 1 before.*no disk"):
            child.wait_until_listening(free_port())
        assert child.wait() == 1


def test_never_ready_is_an_error_with_the_output(tmp_path: Path) -> None:
    with python("print('thinking', flush=True); import signal; signal.pause()", tmp_path) as child:
        child.wait_for_output("thinking")
        with pytest.raises(ProcessFailedError, match=r"(?s)not within 0.1 s.*thinking"):
            child.wait_for_output("never printed", timeout_s=0.1)


def test_a_stubborn_child_and_its_own_children_end_by_force(tmp_path: Path) -> None:
    port = free_port()
    with python(STUBBORN_PARENT, tmp_path, str(port)) as child:
        child.wait_until_listening(port)
        assert child.terminate(timeout_s=0.1) == -signal.SIGKILL
    wait_until(lambda: not is_listening(port), what="the grandchild is gone")


def test_environment_is_only_what_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APEX_MODEL", "from the shell")
    code = "import os; print(os.environ.get('APEX_MODEL'), os.environ.get('APEX_DATA_DIR'))"
    with python(code, tmp_path, env={"APEX_DATA_DIR": "here"}) as child:
        assert child.wait() == 0
        assert child.output.strip() == "None here"


def test_free_ports_differ() -> None:
    assert len(set(free_ports(50))) == 50
