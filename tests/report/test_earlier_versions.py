"""A report.h5 that an earlier version wrote reads as it did then. `data/0.1.0.json` is what 0.1.0 read of its own."""

from __future__ import annotations

import json
from pathlib import Path

import h5py

from aclcmp.orchestrator.core.verdicts import LabelVerdict
from aclcmp.orchestrator.report.as_json import write_json
from aclcmp.orchestrator.report.h5.brief import brief_labels
from aclcmp.orchestrator.report.h5.labels import read_grid
from aclcmp.orchestrator.report.h5.reader import read_h5

OLD = Path(__file__).parent / "data" / "0.1.0.h5"


def kept(new: object, old: object) -> object:
    """Return `new` without the keys that the old report does not have."""
    if isinstance(new, dict) and isinstance(old, dict):
        return {name: kept(value, old[name]) for name, value in new.items() if name in old}
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [kept(*pair) for pair in zip(new, old, strict=True)]
    return new


def statuses(label: LabelVerdict) -> object:
    return label.key, label.status, [(v.rank, v.status, v.origin, bool(v.excused)) for v in label.ranks]


def test_a_report_of_0_1_0_reads_the_same(tmp_path: Path) -> None:
    write_json(read_h5(OLD, None), tmp_path / "report.json")
    new = json.loads((tmp_path / "report.json").read_text())
    old = json.loads(OLD.with_suffix(".json").read_text())
    assert kept(new, old) == old


def test_its_numbers_of_statuses_mean_what_its_words_say() -> None:
    whole = read_h5(OLD, None).judgement.labels
    with h5py.File(OLD) as file:
        grid = read_grid(file)
        assert grid is not None
        brief = list(brief_labels(file, grid, range(len(grid.keys))))
    assert list(map(statuses, brief)) == list(map(statuses, whole))
