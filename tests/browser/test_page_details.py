"""What a first look at the page found: gone conversations, tools that were stopped, tables wider than the chat."""

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import BrowserContext, expect

from tests.support import scripted_runs as runs
from tests.support.chat_page import ChatPage
from tests.support.scripted_bridge import Event, Pause, ScriptedBridge, serving

ROW = "| claude-opus-4-20250514 | claude-sonnet-4-20250514 | 12,440 | $1,204.18 | $240.84 | $963.34 |"
WIDE = f"""| From | To | Requests | Cost now | Cost then | Saving | Note |
|---|---|---:|---:|---:|---:|---|
{ROW} larger requests have another price |
"""


def script(content: str) -> list[Event | Pause]:
    if content == "wide":
        return [*runs.partials(WIDE), *runs.ending(WIDE)]
    cancelled = {"status": "cancelled", "error": "It was stopped."}
    done = runs.done("t1", "usage_summary", "", {}, 5)
    failed = runs.done("t2", "usage_summary", "", {}, 5)
    return [
        runs.tool("t1", "usage_summary", "Reading", {}),
        Event(done.type, {**done.payload, **cancelled}),
        runs.tool("t2", "usage_summary", "Reading", {}),
        Event(failed.type, {**failed.payload, "status": "error", "error": "It broke."}),
        *runs.ending("Done."),
    ]


@pytest_asyncio.fixture(loop_scope="session")
async def bridge() -> AsyncIterator[ScriptedBridge]:
    async with serving(script) as bridge:
        yield bridge


@pytest_asyncio.fixture(loop_scope="session")
async def chat(bridge: ScriptedBridge, context: BrowserContext) -> ChatPage:
    chat = ChatPage(await context.new_page(), bridge.url)
    await chat.open()
    return chat


async def test_a_link_to_a_deleted_conversation_offers_a_new_one(chat: ChatPage) -> None:
    await chat.open("#/t/00000000-0000-7000-8000-000000000000")
    notice = chat.find("thread-notice")
    await expect(notice.get_by_role("button")).to_have_text(["New conversation"])
    await notice.get_by_role("button").click()
    await expect(chat.find("empty")).to_be_visible()
    await expect(notice).to_be_empty()
    assert chat.thread_id() == ""


async def test_a_stopped_tool_is_no_alarm_and_a_failed_one_is(chat: ChatPage) -> None:
    await chat.ask("tools")
    await chat.expect_turn("completed")
    await chat.unfold_steps()
    colours = []
    for status in ("cancelled", "error"):
        step = chat.page.locator(f'[data-kind="tool"][data-status="{status}"]')
        mark = step.locator(".tool-state")
        await expect(mark).to_be_visible()
        colours.append(await mark.evaluate("node => getComputedStyle(node).color"))
        is_alarming = status == "error"
        assert (await step.locator(".tool-result.is-error").count() == 1) is is_alarming
    danger = await chat.page.evaluate(
        """() => {
            const node = document.body.appendChild(document.createElement("i"));
            node.style.color = "var(--danger)";
            return getComputedStyle(node).color;
        }"""
    )
    assert colours[0] != danger
    assert colours[1] == danger


async def test_a_wide_table_fits_the_chat_of_a_laptop(chat: ChatPage) -> None:
    await chat.ask("wide")
    await chat.expect_turn("completed")
    table = chat.answer().locator(".table")
    await expect(table).to_contain_text("larger requests have another price")
    width, content = await table.evaluate("node => [node.clientWidth, node.scrollWidth]")
    assert content <= width
