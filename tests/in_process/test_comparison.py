"""What a comparison shows: text, HTML, pandas, files, and the explanation of a label."""

import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pandas
import pytest

import aclcmp
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.report.as_json import schema

X = np.ones((4, 8), np.float32)
EVIL = '<script>alert("x")</script>&<img src=x onerror=alert(1)>\x1b[31m'


@pytest.fixture(scope="module")
def found() -> aclcmp.Comparison:
    return aclcmp.compare({EVIL: X, "layers.0": X, "layers.1": X}, {EVIL: X * 3, "layers.0": X})


class Elements(HTMLParser):
    """The elements of a page with their text; complains about those that are not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.names.add(tag)
        assert {name for name, _ in attrs} <= {"style", "colspan"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_only_text_and_a_table(found: aclcmp.Comparison) -> None:
    page = Elements(found._repr_html_())
    assert page.names <= {"div", "p", "b", "table", "tr", "th", "td"}
    assert "diverged" in page.text and "layers.1" in page.text and "<script>" in page.text
    assert "\x1b" not in page.text
    assert "All match" in Elements(aclcmp.compare(X, X)._repr_html_()).text
    assert "incomplete" in Elements(aclcmp.compare({}, {})._repr_html_()).text


def test_text_has_no_control_characters(found: aclcmp.Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as Jupyter's kernel does
    assert repr(found) == str(found) and "\x1b" not in str(found) and "First divergence" in str(found)


def test_pandas(found: aclcmp.Comparison) -> None:
    table = found.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert list(table["status"]) == ["diverged", "match", "missing"] and table["rel_l2"][0] == pytest.approx(2.0)
    empty = aclcmp.compare({}, {}).to_pandas()
    assert len(empty) == 0 and list(empty) == list(table)


def test_pandas_that_is_not_installed(found: aclcmp.Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        found.to_pandas()


def test_save(found: aclcmp.Comparison, tmp_path: Path) -> None:
    folder = found.save(tmp_path / "report")
    kinds = {".json", ".csv", ".h5", ".xml", ".html"}
    assert {path.name for path in folder.iterdir()} == {f"report{kind}" for kind in kinds}
    assert json.loads((folder / "report.json").read_text())["verdict"] == "diverged"
    with pytest.raises(UsageError, match="not empty"):
        found.save(folder)


def test_save_into_the_own_run(tmp_path: Path) -> None:
    with aclcmp.record(tmp_path / "run") as run:
        aclcmp.set_label("golden", "x", X)
        aclcmp.set_label("actual", "x", X)
    folder = run.compare().save(tmp_path / "run")
    assert (folder / "report.html").exists()
    jsonschema.validate(json.loads((folder / "report.json").read_text()), schema())


def test_explain(found: aclcmp.Comparison) -> None:
    assert "layers.0 (high-level layer), task 0: match" in found.explain("layers.0")
    with pytest.raises(UsageError, match="did you mean"):
        found.explain("layers.11")
