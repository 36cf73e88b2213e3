"""The table of labels in a browser: it finds, sorts and scrolls with the rows in view alone in the document."""

from __future__ import annotations

from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

from aclcmp.orchestrator.core.evidence import OwnError
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, Status
from tests.report.html.conftest import Open
from tests.report.made_up import decoder_labels, judgement_of, label, report_of, verdict

pytestmark = pytest.mark.browser


def names(page: Page) -> list[str]:
    return page.locator("#rows tbody .label").all_text_contents()


def heading(page: Page, words: str) -> None:
    page.locator("#rows thead").get_by_role("button", name=words).click()


def test_a_click_on_a_heading_sorts(opened: Open, decoder: Report) -> None:
    page = opened(decoder)
    expect(page.locator("#found")).to_have_text("219 rows")
    assert names(page)[0] == "layers.9.mlp.down.local", "what is wrong by itself comes first"
    heading(page, "label")
    assert names(page)[:3] == ["embed", "layers.0.attn.core", "layers.0.attn.k"]
    expect(page.locator("#rows th[aria-sort=ascending]")).to_have_text("label")
    heading(page, "label")
    assert names(page)[:2] == ["norm", "lm_head"], "numbers count by their value, so layers.23 is behind layers.9"
    heading(page, "error ÷ limit")
    shares = [float(text) for text in page.locator("#rows tbody td:nth-child(4)").all_text_contents()]
    assert shares == sorted(shares, reverse=True) and shares[0] == 165
    expect(page.locator("#rows th[aria-sort=descending]")).to_have_text("error ÷ limit")


def test_filters_by_words_status_and_rank(opened: Open, decoder: Report) -> None:
    page = opened(decoder)
    page.get_by_role("button", name="diverged, own").click()
    expect(page.locator("#found")).to_have_text("1 row")
    assert page.evaluate("document.activeElement.dataset.look") == "wrong diverged", "the focus stays on the filter"
    page.get_by_role("button", name="diverged, own").click()
    page.locator("#query").fill("MLP.down layers.1 fused_mlp")
    expect(page.locator("#found")).to_have_text("11 rows")
    expect(page.get_by_role("button", name="diverged, inherited")).to_contain_text("10")
    page.locator("#query").fill("layers.12.attn.core")
    page.locator("#rank").select_option(label="every rank")
    expect(page.locator("#found")).to_have_text("16 rows")
    expect(page.locator("#looks").get_by_role("button", name="missing")).to_contain_text("2")
    page.locator("#rank").select_option(label="rank 3")
    expect(page.locator("#rows tbody tr")).to_have_count(1)
    expect(page.locator("#rows tbody tr")).to_contain_text("missing")
    page.locator("#query").press("Enter")
    expect(page.locator("dialog h2")).to_have_text("layers.12.attn.core")
    expect(page.locator("dialog .ranks [aria-pressed=true]")).to_contain_text("3")
    page.keyboard.press("Escape")
    page.locator("#query").fill("nothing is called so")
    expect(page.locator("#rows tbody")).to_have_text("no such label")


def test_by_the_keyboard(opened: Open, decoder: Report) -> None:
    page = opened(decoder)
    page.locator("#query").focus()
    page.keyboard.press("ArrowDown")
    focused = "document.activeElement.textContent"
    assert page.evaluate(focused) == "layers.9.mlp.down.local"
    page.keyboard.press("End")
    page.wait_for_function(f"() => {focused} === 'layers.9.mlp.up'")
    page.keyboard.press("ArrowUp")
    page.wait_for_function(f"() => {focused} === 'layers.9.mlp.gate'")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.wait_for_function(f"() => {focused} === 'layers.9.mlp.out'")
    page.keyboard.press("Enter")
    expect(page.locator("dialog h2")).to_have_text("layers.9.mlp.out")
    page.keyboard.press("Escape")
    assert page.evaluate(focused) == "layers.9.mlp.out", "back where it was"


def many_labels(number: int) -> Report:
    """Return a report of so many labels, every thousandth of them wrong."""
    good = (verdict(0),)
    bad = (verdict(0, Status.DIVERGED, Origin.INHERITED),)
    first = (verdict(0, Status.DIVERGED, Origin.OWN),)
    made: list[LabelVerdict] = []
    for i in range(number):
        ranks = good if i % 1000 or not i else bad if i > 1000 else first
        made.append(label(f"layers.{i % 96}.step.{i // 96}", ranks))
    return Report(None, "many", judgement_of(made), {"name": "default"})


def test_a_hundred_thousand_rows(opened: Open) -> None:
    page = opened(many_labels(100_000))
    expect(page.locator("#found")).to_have_text("100,000 rows")
    lines = page.locator("#rows tbody tr")
    assert lines.count() < 80
    assert names(page)[0] == "layers.40.step.10"
    page.locator("#rows").evaluate("rows => rows.scrollTop = rows.scrollHeight")
    expect(lines.last).to_have_attribute("aria-rowindex", "100001")
    assert lines.count() < 80
    heading(page, "label")
    expect(lines.first).to_contain_text("layers.0.step.0")
    page.get_by_role("button", name="diverged, inherited").click()
    expect(page.locator("#found")).to_have_text("98 rows")
    page.get_by_role("button", name="diverged, inherited").click()
    page.locator("#query").fill("step.1041")
    expect(page.locator("#found")).to_have_text("64 rows")
    expect(page.locator("#rows table")).to_have_attribute("aria-rowcount", "65")


def test_own_errors_have_a_column_and_a_figure(opened: Open, decoder: Report) -> None:
    wrong = replace(verdict(0, Status.DIVERGED, Origin.OWN), own=OwnError(0.05, 0.061, 0.04, 1.0, 6))
    good = replace(verdict(0), own=OwnError(4e-7, 5e-7, 4e-7, 1.0, 6))
    page = opened(report_of([label("a", [good]), label("b", [wrong]), label("c", [verdict(0)])]))
    heading(page, "own L2")
    assert page.locator("#rows tbody td:nth-child(6)").all_text_contents() == ["5.0e-02", "4.0e-07", ""]
    page.locator("#rows").get_by_role("button", name="b", exact=True).click()
    expect(page.locator("dialog .figures").first).to_contain_text("own error0.05, worst row 0.061")
    expect(opened(decoder).locator("#rows thead")).not_to_contain_text("own L2")


def test_tasks_have_a_column_where_there_are_several(opened: Open) -> None:
    labels = [one for task in range(2) for one in decoder_labels(1, 1, ("norm", 0) if task else None, task)]
    page = opened(report_of(labels))
    heading(page, "task")
    expect(page.locator("#rows tbody tr").first).to_contain_text("embed0")
