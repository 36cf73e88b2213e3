"""What reports tell of the price of quantisation."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console

from aclcmp.labeling.shard.price_table import LayerPrice, Price
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.verdicts import Limits, Origin, Status
from aclcmp.orchestrator.report.as_json import schema, write_json
from aclcmp.orchestrator.report.h5.reader import read_h5
from aclcmp.orchestrator.report.h5.writer import write_h5
from aclcmp.orchestrator.report.html.page import write_html
from aclcmp.orchestrator.report.text.price import price_lines
from aclcmp.orchestrator.report.text.terminal import print_report
from tests.report.made_up import label, report_of, verdict

LAYERS = tuple(LayerPrice(f"layers.{number}.down", 0.02 / (number + 1)) for number in range(6))
PRICE = Price("W8A8", True, "own", 0.041, 125, 6, LAYERS, 64)
QUANTISED = Limits(0.1, 0.2, "3 x quantised floor")


def report_with(price: Price) -> Report:
    paid = replace(verdict(0, Status.DRIFT), limits=QUANTISED, dtypes=("float32", "float32"))
    wrong = replace(verdict(0, Status.DIVERGED, Origin.OWN), limits=QUANTISED, dtypes=("float32", "float32"))
    return replace(report_of([label("a", [paid]), label("b", [wrong])]), price=price)


@pytest.mark.parametrize("price", [PRICE, replace(PRICE, layers=(), layer_tokens=0, against="original")])
def test_report_json_and_h5_keep_it(price: Price, tmp_path: Path) -> None:
    report = report_with(price)
    write_h5(report, tmp_path / "report.h5")
    assert read_h5(tmp_path / "report.h5", report.run).price == price
    write_json(report, tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    jsonschema.validate(content, schema())
    assert content["price"]["logits"] == 0.041 and len(content["price"]["layers"]) == len(price.layers)


def test_layers_are_named_by_what_they_cost() -> None:
    (line,) = price_lines(report_with(PRICE))
    assert line == (
        "Price of quantisation (W8A8): final logits 4.1e-02, 6 of 125 tokens another, beside the same weights "
        "with inputs that are not rounded; each layer alone, on 64 tokens: most from layers.0.down 2.0e-02, "
        "layers.1.down 1.0e-02, layers.2.down 6.7e-03, layers.3.down 5.0e-03, 2 more up to 4.0e-03."
    )
    (line,) = price_lines(report_with(replace(PRICE, layers=(), against="original")))
    assert line.endswith("beside the original weights.")
    assert price_lines(report_of([label("a", [verdict(0)])])) == []


def test_price_and_bug_are_different_words(tmp_path: Path) -> None:
    report = report_with(PRICE)
    with (tmp_path / "out.txt").open("w") as out:
        print_report(report, Console(file=out, width=200))
    said = (tmp_path / "out.txt").read_text()
    (paid,) = [line for line in said.splitlines() if line.startswith("  a ")]
    (wrong,) = [line for line in said.splitlines() if line.startswith("  b ")]
    assert paid.endswith("drift     price") and wrong.endswith("diverged  own")
    assert "It is a bug: more than the price of quantisation (W8A8), which was measured." in said
    write_html(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Price of quantisation (W8A8)" in page and "It is a bug" in page
