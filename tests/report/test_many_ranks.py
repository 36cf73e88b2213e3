"""Reports of many ranks: report.json in groups, tables in blocks, a label or a difference without reading the whole."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import h5py
import jsonschema
import pytest
from rich.cells import cell_len
from rich.console import Console

from aclcmp.orchestrator.core.levels import level_of
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, Status
from aclcmp.orchestrator.errors import ExitCode, UsageError
from aclcmp.orchestrator.pipeline.stored_reports import print_diff, print_explanation
from aclcmp.orchestrator.report import as_json, flat
from aclcmp.orchestrator.report.as_csv import write_csv
from aclcmp.orchestrator.report.as_json import schema, write_json
from aclcmp.orchestrator.report.h5 import reader
from aclcmp.orchestrator.report.h5.reader import read_h5, read_two
from aclcmp.orchestrator.report.h5.writer import write_h5
from aclcmp.orchestrator.report.text.diff import changes, diff_lines
from aclcmp.orchestrator.report.text.explain import choose_keys, choose_labels, explain, with_history
from aclcmp.orchestrator.report.text.terminal import print_report
from tests.report.made_up import decoder_labels, label, record_of, report_of, verdict

CULPRIT = ("layers.2.mlp.down.local", 5)


def odd_labels(ranks: int = 16, culprit: tuple[str, int] | None = CULPRIT) -> list[LabelVerdict]:
    """A decoder that goes wrong; one label is missing on every third rank, one drifts on one, one is on few."""
    labels = decoder_labels(4, ranks, culprit)
    held = list(labels[4].ranks)
    labels[4] = label(labels[4].key.label, [verdict(v.rank, Status.MISSING) if v.rank % 3 == 0 else v for v in held])
    labels[7] = label(labels[7].key.label, [verdict(0, Status.DRIFT), *labels[7].ranks[1:]])
    labels[9] = label(labels[9].key.label, labels[9].ranks[2:4])
    labels[-1] = replace(labels[-1], ranks=tuple(replace(v, excused="known") for v in labels[-1].ranks))
    return [replace(each, level=level_of(each.key.label, "", "")) for each in labels]


@pytest.fixture
def grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_json, "MOST_ROWS", 100)
    monkeypatch.setattr(as_json, "MOST_SINGLE", 20)


def members(name: str) -> list[int]:
    ranges = [part.partition("-") for part in name.split(",")]
    return [rank for first, _, last in ranges for rank in range(int(first), int(last or first) + 1)]


def written(report: Report, folder: Path) -> dict:
    write_json(report, folder / "report.json")
    content = json.loads((folder / "report.json").read_text())
    jsonschema.validate(content, schema(), jsonschema.Draft202012Validator)
    return content


@pytest.mark.usefixtures("grouped")
def test_ranks_that_agree_are_told_once(tmp_path: Path) -> None:
    report = report_of(odd_labels(), run=record_of(16))
    content = written(report, tmp_path)
    rows = sum(len(each.ranks) for each in report.judgement.labels)
    assert content["grouped"] == {"rows": rows, "single": 20}
    single = 0
    for told, known in zip(content["labels"], report.judgement.labels, strict=True):
        verdicts = {v.rank: v for v in known.ranks}
        in_groups = [(members(name), group) for name, group in told.get("groups", {}).items()]
        every = [*map(int, told["ranks"]), *(rank for ranks, _ in in_groups for rank in ranks)]
        assert sorted(every) == sorted(verdicts), "each rank is told of once"
        single += len(told["ranks"])
        assert all(rank["status"] != "match" for rank in told["ranks"].values())
        for ranks, group in in_groups:
            held = [verdicts[rank] for rank in ranks]
            assert group["count"] == len(ranks)
            assert {(v.status.value, v.origin and v.origin.value, v.excused) for v in held} == {
                (group["status"], group["origin"], group["excused"])
            }
            errors = [v.metrics.rel_l2 for v in held if v.metrics is not None]
            assert (group["metrics"] and group["metrics"]["rel_l2"]) == ([min(errors), max(errors)] if errors else None)
            assert group["worst_rank"] in ranks and group["reason"] == verdicts[group["worst_rank"]].reason
    assert single == 20
    own = next(each for each in content["labels"] if each["label"] == CULPRIT[0])
    assert list(own["ranks"]) == ["5"], "what is wrong by itself comes first"
    assert list(own["groups"]) == ["0-4,6-15"]


def test_up_to_the_limit_nothing_is_grouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = report_of(odd_labels())
    content = written(report, tmp_path)
    assert "grouped" not in content and not any("groups" in each for each in content["labels"])
    monkeypatch.setattr(as_json, "MOST_ROWS", sum(len(each.ranks) for each in report.judgement.labels))
    assert written(report, tmp_path) == content


def test_blocks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = report_of(odd_labels(), run=record_of(16))
    written_whole = files(report, tmp_path)
    monkeypatch.setattr(flat.blocks, "__defaults__", (7,))
    monkeypatch.setattr(reader, "BLOCK", 5)
    assert files(report, tmp_path) == written_whole


def files(report: Report, folder: Path) -> list[object]:
    """report.csv, the table of report.h5 and its index, and report.json of what is read back."""
    write_csv(report, folder / "report.csv")
    write_h5(report, folder / "report.h5")
    write_json(read_h5(folder / "report.h5", report.run), folder / "report.json")
    with h5py.File(folder / "report.h5") as file:
        table = file["labels"][:].tolist()
        index = [file[f"grid/{name}"][:].tolist() for name in ("labels", "rank", "status", "origin", "excused")]
        dtype = file["labels"].dtype
    return [(folder / name).read_bytes() for name in ("report.csv", "report.json")] + [str(table), index, dtype]


@pytest.mark.parametrize("name", ["layers.2.*.down.local", "layers.0.attn.q", "embed"])
def test_a_label_is_explained_without_the_others(name: str, tmp_path: Path) -> None:
    report = report_of(odd_labels(), run=record_of(16))
    write_h5(report, tmp_path / "report.h5")

    def told(found: Report) -> list[str]:
        return [line for each in choose_labels(found, name, None) for line in explain(found, each, None)]

    part = read_h5(
        tmp_path / "report.h5",
        report.run,
        only=lambda grid: with_history(grid.keys, grid.layers, choose_keys(grid.keys, name, None)),
    )
    assert len(part.judgement.labels) <= 4
    assert told(part) == told(read_h5(tmp_path / "report.h5", report.run))


def test_many_ranks_are_explained_in_few_lines() -> None:
    ranks = [replace(verdict(rank), reason=f"as rank {rank} says") for rank in range(1000)]
    ranks[400] = verdict(400, Status.DRIFT)
    ranks[401] = verdict(401, Status.DRIFT)
    report = report_of([label("x", ranks)])
    lines = list(explain(report, report.judgement.labels[0], None))
    assert len(lines) < 20 and all(len(line) < 200 for line in lines)
    assert any(
        line.startswith("  ranks 0-399, 402-999: match: relative L2 4.0e-07 to 4.0e-07, rank 0") for line in lines
    )


PAIRS = [
    (odd_labels(), odd_labels()),
    (odd_labels(), odd_labels(culprit=None)),
    (odd_labels(culprit=None), odd_labels()),
    (odd_labels(culprit=None), decoder_labels(4, 16)),
    (decoder_labels(4, 16), decoder_labels(4, 12)),
    (decoder_labels(3, 16), odd_labels()),
    (odd_labels(), []),
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_reports_differ_as_if_they_were_read_whole(
    first: list[LabelVerdict], second: list[LabelVerdict], tmp_path: Path
) -> None:
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for path, labels in zip(paths, (first, second), strict=True):
        write_h5(report_of(labels), path)
    whole = [read_h5(path, None) for path in paths]
    brief = read_two((paths[0], None), (paths[1], None))
    of_whole, of_brief = (diff_lines(a, b, changes(a.judgement, b.judgement)) for a, b in (whole, brief))
    assert of_whole == of_brief
    with h5py.File(paths[0], "a") as file:
        del file["grid"]  # as an older aclcmp wrote it
    older = read_two((paths[0], None), (paths[1], None))
    assert diff_lines(*older, changes(older[0].judgement, older[1].judgement)) == of_whole


def test_the_commands_use_the_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, labels in (("a", odd_labels(culprit=None)), ("b", odd_labels())):
        (tmp_path / name).mkdir()
        write_h5(report_of(labels), tmp_path / name / "report.h5")
    assert print_explanation(tmp_path / "b", CULPRIT[0], None, None) is ExitCode.MATCH
    assert "rank 5: diverged, own" in capsys.readouterr().out
    with pytest.raises(UsageError, match="did you mean"):
        print_explanation(tmp_path / "b", "layers.2.mlp.down.locl", None, None)
    assert print_diff(tmp_path / "a", tmp_path / "b") is ExitCode.DIVERGED
    assert capsys.readouterr().out.startswith("Wrong labels: 0 -> ")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [("status", 99, "codes that mean nothing"), ("origin", 7, "codes that mean nothing"), ("labels", 1 << 40, "rows")],
)
def test_an_index_that_is_wrong_is_refused(place: str, value: int, words: str, tmp_path: Path) -> None:
    write_h5(report_of(odd_labels()), tmp_path / "report.h5")
    with h5py.File(tmp_path / "report.h5", "a") as file:
        if place == "labels":
            table = file["grid/labels"][:]
            table["rows"] = value
            file["grid/labels"][:] = table
        else:
            file[f"grid/{place}"][0, 0] = value
    with pytest.raises(UsageError, match=words):
        read_h5(tmp_path / "report.h5", None, only=lambda grid: [0])


@pytest.mark.parametrize("width", [80, 120])
def test_a_thousand_ranks_fit_into_a_terminal(width: int) -> None:
    report = report_of(odd_labels(1024, (CULPRIT[0], 517)), run=record_of(1024))
    out = io.StringIO()
    print_report(report, Console(file=out, width=width, force_terminal=True, color_system=None, highlight=False))
    lines = out.getvalue().splitlines()
    assert len(lines) <= 30 and max(map(cell_len, lines)) <= width
    assert any("rank 517" in line for line in lines)


def test_origins_and_excuses_are_in_the_index(tmp_path: Path) -> None:
    report = report_of([label("x", [verdict(0, Status.DIVERGED, Origin.OWN), replace(verdict(3), excused="so")])])
    write_h5(report, tmp_path / "report.h5")
    with h5py.File(tmp_path / "report.h5") as file:
        found = {name: file[f"grid/{name}"][:].tolist() for name in ("rank", "status", "origin", "excused")}
        assert file["grid/labels"]["first_row"].tolist() == [0] and file["grid/labels"]["rows"].tolist() == [2]
    statuses = list(Status)
    assert found == {
        "rank": [0, 3],
        "status": [[1 + statuses.index(Status.DIVERGED), 1 + statuses.index(Status.MATCH)]],
        "origin": [[1, 0]],
        "excused": [[0, 1]],
    }
    assert LabelKey(0, "x", 0) == report.judgement.labels[0].key
