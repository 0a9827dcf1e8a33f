"""The chat page in a real browser, against scripts that stand still wherever a test wants to look."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, expect

from tests.support import scripted_runs as runs
from tests.support.chat_page import ChatPage
from tests.support.scripted_bridge import Event, Pause, ScriptedBridge, serving

ANALYSIS_STEPS = ["thought", "classified", "planned", "handoff", "tool", "tool", "handoff"]
QUESTION = "Analyze my AI costs"


def script(content: str) -> list[Event | Pause]:
    if "fail" in content:
        return runs.failure()
    if "quick" in content:
        return [item for item in runs.analysis() if isinstance(item, Event)]
    return runs.analysis()


@pytest_asyncio.fixture(loop_scope="session")
async def bridge() -> AsyncIterator[ScriptedBridge]:
    async with serving(script) as bridge:
        yield bridge


@pytest_asyncio.fixture(loop_scope="session")
async def chat(bridge: ScriptedBridge, context: BrowserContext) -> ChatPage:
    chat = ChatPage(await context.new_page(), bridge.url)
    await chat.open()
    return chat


def release_all(bridge: ScriptedBridge) -> None:
    for name in ("tool", "half", "end"):
        bridge.release(name)


async def test_an_example_becomes_an_answer_with_its_steps_and_cost(chat: ChatPage, bridge: ScriptedBridge) -> None:
    await chat.find("example").first.click()
    release_all(bridge)
    turn = await chat.expect_turn("completed")
    await expect(chat.find("empty")).to_be_hidden()
    await expect(chat.find("user-message", turn)).to_have_text(QUESTION)
    assert await chat.step_kinds() == ANALYSIS_STEPS
    await expect(chat.answer().locator("tbody tr")).to_have_count(3)
    await expect(chat.answer().get_by_role("heading")).to_have_text(["Where the money goes", "What stands out"])
    await expect(chat.find("usage", turn)).to_contain_text("6,184 tokens in, 912 out")
    await expect(chat.find("usage", turn)).to_contain_text("$0.02")
    await expect(chat.find("missing-data", turn)).to_contain_text("no duration column")
    await expect(chat.find("suggestions", turn).get_by_role("button")).to_have_count(2)
    assert chat.thread_id() == next(iter(bridge.threads))
    assert chat.problems == []  # nothing violates the content security policy either


async def test_each_step_shows_while_the_next_is_not_there_yet(chat: ChatPage, bridge: ScriptedBridge) -> None:
    await chat.ask(QUESTION)
    turn = await chat.expect_turn("running")
    tools = turn.locator('[data-kind="tool"]')
    await expect(tools.nth(0)).to_have_attribute("data-status", "success")
    await expect(tools.nth(1)).to_have_attribute("data-status", "running")
    await expect(chat.find("answer", turn)).to_be_hidden()
    await tools.nth(1).locator("summary").click()
    await expect(chat.find("tool-args", tools.nth(1))).to_contain_text("june-usage.csv")
    bridge.release("tool")
    await expect(tools.nth(1)).to_have_attribute("data-status", "success")
    await expect(chat.find("tool-result", tools.nth(1)).locator("tbody tr")).to_have_count(3)
    await expect(chat.find("tool-time", tools.nth(1))).to_have_text("1.3 s")
    await expect(chat.answer()).to_contain_text("Your workload cost $4,212.87")
    await expect(chat.answer()).to_have_attribute("aria-busy", "true")
    assert await chat.answer().locator("blockquote").count() == 0
    bridge.release("half")
    await expect(chat.answer().locator("blockquote")).to_be_visible()
    assert await turn.get_attribute("data-status") == "running"
    bridge.release("end")
    await chat.expect_turn("completed")
    await expect(chat.answer()).to_have_attribute("aria-busy", "false")


@pytest.mark.parametrize("how", ["button", "escape"])
async def test_stopping(chat: ChatPage, bridge: ScriptedBridge, how: str) -> None:
    await chat.ask(QUESTION)
    await chat.expect_turn("running")
    if how == "button":
        await chat.stop()
    else:
        await chat.page.keyboard.press("Escape")
    turn = await chat.expect_turn("cancelled")
    await expect(chat.find("stopped", turn)).to_be_visible()
    await expect(chat.find("stop")).to_be_hidden()
    assert [payload["run_id"] for payload in bridge.frames("stop_agent")] == list(bridge.runs)


async def test_a_reload_in_the_middle_of_a_run(chat: ChatPage, bridge: ScriptedBridge) -> None:
    await chat.ask(QUESTION)
    bridge.release("tool")
    await expect(chat.answer()).to_contain_text("Your workload")
    await chat.reload()
    await expect(chat.answer()).to_contain_text("Your workload")
    assert await chat.step_kinds() == ANALYSIS_STEPS
    release_all(bridge)
    await chat.expect_turn("completed")
    await expect(chat.answer().locator("tbody tr")).to_have_count(3)
    assert await chat.find("turn").count() == 1
    assert {payload["after_seq"] for payload in bridge.frames("resume")} == {0}


async def test_another_tab_that_comes_late_sees_the_whole_run(
    chat: ChatPage, bridge: ScriptedBridge, context: BrowserContext
) -> None:
    await chat.ask(QUESTION)
    await chat.expect_turn("running")
    late = ChatPage(await context.new_page(), bridge.url)
    await late.open(f"#/t/{chat.thread_id()}")
    await late.expect_turn("running")
    release_all(bridge)
    for tab in (chat, late):
        await tab.expect_turn("completed")
        assert await tab.step_kinds() == ANALYSIS_STEPS
        await expect(tab.answer().locator("tbody tr")).to_have_count(3)


async def test_a_lost_event_is_asked_for_and_every_step_shows_once(chat: ChatPage, bridge: ScriptedBridge) -> None:
    bridge.skipped.add(5)
    await chat.ask(QUESTION)
    release_all(bridge)
    await chat.expect_turn("completed")
    assert await chat.step_kinds() == ANALYSIS_STEPS
    assert [payload["after_seq"] for payload in bridge.frames("resume")] == [4]


@pytest.mark.parametrize("code", [4000, 4008, 1012])
async def test_the_line_breaks_in_the_middle_and_the_run_goes_on(
    chat: ChatPage, bridge: ScriptedBridge, code: int
) -> None:
    await chat.ask(QUESTION)
    turn = await chat.expect_turn("running")
    await expect(turn.locator('[data-kind="tool"]')).to_have_count(2)
    await bridge.drop(code)
    bridge.release("tool")
    bridge.release("half")
    await expect(chat.answer().locator("blockquote")).to_be_visible()
    await chat.expect_connection("live")
    bridge.release("end")
    await chat.expect_turn("completed")
    assert await chat.step_kinds() == ANALYSIS_STEPS
    assert len(bridge.frames("user_message")) == 1


async def test_what_is_written_without_a_line_goes_out_once_when_it_is_back(
    chat: ChatPage, bridge: ScriptedBridge
) -> None:
    await bridge.stop()
    await chat.expect_connection("reconnecting")
    await chat.ask("quick one")
    await chat.ask("quick two")
    await chat.expect_turn("waiting")
    await bridge.start()
    await chat.expect_turn("completed", 1)
    await expect(chat.threads()).to_have_text(["quick one"])
    assert [payload["content"] for payload in bridge.frames("user_message")] == ["quick one", "quick two"]
    assert len(bridge.threads) == 1


async def test_going_offline_says_so(chat: ChatPage, context: BrowserContext) -> None:
    await context.set_offline(offline=True)
    await chat.expect_connection("offline")
    await context.set_offline(offline=False)
    await chat.expect_connection("live")


async def test_files_are_uploaded_and_sent_with_the_message(
    chat: ChatPage, bridge: ScriptedBridge, tmp_path: Path
) -> None:
    log, empty = tmp_path / "usage.csv", tmp_path / "empty.csv"
    log.write_text("model,tokens\ngpt-4o,12\n")
    empty.touch()
    await chat.attach(log)
    await chat.find("file-input").set_input_files(empty)
    failed = chat.page.locator('[data-testid="attachment"][data-status="failed"]')
    await expect(failed).to_contain_text("The file is empty.")
    await chat.ask("quick look")
    await expect(chat.find("composer-problem")).to_contain_text("empty.csv was not uploaded.")
    assert bridge.frames("user_message") == []
    await failed.get_by_role("button", name="Remove empty.csv").click()
    await expect(chat.find("composer-problem")).to_be_hidden()
    await chat.find("send").click()
    turn = await chat.expect_turn("completed")
    await expect(turn.get_by_role("list", name="Attached files")).to_have_text("usage.csv")
    await expect(chat.find("attachment")).to_have_count(0)
    references = bridge.frames("user_message")[0]["references"]
    assert isinstance(references, list)
    assert len(references) == 1


async def test_a_failed_run_says_what_to_do_and_can_be_tried_again(chat: ChatPage, bridge: ScriptedBridge) -> None:
    await chat.ask("fail, please")
    turn = await chat.expect_turn("failed")
    card = chat.find("error-card", turn)
    await expect(card).to_have_attribute("data-reason", "MODEL_UNAVAILABLE")
    await expect(card).to_contain_text("Try again in a minute.")
    await chat.find("retry", card).click()
    await chat.expect_turn("failed", 1)
    sent = bridge.frames("user_message")
    assert [payload["content"] for payload in sent] == ["fail, please"] * 2
    assert len({payload["message_id"] for payload in sent}) == 2


async def test_a_refused_message_is_kept_and_sent_again_under_its_id(chat: ChatPage, bridge: ScriptedBridge) -> None:
    text = "At most 30 messages in a minute."
    bridge.refusals.append({"code": "RATE_LIMITED", "message": text, "retryable": True, "retry_after_ms": 500})
    await chat.ask("quick one")
    turn = await chat.expect_turn("refused")
    await expect(chat.find("error-card", turn)).to_contain_text(text)
    await chat.find("retry", turn).click()
    await chat.expect_turn("completed")
    assert len({payload["message_id"] for payload in bridge.frames("user_message")}) == 1


async def test_a_message_too_long_for_a_frame_stays_in_the_field(chat: ChatPage, bridge: ScriptedBridge) -> None:
    await chat.ask("ü" * 4096)
    await expect(chat.find("composer-problem")).to_contain_text("too long")
    assert len(await chat.find("composer").input_value()) == 4096
    assert bridge.frames("user_message") == []


async def test_steps_of_a_finished_run_load_when_they_are_looked_at(chat: ChatPage) -> None:
    for index, text in enumerate(("quick one", "quick two")):
        await chat.ask(text)
        await chat.expect_turn("completed", index)
    await chat.reload()
    await expect(chat.find("usage", chat.turn(1))).to_contain_text("$0.02")  # the last run's log is always read
    await expect(chat.answer(0).locator("tbody tr")).to_have_count(3)
    assert await chat.step_kinds(0) == []
    await chat.unfold_steps(0)
    await expect(chat.find("step", chat.turn(0))).to_have_count(len(ANALYSIS_STEPS))


async def test_conversations_are_listed_opened_renamed_searched_and_deleted(
    chat: ChatPage, bridge: ScriptedBridge
) -> None:
    for text in ("quick costs", "quick peaks"):
        await chat.find("new-thread").click()
        await chat.ask(text)
        await chat.expect_turn("completed")
    await expect(chat.threads()).to_have_text(["quick peaks", "quick costs"])
    await chat.open_thread("quick costs")
    await expect(chat.find("user-message")).to_have_text("quick costs")
    row = chat.thread("quick costs")
    await chat.find("thread-rename", row).click()
    await chat.find("thread-title-input").fill("June")
    await chat.find("thread-title-input").press("Enter")
    await expect(chat.page).to_have_title("June · Apex")
    await chat.find("thread-search").fill("jun")
    await expect(chat.threads()).to_have_text(["June"])
    await chat.find("thread-delete", chat.thread("June")).click()
    await chat.find("confirm").click()
    await expect(chat.find("empty")).to_be_visible()
    await chat.find("thread-search").fill("")
    await expect(chat.threads()).to_have_text(["quick peaks"])
    assert [thread["title"] for thread in bridge.threads.values()] == ["quick peaks"]


async def test_a_conversation_that_is_gone_says_so(chat: ChatPage) -> None:
    await chat.open("#/t/00000000-0000-7000-8000-000000000000")
    await expect(chat.find("thread-notice")).to_contain_text("There is no such conversation.")


async def test_enter_sends_and_shift_enter_makes_a_line(chat: ChatPage, bridge: ScriptedBridge) -> None:
    field = chat.find("composer")
    await field.press_sequentially("quick")
    await field.press("Shift+Enter")
    await field.press_sequentially("two")
    await field.press("Enter")
    await chat.expect_turn("completed")
    assert bridge.frames("user_message")[0]["content"] == "quick\ntwo"
    await expect(field).to_be_focused()
    await expect(field).to_have_value("")


async def test_an_answer_cannot_bring_its_own_code_or_pictures(chat: ChatPage, bridge: ScriptedBridge) -> None:
    hostile = (
        "<img src=x onerror=alert(1)> <script>alert(1)</script> [a](javascript:alert(1)) "
        "![b](https://example.com/b.png) [c](https://example.com/)"
    )
    bridge.script = lambda _: [*runs.partials(hostile, size=3), *runs.ending(hostile)]
    await chat.ask("hostile")
    await chat.expect_turn("completed")
    assert await chat.answer().locator("img, script").count() == 0
    links = chat.answer().get_by_role("link")
    assert await links.evaluate_all("nodes => nodes.map(node => [node.href, node.rel, node.target])") == [
        ["https://example.com/b.png", "noopener noreferrer", "_blank"],
        ["https://example.com/", "noopener noreferrer", "_blank"],
    ]
    assert chat.problems == []


async def test_a_narrow_phone_has_a_drawer_and_nothing_sticks_out(chat: ChatPage) -> None:
    await chat.page.set_viewport_size({"width": 360, "height": 740})
    await chat.ask("quick one")
    await chat.expect_turn("completed")
    await chat.unfold_steps()
    for details in await chat.find("tool-details").all():
        await details.locator("summary").click()
    assert await chat.page.evaluate("document.documentElement.scrollWidth") == 360
    assert await chat.page.evaluate("document.querySelector('#scroll').scrollWidth") == 360
    await expect(chat.find("new-thread")).to_be_hidden()
    await chat.find("menu").click()
    await expect(chat.find("new-thread")).to_be_focused()
    await chat.page.keyboard.press("Escape")
    await expect(chat.find("new-thread")).to_be_hidden()
    await expect(chat.find("menu")).to_be_focused()
