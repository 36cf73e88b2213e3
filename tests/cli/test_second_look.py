"""How long labels that do not match are looked at again, and what is said of those that are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Command, Done

LABELS = 300


@pytest.fixture
def sides(tmp_path: Path) -> Path:
    """Write two folders of labels that drift, after one that diverges."""
    x = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
    for side, factor, noise in (("golden", 1, 0.0), ("actual", 2, 1e-4)):
        (tmp_path / side).mkdir()
        for number in range(LABELS):
            values = x * np.float32(factor if number == 7 else 1 + noise)
            np.save(tmp_path / side / f"x{number:03}.npy", values)
    return tmp_path


def compare(run: Command, *options: str) -> tuple[Done, dict[str, Any], list[str]]:
    done = run("compare", "golden", "actual", "--output", "report", "--json", *options)
    assert done.code == 1, done
    report = json.loads(done.out)
    return done, report, [note for note in report["notes"] if note.startswith("second look")]


def test_the_most_telling_come_first(quick_aclcmp: Command, sides: Path) -> None:
    done, report, notes = compare(quick_aclcmp)
    assert "aclcmp: looked again at 256/256" in done.err
    assert notes == [
        "second look: 256 of 300 pairs that do not match, the most telling; not looked at: 44 "
        "(at most 256 are; `--second-look all` looks at all)"
    ]
    assert [hint["kind"] for hint in report["hints"]] == ["scale"]


def test_all(quick_aclcmp: Command, sides: Path) -> None:
    done, _, notes = compare(quick_aclcmp, "--second-look", "all")
    assert "looked again at 300/300" in done.err and notes == []


def test_none(quick_aclcmp: Command, sides: Path) -> None:
    done, report, notes = compare(quick_aclcmp, "--second-look", "none")
    assert "looked again" not in done.err and report["hints"] == []
    assert notes == [
        "second look: 0 of 300 pairs that do not match; not looked at: 300 "
        "(--second-look none; `--second-look all` looks at all)"
    ]


@pytest.mark.parametrize("value", ["some", "0", "-1", "nan", "inf", ""])
def test_other_values_are_refused(quick_aclcmp: Command, sides: Path, value: str) -> None:
    words = f"--second-look: {value!r} is none of a positive number of seconds, all and none"
    for arguments in (("compare", "golden", "actual"), ("run", "--exec", "true")):
        done = quick_aclcmp(*arguments, "--second-look", value)
        assert done.code == 2 and words in done.err
