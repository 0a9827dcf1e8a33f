"""Takes the pictures of the README, of the product with the offline model: `python -m tests.support.pictures_main`."""

import asyncio
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, Locator, ViewportSize, async_playwright, expect

from tests.support.chat_page import ChatPage
from tests.support.deployment import ROOT, Deployment

PICTURES: Final = ROOT / "docs" / "pictures"
WINDOW: Final = ViewportSize(width=1180, height=860)
ANSWER_TIMEOUT_MS: Final = 90_000
RUNBOOK: Final = """# Runbook: Retries

A call that fails with 429 or 503 is retried twice, with exponential backoff and full jitter.
After the second failure the request goes to the fallback model.

## Timeouts

A call may take 30 seconds. After that it is cancelled and counted as failed.
"""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is asked, one message after the other; `shows` is the text that the picture begins with, if any."""

    name: str
    asked: tuple[str, ...]
    shows: str = ""
    attached: str = ""
    status: str = "completed"


ALL: Final = (
    Picture("data", ("Analyze my AI costs",)),
    Picture("database", ("Analyze my database performance",)),
    Picture("optimizations", ("Cut our spend by 30 %, keep quality",)),
    Picture("actions", ("Cut our spend by 30 %, keep quality",), shows="Plan"),
    Picture("reporting", ("Write a report for management, with charts",), shows="CHART"),
    Picture(
        "corpus", ("Create a knowledge base for our runbooks", "What do our docs say about retries?"), attached=RUNBOOK
    ),
    Picture("synthetic", ("Generate 10,000 requests that look like Black Friday",)),
    Picture("approval", ("Generate 1,000,000 requests like a game",), status="waiting_approval"),
)


async def main() -> int:
    """Take all pictures. Return the exit code."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        sys.stderr.write("Pictures need Chromium.\n")
        return 2
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"APEX_ENVIRONMENT": "development"}
        with Deployment(Path(folder), settings=settings) as apex:
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=path, args=["--headless", "--no-sandbox"])
                for picture in ALL:
                    await take(browser, apex, picture, Path(folder))
                await browser.close()
    return 0


async def take(browser: Browser, apex: Deployment, picture: Picture, folder: Path) -> None:
    """Ask, wait for the answer, and take its picture."""
    context = await browser.new_context(viewport=WINDOW, reduced_motion="reduce")
    chat = ChatPage(await context.new_page(), apex.url)
    await chat.open()
    if picture.attached:
        file = folder / "retries.md"
        file.write_text(picture.attached)
        await chat.attach(file)
    for number, text in enumerate(picture.asked):
        await chat.ask(text)
        await expect(chat.find("turn")).to_have_count(number + 1)
        await expect(chat.turn()).to_have_attribute("data-status", picture.status, timeout=ANSWER_TIMEOUT_MS)
    await beginning(chat, picture).evaluate("node => node.scrollIntoView({block: 'start'})")
    await chat.page.wait_for_load_state("networkidle")
    await chat.page.screenshot(path=PICTURES / f"{picture.name}.png")
    await context.close()
    sys.stdout.write(f"{picture.name}.png\n")


def beginning(chat: ChatPage, picture: Picture) -> Locator:
    """Return what stands at the top of the picture."""
    turn = chat.turn()
    if picture.shows == "CHART":
        return turn.locator(".outcome img").first
    if picture.shows:
        return turn.get_by_role("heading", name=picture.shows, exact=True)
    return turn if picture.status == "waiting_approval" else chat.find("answer", turn)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
