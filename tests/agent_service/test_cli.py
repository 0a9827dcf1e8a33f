"""The commands, as people run them: what they print, and how they end."""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import grpc
import jwt
import pytest
from google.protobuf import json_format

from generated.apex.agent.v1 import agent_pb2 as pb
from generated.apex.agent.v1.agent_pb2_grpc import AgentServiceStub
from tests.support.clumsy_service_main import HANG
from tests.support.commands import APEX, Finished, run_apex, run_command, run_on_terminal, run_service
from tests.support.deployment import SECRET, Deployment
from tests.support.postgres import PostgresServer, fresh_database
from tests.support.processes import ChildProcess, free_port

SLOW_SQL: Final = "SELECT count(*) FROM range(1000000) a, range(1000000) b"
NOBODYS_RUN: Final = "01a1fc18-206c-75fd-8b61-b07e7ac9c185"


@pytest.fixture(scope="module")
def apex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A service that listens; nobody needs the bridge here."""
    deployment = Deployment(tmp_path_factory.mktemp("apex"))
    deployment.start_service()
    yield deployment
    assert deployment.service is not None
    deployment.service.terminate()


@pytest.fixture(scope="module")
def clumsy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A service whose model may not answer at all."""
    folder = tmp_path_factory.mktemp("clumsy")
    deployment = Deployment(folder, service_module="tests.support.clumsy_service_main")
    deployment.start_service()
    yield deployment
    assert deployment.service is not None
    deployment.service.terminate()


def test_what_the_service_writes_is_for_its_owner_only(apex: Deployment) -> None:
    written = [path for path in apex.data_dir.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in written)
    assert [path.name for path in written if path.stat().st_mode & 0o077] == []


def ask(apex: Deployment, user: str, *arguments: str) -> Finished:
    """Run a command of the terminal client as a user."""
    return run_apex(*arguments, APEX_AGENT_TARGET=apex.grpc_target, APEX_TOKEN=apex.token(user))


def test_the_agents_and_tools_are_listed(apex: Deployment) -> None:
    told = ask(apex, "ann", "agents")
    assert told.code == 0
    lines = told.out.splitlines()
    assert any(line.startswith("data: Measures") for line in lines)
    assert any(line.startswith("usage_summary (read_only, ") for line in lines)
    catalogue = json_format.Parse(ask(apex, "ann", "agents", "--json").out, pb.ListAgentsResponse())
    assert {agent.name for agent in catalogue.agents} >= {"supervisor", "triage", "data"}


def asking(apex: Deployment, user: str, output_file: Path, *arguments: str) -> ChildProcess:
    """Start a command of the terminal client as a user."""
    env = {"APEX_AGENT_TARGET": apex.grpc_target, "APEX_TOKEN": apex.token(user)}
    return ChildProcess([APEX, *arguments], output_file=output_file, env=env)


def events_of(lines: str) -> Sequence[pb.AgentEvent]:
    """Return the events of `--json`, which are one whole run."""
    events = [json_format.Parse(line, pb.AgentEvent()) for line in lines.splitlines() if line.startswith("{")]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return events


def get_run(apex: Deployment, user: str, run_id: str) -> pb.Run:
    with grpc.insecure_channel(apex.grpc_target) as channel:
        request = pb.GetRunRequest(run_id=run_id)
        metadata = (("authorization", f"Bearer {apex.token(user)}"),)
        return AgentServiceStub(channel).GetRun(request, metadata=metadata).run


# ---- apex chat ----


def test_chat_shows_the_steps_and_writes_the_answer(apex: Deployment) -> None:
    done = ask(apex, "reader", "chat", "Analyze my AI costs")
    assert done.code == 0
    assert "$96.85" in done.out
    assert "| gpt-4o |" in done.out, "sent to a file, the answer is Markdown"
    steps = done.err.splitlines()
    assert any(line.startswith("▸ usage_summary: ") for line in steps)
    assert any(line.startswith("✓ 10,062 requests") for line in steps)
    assert steps[-1].startswith("■ ")
    assert "4 tool calls" in steps[-1]


def test_chat_as_json_is_one_event_per_line(apex: Deployment) -> None:
    done = ask(apex, "reader", "chat", "Hello there", "--json")
    assert (done.code, done.err) == (0, "")
    events = events_of(done.out)
    assert events[-1].agent_completed.status == pb.COMPLETION_STATUS_SUCCESS
    assert json.loads(done.out.splitlines()[0])["agent_started"]["user_message_id"]
    again = ask(apex, "reader", "chat", "And now?", "--json", "--thread", events[0].thread_id)
    assert events_of(again.out)[0].thread_id == events[0].thread_id


def test_on_a_small_terminal_the_answer_grows_in_place_and_stays_whole(apex: Deployment) -> None:
    env = {"APEX_AGENT_TARGET": apex.grpc_target, "APEX_TOKEN": apex.token("reader")}
    code, written = run_on_terminal([APEX, "chat", "Analyze my AI costs"], rows=12, columns=100, **env)
    assert code == 0
    _, shown_again, whole = written.rpartition("\x1b[?25h")  # the cursor comes back when it stops growing
    assert shown_again
    redrawn = [len(ups) // len("\x1b[1A") for ups in re.findall(r"(?:\x1b\[1A)+", written.replace("\x1b[2K", ""))]
    assert 0 < max(redrawn) < 12, "what has left the screen cannot be redrawn"
    assert [whole.count(text) for text in ("The numbers", "Cost by model", "By feature", "Upload a log")] == [1] * 4


def test_chat_without_a_token_signs_in_for_development(apex: Deployment) -> None:
    assert run_apex("chat", "Hello there", "--target", apex.grpc_target).code == 0


def test_ctrl_c_stops_the_run(apex: Deployment, tmp_path: Path) -> None:
    with asking(apex, "hasty", tmp_path / "out", "chat", SLOW_SQL, "--agent", "data", "--json") as child:
        child.wait_for_output("tool_executing")
        child.send_signal(signal.SIGINT)
        assert child.wait() == 130
        (run_id,) = {event.run_id for event in events_of(child.output)}
        assert child.output.endswith("! Stopped.\n")
    stub_run = get_run(apex, "hasty", run_id)
    assert stub_run.status in {pb.RUN_STATUS_CANCELLED, pb.RUN_STATUS_RUNNING}
    replayed = ask(apex, "hasty", "replay", run_id, "--json")
    assert replayed.code == 1
    assert events_of(replayed.out)[-1].agent_completed.status == pb.COMPLETION_STATUS_CANCELLED


def test_chat_goes_on_when_the_service_is_killed(apex: Deployment, tmp_path: Path) -> None:
    with asking(apex, "patient", tmp_path / "out", "chat", "Analyze my AI costs", "--json") as child:
        child.wait_for_output("tool_executing")
        apex.kill_service()
        apex.start_service()
        assert child.wait() == 0
        events = events_of(child.output)
    assert {event.attempt for event in events} == {1, 2}
    assert events[-1].agent_completed.status == pb.COMPLETION_STATUS_SUCCESS


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["chat", " "], "INVALID_ARGUMENT: The message has no text. Write something and send it again."),
        (["chat", "hi", "--agent", "nobody"], "INVALID_ARGUMENT: There is no agent 'nobody'."),
        (["chat", "hi", "--thread", "x"], "INVALID_ARGUMENT: The request is not valid: thread_id: must be"),
        (["chat", "hi", "--file", NOBODYS_RUN], "NOT_FOUND: "),
        (["replay", NOBODYS_RUN], "NOT_FOUND: There is no such run."),
        (["replay", "x"], "INVALID_ARGUMENT: The request is not valid: run_id: must be"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(apex: Deployment, arguments: list[str], told: str) -> None:
    done = ask(apex, "clumsy", *arguments)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(told)
    assert len(done.err.splitlines()) == 1


def test_a_token_that_does_not_hold_is_told_in_a_line(apex: Deployment) -> None:
    done = run_apex("chat", "hi", APEX_AGENT_TARGET=apex.grpc_target, APEX_TOKEN="nonsense")
    assert (done.code, done.err) == (1, "UNAUTHENTICATED: The token cannot be read.\n")


def test_a_service_that_is_not_there_is_told_in_a_line() -> None:
    target = f"127.0.0.1:{free_port()}"
    done = run_apex("chat", "hi", "--target", target)
    told = f"No agent service answers at {target}. Start one with `apex up`, or name another with --target.\n"
    assert (done.code, done.out, done.err) == (1, "", told)


# ---- apex replay ----


def test_replay_shows_the_same_run_again(apex: Deployment) -> None:
    live = ask(apex, "reader", "chat", "Hello there", "--json")
    run_id = events_of(live.out)[0].run_id
    replayed = ask(apex, "reader", "replay", run_id, "--json")
    assert (replayed.code, replayed.out) == (0, live.out)
    rest = ask(apex, "reader", "replay", run_id, "--json", "--after-seq", "3")
    assert rest.out == "".join(live.out.splitlines(keepends=True)[3:])
    beyond = ask(apex, "reader", "replay", run_id, "--after-seq", "999")
    assert beyond.code == 1
    assert "the cursor says 999" in beyond.err


def test_replay_of_a_failed_run_says_why_and_fails(clumsy: Deployment) -> None:
    run = pb.RunAgentRequest(content=HANG, agent="clumsy", settings=pb.RunSettings(timeout_ms=1_000))
    with grpc.insecure_channel(clumsy.grpc_target) as channel:
        metadata = (("authorization", f"Bearer {clumsy.token('late')}"),)
        run_id = AgentServiceStub(channel).StartRun(pb.StartRunRequest(run=run), metadata=metadata).run_id
    done = ask(clumsy, "late", "replay", run_id)
    assert (done.code, done.out) == (1, "")
    marks = [line[0] for line in done.err.splitlines()]
    assert "✗" in marks, done.err
    assert "■" not in marks


# ---- apex token ----


def test_a_token_of_the_command_opens_the_service(apex: Deployment) -> None:
    done = run_apex("token", "--user", "ann", "--scope", "a b", "--expires-in-s", "60", APEX_JWT_SECRET=SECRET)
    assert (done.code, done.err) == (0, "")
    token = done.out.strip()
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience="apex", issuer="apex")
    assert (claims["sub"], claims["scope"], claims["exp"] - claims["iat"]) == ("ann", "a b", 60)
    assert run_apex("chat", "Hello there", APEX_AGENT_TARGET=apex.grpc_target, APEX_TOKEN=token).code == 0


def test_a_token_is_signed_with_the_algorithm_of_the_settings() -> None:
    done = run_apex("token", APEX_JWT_SECRET=SECRET * 2, APEX_JWT_ALGORITHMS="HS512")
    assert jwt.get_unverified_header(done.out.strip())["alg"] == "HS512"


def test_a_development_token_needs_no_settings(tmp_path: Path) -> None:
    first, second = (run_apex("token", APEX_DATA_DIR=str(tmp_path / "new")) for _ in range(2))
    secret = (tmp_path / "new" / "dev-jwt-secret").read_text()
    for done in (first, second):
        assert jwt.decode(done.out.strip(), secret, algorithms=["HS256"], audience="apex")["sub"] == "dev"


def test_a_token_that_nobody_would_take_is_not_made(tmp_path: Path) -> None:
    data_dir = str(tmp_path)
    spaced = run_apex("token", "--user", "a b", APEX_DATA_DIR=data_dir)
    assert (spaced.code, spaced.out) == (2, "")
    assert "printable ASCII" in spaced.err
    jwks = {"APEX_JWKS_URL": "https://issuer.example.com/keys", "APEX_JWT_ALGORITHMS": "RS256"}
    elsewhere = run_apex("token", **jwks)
    assert (elsewhere.code, elsewhere.out) == (2, "")
    assert "made elsewhere" in elsewhere.err


# ---- apex migrate ----


def test_migrate_prepares_a_database_once_and_for_all(tmp_path: Path, postgres_server: PostgresServer) -> None:
    assert run_apex("migrate", APEX_DATA_DIR=str(tmp_path)).code == 0
    with fresh_database(postgres_server) as url:
        environ = {"APEX_DATABASE_URL": url, "APEX_DATA_DIR": str(tmp_path), "APEX_GRPC_ADDRESS": "127.0.0.1:0"}
        early = run_service(**environ)
        assert early.code == 1
        assert "run `apex migrate`" in early.err
        for _ in range(2):
            done = run_apex("migrate", **environ)
            assert (done.code, done.out, done.err) == (0, "The database is up to date.\n", "")


def test_migrate_says_what_is_in_its_way(apex: Deployment) -> None:
    gone = f"postgresql+asyncpg://postgres:s3cret@127.0.0.1:{free_port()}/apex"
    unreachable = run_apex("migrate", APEX_DATABASE_URL=gone)
    assert (unreachable.code, unreachable.out) == (1, "")
    assert "s3cret" not in unreachable.err
    busy = run_apex("migrate", APEX_DATA_DIR=str(apex.data_dir))
    assert busy.code == 1
    assert "in use by process" in busy.err


# ---- python -m agent_service ----


def refused(tmp_path: Path, **env: str) -> Finished:
    """Start a service that cannot start."""
    done = run_service(**{"APEX_DATA_DIR": str(tmp_path), "APEX_GRPC_ADDRESS": "127.0.0.1:0", **env})
    assert done.out == ""
    return done


def test_wrong_settings_are_told_all_at_once(tmp_path: Path) -> None:
    done = refused(tmp_path, APEX_MAX_HISTORY_SIZE="-1", APEX_JWT_SECRET="short", APEX_GRPC_ADDRESS="0.0.0.0:1")
    assert done.code == 2
    header, *problems = done.err.splitlines()
    assert header == "The settings are wrong:"
    assert [line.strip().partition("=")[0] for line in problems] == [
        "APEX_MAX_HISTORY_SIZE",
        "APEX_JWT_SECRET",
        "APEX_GRPC_ADDRESS",
    ]
    assert "short" not in done.err


def test_a_step_must_have_time_for_every_tool(tmp_path: Path) -> None:
    done = refused(tmp_path, APEX_AGENT_EXECUTION_TIMEOUT_S="28")
    assert done.code == 2
    assert "APEX_AGENT_EXECUTION_TIMEOUT_S=28: must be greater than 28, the timeout of the tool" in done.err


def test_files_of_tls_must_be_what_they_say(tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    done = refused(tmp_path, APEX_GRPC_TLS_CERT=str(nonsense), APEX_GRPC_TLS_KEY=str(nonsense))
    assert done.code == 2
    assert "APEX_GRPC_TLS_CERT, APEX_GRPC_TLS_KEY" in done.err


def test_a_taken_port_is_told(apex: Deployment, tmp_path: Path) -> None:
    done = refused(tmp_path, APEX_GRPC_ADDRESS=apex.grpc_target)
    assert done.code == 1
    assert f"{apex.grpc_target} cannot be listened on: another program may use it. Set APEX_GRPC_ADDRESS" in done.err


def test_a_taken_admin_port_is_told_before_anything_is_served(apex: Deployment, tmp_path: Path) -> None:
    done = refused(tmp_path, APEX_SERVICE_ADMIN_ADDRESS=apex.grpc_target)
    assert done.code == 1
    assert f"APEX_SERVICE_ADMIN_ADDRESS={apex.grpc_target} cannot be listened on" in done.err


def test_a_second_service_on_a_data_directory_is_refused(apex: Deployment) -> None:
    assert apex.service is not None
    done = refused(apex.data_dir)
    assert done.code == 1
    assert f"{apex.data_dir} is in use by process {apex.service.pid}" in done.err


@pytest.mark.parametrize("command", [["-m", "agent_service"], [APEX, "token"], [APEX, "migrate"]], ids=str)
def test_a_data_directory_that_cannot_be_made_is_told(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file").touch()
    env = {"APEX_DATA_DIR": str(tmp_path / "file" / "data"), "APEX_GRPC_ADDRESS": "127.0.0.1:0"}
    done = run_command([sys.executable, *command], env=env)
    assert (done.code, done.out) == (1, "")
    assert "cannot be used: Not a directory. Set APEX_DATA_DIR to one that you can write to." in done.err


def test_an_unknown_argument_is_refused() -> None:
    done = run_service("--help-me")
    assert done.code == 2
    assert "unrecognized arguments: --help-me" in done.err


def test_settings_come_from_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "apex.env"
    file.write_text(f"APEX_DATA_DIR={tmp_path / 'data'}\nAPEX_GRPC_ADDRESS=127.0.0.1:0\nAPEX_HTTP_ADDRESS=nowhere\n")
    argv = [APEX, "agent", "--env-file", str(file)]
    with ChildProcess(argv, output_file=tmp_path / "out") as child:
        child.wait_for_output(r"agent service listening on 127\.0\.0\.1:[1-9]")
        assert child.terminate() == 0
    assert (tmp_path / "data" / "apex.db").exists()
    missing = run_apex("agent", "--env-file", str(tmp_path / "missing.env"))
    assert missing.code == 2
    assert "missing.env' cannot be read: No such file or directory" in missing.err


def test_help_names_every_command() -> None:
    done = run_apex("--help")
    assert done.code == 0
    for name in ("up", "agent", "bridge", "migrate", "token", "chat", "replay"):
        assert f" {name} " in done.out
    assert run_apex().code == 2
    assert os.access(APEX, os.X_OK)
