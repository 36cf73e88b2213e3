"""The page for all: axe-core finds nothing, targets are large enough, words are explained, it prints without cuts."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.verdicts import Status
from tests.report.html.conftest import Open
from tests.report.html.pages import nasty_report
from tests.report.made_up import decoder_labels, label, record_of, report_of, verdict

pytestmark = pytest.mark.browser
_TARGETS = """() => [...document.querySelectorAll("button, select, input, summary, a, [tabindex='0']")]
  .filter((one) => one.checkVisibility() && !one.closest(".grid, svg"))
  .map((one) => [one.outerHTML.slice(0, 90), one.getBoundingClientRect()])
  .filter(([, box]) => box.height < 24 || box.width < 24).map(([html, box]) => `${html} ${box.width}x${box.height}`)"""


def findings(page: Page) -> list[Any]:
    """What axe-core finds: rule, and the places."""
    pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
    script = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(f"{script}; 0")
    found = page.evaluate("axe.run().then((result) => result.violations)")
    return [(each["id"], [node["html"][:120] for node in each["nodes"]][:5]) for each in found]


def incomplete() -> Report:
    labels = [*decoder_labels(2, 3), label("late", [verdict(0), verdict(1, Status.MISSING), verdict(2, Status.DRIFT)])]
    return report_of(labels, run=record_of(5), silent=(3, 4))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(opened: Open, decoder: Report, scheme: str) -> None:
    for report in (decoder, report_of(decoder_labels(2, 2)), incomplete(), nasty_report(), report_of([])):
        page = opened(report, color_scheme=scheme)
        expect(page.locator("h1")).to_be_visible()
        for fold in page.locator("summary").all():
            fold.click()
        found = findings(page)
        assert not found, found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_a_label(opened: Open, decoder: Report, scheme: str) -> None:
    page = opened(decoder, address="#label=layers.9.mlp.down.local&rank=5", color_scheme=scheme)
    expect(page.locator("dialog .chart .picture")).to_have_count(3)
    page.locator("dialog summary").click()
    found = findings(page)
    assert not found, found


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
def test_targets_are_at_least_24_pixels_large(opened: Open, decoder: Report, size: tuple[int, int]) -> None:
    page = opened(decoder, size)
    expect(page.locator("#found")).to_have_text("219 rows")
    assert page.evaluate(_TARGETS) == []
    page.locator("#opener").click()
    expect(page.locator("dialog .chart .picture")).to_have_count(3)
    assert page.evaluate(_TARGETS) == []


def test_words_are_explained(opened: Open, decoder: Report) -> None:
    page = opened(decoder)
    tip = page.locator("#tip")
    page.locator(".chip", has_text="× the limit").focus()
    expect(tip).to_contain_text("the largest error of the label divided by its limit")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.locator("#rows thead button", has_text="rel L2").hover()
    expect(tip).to_contain_text("The norm of the error divided by that of golden")
    terms = page.locator("[data-term]").evaluate_all("all => all.map((one) => one.dataset.term)")
    assert set(terms) <= set(page.locator("#words dt").all_text_contents())


def test_a_click_copies_the_call_site(opened: Open, decoder: Report) -> None:
    page = opened(decoder, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="modeling.py:212").click()
    expect(page.locator("#copied")).to_have_text("Copied: modeling.py:212")
    assert page.evaluate("navigator.clipboard.readText()") == "modeling.py:212"


def test_it_prints_on_a4_without_cuts(opened: Open, decoder: Report) -> None:
    page = opened(decoder, (1440, 900))
    expect(page.locator("#found")).to_have_text("219 rows")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 688, "height": 1000})  # 210 mm less 2 x 14 mm of margins
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    wide = """() => [...document.querySelectorAll("main *, header *")]
      .filter((one) => one.checkVisibility() && !one.closest("svg") && one.getBoundingClientRect().right > 689)
      .map((one) => one.outerHTML.slice(0, 90))"""
    assert page.evaluate(wide) == []
    assert page.locator("#rows tbody tr").count() == 60
    assert page.pdf(format="A4").startswith(b"%PDF")
