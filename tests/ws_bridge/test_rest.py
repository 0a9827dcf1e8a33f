"""REST: every handler against the typed models that OpenAPI shows, files piece by piece, errors with one body."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from google.protobuf.struct_pb2 import Struct
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.types import Message

from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.bridge_server import RunningBridge, running_bridge
from tests.support.scripted_service import ScriptedService, new_id
from tests.support.waiting import DEFAULT_TIMEOUT_S, eventually
from ws_bridge import rest_models as models
from ws_bridge.http_guard import CSP, MAX_BODY_BYTES
from ws_bridge.rest_files import Download

AUTH = {"Authorization": "Bearer token-alice"}
NAME = "us'age ☂.csv"
MISSING = "01900000-0000-7000-8000-00000000dead"


@pytest.fixture
async def client(bridge: RunningBridge) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=bridge.url, headers=AUTH) as made:
        yield made


def shaped(model: type[BaseModel], response: httpx.Response, status: int = 200) -> dict[str, Any]:
    """The body, if it has exactly the fields of the model."""
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    assert model.model_validate(body).model_dump() == body
    return body


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    payload: dict[str, Any] = shaped(models.Error, response, status)["payload"]
    return payload


async def finished_run(bridge: RunningBridge, service: ScriptedService) -> str:
    async with bridge.signed_in() as socket:
        await socket.send("user_message", content="Hi")
        await socket.receive_until("agent_completed")
    return service.only_run().run_id


async def test_threads(client: httpx.AsyncClient) -> None:
    made = shaped(models.Thread, await client.post("/api/v1/threads", json={"title": "Costs"}), 201)
    path = f"/api/v1/threads/{made['thread_id']}"

    assert made["title"] == "Costs"
    assert made["create_time"] == "2026-11-21T08:30:00.123456Z"
    assert shaped(models.Thread, await client.get(path)) == made
    page = shaped(models.ThreadPage, await client.get("/api/v1/threads", params={"query": "Co", "page_size": 200}))
    assert page == {"threads": [made], "next_page_token": ""}
    assert shaped(models.Thread, await client.patch(path, json={"title": "Savings"}))["title"] == "Savings"
    assert shaped(models.MessagePage, await client.get(f"{path}/messages"))["messages"][0]["role"] == "user"
    deleted = await client.delete(path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert error_of(await client.get(path), 404)["code"] == "NOT_FOUND"


async def test_a_thread_without_a_body(client: httpx.AsyncClient) -> None:
    assert shaped(models.Thread, await client.post("/api/v1/threads"), 201)["title"] == ""


async def test_the_query_reaches_the_service(client: httpx.AsyncClient, service: ScriptedService) -> None:
    await client.get("/api/v1/threads", params={"query": "x", "page_size": 7, "page_token": "t"})
    await client.get("/api/v1/runs", params={"thread_id": MISSING, "statuses": ["queued", "failed"]})

    assert [request for _, request in service.calls] == [
        pb.ListThreadsRequest(query="x", page_size=7, page_token="t"),
        pb.ListRunsRequest(thread_id=MISSING, statuses=[pb.RUN_STATUS_QUEUED, pb.RUN_STATUS_FAILED]),
    ]


async def test_decisions(client: httpx.AsyncClient, bridge: RunningBridge, service: ScriptedService) -> None:
    run_id = await finished_run(bridge, service)
    path = f"/api/v1/runs/{run_id}/approvals/{MISSING}"

    for body, decision in (
        ({"decision": "approve"}, "approved"),
        ({"decision": "reject", "comment": "Too dear."}, "rejected"),
        ({"decision": "edit", "edited_args": {"limit_usd": 50}}, "edited"),
    ):
        assert shaped(models.ApprovalResolution, await client.post(path, json=body)) == {"decision": decision}

    made = [request for name, request in service.calls if name == "ResolveApproval"]
    edited = Struct()
    edited["limit_usd"] = 50
    assert made == [
        pb.ResolveApprovalRequest(run_id=run_id, approval_id=MISSING, decision=pb.APPROVAL_CHOICE_APPROVE),
        pb.ResolveApprovalRequest(
            run_id=run_id, approval_id=MISSING, decision=pb.APPROVAL_CHOICE_REJECT, comment="Too dear."
        ),
        pb.ResolveApprovalRequest(
            run_id=run_id, approval_id=MISSING, decision=pb.APPROVAL_CHOICE_EDIT, edited_args=edited
        ),
    ]
    assert error_of(await client.post(path, json={"decision": "perhaps"}), 400)["code"] == "INVALID_ARGUMENT"
    huge = '{"decision": "edit", "edited_args": {"text": "\\ud800"}}'
    refused = await client.post(path, content=huge, headers={"Content-Type": "application/json"})
    assert error_of(refused, 400)["violations"][0]["field"] == "edited_args"


async def test_runs(client: httpx.AsyncClient, bridge: RunningBridge, service: ScriptedService) -> None:
    run_id = await finished_run(bridge, service)

    run = shaped(models.Run, await client.get(f"/api/v1/runs/{run_id}"))
    assert (run["status"], run["last_seq"], run["error_reason"], run["end_time"]) == (
        "completed",
        5,
        "UNSPECIFIED",
        None,
    )
    assert shaped(models.RunPage, await client.get("/api/v1/runs"))["runs"] == [run]
    assert shaped(models.Run, await client.post(f"/api/v1/runs/{run_id}/cancel", json={"reason": "enough"})) == run
    assert shaped(models.Run, await client.post(f"/api/v1/runs/{run_id}/cancel")) == run
    assert error_of(await client.get(f"/api/v1/runs/{MISSING}"), 404)["code"] == "NOT_FOUND"


async def test_a_runs_events_are_the_frames_of_the_socket(
    client: httpx.AsyncClient, bridge: RunningBridge, service: ScriptedService
) -> None:
    async with bridge.signed_in() as socket:
        await socket.send("user_message", content="Hi")
        frames = (await socket.receive_until("agent_completed"))[1:]
    path = f"/api/v1/runs/{service.only_run().run_id}/events"

    assert shaped(models.RunEvents, await client.get(path)) == {"events": frames, "last_seq": 5}
    assert (await client.get(path, params={"after_seq": 2})).json()["events"] == frames[2:]
    assert (await client.get(path, params={"after_seq": 1, "limit": 2})).json()["events"] == frames[1:3]
    assert (await client.get(path, params={"after_seq": 5})).json()["events"] == []
    assert error_of(await client.get(path, params={"after_seq": 6}), 400)["code"] == "CURSOR_AHEAD"
    assert error_of(await client.get(path, params={"limit": 0}), 400)["violations"][0]["field"] == "limit"


async def test_the_events_of_a_living_run_are_those_so_far(
    client: httpx.AsyncClient, bridge: RunningBridge, service: ScriptedService
) -> None:
    service.script = []
    async with bridge.signed_in() as socket:
        await socket.send("user_message", content="Hi")
        await socket.receive_until("agent_started")
    events = (await client.get(f"/api/v1/runs/{service.only_run().run_id}/events")).json()
    assert ([event["seq"] for event in events["events"]], events["last_seq"]) == ([1], 1)


async def test_the_catalogue(client: httpx.AsyncClient) -> None:
    catalogue = shaped(models.Catalogue, await client.get("/api/v1/agents"))
    assert catalogue["tools"][0]["effect"] == "read_only"


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 1_000_001])
async def test_a_file_goes_up_and_comes_down(client: httpx.AsyncClient, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    content = content[:size]
    upload = {"file": (NAME, content, "text/csv")}
    made = shaped(models.File, await client.post("/api/v1/files", files=upload, data={"note": "x"}), 201)

    assert (made["name"], made["media_type"], made["size_bytes"]) == (NAME, "text/csv", size)
    assert made["sha256"] == hashlib.sha256(content).hexdigest()
    path = f"/api/v1/files/{made['file_id']}"
    assert shaped(models.File, await client.get(path)) == made
    assert shaped(models.FilePage, await client.get("/api/v1/files"))["files"] == [made]
    download = await client.get(f"{path}/content")
    assert download.content == content
    assert download.headers["content-disposition"] == "attachment; filename*=UTF-8''us%27age%20%E2%98%82.csv"
    assert download.headers["x-content-type-options"] == "nosniff"
    assert download.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert (await client.delete(path)).status_code == 204
    assert error_of(await client.get(f"{path}/content"), 404)["code"] == "NOT_FOUND"


async def test_a_folder_is_no_part_of_a_name(client: httpx.AsyncClient) -> None:
    for name in ("../../etc/passwd", "C:\\Users\\me\\passwd"):
        response = await client.post("/api/v1/files", files={"file": (name, b"x")})
        assert response.json()["name"] == "passwd"


@pytest.mark.parametrize("declared", [True, False])
async def test_a_file_over_the_limit_leaves_nothing(service: ScriptedService, *, declared: bool) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        for _ in range(180):
            yield b"x" * 1000
        yield b"\r\n--b--\r\n"

    headers = {**AUTH, "Content-Type": "multipart/form-data; boundary=b"}
    if declared:
        headers["Content-Length"] = str(sum([len(piece) async for piece in body()]))
    async with (
        running_bridge(service.target, max_upload_bytes=100_000) as bridge,
        httpx.AsyncClient(base_url=bridge.url, headers=headers) as client,
    ):
        response = await client.post("/api/v1/files", content=body())
    assert error_of(response, 413)["code"] == "MESSAGE_TOO_LARGE"
    assert not service.files


async def test_exactly_the_limit_is_permitted(service: ScriptedService) -> None:
    async with (
        running_bridge(service.target, max_upload_bytes=1000) as bridge,
        httpx.AsyncClient(base_url=bridge.url, headers=AUTH) as client,
    ):
        assert (await client.post("/api/v1/files", files={"file": ("a", b"x" * 1000)})).status_code == 201
        assert (await client.post("/api/v1/files", files={"file": ("a", b"x" * 1001)})).status_code == 413


BROKEN_UPLOADS = [
    ("application/json", b"{}"),
    ("multipart/form-data", b""),
    ("multipart/form-data; boundary=b", b""),
    ("multipart/form-data; boundary=b", b"garbage"),
    (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n',
    ),
    ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nhalf'),
    ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b'),
    ("multipart/form-data; boundary=b", b"--b\r\nX: " + b"y" * 9000 + b"\r\n\r\nx\r\n--b--\r\n"),
]


async def test_a_broken_upload_leaves_nothing(client: httpx.AsyncClient, service: ScriptedService) -> None:
    for content_type, body in BROKEN_UPLOADS:
        response = await client.post("/api/v1/files", content=body, headers={"Content-Type": content_type})

        assert error_of(response, 400)["violations"][0]["field"] == "file", body
    assert not service.files


async def test_a_refusal_in_the_middle_of_an_upload_is_the_services_own(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/v1/files", files={"file": ("virus.exe", b"x" * 3_000_000)})
    assert error_of(response, 415)["code"] == "UNSUPPORTED_FILE"


async def test_what_is_wrong_with_an_upload_is_told_of_the_form(client: httpx.AsyncClient) -> None:
    error = error_of(await client.post("/api/v1/files", files={"file": ("x" * 256, b"x")}), 400)
    assert error["violations"] == [{"field": "file", "description": "must be at most 255 characters"}]
    assert error["error_id"] == "scripted-error"


@pytest.mark.parametrize("media_type", ["text/csv", "text/plain;charset=latin-1", "application/json"])
async def test_a_download_has_the_stored_type_as_it_is(
    client: httpx.AsyncClient, service: ScriptedService, media_type: str
) -> None:
    made = (await client.post("/api/v1/files", files={"file": ("a", b"x", "text/csv")})).json()
    service.files[made["file_id"]].file.media_type = media_type
    download = await client.get(f"/api/v1/files/{made['file_id']}/content")
    assert download.headers.get_list("content-type") == [media_type]


async def test_a_download_that_nobody_waits_for_ends_its_call() -> None:
    async def gone(message: Message) -> None:
        raise OSError(f"the client has gone away before {message['type']}")

    async def never() -> Message:
        raise AssertionError("nothing is read")

    async def parts() -> AsyncIterator[pb.DownloadFileResponse]:
        yield pb.DownloadFileResponse(chunk=b"x")

    ended: list[bool] = []
    response = Download(pb.File(name="a"), parts(), lambda: ended.append(True))
    with pytest.raises(ClientDisconnect):
        await response({"type": "http", "asgi": {"spec_version": "2.4"}}, never, gone)
    assert ended == [True]


async def test_head_is_get_without_a_body(client: httpx.AsyncClient) -> None:
    for path in ("/", "/healthz", "/readyz"):
        got, head = await client.get(path), await client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-length"] == got.headers["content-length"], path
        assert head.headers["content-type"] == got.headers["content-type"], path


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic eA=="}])
async def test_without_a_token(bridge: RunningBridge, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=bridge.url, headers=headers) as client:
        response = await client.get("/api/v1/threads")
        error = error_of(response, 401)
        assert (error["code"], response.headers["www-authenticate"]) == ("UNAUTHENTICATED", "Bearer")
        assert error["error_id"] != "scripted-error", "the service was asked"


async def test_every_route_refuses_who_brings_no_token(bridge: RunningBridge) -> None:
    async with httpx.AsyncClient(base_url=bridge.url) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
        routes = [(path, method) for path, methods in paths.items() for method in methods if path != "/auth/dev-token"]
        assert len(routes) > 12
        for path, method in routes:
            response = await client.request(method, re.sub(r"\{\w+\}", MISSING, path))
            assert response.status_code == 401, (method, path)


async def test_a_bad_token_is_the_services_to_refuse(bridge: RunningBridge) -> None:
    async with httpx.AsyncClient(base_url=bridge.url, headers={"Authorization": "Bearer bad"}) as client:
        error = error_of(await client.get("/api/v1/threads"), 401)
    assert (error["code"], error["error_id"]) == ("UNAUTHENTICATED", "scripted-error")


async def test_a_limit_says_when_to_come_back(bridge: RunningBridge) -> None:
    async with httpx.AsyncClient(base_url=bridge.url, headers={"Authorization": "Bearer token-limited"}) as client:
        response = await client.get("/api/v1/runs")
    error = error_of(response, 429)
    assert (error["code"], error["retryable"], error["retry_after_ms"]) == ("RATE_LIMITED", True, 1200)
    assert response.headers["retry-after"] == "2"


async def test_violations_have_the_services_paths(client: httpx.AsyncClient) -> None:
    thread = (await client.post("/api/v1/threads")).json()
    error = error_of(await client.patch(f"/api/v1/threads/{thread['thread_id']}", json={"title": " "}), 400)
    assert error["violations"] == [{"field": "title", "description": "must not be blank"}]


async def test_a_body_of_the_wrong_form(client: httpx.AsyncClient) -> None:
    error = error_of(await client.patch(f"/api/v1/threads/{new_id()}", json={"title": 5}), 400)
    assert error["violations"][0]["field"] == "title"
    error = error_of(await client.patch(f"/api/v1/threads/{new_id()}", json=["x"]), 400)
    assert (error["code"], error["violations"]) == ("INVALID_ARGUMENT", [])
    assert "JSON object" in error["message"]


@pytest.mark.parametrize("body", [b"{", b"{'title': 1}", b'{"title": "\xff"}', b'{"title": "\\ud800"}', b"[" * 60_000])
async def test_a_body_that_is_no_json(client: httpx.AsyncClient, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    error = error_of(await client.patch(f"/api/v1/threads/{new_id()}", content=body, headers=headers), 400)
    assert (error["code"], error["violations"]) == ("MALFORMED_JSON", [])


@pytest.mark.parametrize("page_size", [-1, 201, 2**40, -(2**40)])
async def test_limits_of_the_contract_are_the_services_to_keep(
    client: httpx.AsyncClient, service: ScriptedService, page_size: int
) -> None:
    query: dict[str, str | int] = {"page_size": page_size, "page_token": "t" * 513, "query": "q" * 201}
    await client.get("/api/v1/threads", params=query)
    ((_, request),) = service.calls
    assert isinstance(request, pb.ListThreadsRequest)
    assert request.page_size == max(min(page_size, 2**31 - 1), -(2**31))
    assert (len(request.page_token), len(request.query)) == (513, 201)


async def test_limits_of_rest_itself_read_like_the_contracts(client: httpx.AsyncClient) -> None:
    path = f"/api/v1/runs/{MISSING}/events"
    least = "must be greater than or equal to 1"
    for request, expected in [
        (client.get(path, params={"limit": 0}), ("limit", least)),
        (client.get(path, params={"after_seq": 2**32}), ("after_seq", "must be less than or equal to 4294967295")),
        (client.get(path, params={"after_seq": "x"}), ("after_seq", "must be a valid integer")),
        (
            client.post("/auth/dev-token", json={"expires_in_s": 0}),
            ("expires_in_s", least),
        ),
        (client.post("/auth/dev-token", json={"user_id": 5}), ("user_id", "must be a valid string")),
    ]:
        (violation,) = error_of(await request, 400)["violations"]
        assert (violation["field"], violation["description"]) == expected
    error = error_of(await client.get("/api/v1/runs", params={"statuses": ["queued", "lost"]}), 400)
    assert error["violations"][0]["field"] == "statuses[1]"
    assert error["violations"][0]["description"].startswith("must be 'queued', ")


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_is_bounded_before_anybody_signs_in(bridge: RunningBridge, *, declared: bool) -> None:
    async def pieces(size: int) -> AsyncIterator[bytes]:
        yield b"{}"
        yield b" " * (size - 2)

    def body(size: int) -> dict[str, Any]:
        return {"content": b"{}".ljust(size)} if declared else {"content": pieces(size)}

    json_type = {"Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=bridge.url, headers=json_type) as client:
        fits = await client.post("/auth/dev-token", **body(MAX_BODY_BYTES))
        refused = await client.post("/auth/dev-token", **body(MAX_BODY_BYTES + 1))

    assert fits.status_code == 200
    assert error_of(refused, 413 if declared else 400)["code"] == (
        "MESSAGE_TOO_LARGE" if declared else "INVALID_ARGUMENT"
    )


async def test_paths_and_methods_that_do_not_exist(client: httpx.AsyncClient) -> None:
    assert error_of(await client.get("/api/v1/nothing"), 404)["code"] == "NOT_FOUND"
    assert error_of(await client.get("/static/nothing.js"), 404)["code"] == "NOT_FOUND"
    assert error_of(await client.put("/api/v1/threads"), 405)["code"] == "INVALID_ARGUMENT"


async def test_while_the_service_is_away(
    client: httpx.AsyncClient, bridge: RunningBridge, service: ScriptedService
) -> None:
    await service.stop()
    await eventually(lambda: not bridge.bridge.ready, what="the bridge has noticed")
    error = error_of(await client.get("/api/v1/threads"), 503)
    assert (error["code"], error["retryable"]) == ("SERVICE_UNAVAILABLE", True)
    await service.start()


async def test_a_development_token(bridge: RunningBridge, service: ScriptedService) -> None:
    async with httpx.AsyncClient(base_url=bridge.url) as client:
        made = shaped(
            models.DevToken, await client.post("/auth/dev-token", json={"user_id": "zoe", "expires_in_s": 60})
        )
        assert (made["token"], made["user_id"]) == ("token-zoe", "zoe")
        assert shaped(models.DevToken, await client.post("/auth/dev-token"))["user_id"] == "dev"
    assert service.calls[0][1] == pb.CreateDevTokenRequest(user_id="zoe", expires_in_ms=60_000)


async def test_there_is_none_in_production(service: ScriptedService) -> None:
    async with (
        running_bridge(service.target, environment="production") as bridge,
        httpx.AsyncClient(base_url=bridge.url) as client,
    ):
        assert (await client.post("/auth/dev-token")).status_code == 404
        assert (await client.get("/readyz")).status_code == 200


async def test_every_answer_has_secure_headers(client: httpx.AsyncClient) -> None:
    for path in ("/", "/docs", "/docs.css", "/openapi.json", "/healthz", "/nothing", "/api/v1/threads"):
        headers = (await client.get(path)).headers

        assert headers["content-security-policy"] == CSP, path
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer", path
        assert headers["cache-control"] == ("no-store" if path in {"/healthz", "/api/v1/threads"} else "no-cache"), path
        assert "server" not in headers, path


async def test_foreign_pages_and_names_are_refused(client: httpx.AsyncClient, bridge: RunningBridge) -> None:
    assert error_of(await client.get("/", headers={"Host": "evil.example"}), 400)["code"] == "INVALID_ARGUMENT"
    assert error_of(await client.post("/auth/dev-token", headers={"Origin": "http://evil.example"}), 403)
    assert (await client.get("/", headers={"Host": f"localhost:{bridge.port}"})).status_code == 200
    assert (await client.get("/healthz", headers={"Host": "10.0.0.7"})).status_code == 200


@pytest.mark.parametrize("hosts", [(), ("{own}", "evil.example"), ("evil.example", "{own}")], ids=len)
async def test_a_request_names_one_host(bridge: RunningBridge, hosts: tuple[str, ...]) -> None:
    lines = "".join(f"Host: {host.format(own=f'127.0.0.1:{bridge.port}')}\r\n" for host in hosts)
    reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
    writer.write(f"GET / HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode())
    async with asyncio.timeout(DEFAULT_TIMEOUT_S):
        assert (await reader.readline()).split()[1] == b"400"
    writer.close()
    await writer.wait_closed()


async def test_openapi_and_docs_name_every_route(client: httpx.AsyncClient) -> None:
    spec = (await client.get("/openapi.json")).json()
    page = (await client.get("/docs")).text

    assert len(spec["paths"]) == 13
    for path, methods in spec["paths"].items():
        assert f">{path}<" in page
        for operation in methods.values():
            assert operation["summary"]
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert spec["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    json.dumps(spec)


async def test_a_configured_origin_may_use_rest(service: ScriptedService) -> None:
    async with (
        running_bridge(service.target, allowed_origins="https://a.example") as bridge,
        httpx.AsyncClient(base_url=bridge.url, headers={**AUTH, "Origin": "https://a.example"}) as client,
    ):
        response = await client.get("/api/v1/threads")
    assert response.headers["access-control-allow-origin"] == "https://a.example"
