"""What the specialists bring to the page: decisions, charts, reports, other readings of columns, earlier answers."""

import json
from collections.abc import AsyncIterator

import pytest_asyncio
from fastapi import Response
from playwright.async_api import BrowserContext, expect

from tests.support import scripted_runs as runs
from tests.support.chat_page import ChatPage
from tests.support.scripted_bridge import Event, Frame, Pause, ScriptedBridge, serving

APPROVAL: Frame = {
    "approval_id": "0199",
    "tool_name": "generate_workload",
    "tool_args": {"rows": 1000000},
    "reason": "It makes 1,000,000 rows.",
    "expire_time": "2100-01-01T12:00:00.000000Z",
}
CHART = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><rect width="40" height="20" fill="red"/></svg>'
)
REPORT = (
    b"<!doctype html><html><head><style>body{display:none}</style><script>parent.hacked=1</script></head>"
    b"<body><h1>Costs</h1><p id='text'>All is measured.</p><script>parent.hacked=1</script>"
    b"<img id='picture' src='data:image/svg+xml,%3Csvg xmlns=%22http://www.w3.org/2000/svg%22 width=%229%22 "
    b"height=%229%22/%3E'></body></html>"
)
MAPPING: Frame = {
    "dataset": {"name": "log.csv", "builtin_sample": False},
    "columns": [{"name": "when"}, {"name": "ctx"}, {"name": "out"}],
    "mapping": {"timestamp": "when", "output_tokens": "out"},
}


def artifact(file_id: str, name: str, media_type: str) -> Event:
    made: Frame = {"artifact_id": file_id, "name": name, "media_type": media_type, "size_bytes": 99, "description": ""}
    return Event("artifact_created", made, "reporting")


def ending(content: str, **more: object) -> list[Event]:
    final, completed = runs.ending(content)
    return [Event(final.type, {**final.payload, **json.loads(json.dumps(more))}), completed]


def script(content: str) -> list[Event | Pause]:
    if "report" in content:
        made = [artifact("chart", "cost.svg", "image/svg+xml"), artifact("report", "report.html", "text/html")]
        return [*made, *runs.partials("Here."), *ending("Here.", artifact_ids=["chart", "report"])]
    if "columns" in content:
        looked = [
            runs.tool("t1", "describe_dataset", "Looking", {}),
            runs.done("t1", "describe_dataset", "", MAPPING, 5),
        ]
        return [*looked, *runs.partials("Read."), *runs.ending("Read.")]
    if "again" in content:
        return [*runs.partials("Same."), *ending("Same.", source="cache")]
    resolved: Frame = {"approval_id": "0199", "decision": "edited", "decided_by": "dev", "comment": "fewer"}
    decided = Event("approval_resolved", resolved, "synthetic_data")
    asked = Event("approval_requested", APPROVAL, "synthetic_data")
    return [asked, Pause("decided"), decided, *runs.partials("Made."), *runs.ending("Made.")]


@pytest_asyncio.fixture(loop_scope="session")
async def bridge() -> AsyncIterator[ScriptedBridge]:
    async with serving(script) as bridge:
        bridge.contents["chart"] = Response(CHART, media_type="image/svg+xml")
        bridge.contents["report"] = Response(REPORT, media_type="text/html")
        yield bridge


@pytest_asyncio.fixture(loop_scope="session")
async def chat(bridge: ScriptedBridge, context: BrowserContext) -> ChatPage:
    chat = ChatPage(await context.new_page(), bridge.url)
    await chat.open()
    return chat


async def test_a_call_runs_with_the_arguments_that_a_person_changed(chat: ChatPage, bridge: ScriptedBridge) -> None:
    await chat.ask("generate a million")
    turn = await chat.expect_turn("waiting_approval")
    await expect(turn.locator(".approval")).to_contain_text("1,000,000")
    await expect(turn.locator(".approval-expiry")).to_contain_text("Without a decision it is rejected at")
    await chat.find("approval-comment", turn).fill("fewer")
    await chat.find("approval-edit", turn).click()
    editor = chat.find("approval-args", turn)
    await expect(editor).to_have_value('{\n  "rows": 1000000\n}')
    await editor.fill("[1]")
    await chat.find("approval-run-edited", turn).click()
    await expect(turn.locator(".approval-editor")).to_contain_text("write one JSON object")
    assert bridge.frames("resolve_approval") == []
    await editor.fill('{"rows": 500}')
    await chat.find("approval-run-edited", turn).click()
    await chat.expect_turn("completed")
    (frame,) = bridge.frames("resolve_approval")
    assert {name: frame[name] for name in ("decision", "comment", "edited_args", "approval_id")} == {
        "decision": "edit",
        "comment": "fewer",
        "edited_args": {"rows": 500},
        "approval_id": "0199",
    }
    await chat.unfold_steps()
    await expect(chat.find("approval-outcome", turn)).to_have_text("Edited by dev. fewer")
    await expect(chat.find("approval-approve", turn)).to_be_hidden()


async def test_a_decision_that_was_not_taken_can_be_made_again(chat: ChatPage, bridge: ScriptedBridge) -> None:
    await chat.ask("generate a million")
    turn = await chat.expect_turn("waiting_approval")
    bridge.refusals.append({"code": "RUN_CONFLICT", "message": "It was decided already.", "retryable": False})
    await chat.find("approval-approve", turn).click()
    await expect(chat.find("notice")).to_contain_text("It was decided already.")
    await expect(chat.find("approval-reject", turn)).to_be_enabled()
    await chat.find("approval-reject", turn).click()
    await chat.expect_turn("completed")
    assert [frame["decision"] for frame in bridge.frames("resolve_approval")] == ["approve", "reject"]


async def test_a_chart_is_a_picture_and_a_report_is_read_in_a_frame_without_power(chat: ChatPage) -> None:
    await chat.ask("report")
    turn = await chat.expect_turn("completed")
    picture = turn.locator(".outcome img.artifact-picture")
    await expect(picture).to_be_visible()
    assert str(await picture.get_attribute("src")).startswith("blob:")
    assert await picture.evaluate("image => image.naturalWidth") == 40
    await turn.locator(".outcome").get_by_test_id("artifact-open").click()
    frame = chat.page.frame_locator('[data-testid="report-frame"]')
    await expect(frame.locator("#text")).to_be_visible()
    assert await frame.locator("#picture").evaluate("image => image.naturalWidth") == 9
    # The style that came with the report was not used, and the one of the page was.
    assert await frame.locator("body").evaluate("body => getComputedStyle(body).maxWidth") == "820px"
    assert await chat.page.evaluate("window.hacked") is None
    assert await frame.locator("body").evaluate("() => origin") == "null"
    await chat.find("report").get_by_role("button", name="Close the report").click()
    await expect(chat.find("report")).to_have_count(0)
    # Nothing but the report's own script was complained about.
    assert ["Blocked script execution" in problem for problem in chat.problems] == [True]


async def test_another_reading_of_a_column_becomes_a_message(chat: ChatPage) -> None:
    await chat.ask("columns")
    turn = await chat.expect_turn("completed")
    mapping = chat.find("mapping", turn)
    await mapping.locator("summary").click()
    await expect(chat.find("mapping-timestamp", turn)).to_have_value("when")
    await expect(chat.find("mapping-use", turn)).to_be_disabled()
    await chat.find("mapping-input_tokens", turn).select_option("ctx")
    await chat.find("mapping-use", turn).click()
    await expect(chat.find("composer")).to_have_value('Analyze log.csv: column "ctx" is the input tokens')


async def test_an_earlier_answer_says_so_and_can_be_worked_out_anew(chat: ChatPage, bridge: ScriptedBridge) -> None:
    await chat.ask("again")
    turn = await chat.expect_turn("completed")
    await expect(chat.find("usage", turn)).to_contain_text("From an earlier answer")
    await chat.find("work-anew", turn).click()
    await expect(chat.find("turn")).to_have_count(2)
    await chat.expect_turn("completed")
    assert [frame.get("settings") for frame in bridge.frames("user_message")] == [None, {"use_cache": False}]
    assert chat.problems == []
