"""Chromium for the tests of this folder. They share one event loop, for a browser belongs to its own."""

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ViewportSize, async_playwright

CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LAPTOP = ViewportSize(width=1280, height=800)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_session_loop = pytest.mark.asyncio(loop_scope="session")
    for item in items:
        if item.path.parent.name == "browser" and pytest_asyncio.is_async_test(item):
            item.add_marker(on_session_loop, append=False)
            item.add_marker(pytest.mark.browser)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """A browser without a window; skips where there is no Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def context(chromium: Browser) -> AsyncIterator[BrowserContext]:
    """A fresh profile with one laptop-sized window; its pages give up after 10 s."""
    context = await chromium.new_context(viewport=LAPTOP, reduced_motion="reduce")
    context.set_default_timeout(10_000)
    yield context
    await context.close()
