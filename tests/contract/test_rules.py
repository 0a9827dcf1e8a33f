"""Every validation rule of every request, from both sides, over gRPC, on the socket and in REST."""

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio

from agent_service.engine.clock import SystemIds
from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support import rules_over_rest, rules_over_socket
from tests.support.bridge_server import RunningBridge, running_bridge
from tests.support.face import Face, open_face
from tests.support.rules import PARTS, VALID, Edge, edges
from tests.support.rules_over_grpc import Verdict, over_grpc
from tests.support.rules_over_rest import over_rest, rest_paths
from tests.support.rules_over_socket import frame_of, frame_paths, over_socket

EDGES = list(edges())
OF_SOCKETS = [edge for edge in EDGES if not rules_over_socket.is_the_bridges_own(edge)]
ON_SOCKET = [edge for edge in EDGES if frame_of(edge, edge.inside) and frame_of(edge, edge.outside)]
IN_REST = [edge for edge in EDGES if rules_over_rest.is_expressible(edge)]


@dataclass(frozen=True)
class Faces:
    """A service and a bridge to it."""

    service: Face
    bridge: RunningBridge
    http: httpx.AsyncClient


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def faces() -> AsyncIterator[Faces]:
    async with (
        open_face() as service,
        running_bridge(f"127.0.0.1:{service.port}") as bridge,
        httpx.AsyncClient(base_url=bridge.url) as http,
    ):
        yield Faces(service, bridge, http)


@pytest.fixture
def user() -> str:
    """A user of the test's own: what one has accepted counts for no other."""
    return SystemIds().new()


@pytest.mark.parametrize("edge", EDGES, ids=str)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_rule_is_kept_on_its_inside_and_refused_on_its_outside(faces: Faces, edge: Edge, user: str) -> None:
    assert edge.path not in (await over_grpc(faces.service, edge, edge.inside, user)).paths
    refused = await over_grpc(faces.service, edge, edge.outside, user)
    assert edge.path in refused.paths
    assert refused.reason == reason_of(edge)


def reason_of(edge: Edge) -> str:
    """Return what a rule is told as: two rules of a message's text have reasons of their own."""
    own = {"not_blank": "EMPTY_MESSAGE", "max_bytes": "MESSAGE_TOO_LARGE"}
    about_text = edge.path in {"content", "run.content"}
    return own.get(edge.rule, "INVALID_ARGUMENT") if about_text else "INVALID_ARGUMENT"


@pytest.mark.parametrize("edge", ON_SOCKET, ids=str)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_socket_refuses_the_same_with_the_same_path(faces: Faces, edge: Edge, user: str) -> None:
    accepted = await over_socket(faces.bridge, edge, edge.inside, user)
    assert not accepted.paths & frame_paths([edge.path])
    refused = await over_grpc(faces.service, edge, edge.outside, user)
    told = await over_socket(faces.bridge, edge, edge.outside, user)
    assert told == Verdict(refused.reason, frame_paths(refused.paths))


@pytest.mark.parametrize("edge", IN_REST, ids=str)
@pytest.mark.asyncio(loop_scope="module")
async def test_rest_refuses_the_same_with_the_same_path(faces: Faces, edge: Edge, user: str) -> None:
    accepted = await over_rest(faces.http, edge, edge.inside, user)
    assert not accepted.paths & rest_paths([edge.path])
    refused = await over_grpc(faces.service, edge, edge.outside, user)
    told = await over_rest(faces.http, edge, edge.outside, user)
    assert told == Verdict(refused.reason, rest_paths(refused.paths))


@pytest.mark.parametrize(
    ("all_edges", "reached", "without", "hidden"),
    [
        (OF_SOCKETS, ON_SOCKET, rules_over_socket.NO_FRAME, rules_over_socket.HIDDEN),
        (EDGES, IN_REST, rules_over_rest.NO_ROUTE, rules_over_rest.HIDDEN),
    ],
    ids=["socket", "rest"],
)
def test_every_rule_is_reached_or_it_is_said_why_not(
    all_edges: Collection[Edge], reached: Collection[Edge], without: Mapping[str, str], hidden: Mapping[str, str]
) -> None:
    unreached = {str(edge): edge.method.name for edge in all_edges if edge not in reached}
    assert {edge for edge, rpc in unreached.items() if rpc not in without} == hidden.keys()
    assert without.keys() == set(unreached.values()) - {edge.method.name for edge in reached}


def test_every_rpc_has_a_valid_request_and_every_part_a_valid_message() -> None:
    methods = [method for service in pb.DESCRIPTOR.services_by_name.values() for method in service.methods]
    assert sorted(VALID) == sorted(method.name for method in methods)
    held = {
        field.message_type.full_name
        for message in (*(method.input_type for method in methods), pb.RunAgentRequest.DESCRIPTOR)
        for field in message.fields
        if field.message_type is not None and field.message_type.file is pb.DESCRIPTOR
    }
    entries = {name for name in held if name.endswith("Entry")}
    assert held - entries <= set(PARTS)


def test_there_are_rules_for_all_free_texts_and_ids() -> None:
    """A string without a rule would be a string without a limit."""
    ruled = {(edge.method.name, edge.path.split("[")[0]) for edge in EDGES}
    unruled = {
        (method.name, field.name)
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        for field in method.input_type.fields
        if field.type == field.TYPE_STRING and (method.name, field.name) not in ruled
    }
    assert not unruled
