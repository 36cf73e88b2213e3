"""Second looks, patterns and hints in report.h5 and report.json, and as sentences."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import jsonschema
import numpy as np
import pandas as pd

from aclcmp.orchestrator.core.diagnosis import HISTOGRAM_BINS, ChannelSums, Counts, Fit, Hint, Look, Pattern, WorstRow
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.report.as_json import schema
from aclcmp.orchestrator.report.h5.diagnosis_tables import read_looks, write_looks
from aclcmp.orchestrator.report.text.causes import hint_object, pattern_object, what_it_looks_like
from tests.report.made_up import decoder_labels, report_of

KEY = LabelKey(0, "layers.1.mlp.out", 0)
ODD = LabelKey(3, 'a/b ünïcode 目录 "quoted", with commas', 2)
FITS = (Fit("scale", "every value is twice golden's: a reduction done twice?", 0.9999), Fit("shifted rows", "…", 1 / 3))
PATTERNS = (
    Pattern(KEY, {3: 0.1 + 0.2, 11: 0.7}, "ranks 3, 11 of 16", "row 64 holds 98 % of it", ""),
    Pattern(ODD, {}, "", "", ""),
)
HINTS = (
    Hint(KEY, (3, 11), "scale", FITS[0].words, 0.9999),
    Hint(KEY, (5,), "one row", "row 64 holds 98 % of it: one row alone?", 0.98),
    Hint(ODD, (0,), "offset", "0.5 is added", 1.0),
)

WORST_ROW = WorstRow((2, 5, 80), (1, 3), 16, np.array([1.5, np.inf, 3.0]), np.array([-2.0, np.nan, 3.0]))


def looks(channels: int = 3) -> dict[tuple[LabelKey, int], Look]:
    random = np.random.default_rng(0)
    sums = ChannelSums(2, np.arange(7, 7 + channels), random.random(channels), random.random(channels))
    histogram = random.integers(0, 1 << 40, HISTOGRAM_BINS)
    return {
        (KEY, 3): Look(sums, histogram, FITS, worst_row=WORST_ROW),
        (KEY, 11): Look(sums, histogram * 0, (), Counts.of(1, np.array([5, 9, 5])), Counts.of(2, np.array([3]))),
        (ODD, 0): Look(ChannelSums.empty(), histogram, FITS[1:]),
    }


def written(path: Path, *what) -> h5py.File:
    with h5py.File(path, "w") as file:
        write_looks(file, *what)
    return h5py.File(path, "r")


def test_all_comes_back(tmp_path: Path) -> None:
    for channels in (3, 5000):
        with written(tmp_path / "looks.h5", looks(channels), PATTERNS, HINTS) as file:
            found, patterns, hints = read_looks(file)
        assert (patterns, hints) == (PATTERNS, HINTS)
        assert list(found) == list(looks())
        for name, look in looks(channels).items():
            assert found[name].fits == look.fits
            assert found[name].histogram.tolist() == look.histogram.tolist()
            line = found[name].worst_row
            assert (line is None) == (look.worst_row is None)
            if line is not None:
                assert (line.whole_shape, line.row, line.start) == ((2, 5, 80), (1, 3), 16)
                assert np.array_equal(line.golden, WORST_ROW.golden)
                assert np.array_equal(line.actual, WORST_ROW.actual, equal_nan=True)
            assert found[name].channels.group == look.channels.group
            for part in ("index", "sum_xx", "sum_dd"):
                assert getattr(found[name].channels, part).tolist() == getattr(look.channels, part).tolist()
            for mine, its in (
                (found[name].nonfinite_rows, look.nonfinite_rows),
                (found[name].nonfinite_channels, look.nonfinite_channels),
            ):
                assert (mine.group, mine.index.tolist()) == (its.group, its.index.tolist())
                assert mine.count.tolist() == its.count.tolist()


def test_nothing_comes_back_as_nothing(tmp_path: Path) -> None:
    with written(tmp_path / "looks.h5", {}, (), ()) as file:
        assert read_looks(file) == ({}, (), ())
    with h5py.File(tmp_path / "old.h5", "w") as file:
        assert read_looks(file) == ({}, (), ())


def test_other_tools_read_it(tmp_path: Path) -> None:
    with written(tmp_path / "looks.h5", looks(), PATTERNS, HINTS) as file:
        group = file[f"looks/{KEY.label}, rank 3"]
        assert group.attrs["NX_class"] == group["histogram"].attrs["NX_class"] == b"NXdata"
        assert group[group.attrs["signal"]].shape == group[group.attrs["axes"][0]].shape
        assert (group.attrs["label"].decode(), group.attrs["rank"]) == (KEY.label, 3)
        hints = pd.DataFrame(file["hints"][:])
        assert hints["explained"].tolist() == [0.9999, 0.98, 1.0]


def test_many_stay_in_order(tmp_path: Path) -> None:
    look = Look(ChannelSums.empty(), np.zeros(HISTOGRAM_BINS, np.int64), FITS[:1])
    many = {(KEY, rank): replace(look, fits=(replace(FITS[0], words=str(rank)),)) for rank in range(120)}
    with written(tmp_path / "looks.h5", many, (), ()) as file:
        found, _, _ = read_looks(file)
    assert [look.fits[0].words for look in found.values()] == [str(rank) for rank in range(120)]


def test_json_objects() -> None:
    pattern, hint = pattern_object(PATTERNS[0]), hint_object(HINTS[0])
    assert json.loads(json.dumps(pattern)) == {
        "task": 0,
        "label": KEY.label,
        "occurrence": 0,
        "by_rank": {"3": 0.1 + 0.2, "11": 0.7},
        "ranks": "ranks 3, 11 of 16",
        "rows": "row 64 holds 98 % of it",
        "channels": "",
    }
    assert hint["ranks"] == [3, 11] and hint["explained"] == 0.9999
    known = schema()["$defs"]
    for name, found in (("pattern", pattern), ("hint", hint)):
        if name in known:
            jsonschema.validate(found, {"$ref": f"#/$defs/{name}", "$defs": known})


def test_sentences() -> None:
    report = report_of(decoder_labels(3, 16, culprit=(KEY.label, 3)))
    assert what_it_looks_like(report) == []
    report = replace(report, patterns=PATTERNS, hints=HINTS)
    assert what_it_looks_like(report) == [
        "  Where: ranks 3, 11 of 16; row 64 holds 98 % of it.",
        "  Looks like: every value is twice golden's: a reduction done twice? "
        "(explains all of the error, on ranks 3, 11)",
        "  Looks like: row 64 holds 98 % of it: one row alone? (explains 98 % of the error, on rank 5)",
    ]
    only = replace(report, hints=(replace(HINTS[0], ranks=(3,), explained=0.93),))
    assert what_it_looks_like(only)[-1].endswith("done twice? (explains 93 % of the error)")
    assert what_it_looks_like(report_of(decoder_labels(1, 2))) == []
