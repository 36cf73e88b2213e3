"""report.html without a browser: what it says, that names stay text, that it asks for no network, how large it gets."""

import base64
import gzip
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.orchestrator.core.diagnosis import Hint
from aclcmp.orchestrator.core.evidence import OwnError
from aclcmp.orchestrator.core.levels import Level
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import Failure
from aclcmp.orchestrator.core.stats import Basis
from aclcmp.orchestrator.core.text import visible
from aclcmp.orchestrator.core.verdicts import Limits, Origin, Status
from aclcmp.orchestrator.report.html.details import MOST_BINS, MOST_DETAILS, strips
from aclcmp.orchestrator.report.html.grid import FACES, columns_of, face_number, figures, rows_of
from aclcmp.orchestrator.report.html.packed import LOWEST, PER_DECADE, log_codes
from aclcmp.orchestrator.report.html.page import write_html
from aclcmp.orchestrator.report.html.summary import summary_of
from aclcmp.orchestrator.report.text.gaps import gap_lines
from aclcmp.orchestrator.report.text.sentences import first_divergence_lines
from tests.report.html.pages import NASTY, decoder_report, large_report, nasty_report
from tests.report.made_up import decoder_labels, label, record_of, report_of, stats_of, verdict

INERT = {"text/plain"}


class Page(HTMLParser):
    """A page as a browser takes it apart: its tags, its text, its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.data: dict[str, str] = {}
        self.scripts: list[str] = []
        self._inside: dict[str, str] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append((tag, found))
        self._inside = found | {"tag": tag} if tag in ("script", "style") else None

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is None:
            self.texts.append(data)
        elif self._inside.get("type") in INERT:
            self.data[self._inside["id"]] = data
        elif self._inside["tag"] == "script":
            self.scripts.append(data)

    def part(self, name: str) -> Any:
        """The JSON of a packed part."""
        return json.loads(gzip.decompress(base64.b64decode(self.data[f"{name}-data"])))

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page_of(report: Report, folder: Path) -> Page:
    write_html(report, folder / "report.html")
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def decoder_page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of(decoder_report(), tmp_path_factory.mktemp("decoder"))


def test_it_says_what_the_terminal_says(decoder_page: Page) -> None:
    report, page = decoder_report(), decoder_page
    for line in [*first_divergence_lines(report)[1:], *gap_lines(report), *report.notes]:
        assert line.strip() in page.said
    words = "layers.9.mlp.down.local without the part of rank 6: a summand missing from the all-reduce rank 5 task 0 "
    assert words + "error 3.3 = 165 × the limit explains 97.2 % of the error modeling.py:212" in page.said
    assert "20261122-101500 2023-11-14 22:13:20 UTC npu 219 labels 16 ranks" in page.said
    assert "python run_decoder.py --prompt 'a b'" in page.said
    assert "lm_head is not compared" in page.said
    assert page.part("overview")["first"]["column"] == 5


@pytest.mark.parametrize(
    ("report", "headline", "subtitle", "chips", "verdict_word"),
    [
        (report_of([]), gap_lines(report_of([]))[0], "", [], "incomplete"),
        (
            report_of(decoder_labels(2, 2)),
            "All match: at most 4.0e-04 of the limit",
            "21 labels on 2 ranks, largest relative L2 4.0e-07 at embed.",
            ["worst margin", "embed", "rank 0", "42 compared"],
            "match",
        ),
        (
            report_of([label("a", [verdict(0, bitwise=True)])]),
            "All match, bit for bit",
            "1 label on 1 rank.",
            ["1 compared"],
            "match",
        ),
        (
            report_of([label("a", [verdict(0, Status.DRIFT)])]),
            "Nothing diverged: at most 0.3 of the limit",
            "1 label is above the noise floor: a.",
            ["worst margin", "a", "rank 0", "1 compared"],
            "match",
        ),
        (
            report_of([label("a", [verdict(0)]), label("b", [verdict(0, Status.MISSING)])], run=record_of(1)),
            "Incomplete",
            'No actual side (acl) for b on rank 0: set_label("actual", ...) was not reached there, '
            "or with another data id.",
            ["1 without actual", "1 compared"],
            "incomplete",
        ),
        (
            report_of(
                decoder_labels(1, 2, ("layers.0.attn.q", 1)),
                run=record_of(2, Failure(rank=1, what="rank 1 (host a) exited with code 1", last_lines=("boom <b>",))),
            ),
            "Run failed: rank 1 (host a) exited with code 1",
            "",
            [],
            "diverged",
        ),
        (
            report_of([label("a", [replace(verdict(0, Status.DIVERGED), excused="known")])]),
            "Nothing that counts diverged",
            "1 label on 1 rank.",
            ["1 compared"],
            "match",
        ),
    ],
)
def test_what_it_leads_with(
    report: Report, headline: str, subtitle: str, chips: list[str], verdict_word: str, tmp_path: Path
) -> None:
    summary = summary_of(report)
    lead = summary.lead
    assert (lead.headline, lead.subtitle, summary.verdict) == (headline, subtitle, verdict_word)
    assert [chip.text for chip in lead.chips] == chips
    assert headline in page_of(report, tmp_path).said
    if report.run and report.run.failure:
        assert summary.log == ("boom <b>", "whole log: logs/rank00001.log")


def test_hints_stand_under_their_label_once() -> None:
    """What is the same in several tasks is told once, with its tasks; what leads the page is not told again."""
    labels = [one for task in range(3) for one in decoder_labels(1, 2, ("layers.0.attn.q", 1), task)]
    keys = [LabelKey(task, "layers.0.attn.q", 0) for task in range(3)]
    hints = tuple(Hint(key, (1,), "scale", words, 0.95) for words in ("twice golden", "an offset") for key in keys)
    report = replace(report_of(labels), hints=hints)
    told = [
        "twice golden (rank 1, tasks 1-2, explains 95.0 % of the error)",
        "an offset (rank 1, tasks 0-2, explains 95.0 % of the error)",
    ]
    assert summary_of(report).findings == [("layers.0.attn.q", told)]


def test_own_errors_are_there_where_they_were_measured(tmp_path: Path) -> None:
    own = replace(verdict(1, Status.DIVERGED, Origin.OWN), own=OwnError(0.05, 0.06, 0.04, 1.0, 6))
    report = report_of([label("a", [verdict(0), own])])
    page = page_of(report, tmp_path)
    assert page.part("overview")["own"] is True
    assert "own error 0.05: " in page.said and "× its limit" in page.said
    held = figures(report.judgement.labels, columns_of(report))
    assert len(held) == 2 + 4 * 2 * 2
    codes = np.frombuffer(held[2:], "<u2").reshape(4, 2)[3]
    assert codes[0] == 0 and 10 ** ((codes[1] - 2.0) / PER_DECADE + LOWEST) == pytest.approx(0.05, rel=1e-3)
    assert page.part("details")["verdicts"][0]["own"] == [0.05, 0.06]
    assert page_of(decoder_report(1, 2, "layers.0.attn.q", 1), tmp_path).part("overview")["own"] is False


def test_both_sides_of_each_label_are_told_once_for_many(tmp_path: Path) -> None:
    labels = page_of(report_of([label("a", [verdict(0)]), label("b", [verdict(0, Status.MISSING)])]), tmp_path).part(
        "overview"
    )["labels"]
    assert labels["kinds"] == [["float32", "(6, 4)", "cpu", "modeling.py:212"]]
    assert (labels["golden"], labels["actual"]) == ([0, 0], [0, None])


def test_names_are_only_text(tmp_path: Path) -> None:
    report = nasty_report()
    page = page_of(report, tmp_path)
    innocent = page_of(decoder_report(1, 2, "layers.0.attn.q", 1), tmp_path)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in innocent.tags} | {"pre"}
    assert page.scripts == innocent.scripts and len(page.scripts) == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    for name in NASTY:
        assert visible(name) in page.said or not name
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u2028\u2029\u202e]", text.partition("<script>")[0])
    assert page.part("overview")["labels"]["name"] == [visible(name) or "(no name)" for name in NASTY]
    detail = page.part("details")["verdicts"][2]
    assert detail["reason"] == visible(NASTY[2]) and detail["golden"][3] == visible(NASTY[2])


@given(st.lists(st.text(max_size=60), min_size=1, max_size=8, unique=True))
@settings(max_examples=25)
def test_any_name(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    labels = [label(name, [verdict(0, Status.DIVERGED, Origin.OWN), verdict(1)]) for name in names]
    page = page_of(report_of(labels, notes=tuple(names)), tmp_path_factory.mktemp("page"))
    assert page.part("overview")["labels"]["name"] == [visible(name) or "(no name)" for name in names]
    assert len(page.scripts) == 1


def test_it_loads_nothing(decoder_page: Page) -> None:
    page = decoder_page
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form"), tag
        assert not {"src", "href", "action", "style"} & set(attributes), (tag, attributes)
    (policy,) = (a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert "http" not in policy and "*" not in policy
    assert "fetch(" not in page.scripts[0] and "innerHTML" not in page.scripts[0] and "eval(" not in page.scripts[0]


def test_the_same_report_gives_the_same_page(tmp_path: Path) -> None:
    for name in "ab":
        write_html(decoder_report(2, 2, "layers.0.attn.q", 1), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_full_disk_is_an_os_error() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_html(report_of(decoder_labels(4, 4)), Path("/dev/full"))


def test_the_page_of_many_stays_small(tmp_path: Path) -> None:
    report = large_report(700, 64, 50)
    page = page_of(report, tmp_path)
    cells = 700 * 64
    assert len(page.data["figures-data"]) < 7 * cells * 4 / 3
    assert (tmp_path / "report.html").stat().st_size < 8 << 20
    details = page.part("details")
    assert len(details["verdicts"]) == MOST_DETAILS and details["left_out"] == 350 * 64 - 63 - MOST_DETAILS
    assert {one["label"] for one in details["verdicts"]} == set(range(350, 700)), "each wrong label has its worst rank"
    assert all(len(line) <= MOST_BINS for one in details["rows"] for line in one["errors"])


def test_figures_by_cell(tmp_path: Path) -> None:
    report = report_of([label("a", [verdict(0), verdict(2, Status.DIVERGED, Origin.OWN)]), label("b", [verdict(1)])])
    columns = columns_of(report)
    assert columns == [(0,), (1,), (2,)]
    held = figures(report.judgement.labels, columns)
    faces, errors = np.frombuffer(held[:6], np.uint8), np.frombuffer(held[6:], "<u2").reshape(3, 2, 3)
    assert faces.tolist() == [
        face_number(verdict(0)),
        0,
        face_number(verdict(2, Status.DIVERGED, Origin.OWN)),
        0,
        face_number(verdict(1)),
        0,
    ]
    values = 10 ** ((errors[0].astype(float) - 2) / PER_DECADE + LOWEST)
    assert values[0, 2] == pytest.approx(0.42, rel=1e-3) and values[1, 1] == pytest.approx(4e-7, rel=1e-3)
    assert errors[:, 0, 1].tolist() == [0, 0, 0]


def test_what_figures_are_where_tensors_were_not_compared(tmp_path: Path) -> None:
    stats = verdict(0).stats
    assert stats is not None
    norms = replace(verdict(0, Status.DRIFT), stats=replace(stats, basis=Basis.NORMS, nan_x=-1, max_abs_d=np.nan))
    endless = replace(verdict(0), limits=Limits(np.inf, np.inf, "policy"))
    page = page_of(report_of([label("a", [norms]), label("b", [endless])]), tmp_path)
    labels = page.part("overview")["labels"]
    assert labels["basis"] == ["compared by norms: errors are at least these", ""]
    assert (labels["fail"][1], labels["source"][1]) == (None, "policy")
    assert page.part("details")["verdicts"][0]["stats"] == {"n": 24, "rows_per_group": 1, "basis": "norms"}


def test_codes() -> None:
    values = np.array([np.nan, 0.0, np.inf, 1e-40, 1e300, 1.0, 3.14159e-5])
    codes = log_codes(values)
    assert codes[:5].tolist() == [0, 1, 65535, 2, 65534]
    back = 10 ** ((codes[5:].astype(float) - 2) / PER_DECADE + LOWEST)
    assert back == pytest.approx(values[5:], rel=1e-3)
    assert np.all(np.diff(log_codes(np.geomspace(1e-29, 1e8, 5000)).astype(int)) > 0)


def test_graver_faces_have_larger_numbers() -> None:
    order = [
        verdict(0, bitwise=True),
        verdict(0),
        replace(verdict(0, Status.DIVERGED, Origin.OWN), excused="known"),
        verdict(0, Status.DRIFT),
        verdict(0, Status.MISSING),
        verdict(0, Status.FAILED),
        verdict(0, Status.DIVERGED, Origin.INHERITED),
        verdict(0, Status.DIVERGED, Origin.OWN),
    ]
    numbers = [face_number(one) for one in order]
    assert numbers == sorted(set(numbers)) and len(FACES) < 255
    assert FACES[numbers[-1] - 1].words == "diverged, own" and FACES[numbers[0] - 1].words == "match, bitwise"
    assert FACES[numbers[2] - 1].colour == "excused" and FACES[numbers[-2] - 1].colour == "diverged inherited"


def test_rows_are_layers() -> None:
    names = {
        "embed": "",
        "m.layers.0.q": "0",
        "m.layers.0.k": "0",
        "m.layers.11.q": "11",
        "12_DecoderLayer": "12",
        "h[1].x": "1",
    }
    labels = [replace(label(name, [verdict(0)]), level=Level(layer=layer)) for name, layer in names.items()]
    inside = Level(low=True, layer="11", parent=labels[3].key)
    labels.append(replace(label("11_Layer/3_Linear/out", [verdict(0)]), level=inside))
    found = [(row.name, row.labels) for row in rows_of(labels)]
    assert found == [
        ("embed", (0,)),
        ("m.layers.0", (1, 2)),
        ("m.layers.11", (3, 6)),
        ("layer 12", (4,)),
        ("h[1]", (5,)),
    ]
    many = rows_of([label(f"data_1_{i}", [verdict(0)]) for i in range(10_000)])
    assert len(many) <= 160 and sum(len(row.labels) for row in many) == 10_000
    assert many[0].name == "data_1_0 … data_1_62"


def test_columns_are_groups_of_ranks_where_there_are_many() -> None:
    report = report_of([label("a", [verdict(rank) for rank in range(1000)])], run=record_of(1024))
    columns = columns_of(report)
    assert len(columns) == 128 and columns[1] == tuple(range(8, 16)) and columns[-1][-1] == 1023
    assert len(figures(report.judgement.labels, columns)) == 128 * 7


def test_strips_are_on_one_axis() -> None:
    golden = np.ones((1000, 3))
    one, two = (stats_of(golden, golden + np.eye(1000)[:, [row]]).rows for row in (7, 999))
    found = strips({0: one, 3: two})
    assert (found["start"], found["step"], found["ranks"]) == (0, 5, [0, 3])
    assert [line.index(max(line)) for line in found["errors"]] == [1, 199]
    assert found["errors"][0][1] == pytest.approx(1.0, rel=0.01) and found["errors"][0][0] == 0.0
