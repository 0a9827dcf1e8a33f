"""What a synchronous Python client with the generated stub relies on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc_testing
import pytest

from generated.apex.agent.v1 import agent_pb2 as pb
from generated.apex.agent.v1.agent_pb2_grpc import AgentServiceStub

AGENTS = pb.DESCRIPTOR.services_by_name["AgentService"]
TIMEOUT_S = 10.0


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def test_run_agent_is_an_iterator_of_events_with_initial_metadata(pool: ThreadPoolExecutor) -> None:
    channel = grpc_testing.channel([AGENTS], grpc_testing.strict_real_time())

    def client() -> tuple[dict[str, str], list[int]]:
        call = AgentServiceStub(channel).RunAgent(
            pb.RunAgentRequest(content="hello"), metadata=(("authorization", "Bearer x"),)
        )
        return dict(call.initial_metadata()), [event.seq for event in call]

    running = pool.submit(client)
    metadata, request, rpc = channel.take_unary_stream(AGENTS.methods_by_name["RunAgent"])
    assert ("authorization", "Bearer x") in metadata
    assert request == pb.RunAgentRequest(content="hello")
    rpc.send_initial_metadata((("apex-run-id", "r"), ("apex-thread-id", "t"), ("apex-already-existed", "false")))
    for seq in (1, 2):
        rpc.send_response(pb.AgentEvent(run_id="r", seq=seq))
    rpc.terminate((), grpc.StatusCode.OK, "")
    initial, seqs = running.result(TIMEOUT_S)
    assert {key: value for key, value in initial.items() if key.startswith("apex-")} == {
        "apex-run-id": "r",
        "apex-thread-id": "t",
        "apex-already-existed": "false",
    }
    assert seqs == [1, 2]


def test_start_run_is_a_call_with_an_answer(pool: ThreadPoolExecutor) -> None:
    channel = grpc_testing.channel([AGENTS], grpc_testing.strict_real_time())
    request = pb.StartRunRequest(run=pb.RunAgentRequest(content="hello"))
    running = pool.submit(lambda: AgentServiceStub(channel).StartRun(request))
    _, received, rpc = channel.take_unary_unary(AGENTS.methods_by_name["StartRun"])
    assert received == request
    answer = pb.StartRunResponse(run_id="r", thread_id="t", user_message_id="m")
    rpc.terminate(answer, (), grpc.StatusCode.OK, "")
    assert running.result(TIMEOUT_S) == answer
