"""The address of the page names what is open."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from aclcmp.orchestrator.core.report import Report
from tests.report.html.conftest import Open
from tests.report.html.pages import NASTY, nasty_report

pytestmark = pytest.mark.browser


def test_it_opens_what_it_names(opened: Open, decoder: Report) -> None:
    page = opened(decoder, address="#label=layers.3.attn.q&task=0&rank=7")
    expect(page.locator("dialog h2")).to_have_text("layers.3.attn.q")
    expect(page.locator("dialog .ranks [aria-pressed=true]")).to_contain_text("7")
    page.keyboard.press("Escape")
    page.wait_for_function("() => location.hash === ''")
    page.evaluate("location.hash = '#label=norm'")
    expect(page.locator("dialog h2")).to_have_text("norm")


def test_it_follows_what_is_opened(opened: Open, decoder: Report) -> None:
    page = opened(decoder)
    page.locator(".grid .first").click()
    page.wait_for_function("() => location.hash === '#label=layers.9.mlp.down.local&task=0&rank=5'")
    page.get_by_role("button", name="rank 4").click()
    page.wait_for_function("() => location.hash.endsWith('rank=4')")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => location.hash.endsWith('rank=5')")


def test_any_name_comes_back(opened: Open) -> None:
    page = opened(nasty_report())
    for i in range(len(NASTY)):
        page.locator(".grid tbody .name").nth(i).click()
        page.wait_for_function("() => location.hash !== ''")
        said, address = page.locator("dialog h2").text_content(), page.evaluate("location.hash")
        page.keyboard.press("Escape")
        page.wait_for_function("() => location.hash === ''")
        page.evaluate("hash => { location.hash = hash; }", address)
        expect(page.locator("dialog h2")).to_have_text(said or "")
        page.keyboard.press("Escape")
        page.wait_for_function("() => location.hash === ''")


def test_what_is_not_there_is_told(opened: Open, decoder: Report) -> None:
    page = opened(decoder, address="#label=<b>none</b>")
    expect(page.locator("#trouble")).to_have_text(
        "The address names a label that this report does not have: <b>none</b>"
    )
    page.evaluate("location.hash = '#label=norm&rank=99'")
    expect(page.locator("#trouble")).to_contain_text("a rank that this report does not have: 99")
