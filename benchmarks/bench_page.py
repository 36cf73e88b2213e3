"""Size, time to write and time to first paint of report.html for 10,000 labels on 64 ranks, half of them wrong.

    python benchmarks/bench_page.py [LABELS] [RANKS]

Then the same of 100,000 labels on one rank, and how long its table takes to sort, to filter and to scroll: from the
event until the frame after the rows were drawn, in the document.

First paint is the time that headless Chromium without a GPU reports (first-contentful-paint), the median of five loads
from the disk; "heat map" is the time at which all its cells are laid out. Bounds: 15 MB, and 3 s to first paint.
Without Chromium only the size is measured.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

_DRAWN = """() => new Promise((done) => {
  const look = () => document.querySelector(".grid .cell") ? done(performance.now()) : requestAnimationFrame(look);
  look();
})"""
_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"

_TABLE = {
    "sort by label": "label",
    "sort by error ÷ limit": "margin",
    "scroll to the end": "end",
    "filter by words": "words",
}
_TOOK = """(what) => new Promise((done) => {
  const began = performance.now();
  const rows = document.getElementById("rows");
  if (what === "end") rows.scrollTop = rows.scrollHeight;
  else if (what === "words") {
    const query = document.getElementById("query");
    query.value = "step.10";
    query.dispatchEvent(new Event("input"));
  } else rows.querySelector(`[data-term="${what}"]`).click();
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)));
})"""


def main() -> None:
    """Print the figures."""
    sys.path.insert(0, str(Path(__file__).parents[1]))  # the reports to look at are those of the tests
    from aclcmp.orchestrator.report.html.page import write_html
    from tests.report.html.pages import large_report
    from tests.report.html.test_table import many_labels

    labels, ranks = (int(text) for text in (*sys.argv[1:], *("10000", "64")[len(sys.argv) - 1 :]))
    report = large_report(labels, ranks)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        started, cpu = time.perf_counter(), time.process_time()
        write_html(report, path)
        wrote, cpu = time.perf_counter() - started, time.process_time() - cpu
        size = path.stat().st_size / 1e6
        print(
            f"{labels:,} labels x {ranks} ranks: {size:.1f} MB, written in {wrote:.1f} s ({cpu:.1f} s of CPU)",
            flush=True,
        )
        measure(path)
        write_html(many_labels(100_000), path)
        print(f"100,000 labels x 1 rank: {path.stat().st_size / 1e6:.1f} MB")
        measure(path, with_table=True)


def measure(path: Path, *, with_table: bool = False) -> None:
    """Load the page five times and print the medians."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        print("no Chromium here: first paint was not measured")
        return
    from playwright.sync_api import sync_playwright

    switches = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    switches += ["--disable-component-update", "--disable-sync", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    painted, drawn = [], []
    took: dict[str, list[float]] = {}
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=switches)
        for _ in range(5):
            page = chromium.new_page()
            page.goto(path.as_uri(), wait_until="commit")
            drawn.append(page.evaluate(_DRAWN) / 1e3)
            page.wait_for_function(_PAINTED)
            painted.append(page.evaluate(_PAINTED) / 1e3)
            for name, work in _TABLE.items() if with_table else ():
                took.setdefault(name, []).append(page.evaluate(_TOOK, work) / 1e3)
            page.close()
        chromium.close()
    print(
        f"first paint {statistics.median(painted):.2f} s, heat map {statistics.median(drawn):.2f} s (medians of five)"
    )
    if took:
        print("table: " + ", ".join(f"{name} {statistics.median(times):.2f} s" for name, times in took.items()))


if __name__ == "__main__":
    main()
