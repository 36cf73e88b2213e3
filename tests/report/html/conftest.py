"""A headless Chromium for the tests of pages: what a page writes to the console, or asks of the network, fails them."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.report.html.page import write_html
from tests.report.html.pages import decoder_report

expect.set_options(timeout=30_000)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SWITCHES = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    *(("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()),
)
WIDE = (1280, 860)

Open = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; scripts/install-chromium installs the distribution's")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="session")
def written() -> list[Report]:
    """The reports of which there is a page."""
    return []


@pytest.fixture
def opened(browser: Browser, folder: Path, written: list[Report]) -> Iterator[Open]:
    """Open the page of a report. Whatever it writes to the console, or asks of the network, fails the test."""
    contexts: list[BrowserContext] = []
    troubles: list[str] = []

    def asked(route: Route) -> None:
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            troubles.append(f"asked for {route.request.url}")
            route.abort()

    def open_page(report: Report, size: tuple[int, int] = WIDE, address: str = "", **options: Any) -> Page:
        if all(each is not report for each in written):
            written.append(report)  # so that it stays, and its number with it
            write_html(report, folder / f"{id(report)}.html")
        name = folder / f"{id(report)}.html"
        width, height = size
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.route("**/*", asked)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("dialog", lambda dialog: troubles.append(f"dialog: {dialog.message}"))
        page.goto(name.as_uri() + address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not troubles


@pytest.fixture(scope="session")
def decoder() -> Report:
    return decoder_report()
