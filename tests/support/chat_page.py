"""The browser chat as a person uses it: what to click, what to read. Knows the page's test ids, and no timing."""

from collections.abc import Sequence
from pathlib import Path

from playwright.async_api import Locator, Page, expect


class ChatPage:
    """One open tab. Every method waits until the page allows it, up to Playwright's time limit."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self._url = url
        self.problems: list[str] = []  # what the console and the page's scripts complained about
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda message: self.problems.append(message.text) if message.type == "error" else None)

    async def open(self, fragment: str = "") -> None:
        """Load the page and wait until it is connected."""
        await self.page.goto(f"{self._url}/{fragment}")
        await self.expect_connection("live")

    async def reload(self) -> None:
        await self.page.reload()

    def find(self, test_id: str, within: Locator | None = None) -> Locator:
        return (within or self.page).get_by_test_id(test_id)

    # --- asking

    async def ask(self, text: str) -> None:
        await self.find("composer").fill(text)
        await self.find("composer").press("Enter")

    async def attach(self, *files: Path) -> None:
        """Choose files; returns when all of them are uploaded."""
        before = await self.find("attachment").count()
        await self.find("file-input").set_input_files(files)
        ready = self.page.locator('[data-testid="attachment"][data-status="ready"]')
        await expect(ready).to_have_count(before + len(files))

    async def stop(self) -> None:
        await self.find("stop").click()

    # --- reading

    def turn(self, index: int = -1) -> Locator:
        """A turn of the conversation, from 0; by default the last."""
        turns = self.find("turn")
        return turns.last if index == -1 else turns.nth(index)

    async def expect_turn(self, status: str, index: int = -1) -> Locator:
        """Wait until a turn has a status; return it."""
        turn = self.turn(index)
        await expect(turn).to_have_attribute("data-status", status)
        return turn

    async def expect_connection(self, phase: str) -> None:
        await expect(self.find("connection")).to_have_attribute("data-phase", phase)

    def answer(self, index: int = -1) -> Locator:
        return self.find("answer", self.turn(index))

    async def unfold_steps(self, index: int = -1) -> Locator:
        """Show the steps of a turn, whether they are folded or not; return their list."""
        turn = self.turn(index)
        toggle = self.find("steps-toggle", turn)
        if await toggle.get_attribute("aria-expanded") == "false":
            await toggle.click()
        steps = self.find("steps", turn)
        await expect(steps).to_be_visible()
        return steps

    async def step_kinds(self, index: int = -1) -> Sequence[str]:
        """The kinds of a turn's steps in order, folded or not."""
        steps = self.find("step", self.turn(index))
        kinds: Sequence[str] = await steps.evaluate_all("nodes => nodes.map(node => node.dataset.kind)")
        return kinds

    # --- conversations

    def threads(self) -> Locator:
        return self.find("thread")

    def thread(self, title: str) -> Locator:
        return self.threads().filter(has_text=title)

    async def open_thread(self, title: str) -> None:
        await self.thread(title).get_by_role("link").click()

    def thread_id(self) -> str:
        """The open thread's id as the address names it; "" in a new conversation."""
        _, _, thread_id = self.page.url.partition("#/t/")
        return thread_id
