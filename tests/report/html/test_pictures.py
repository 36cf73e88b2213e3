"""The pictures of docs/page.md: a pass, a failure and an incomplete run, wide, on a phone and in the dark.

They are taken at every run of the browser tests; with ACLCMP_SCREENSHOTS=1 they are kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import expect

from aclcmp.orchestrator.core.levels import level_of
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.verdicts import Status
from tests.report.html.conftest import Open
from tests.report.html.pages import decoder_report
from tests.report.made_up import record_of, report_of, verdict

pytestmark = pytest.mark.browser
IMAGES = Path(__file__).parents[3] / "docs" / "images"
SIZES = {"1440": (1440, 900), "390": (390, 844), "dark": (1440, 900)}
MOST_BYTES = 150_000
KEPT = "ACLCMP_SCREENSHOTS" in os.environ  # read here: tests have none of these variables


def passed() -> Report:
    """What a run that is right looks like: the labels before the fault of the one that is not."""
    report = decoder_report()
    first = report.judgement.first_divergence
    assert first is not None
    labels = [label for label in report.judgement.labels if all(v.status is Status.MATCH for v in label.ranks)]
    return report_of([label for label in labels if label.level.layer != "9"], run=report.run)


def incomplete() -> Report:
    """A run of which two ranks recorded nothing, and one label is missing on two."""
    labels = list(passed().judgement.labels)
    ranks = list(labels[40].ranks[:14])
    ranks[3:5] = [verdict(rank, Status.MISSING) for rank in (3, 4)]
    cut = [replace(label, ranks=label.ranks[:14]) for label in labels]
    cut[40] = replace(
        labels[40], status=Status.MISSING, ranks=tuple(ranks), level=level_of(labels[40].key.label, "", "")
    )
    return report_of(cut, run=record_of(16), silent=(14, 15))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("made", [passed, decoder_report, incomplete])
def test_picture(opened: Open, tmp_path: Path, made: Callable[[], Report], size: str) -> None:
    report = made()
    page = opened(report, SIZES[size], color_scheme="dark" if size == "dark" else "light")
    expect(page.locator("#depth-chart .picture")).to_be_visible()
    name = {passed: "match", decoder_report: "diverged", incomplete: "incomplete"}[made]
    keep(page.screenshot(), f"page-{name}-{size}.png")


@pytest.mark.parametrize(("name", "size"), [("page-label", (1200, 760)), ("page-label-390", SIZES["390"])])
def test_picture_of_a_label(opened: Open, decoder: Report, name: str, size: tuple[int, int]) -> None:
    page = opened(decoder, size, address="#label=layers.9.mlp.down.local&rank=5")
    expect(page.locator("dialog .chart .picture")).to_have_count(3)
    keep(page.screenshot(), f"{name}.png")


def test_picture_of_the_table(opened: Open, decoder: Report) -> None:
    page = opened(decoder, (1200, 640))
    page.locator("#query").fill("down.local")
    expect(page.locator("#found")).to_have_text("24 rows")
    page.locator("#labels").evaluate("section => section.scrollIntoView({ behavior: 'instant' })")
    keep(page.screenshot(), "page-table.png")


def keep(picture: bytes, name: str) -> None:
    """Keep a picture where that is asked for."""
    assert picture.startswith(b"\x89PNG")
    if KEPT:
        assert len(picture) < MOST_BYTES
        IMAGES.mkdir(exist_ok=True)
        (IMAGES / name).write_bytes(picture)
