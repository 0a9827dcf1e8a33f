"""The chat in a real browser over the real bridge and service, each a process of its own, killed in the middle.

`prompted` has a supervisor that says each event when the test lets it: its runs are surely at work when a test acts.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Locator, expect

from tests.support.bridge_server import Frame
from tests.support.chat_page import ChatPage
from tests.support.datasets import TRACE
from tests.support.deployment import Deployment
from tests.support.grammar import check_frames
from tests.support.scripted_service_main import script

QUESTION: Final = "Analyze my AI costs"
MESSAGE: Final = "Tell me all"
ALL: Final = len(script("", "")) + 1
"""What the scripted supervisor must be let say until the run ends."""

TO_TOOL: Final = 8
"""Until the tool is at work."""

TO_TEXT: Final = 15
"""Until there is half an answer."""


@pytest.fixture(scope="module")
def apex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The product as it is."""
    with Deployment(tmp_path_factory.mktemp("apex")) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The product with a supervisor that says each event when it is told to."""
    folder = tmp_path_factory.mktemp("prompted")
    with Deployment(folder, service_module="tests.support.scripted_service_main") as deployment:
        yield deployment


@pytest_asyncio.fixture(loop_scope="session")
async def chat(prompted: Deployment, context: BrowserContext, request: pytest.FixtureRequest) -> ChatPage:
    """A tab on the prompted product, of a user of this test's own."""
    return await tab(context, prompted, user_of(request))


@pytest_asyncio.fixture(loop_scope="session")
async def real_chat(apex: Deployment, context: BrowserContext, request: pytest.FixtureRequest) -> ChatPage:
    """A tab on the product as it is."""
    return await tab(context, apex, user_of(request))


@pytest.fixture
def user(request: pytest.FixtureRequest) -> str:
    return user_of(request)


def user_of(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


async def tab(context: BrowserContext, deployment: Deployment, user: str) -> ChatPage:
    """Open a tab that is signed in."""
    page = await context.new_page()
    await page.add_init_script(f"sessionStorage.setItem('apex.token', '{deployment.token(user)}')")
    chat = ChatPage(page, deployment.url)
    await chat.open()
    return chat


# ---- What the page shows, against the log ----


def shown_steps(events: Sequence[Frame]) -> list[str]:
    """Return the kinds of steps that the page shows for a log."""
    kinds: list[str] = []
    for event in events:
        payload = event["payload"]
        match event["type"]:
            case "agent_thinking":
                kinds.append("thought")
            case "agent_handoff":
                kinds.append("handoff")
            case "tool_executing":
                kinds.append("tool")
            case "approval_requested":
                kinds.append("approval")
            case "artifact_created":
                kinds.append("artifact")
            case "agent_progress" if payload["stage"] not in {"queued", "tool", "step"}:
                kinds.append(payload["stage"])
    return kinds


async def log_of(deployment: Deployment, chat: ChatPage, user: str) -> list[Frame]:
    """Return the log of the last turn's run, as REST has it."""
    run_id = await chat.turn().get_attribute("data-run-id")
    page = await asyncio.to_thread(deployment.request, "GET", f"/api/v1/runs/{run_id}/events", user)
    events: list[Frame] = page["events"]
    return events


async def expect_the_whole_log(deployment: Deployment, chat: ChatPage, user: str) -> None:
    """Nothing twice, nothing missing: the steps and the answer are those of the log, which keeps the grammar."""
    events = await log_of(deployment, chat, user)
    check_frames(events)
    assert await chat.step_kinds() == shown_steps(events)
    if events[-1]["type"] == "agent_completed" and events[-1]["payload"]["status"] == "success":
        await expect(chat.answer()).to_contain_text(plain(events[-2]["payload"]["content"]))
    assert await chat.find("user-message").count() == 1
    assert own_problems(chat) == []


def own_problems(chat: ChatPage) -> list[str]:
    """Return what scripts and policies complained about; that a line was cut is the test's own doing."""
    return [text for text in chat.problems if not text.startswith(("Failed to load resource", "WebSocket connection"))]


def plain(content: str) -> str:
    """Return the first line of Markdown as it reads."""
    return content.splitlines()[0].replace("**", "")


async def say(prompted: Deployment, message: str, times: int) -> None:
    await asyncio.to_thread(prompted.say, message, times)


def tool_of(chat: ChatPage) -> Locator:
    return chat.turn().locator('[data-kind="tool"]')


# ---- Watching ----


async def test_every_step_shows_before_the_next_is_made(prompted: Deployment, chat: ChatPage, user: str) -> None:
    message = f"{MESSAGE} ({user})"
    await chat.ask(message)
    await chat.expect_turn("queued")
    seen = 1
    for _ in range(ALL - 1):
        await say(prompted, message, 1)
        seen += 1
        await expect_cursor(prompted, chat, user, seen)
    await say(prompted, message, 1)
    await chat.expect_turn("completed")
    await expect(tool_of(chat)).to_have_attribute("data-status", "success")
    await expect(chat.answer()).to_have_text(f"You said: {message} That is all.")
    await expect_the_whole_log(prompted, chat, user)


async def expect_cursor(prompted: Deployment, chat: ChatPage, user: str, seq: int) -> None:
    """Wait until the page shows what the log has up to this event."""
    events = await log_of(prompted, chat, user)
    while len(events) < seq:
        events = await log_of(prompted, chat, user)
    await expect(chat.find("step", chat.turn())).to_have_count(len(shown_steps(events)))
    assert await chat.step_kinds() == shown_steps(events)
    if events[-1]["type"] == "partial_result":
        await expect(chat.answer()).to_contain_text(events[-1]["payload"]["text"].strip())


async def test_stopping_ends_the_run_for_good(prompted: Deployment, chat: ChatPage, user: str) -> None:
    message = f"{MESSAGE} ({user})"
    await chat.ask(message)
    await say(prompted, message, TO_TOOL)
    await expect(tool_of(chat)).to_have_attribute("data-status", "running")
    await chat.stop()
    turn = await chat.expect_turn("cancelled")
    await expect(chat.find("stopped", turn)).to_be_visible()
    await expect(tool_of(chat)).to_have_attribute("data-status", "cancelled")
    await expect_the_whole_log(prompted, chat, user)
    await chat.reload()
    await chat.expect_turn("cancelled")


async def test_two_tabs_show_the_same(prompted: Deployment, chat: ChatPage, context: BrowserContext, user: str) -> None:
    message = f"{MESSAGE} ({user})"
    await chat.ask(message)
    await say(prompted, message, TO_TOOL)
    await expect(tool_of(chat)).to_have_attribute("data-status", "running")
    other = await tab(context, prompted, user)
    await other.open_thread(message)
    await expect(tool_of(other)).to_have_attribute("data-status", "running")
    await say(prompted, message, ALL - TO_TOOL)
    for page in (chat, other):
        await page.expect_turn("completed")
        await expect_the_whole_log(prompted, page, user)


# ---- Lines that are cut ----


async def test_a_reload_in_the_middle(prompted: Deployment, chat: ChatPage, user: str) -> None:
    message = f"{MESSAGE} ({user})"
    await chat.ask(message)
    await say(prompted, message, TO_TEXT)
    await expect(chat.answer()).to_contain_text("You said")
    await chat.reload()
    await expect(chat.answer()).to_contain_text("You said")
    await chat.expect_turn("running")
    await say(prompted, message, ALL - TO_TEXT)
    await chat.expect_turn("completed")
    await expect_the_whole_log(prompted, chat, user)


async def test_the_bridge_is_killed_and_comes_back(prompted: Deployment, chat: ChatPage, user: str) -> None:
    message = f"{MESSAGE} ({user})"
    await chat.ask(message)
    await say(prompted, message, TO_TOOL)
    await expect(tool_of(chat)).to_have_attribute("data-status", "running")
    prompted.kill_bridge()
    await chat.expect_connection("reconnecting")
    await say(prompted, message, 3)  # meanwhile the run goes on
    await asyncio.to_thread(prompted.start_bridge)
    await chat.expect_connection("live")
    await expect(tool_of(chat)).to_have_attribute("data-status", "success")
    await say(prompted, message, ALL - TO_TOOL - 3)
    await chat.expect_turn("completed")
    await expect_the_whole_log(prompted, chat, user)


async def test_the_service_is_killed_and_comes_back(prompted: Deployment, chat: ChatPage, user: str) -> None:
    message = f"{MESSAGE} ({user})"
    await chat.ask(message)
    await say(prompted, message, TO_TEXT)
    await expect(chat.answer()).to_contain_text("You said")
    prompted.kill_service()
    await expect(chat.find("connection")).to_have_text("Waiting for the service")
    await expect(chat.find("banner")).to_be_visible()
    await chat.expect_connection("live")  # the line to the bridge holds
    await asyncio.to_thread(prompted.start_service)
    await expect(chat.find("connection")).to_have_text("Live")
    await expect(chat.find("banner")).to_be_hidden()
    resumed = chat.turn().locator('[data-kind="resumed"]')
    await expect(resumed).to_have_count(1)
    await say(prompted, message, ALL - TO_TEXT)
    await chat.expect_turn("completed")
    await expect_the_whole_log(prompted, chat, user)
    events = await log_of(prompted, chat, user)
    assert {event["attempt"] for event in events} == {1, 2}
    prompted.wait_until_attached()


async def test_what_is_asked_while_the_service_is_away_is_answered_once(
    apex: Deployment, real_chat: ChatPage, user: str
) -> None:
    apex.kill_service()
    await expect(real_chat.find("connection")).to_have_text("Waiting for the service")
    await real_chat.ask("Hello there")
    await asyncio.to_thread(apex.start_service)
    await real_chat.expect_turn("completed")
    await expect_the_whole_log(apex, real_chat, user)
    await expect(real_chat.threads()).to_have_count(1)


# ---- The product as it is ----


async def test_a_log_is_uploaded_and_analysed(apex: Deployment, real_chat: ChatPage, user: str) -> None:
    await real_chat.attach(TRACE)
    await real_chat.ask(f"{QUESTION}, assume gpt-4o")
    turn = await real_chat.expect_turn("completed")
    await expect(turn.get_by_role("list", name="Attached files")).to_have_text(TRACE.name)
    await expect(real_chat.answer()).to_contain_text("19,366 requests cost $96.79, priced as if all were gpt-4o")
    await expect(real_chat.find("missing-data", turn)).to_contain_text("latency")
    await expect_the_whole_log(apex, real_chat, user)
    await real_chat.unfold_steps()
    tools = tool_of(real_chat)
    assert await tools.count() == 4
    for index in range(4):
        await tools.nth(index).locator("summary").first.click()
        await expect(real_chat.find("tool-args", tools.nth(index))).to_be_visible()
        await expect(real_chat.find("tool-result", tools.nth(index))).to_be_visible()


async def test_a_suggestion_is_asked_with_two_clicks(real_chat: ChatPage) -> None:
    await real_chat.find("example").first.click()
    turn = await real_chat.expect_turn("completed", 0)
    await expect(real_chat.answer()).to_contain_text("$96.85")
    suggestion = real_chat.find("suggestions", turn).get_by_role("button").first
    text = await suggestion.inner_text()
    await suggestion.click()
    await expect(real_chat.find("composer")).to_have_value(text)
    await real_chat.find("send").click()
    await real_chat.expect_turn("completed", 1)
    await expect(real_chat.find("user-message").nth(1)).to_have_text(text)
    assert real_chat.problems == []


async def test_on_a_phone_nothing_sticks_out(real_chat: ChatPage) -> None:
    page = real_chat.page
    await page.set_viewport_size({"width": 390, "height": 844})
    await real_chat.ask(QUESTION)
    await real_chat.expect_turn("completed")
    await real_chat.unfold_steps()
    for details in await real_chat.find("tool-details").all():
        await details.locator("summary").first.click()
    for root in ("document.documentElement", "document.querySelector('#scroll')"):
        assert await page.evaluate(f"{root}.scrollWidth") == 390
    await expect(real_chat.find("composer")).to_be_in_viewport()
