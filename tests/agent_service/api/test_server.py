import datetime as dt
import ipaddress
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import jwt
import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from agent_service.api.options import ApiOptions, Deadlines, TlsFiles
from agent_service.api.server import AddressInUseError
from generated.apex.agent.v1 import agent_pb2 as pb
from storage.records import ThreadRecord
from tests.support.errors import failed_with, failure_of
from tests.support.face import Face, make_token, open_face, signed_in

UNKNOWN = "0197f000-0000-7000-8000-0000000000ff"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_call_without_a_good_token_is_refused(face: Face) -> None:
    async with failed_with("UNAUTHENTICATED", grpc.StatusCode.UNAUTHENTICATED):
        await face.threads.ListThreads(pb.ListThreadsRequest())
    async with failed_with("UNAUTHENTICATED", grpc.StatusCode.UNAUTHENTICATED):
        await face.threads.ListThreads(pb.ListThreadsRequest(), metadata=(("authorization", "Bearer nonsense"),))
    async with failed_with("TOKEN_EXPIRED", grpc.StatusCode.UNAUTHENTICATED):
        await face.threads.ListThreads(pb.ListThreadsRequest(), metadata=signed_in(lifetime_s=-1))


RPCS = [
    method
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.name not in {"Attach", "CreateDevToken"}
]


@pytest.mark.parametrize("rpc", RPCS, ids=lambda rpc: f"{rpc.containing_service.name}.{rpc.name}")
async def test_every_rpc_refuses_a_token_that_has_ended(face: Face, rpc: MethodDescriptor) -> None:
    path, metadata = f"/{rpc.containing_service.full_name}/{rpc.name}", signed_in(lifetime_s=-1)
    async with failed_with("TOKEN_EXPIRED", grpc.StatusCode.UNAUTHENTICATED):
        match rpc.client_streaming, rpc.server_streaming:
            case False, False:
                unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = face.channel.unary_unary(path)
                await unary(b"", metadata=metadata)
            case False, True:
                streaming: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = face.channel.unary_stream(path)
                await streaming(b"", metadata=metadata).read()
            case _:
                upload: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = face.channel.stream_unary(path)
                await upload(iter([b""]), metadata=metadata)


async def test_sign_in_comes_before_validation(face: Face) -> None:
    async with failed_with("UNAUTHENTICATED", grpc.StatusCode.UNAUTHENTICATED):
        await face.threads.GetThread(pb.GetThreadRequest(thread_id="nonsense"))


async def test_a_request_id_is_kept_or_made_and_comes_back(face: Face) -> None:
    for given, kept in (("my-id.7", True), ("", False), ("x" * 65, False), ("two words", False)):
        call = face.threads.ListThreads(pb.ListThreadsRequest(), metadata=(*signed_in(), ("x-request-id", given)))
        await call
        answered = dict(await call.trailing_metadata())["x-request-id"]
        assert (answered == given) is kept
        assert answered
    failing = face.threads.ListThreads(pb.ListThreadsRequest(), metadata=(("x-request-id", "my-id"),))
    with pytest.raises(grpc.aio.AioRpcError):
        await failing
    assert dict(await failing.trailing_metadata())["x-request-id"] == "my-id"


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff\xff", b"\x0a\x02\xff\xfe", b"\x00" * 100])
async def test_bytes_that_are_no_message_are_an_invalid_argument(face: Face, data: bytes) -> None:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = face.channel.unary_unary(
        "/apex.agent.v1.ThreadService/GetThread"
    )
    async with failed_with("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT):
        await call(data, metadata=signed_in())


async def test_a_deeply_nested_context_is_an_invalid_argument(face: Face) -> None:
    value = b"\x1a\x00"
    for _ in range(300):
        inner = b"\x0a" + _length(value) + value
        value = b"\x32" + _length(inner) + inner
    entry = b"\x0a\x01k\x12" + _length(value) + value
    struct = b"\x0a" + _length(entry) + entry
    run = b"\x12\x01x\x2a" + _length(struct) + struct
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = face.channel.unary_unary(
        "/apex.agent.v1.AgentService/StartRun"
    )
    async with failed_with("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT):
        await call(b"\x0a" + _length(run) + run, metadata=signed_in())


def _length(data: bytes) -> bytes:
    return bytes([len(data) & 0x7F | 0x80, len(data) >> 7]) if len(data) > 0x7F else bytes([len(data)])


async def test_blank_and_oversized_messages_have_their_own_reasons(face: Face) -> None:
    for content, reason in (("", "EMPTY_MESSAGE"), (" \u00a0\n", "EMPTY_MESSAGE"), ("é" * 32_769, "MESSAGE_TOO_LARGE")):
        async with failed_with(reason, grpc.StatusCode.INVALID_ARGUMENT) as failure:
            await face.agents.StartRun(
                pb.StartRunRequest(run=pb.RunAgentRequest(content=content)), metadata=signed_in()
            )
        assert failure.violations == ["run.content"]
        call = face.agents.RunAgent(pb.RunAgentRequest(content=content), metadata=signed_in())
        async with failed_with(reason, grpc.StatusCode.INVALID_ARGUMENT) as failure:
            await call.read()
        assert failure.violations == ["content"]


async def test_paths_name_list_items_and_map_keys(face: Face) -> None:
    run = pb.RunAgentRequest(content="x", references=[pb.Reference(file_id=UNKNOWN), pb.Reference(file_id="no")])
    async with failed_with("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT) as failure:
        await face.agents.StartRun(pb.StartRunRequest(run=run), metadata=signed_in())
    assert failure.violations == ["run.references[1].file_id"]
    call = face.agents.WatchThread(pb.WatchThreadRequest(thread_id=UNKNOWN, cursors={"no": 1}), metadata=signed_in())
    async with failed_with("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT) as failure:
        await call.read()
    assert failure.violations == ['cursors["no"]']


async def test_a_defect_is_internal_with_an_id_and_says_nothing_of_itself(face: Face) -> None:
    now = dt.datetime.now(dt.UTC)
    # No protobuf string can hold half of a surrogate pair.
    await face.storage.threads.create(ThreadRecord(UNKNOWN, "ann", "a secret of ours \ud800", now, now))
    with structlog.testing.capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as caught:
        await face.threads.GetThread(pb.GetThreadRequest(thread_id=UNKNOWN), metadata=signed_in())
    failure = failure_of(caught.value)
    assert (failure.reason, caught.value.code()) == ("INTERNAL", grpc.StatusCode.INTERNAL)
    defect = next(line for line in logs if line["event"] == "defect")
    assert failure.metadata["error_id"] == defect["error_id"]
    assert defect["error_id"] in failure.message
    assert "secret" not in failure.message


async def test_a_call_that_takes_too_long_is_stopped() -> None:
    async with open_face(ApiOptions("127.0.0.1:0", deadlines=Deadlines(unary_ms=100, upload_ms=100))) as face:
        run = pb.StartRunRequest(run=pb.RunAgentRequest(content="x"))
        started = await face.agents.StartRun(run, metadata=signed_in())
        # Deletion waits for the end of the thread's runs; here one is held by a worker that does not listen.
        face.stage.deaf = True
        delete = pb.DeleteThreadRequest(thread_id=started.thread_id)
        async with failed_with("DEADLINE_EXCEEDED", grpc.StatusCode.DEADLINE_EXCEEDED) as failure:
            await face.threads.DeleteThread(delete, metadata=signed_in())
        assert failure.retry_after_ms is not None
        upload = face.files.UploadFile(metadata=signed_in())
        await upload.write(pb.UploadFileRequest(metadata=pb.FileMetadata(name="x")))
        async with failed_with("DEADLINE_EXCEEDED", grpc.StatusCode.DEADLINE_EXCEEDED):
            await upload


async def test_so_many_calls_are_open_at_once_and_one_more_is_refused() -> None:
    async with open_face(ApiOptions("127.0.0.1:0", max_calls_at_once=2)) as face:
        accepted = await face.agents.StartRun(
            pb.StartRunRequest(run=pb.RunAgentRequest(content="hello")), metadata=signed_in()
        )
        request = pb.WatchRunRequest(run_id=accepted.run_id)
        watches = [face.agents.WatchRun(request, metadata=signed_in()) for _ in range(2)]
        try:
            for watch in watches:
                event = await watch.read()  # both are served, and stay open
                assert isinstance(event, pb.AgentEvent)
                assert event.seq == 1
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await face.threads.ListThreads(pb.ListThreadsRequest(), metadata=signed_in())
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        finally:
            for watch in watches:
                watch.cancel()


async def test_no_log_line_holds_a_token_or_a_text(face: Face) -> None:
    token = make_token()
    metadata = (("authorization", f"Bearer {token}"),)
    with structlog.testing.capture_logs() as logs:
        request = pb.StartRunRequest(run=pb.RunAgentRequest(content="my private question"))
        started = await face.agents.StartRun(request, metadata=metadata)
        await face.threads.CreateThread(pb.CreateThreadRequest(title="my private title"), metadata=metadata)
    text = repr(logs)
    assert token not in text
    assert "private" not in text
    assert [line["event"] for line in logs] == ["call", "call"]
    assert started.run_id


async def test_threads_are_made_listed_changed_and_removed(face: Face) -> None:
    made = (await face.threads.CreateThread(pb.CreateThreadRequest(title="One"), metadata=signed_in())).thread
    update = pb.UpdateThreadRequest(thread_id=made.thread_id.upper(), title="Two")
    renamed = (await face.threads.UpdateThread(update, metadata=signed_in())).thread
    assert (renamed.thread_id, renamed.title) == (made.thread_id, "Two")
    same = await face.threads.UpdateThread(pb.UpdateThreadRequest(thread_id=made.thread_id), metadata=signed_in())
    assert same.thread == renamed
    listed = await face.threads.ListThreads(pb.ListThreadsRequest(query="tw"), metadata=signed_in())
    assert list(listed.threads) == [renamed]
    assert not (await face.threads.ListThreads(pb.ListThreadsRequest(), metadata=signed_in("bob"))).threads
    await face.threads.DeleteThread(pb.DeleteThreadRequest(thread_id=made.thread_id), metadata=signed_in())
    async with failed_with("NOT_FOUND", grpc.StatusCode.NOT_FOUND):
        await face.threads.GetThread(pb.GetThreadRequest(thread_id=made.thread_id), metadata=signed_in())


async def test_messages_are_listed_user_before_assistant(face: Face) -> None:
    request = pb.StartRunRequest(run=pb.RunAgentRequest(content="question"))
    started = await face.agents.StartRun(request, metadata=signed_in())
    await face.stage.answer(await face.run(started.run_id), "answer")
    listing = pb.ListMessagesRequest(thread_id=started.thread_id)
    messages = (await face.threads.ListMessages(listing, metadata=signed_in())).messages
    assert [(message.role, message.content) for message in messages] == [
        (pb.MESSAGE_ROLE_USER, "question"),
        (pb.MESSAGE_ROLE_ASSISTANT, "answer"),
    ]


async def test_a_page_token_of_another_listing_is_invalid(face: Face) -> None:
    async with failed_with("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT) as failure:
        await face.threads.ListThreads(pb.ListThreadsRequest(page_token="nonsense"), metadata=signed_in())
    assert failure.violations == ["page_token"]


async def test_a_development_token_signs_in(face: Face) -> None:
    made = await face.sessions.CreateDevToken(pb.CreateDevTokenRequest(scope="admin"))
    assert made.user_id == "dev"
    metadata = (("authorization", f"Bearer {made.token}"),)
    await face.threads.ListThreads(pb.ListThreadsRequest(), metadata=metadata)


@pytest.mark.parametrize(("asked", "scopes"), [("", ["databases:read"]), ("admin x", ["admin", "x"])])
async def test_a_development_token_permits_what_is_asked_for_else_to_look_at_databases(
    face: Face, asked: str, scopes: list[str]
) -> None:
    made = await face.sessions.CreateDevToken(pb.CreateDevTokenRequest(scope=asked))
    claims = jwt.decode(made.token, options={"verify_signature": False})
    assert sorted(str(claims["scope"]).split()) == scopes


@pytest.fixture
async def strict() -> AsyncIterator[Face]:
    async with open_face(ApiOptions("127.0.0.1:0")) as running:
        yield running


async def test_production_has_no_development_tokens_and_no_reflection(strict: Face) -> None:
    async with failed_with("PERMISSION_DENIED", grpc.StatusCode.PERMISSION_DENIED):
        await strict.sessions.CreateDevToken(pb.CreateDevTokenRequest())
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await _reflected(strict)
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_reflection_names_the_services(face: Face) -> None:
    assert {f"apex.agent.v1.{name}Service" for name in ("Agent", "Thread", "File", "Session")} <= await _reflected(face)


async def _reflected(face: Face) -> set[str]:
    listing: grpc.aio.StreamStreamMultiCallable[
        reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse
    ] = face.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = listing(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    names = [service.name async for response in call for service in response.list_services_response.service]
    return set(names)


async def _health(channel: grpc.aio.Channel, service: str = "") -> int:
    check: grpc.aio.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse] = (
        channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
    )
    return (await check(health_pb2.HealthCheckRequest(service=service), timeout=5)).status


async def test_health_says_serving_then_draining(face: Face) -> None:
    for name in ("", "apex.agent.v1.AgentService", "apex.agent.v1.SessionService"):
        assert await _health(face.channel, name) == SERVING
    await face.server.drain()
    assert await _health(face.channel) == NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError):
        await face.sessions.Attach().read()


async def test_a_taken_port_is_said_so(face: Face) -> None:
    with pytest.raises(AddressInUseError, match=str(face.port)):
        async with open_face(ApiOptions(f"127.0.0.1:{face.port}")):
            pass


async def test_a_call_is_counted_by_method_and_code(face: Face) -> None:
    await face.threads.ListThreads(pb.ListThreadsRequest(), metadata=signed_in())
    with pytest.raises(grpc.aio.AioRpcError):
        await face.threads.ListThreads(pb.ListThreadsRequest())
    for code in ("OK", "UNAUTHENTICATED"):
        labels = {"method": "ListThreads", "code": code}
        assert face.metrics.get_sample_value("apex_grpc_calls_total", labels) == 1


def _certificate() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


async def test_tls_and_client_certificates() -> None:
    certificate, key = _certificate()
    client_certificate, client_key = _certificate()
    options = ApiOptions("127.0.0.1:0", tls=TlsFiles(certificate, key, client_ca=client_certificate))
    async with open_face(options) as face:
        target = f"127.0.0.1:{face.port}"
        known = grpc.ssl_channel_credentials(certificate, client_key, client_certificate)
        async with grpc.aio.secure_channel(target, known) as channel:
            assert await _health(channel) == SERVING
        async with grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(certificate)) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await _health(channel)
            assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
