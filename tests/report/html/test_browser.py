"""report.html in a real headless Chromium: it draws, and opens labels by pointer and keys."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.text import visible
from tests.report.html.conftest import Open
from tests.report.html.pages import NASTY, large_report, nasty_report
from tests.report.made_up import decoder_labels, record_of, report_of

pytestmark = pytest.mark.browser
PHONE = (390, 844)


def ringed(page: Page) -> None:
    """Click the cell of the first divergence and wait until its label is drawn."""
    page.locator(".grid .first").click()
    expect(page.locator("dialog h2")).to_have_text("layers.9.mlp.down.local")
    expect(page.locator("dialog .chart .picture").first).to_be_visible()


def no_sideways_scroll(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def test_it_draws(opened: Open, decoder: Report) -> None:
    page = opened(decoder)
    expect(page.locator("h1")).to_have_text("layers.9.mlp.down.local")
    expect(page.locator(".subtitle")).to_have_text("without the part of rank 6: a summand missing from the all-reduce")
    chips = ["rank 5", "task 0", "error 3.3 = 165 × the limit", "explains 97.2 % of the error", "modeling.py:212"]
    expect(page.locator(".chip")).to_have_text(chips)
    expect(page.locator(".grid tbody tr")).to_have_count(27)
    marks = page.locator(".grid tbody tr").nth(10).locator(".cell").all_text_contents()
    assert marks == ["✗"] * 16, "marks say it without colour"
    assert page.locator(".grid tbody tr").nth(3).locator(".cell").all_text_contents() == ["·"] * 16
    expect(page.locator("#legend")).to_contain_text("diverged, inherited")
    expect(page.locator("#missing")).to_contain_text("2 without actual")
    legend = ["worst rank", "median rank", "below warn: noise", "warn to fail: drift", "above fail: diverged"]
    expect(page.locator("#depth-legend span")).to_contain_text([*legend, "match", "diverged, own", "inherited"])


def test_the_chart_shares_the_rows_of_the_map(opened: Open, decoder: Report) -> None:
    page = opened(decoder, (1440, 900))
    wrong = page.locator("#depth-chart .point.wrong.x").first
    row = page.locator(".grid tbody tr").nth(10).bounding_box()
    point, grid = wrong.bounding_box(), page.locator("#grid").bounding_box()
    assert row is not None and point is not None and grid is not None
    assert row["y"] < point["y"] + point["height"] / 2 < row["y"] + row["height"]
    assert point["x"] > grid["x"] + grid["width"], "beside it"
    page.set_viewport_size({"width": 700, "height": 900})
    expect(page.locator(".pair.beside")).to_have_count(0)
    assert no_sideways_scroll(page)


def test_a_click_opens_a_label(opened: Open, decoder: Report) -> None:
    page = opened(decoder)
    ringed(page)
    dialog = page.locator("dialog")
    for text in ("without the part of rank 6", "limit 0.02", "fused_mlp.py:88", "relative L2", "Relative error by row"):
        expect(dialog).to_contain_text(text)
    expect(dialog.locator(".chart .picture")).to_have_count(3)
    expect(dialog.locator(".names button")).to_have_count(9)
    dialog.get_by_role("button", name="rank 4").click()
    expect(dialog.locator(".tag")).to_contain_text("match")
    for text in ("Limits: bfloat16 table", "modeling.py:212", "of the limit"):
        expect(dialog).to_contain_text(text)
    dialog.locator(".names button").nth(8).click()
    expect(dialog.locator("h2")).to_have_text("layers.9.mlp.out")
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).not_to_be_visible()


def test_keys_open_a_label(opened: Open, decoder: Report) -> None:
    page = opened(decoder)
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('cell')"):
            break
    assert page.evaluate("document.activeElement.classList.contains('first')"), "the keyboard starts where it begins"
    for key in ("ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator("#readout")).to_contain_text("layers.10 · rank 6: diverged, inherited")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("dialog h2")).to_have_text("layers.10.attn.q")
    page.keyboard.press("ArrowDown")
    expect(page.locator("dialog h2")).to_have_text("layers.10.attn.k")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).not_to_be_visible()
    assert page.evaluate("document.activeElement.classList.contains('cell')"), "back where it was"


def test_a_point_of_the_chart_opens_its_label(opened: Open, decoder: Report) -> None:
    page = opened(decoder)
    point = page.locator("#depth-chart .point.wrong.x").first
    point.hover()
    expect(page.locator("#readout")).to_contain_text("layers.9.mlp.down.local: diverged, own · worst rank 3.3e+00")
    point.click()
    expect(page.locator("dialog h2")).to_have_text("layers.9.mlp.down.local")


def test_a_phone(opened: Open, decoder: Report) -> None:
    page = opened(decoder, PHONE, device_scale_factor=2, is_mobile=True, has_touch=True)
    expect(page.locator(".grid tbody tr")).to_have_count(27)
    expect(page.locator("#depth-chart .picture")).to_be_visible()
    assert no_sideways_scroll(page)
    page.locator(".grid .first").tap()
    expect(page.locator("dialog .chart .picture").nth(2)).to_be_attached()
    assert page.evaluate("document.querySelector('.one').scrollWidth <= document.querySelector('.one').clientWidth")


def test_dark(opened: Open, decoder: Report) -> None:
    page = opened(decoder, color_scheme="dark")
    ringed(page)
    bar = page.locator("dialog .chart .bar").first
    dark = bar.evaluate("bar => getComputedStyle(bar).fill")
    page.emulate_media(color_scheme="light")
    page.wait_for_function("([bar, dark]) => getComputedStyle(bar).fill !== dark", arg=[bar.element_handle(), dark])


def test_names_are_only_text(opened: Open) -> None:
    page = opened(nasty_report())
    assert "owned" not in page.evaluate("document.title").partition("aclcmp")[2]
    assert not page.evaluate("document.title === 'owned'")
    names = page.locator(".grid tbody .name").all_text_contents()
    assert names[: len(NASTY) - 1] == [visible(name) for name in NASTY[:-1]]
    for i, name in enumerate(NASTY):
        page.locator(".grid tbody .name").nth(i).click()
        expect(page.locator("dialog h2")).to_have_text(visible(name) or "(no name)")
        expect(page.locator("dialog .sides")).to_contain_text(visible(name))
        page.keyboard.press("Escape")
    assert page.locator("img, iframe").count() == 0


def test_tasks(opened: Open) -> None:
    labels = [
        one for task in range(3) for one in decoder_labels(2, 4, ("layers.1.mlp.out", 3) if task == 1 else None, task)
    ]
    page = opened(report_of(labels, run=record_of(4)))
    expect(page.locator("#task")).to_have_value("1")
    expect(page.locator(".grid .first")).to_have_count(1)
    page.locator("#task").select_option("0")
    expect(page.locator(".grid .first")).to_have_count(0)
    page.locator("#task").select_option("all")
    expect(page.locator(".grid tbody tr")).to_have_count(3)


def test_nothing_was_labelled(opened: Open) -> None:
    page = opened(report_of([]))
    expect(page.locator("h1")).to_contain_text("Nothing was compared")
    expect(page.locator("#heat")).not_to_be_visible()


def test_without_a_script(opened: Open, decoder: Report) -> None:
    page = opened(decoder, java_script_enabled=False)
    expect(page.locator("h1")).to_have_text("layers.9.mlp.down.local")
    expect(page.locator("noscript p")).to_have_count(1)
    expect(page.locator("#missing")).to_contain_text("No actual side (acl) for layers.12.attn.core")


def test_it_prints(opened: Open, decoder: Report) -> None:
    page = opened(decoder)
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_ten_thousand_labels_on_64_ranks(opened: Open, folder: Path) -> None:
    report = large_report()
    page = opened(report)
    assert (folder / f"{id(report)}.html").stat().st_size <= 15 << 20
    expect(page.locator(".grid tbody tr")).to_have_count(80)
    page.locator(".grid .first").click()
    expect(page.locator("dialog h2")).to_have_text("model.layers.40.block.0.out")
    expect(page.locator("dialog .names button")).to_have_count(125)
    expect(page.locator("dialog .chart .picture").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#depth-chart .picture")).to_be_visible()
