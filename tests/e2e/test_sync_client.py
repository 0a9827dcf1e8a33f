"""Another service calls ours: plain synchronous Python with the generated stubs, against the real process."""

import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import grpc
import pytest

from generated.apex.agent.v1 import agent_pb2 as pb
from generated.apex.agent.v1.agent_pb2_grpc import AgentServiceStub
from tests.support.deployment import SECRET, Deployment
from tests.support.scripted_service_main import script
from tests.support.service_client import TIMEOUT_S, ServiceClient, check_events, failing
from tests.support.tokens import make_token
from tests.support.waiting import wait_until

ROOT: Final = Path(__file__).parents[2]
NOBODYS: Final = "01a1fc18-206c-75fd-8b61-b07e7ac9c185"
HELLO: Final = "Hello there"
STEPS: Final = len(script("", ""))
"""What the scripted supervisor says between the beginning and the end of a run."""


@pytest.fixture(scope="module")
def apex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The service as it is; no bridge."""
    yield from serving(Deployment(tmp_path_factory.mktemp("apex")))


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The service with a supervisor that says each event when it is told to."""
    folder = tmp_path_factory.mktemp("prompted")
    yield from serving(Deployment(folder, service_module="tests.support.scripted_service_main"))


def serving(deployment: Deployment) -> Iterator[Deployment]:
    deployment.start_service()
    yield deployment
    assert deployment.service is not None
    deployment.service.terminate()


def client_of(apex: Deployment, user: str) -> ServiceClient:
    return ServiceClient(apex.grpc_target, apex.token(user))


def wait_for_status(client: ServiceClient, run_id: str, status: "pb.RunStatus.ValueType") -> None:
    wait_until(lambda: client.get(run_id).status == status, what=f"the run is {pb.RunStatus.Name(status)}")


# ---- Running and watching ----


def test_run_agent_is_an_iterator_of_the_whole_run(apex: Deployment) -> None:
    with client_of(apex, "caller") as client:
        call = client.agents.RunAgent(pb.RunAgentRequest(content=HELLO), metadata=client.metadata, timeout=TIMEOUT_S)
        metadata = dict(call.initial_metadata())
        events = list(call)
    check_events(events)
    assert metadata["apex-run-id"] == events[0].run_id
    assert metadata["apex-thread-id"] == events[0].thread_id
    assert metadata["apex-already-existed"] == "false"
    assert events[-1].agent_completed.status == pb.COMPLETION_STATUS_SUCCESS


def test_a_repeated_key_finds_its_run(apex: Deployment) -> None:
    request = pb.RunAgentRequest(content=HELLO, client_message_id=str(uuid.uuid4()))
    with client_of(apex, "repeating") as client:
        first = client.run(request)
        call = client.agents.RunAgent(request, metadata=client.metadata, timeout=TIMEOUT_S)
        assert dict(call.initial_metadata())["apex-already-existed"] == "true"
        assert list(call) == list(first)
        assert client.start(HELLO, client_message_id=request.client_message_id).already_existed
        with failing("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT):
            client.start("Something else", client_message_id=request.client_message_id)


def test_a_run_is_watched_from_every_cursor(apex: Deployment) -> None:
    with client_of(apex, "watcher") as client:
        started = client.start(HELLO)
        whole = list(client.watch(started.run_id))
        check_events(whole)
        assert whole[0].agent_started.user_message_id == started.user_message_id
        for after_seq in range(len(whole) + 1):
            assert list(client.watch(started.run_id, after_seq)) == whole[after_seq:]
        with failing("CURSOR_AHEAD", grpc.StatusCode.OUT_OF_RANGE):
            list(client.watch(started.run_id, len(whole) + 1))


def test_an_event_arrives_before_the_next_is_made(prompted: Deployment) -> None:
    message = "one by one"
    with client_of(prompted, "live") as client:
        run_id = client.start(message).run_id
        watch = client.watch(run_id)
        events = [next(watch)]
        for _ in range(STEPS):
            prompted.say(message, 1)
            events.append(next(watch))
        prompted.say(message, 1)
        events += watch
    check_events(events)


# ---- Cancelling ----


def test_a_running_run_is_asked_to_stop_and_says_when_it_has(prompted: Deployment) -> None:
    with client_of(prompted, "stopper") as client:
        run_id = client.start("stop me").run_id
        watch = client.watch(run_id)
        first = next(watch)
        wait_for_status(client, run_id, pb.RUN_STATUS_RUNNING)
        assert client.cancel(run_id=run_id, reason="Enough.").status in {
            pb.RUN_STATUS_RUNNING,
            pb.RUN_STATUS_CANCELLED,
        }
        client.cancel(run_id=run_id)
        events = [first, *watch]
        check_events(events)
        assert events[-1].agent_completed.status == pb.COMPLETION_STATUS_CANCELLED
        assert client.get(run_id).status == pb.RUN_STATUS_CANCELLED


def test_a_queued_run_ends_at_once(prompted: Deployment) -> None:
    with client_of(prompted, "impatient") as client:
        working = client.start("at work")
        waiting = client.start("in the queue", thread_id=working.thread_id)
        assert client.get(waiting.run_id).status == pb.RUN_STATUS_QUEUED
        assert client.cancel(run_id=waiting.run_id).status == pb.RUN_STATUS_CANCELLED
        events = list(client.watch(waiting.run_id))
        check_events(events)
        assert events[-1].agent_completed.status == pb.COMPLETION_STATUS_CANCELLED
        client.cancel(run_id=working.run_id)


def test_a_finished_run_answers_with_its_state(apex: Deployment) -> None:
    with client_of(apex, "late") as client:
        events = client.run(pb.RunAgentRequest(content=HELLO))
        run = client.cancel(run_id=events[0].run_id)
        assert (run.status, run.last_seq) == (pb.RUN_STATUS_COMPLETED, len(events))
        assert list(client.watch(run.run_id)) == list(events)


def test_a_run_is_cancelled_by_the_callers_own_key(prompted: Deployment) -> None:
    key = str(uuid.uuid4())
    with client_of(prompted, "keyed") as client:
        run_id = client.start("by key", client_message_id=key).run_id
        assert client.cancel(client_message_id=key).run_id == run_id
        wait_for_status(client, run_id, pb.RUN_STATUS_CANCELLED)


@pytest.mark.parametrize("name", ["run_id", "client_message_id"])
def test_what_is_unknown_or_somebody_elses_cannot_be_cancelled(prompted: Deployment, name: str) -> None:
    key = str(uuid.uuid4())
    with client_of(prompted, "owner") as client, client_of(prompted, "thief") as thief:
        run_id = client.start(f"mine ({name})", client_message_id=key).run_id
        for theirs in (NOBODYS, run_id if name == "run_id" else key):
            with failing("NOT_FOUND", grpc.StatusCode.NOT_FOUND):
                thief.cancel(**{name: theirs})
        with failing("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT) as failure:
            thief.cancel(**{name: "not an id"})
        assert failure.violations == [name]
        client.cancel(run_id=run_id)


# ---- A caller that goes away ----


def leave_by_cancelling(client: ServiceClient, request: pb.RunAgentRequest) -> str:
    call = client.agents.RunAgent(request, metadata=client.metadata)
    run_id = next(call).run_id
    call.cancel()
    return str(run_id)


def leave_by_deadline(client: ServiceClient, request: pb.RunAgentRequest) -> str:
    call = client.agents.RunAgent(request, metadata=client.metadata, timeout=1.0)
    run_id = next(call).run_id
    with pytest.raises(grpc.RpcError):
        next(call)
    assert call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    return str(run_id)


LEAVING: Final = [leave_by_cancelling, leave_by_deadline]


@pytest.mark.parametrize("leave", LEAVING)
def test_a_run_ends_with_its_caller_if_the_caller_wants_so(
    prompted: Deployment, leave: Callable[[ServiceClient, pb.RunAgentRequest], str]
) -> None:
    message = f"cancel me: {leave.__name__}"
    with client_of(prompted, "leaving") as client:
        run_id = leave(client, pb.RunAgentRequest(content=message, on_disconnect=pb.ON_DISCONNECT_CANCEL))
        wait_for_status(client, run_id, pb.RUN_STATUS_CANCELLED)
        check_events(client.watch(run_id))


@pytest.mark.parametrize("leave", LEAVING)
def test_a_run_goes_on_without_its_caller_otherwise(
    prompted: Deployment, leave: Callable[[ServiceClient, pb.RunAgentRequest], str]
) -> None:
    message = f"keep on: {leave.__name__}"
    with client_of(prompted, "leaving") as client:
        run_id = leave(client, pb.RunAgentRequest(content=message))
        prompted.say(message, STEPS + 1)
        events = list(client.watch(run_id))
        check_events(events)
        assert events[-1].agent_completed.status == pb.COMPLETION_STATUS_SUCCESS


def test_start_run_has_no_stream_to_break_off(apex: Deployment) -> None:
    run = pb.RunAgentRequest(content=HELLO, on_disconnect=pb.ON_DISCONNECT_CANCEL)
    with client_of(apex, "odd") as client, failing("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT) as failure:
        client.agents.StartRun(pb.StartRunRequest(run=run), metadata=client.metadata)
    assert "on_disconnect" in failure.message


# ---- Tokens ----


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("nonsense", "UNAUTHENTICATED"),
        (make_token("ann", secret="another secret, also with more than 32 bytes"), "UNAUTHENTICATED"),
        (make_token("ann", secret=SECRET, lifetime_s=-1), "TOKEN_EXPIRED"),
    ],
)
def test_a_token_that_does_not_hold_is_refused(apex: Deployment, token: str, reason: str) -> None:
    with ServiceClient(apex.grpc_target, token) as client:
        with failing(reason, grpc.StatusCode.UNAUTHENTICATED):
            client.start(HELLO)
        with failing(reason, grpc.StatusCode.UNAUTHENTICATED):
            list(client.watch(NOBODYS))


def test_a_call_without_a_token_is_refused(apex: Deployment) -> None:
    with grpc.insecure_channel(apex.grpc_target) as channel:
        with failing("UNAUTHENTICATED", grpc.StatusCode.UNAUTHENTICATED) as failure:
            AgentServiceStub(channel).ListRuns(pb.ListRunsRequest())
        assert "authorization: Bearer" in failure.message


def test_a_token_that_expires_ends_the_stream_with_the_last_seq(prompted: Deployment) -> None:
    message = "outlives its token"
    token = make_token("brief", secret=SECRET, lifetime_s=2.0)
    seen: list[pb.AgentEvent] = []
    with ServiceClient(prompted.grpc_target, token) as client:
        run_id = client.start(message).run_id
        prompted.say(message, 3)
        with failing("TOKEN_EXPIRED", grpc.StatusCode.UNAUTHENTICATED) as failure:
            for event in client.watch(run_id, 1):
                seen.append(event)  # noqa: PERF402 - what came before the error counts
    with client_of(prompted, "brief") as client:
        prompted.say(message, STEPS - 3 + 1)
        rest = list(client.watch(run_id, int(failure.metadata["last_seq"])))
        whole = list(client.watch(run_id))
    assert failure.metadata["last_seq"] == "4"
    assert whole[4:] == rest
    assert whole[1:4] == seen


# ---- Lists ----


def test_threads_come_in_pages(apex: Deployment) -> None:
    with client_of(apex, "lister") as client:
        for number in range(5):
            client.threads.CreateThread(pb.CreateThreadRequest(title=f"thread {number}"), metadata=client.metadata)
        titles: list[list[str]] = []
        token = ""
        while token or not titles:
            request = pb.ListThreadsRequest(page_size=2, page_token=token)
            page = client.threads.ListThreads(request, metadata=client.metadata)
            titles.append([thread.title for thread in page.threads])
            token = page.next_page_token
        assert titles == [["thread 4", "thread 3"], ["thread 2", "thread 1"], ["thread 0"]]
        found = client.threads.ListThreads(pb.ListThreadsRequest(query="READ 3"), metadata=client.metadata)
        assert [thread.title for thread in found.threads] == ["thread 3"]
        for request, field in (
            (pb.ListThreadsRequest(page_size=201), "page_size"),
            (pb.ListThreadsRequest(page_token="made up"), "page_token"),
        ):
            with failing("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT) as failure:
                client.threads.ListThreads(request, metadata=client.metadata)
            assert failure.violations == [field]
    with client_of(apex, "stranger") as stranger:
        assert not stranger.threads.ListThreads(pb.ListThreadsRequest(), metadata=stranger.metadata).threads


def test_runs_and_messages_of_a_thread_are_listed_in_order(apex: Deployment) -> None:
    with client_of(apex, "keeper") as client:
        first = client.run(pb.RunAgentRequest(content=HELLO))
        thread_id = first[0].thread_id
        second = client.run(pb.RunAgentRequest(content="Hello again", thread_id=thread_id))
        client.run(pb.RunAgentRequest(content="Elsewhere"))
        runs = client.agents.ListRuns(pb.ListRunsRequest(thread_id=thread_id), metadata=client.metadata).runs
        assert [run.run_id for run in runs] == [second[0].run_id, first[0].run_id]
        assert {run.status for run in runs} == {pb.RUN_STATUS_COMPLETED}
        nothing = pb.ListRunsRequest(thread_id=thread_id, statuses=[pb.RUN_STATUS_FAILED])
        assert not client.agents.ListRuns(nothing, metadata=client.metadata).runs
        request = pb.ListMessagesRequest(thread_id=thread_id)
        messages = client.threads.ListMessages(request, metadata=client.metadata).messages
        expected = [
            (pb.MESSAGE_ROLE_USER, HELLO),
            (pb.MESSAGE_ROLE_ASSISTANT, first[-2].final_response.content),
            (pb.MESSAGE_ROLE_USER, "Hello again"),
            (pb.MESSAGE_ROLE_ASSISTANT, second[-2].final_response.content),
        ]
        assert [(message.role, message.content) for message in messages] == expected


def test_a_thread_is_renamed_and_deleted_with_all_that_is_in_it(apex: Deployment) -> None:
    with client_of(apex, "tidy") as client:
        events = client.run(pb.RunAgentRequest(content=HELLO))
        thread_id, run_id = events[0].thread_id, events[0].run_id
        update = pb.UpdateThreadRequest(thread_id=thread_id, title="June")
        assert client.threads.UpdateThread(update, metadata=client.metadata).thread.title == "June"
        client.threads.DeleteThread(pb.DeleteThreadRequest(thread_id=thread_id), metadata=client.metadata)
        with failing("NOT_FOUND", grpc.StatusCode.NOT_FOUND):
            client.threads.GetThread(pb.GetThreadRequest(thread_id=thread_id), metadata=client.metadata)
        with failing("NOT_FOUND", grpc.StatusCode.NOT_FOUND):
            client.get(run_id)
        with failing("NOT_FOUND", grpc.StatusCode.NOT_FOUND):
            list(client.watch(run_id))


def test_files_are_listed_read_and_deleted(apex: Deployment) -> None:
    content = b"model,tokens\ngpt-4o,12\n"
    with client_of(apex, "filer") as client, client_of(apex, "thief") as thief:
        file = client.upload("usage.csv", content)
        assert (file.name, file.media_type, file.size_bytes) == ("usage.csv", "text/csv", len(content))
        assert list(client.list_files()) == [file]
        request = pb.GetFileRequest(file_id=file.file_id)
        assert client.files.GetFile(request, metadata=client.metadata).file == file
        assert not thief.list_files()
        with failing("NOT_FOUND", grpc.StatusCode.NOT_FOUND):
            thief.files.DeleteFile(pb.DeleteFileRequest(file_id=file.file_id), metadata=thief.metadata)
        client.files.DeleteFile(pb.DeleteFileRequest(file_id=file.file_id), metadata=client.metadata)
        assert not client.list_files()
        with failing("NOT_FOUND", grpc.StatusCode.NOT_FOUND):
            client.files.GetFile(request, metadata=client.metadata)


def test_the_catalogue_names_agents_and_their_tools(apex: Deployment) -> None:
    with client_of(apex, "curious") as client:
        catalogue = client.agents.ListAgents(pb.ListAgentsRequest(), metadata=client.metadata)
    tools = {tool.name for tool in catalogue.tools}
    assert {"list_datasets", "describe_dataset", "usage_summary", "cost_breakdown", "query_dataset"} <= tools
    for agent in catalogue.agents:
        assert set(agent.tool_names) <= tools


# ---- The README ----


def test_the_example_of_the_readme_works(apex: Deployment) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (example,) = [block for block in blocks if "RunAgent" in block]
    assert "127.0.0.1:50051" in example
    code = example.replace("127.0.0.1:50051", apex.grpc_target)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [int(seq) for seq, _ in lines] == list(range(1, len(lines) + 1))
    kinds = [kind for _, kind in lines]
    assert (kinds[0], kinds[-2], kinds[-1]) == ("agent_started", "final_response", "agent_completed")
    assert kinds.count("tool_executing") == kinds.count("tool_completed") == 4
