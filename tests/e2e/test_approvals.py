"""Decisions of people, from real processes over real sockets, gRPC, REST and the terminal; also across a `kill -9`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from google.protobuf.struct_pb2 import Struct

from generated.apex.agent.v1 import agent_pb2 as pb
from generated.apex.agent.v1.agent_pb2_grpc import AgentServiceStub
from tests.support.bridge_server import Frame, SocketClient
from tests.support.commands import APEX, run_apex, talk_on_terminal
from tests.support.deployment import ROOT, Deployment
from tests.support.errors import failed_with
from tests.support.grammar import check_frames
from tests.support.paying_service_main import PAID_VARIABLE
from tests.support.processes import ChildProcess


@dataclass(frozen=True, slots=True)
class Paying:
    """A deployment whose agent `payer` asks before it pays."""

    deployment: Deployment
    paid_file: Path

    def as_person(self, user: str) -> dict[str, str]:
        """Return the environment of a person at a terminal."""
        target, token = self.deployment.grpc_target, self.deployment.token(user)
        return {"APEX_AGENT_TARGET": target, "APEX_TOKEN": token, "PYTHONPATH": str(ROOT)}

    def paid(self) -> list[int]:
        """Return the amounts that were paid since the last look."""
        amounts = [int(line) for line in self.paid_file.read_text().splitlines()]
        self.paid_file.write_text("")
        return amounts


@pytest.fixture(scope="module")
def paying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paying]:
    folder = tmp_path_factory.mktemp("paying")
    paid_file = folder / "paid"
    paid_file.touch()
    settings = {PAID_VARIABLE: str(paid_file)}
    with Deployment(folder, service_module="tests.support.paying_service_main", settings=settings) as deployment:
        yield Paying(deployment, paid_file)


async def until(socket: SocketClient, *kinds: str) -> Sequence[Frame]:
    """Return the event frames up to one of these kinds."""
    return [frame for frame in await socket.receive_until(*kinds) if "seq" in frame]


async def asked(socket: SocketClient) -> tuple[Sequence[Frame], Frame]:
    """Start a payment and return its frames up to the question, and that."""
    await socket.send("start_agent", content="Pay", agent="payer")
    frames = await until(socket, "approval_requested")
    return frames, frames[-1]


async def test_a_person_agrees_over_the_socket_although_the_service_died_meanwhile(paying: Paying) -> None:
    apex = paying.deployment
    async with apex.socket("ann") as socket:
        before, question = await asked(socket)
        assert question["payload"]["tool_args"] == {"amount": 99}
        run_id, approval_id = question["run_id"], question["payload"]["approval_id"]
        while apex.request("GET", f"/api/v1/runs/{run_id}", "ann")["status"] != "waiting_approval":
            pass
        apex.kill_service()
        apex.start_service()
        apex.wait_until_attached()
    async with apex.socket("ann") as socket:
        ready = await socket.expect("connection_established")
        assert [(run["run_id"], run["status"]) for run in ready["active_runs"]] == [(run_id, "waiting_approval")]
        await socket.send("resume", run_id=run_id, after_seq=0)
        await until(socket, "approval_requested")
        await socket.send("resolve_approval", run_id=run_id, approval_id=approval_id, decision="approve")
        await socket.send("resolve_approval", run_id=run_id, approval_id=approval_id, decision="approve")
        await until(socket, "agent_completed")
        await socket.send("resolve_approval", run_id=run_id, approval_id=approval_id, decision="reject")
        assert (await socket.expect("error"))["code"] == "RUN_CONFLICT"
    events = apex.request("GET", f"/api/v1/runs/{run_id}/events", "ann")["events"]
    check_frames(events)
    kinds = [event["type"] for event in events]
    assert [kinds.count(kind) for kind in ("approval_requested", "approval_resolved")] == [1, 1]
    assert events[: len(before)] == before
    # Nobody has taken anything over: the run waited, and went on.
    assert {event["attempt"] for event in events} == {1}
    assert "Paid 99" in events[-2]["payload"]["content"]
    assert paying.paid() == [99]


async def test_a_person_edits_over_grpc_and_a_stranger_finds_nothing(paying: Paying) -> None:
    apex = paying.deployment
    async with apex.socket("ben") as socket:
        _, question = await asked(socket)
        async with grpc.aio.insecure_channel(apex.grpc_target) as channel:

            async def edit(user: str, amount: int) -> pb.ResolveApprovalResponse:
                edited = Struct()
                edited["amount"] = amount
                request = pb.ResolveApprovalRequest(
                    run_id=question["run_id"],
                    approval_id=question["payload"]["approval_id"],
                    decision=pb.APPROVAL_CHOICE_EDIT,
                    edited_args=edited,
                )
                metadata = (("authorization", f"Bearer {apex.token(user)}"),)
                return await AgentServiceStub(channel).ResolveApproval(request, metadata=metadata)

            async with failed_with("NOT_FOUND", grpc.StatusCode.NOT_FOUND):
                await edit("eve", 3)
            async with failed_with("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT):
                await edit("ben", 101)
            assert (await edit("ben", 3)).decision == pb.APPROVAL_DECISION_EDITED
        frames = await until(socket, "agent_completed")
    executing = [frame["payload"] for frame in frames if frame["type"] == "tool_executing"]
    assert [call["tool_args"] for call in executing if call["tool_name"] == "pay"] == [{"amount": 3}]
    assert paying.paid() == [3]


async def test_a_person_refuses_over_rest(paying: Paying) -> None:
    apex = paying.deployment
    async with apex.socket("cleo") as socket:
        _, question = await asked(socket)
        url = f"{apex.url}/api/v1/runs/{question['run_id']}/approvals/{question['payload']['approval_id']}"
        headers = {"Authorization": f"Bearer {apex.token('cleo')}"}
        async with httpx.AsyncClient(headers=headers) as client:
            answer = await client.post(url, json={"decision": "reject", "comment": "Too dear."})
            assert (answer.status_code, answer.json()) == (200, {"decision": "rejected"})
            assert (await client.post(url, json={"decision": "approve"})).status_code == 409
        frames = await until(socket, "agent_completed")
    assert "Too dear." in frames[-2]["payload"]["content"]
    assert paying.paid() == []


def test_a_person_is_asked_in_the_terminal(paying: Paying) -> None:
    env = paying.as_person("dan")
    argv = [APEX, "chat", "Pay", "--agent", "payer"]
    code, written = talk_on_terminal(argv, [("[y/n]", "perhaps\n"), ("[y/n]", "y\n")], **env)
    assert code == 0
    assert '{"amount": 99}' in written
    assert paying.paid() == [99]
    code, written = talk_on_terminal(argv, [("[y/n]", "no, too dear\n")], **env)
    assert code == 0
    assert "too dear" in written
    assert paying.paid() == []


def test_without_a_terminal_it_is_said_how_to_decide(paying: Paying, tmp_path: Path) -> None:
    env = paying.as_person("fay")
    with ChildProcess([APEX, "chat", "Pay", "--agent", "payer"], output_file=tmp_path / "out", env=env) as child:
        child.wait_for_output("apex replay")
        (line,) = [line for line in child.output.splitlines() if "apex replay" in line]
        run_id = line.partition("apex replay ")[2].split()[0].rstrip(".")
        # And so it is: whoever replays the run in a terminal is asked.
        code, _ = talk_on_terminal([APEX, "replay", run_id], [("[y/n]", "y\n")], **env)
        assert code == 0
        assert child.wait() == 0
    assert paying.paid() == [99]
    # What is decided is not asked again.
    again = run_apex("replay", run_id, "--json", **env)
    assert again.code == 0
    events = [json.loads(line) for line in again.out.splitlines()]
    assert [key for event in events for key in event if key.startswith("approval_")] == [
        "approval_requested",
        "approval_resolved",
    ]
    assert talk_on_terminal([APEX, "replay", run_id], [], **env)[0] == 0
