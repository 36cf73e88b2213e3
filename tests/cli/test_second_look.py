"""How long labels that do not match are looked at again, and what is said of those that are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.cli.conftest import Command, Done, assert_one_line
from tests.recorded import write_run

Array = npt.NDArray[np.float32]
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
        "(at most 256 are; `aclcmp explain RUN LABEL` looks at one label)"
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
        "(--second-look none; `aclcmp explain RUN LABEL` looks at one label)"
    ]


@pytest.mark.parametrize("value", ["some", "0", "-1", "nan", "inf", ""])
def test_other_values_are_refused(quick_aclcmp: Command, tmp_path: Path, value: str) -> None:
    for side in ("golden", "actual"):
        (tmp_path / side).mkdir()
    words = f"--second-look: {value!r} is none of a positive number of seconds, all and none"
    for arguments in (("compare", "golden", "actual"), ("run", "--exec", "true")):
        assert_one_line(quick_aclcmp(*arguments, "--second-look", value), words)


def test_explain_looks_at_what_nobody_has_looked_at(quick_aclcmp: Command, sides: Path) -> None:
    compare(quick_aclcmp, "--second-look", "none")
    twice = "looks like: every value is twice golden's: a reduction or an addition done twice?"
    assert twice in quick_aclcmp("explain", "report", "x007").out
    drifts = quick_aclcmp("explain", "report", "x008").out
    assert "looks like: every value is 1.0001 times golden's" in drifts and "where: rank 0" in drifts
    assert "looks like: every value is 1.0001 times golden's" in quick_aclcmp("explain", "report", "x299").out
    (sides / "actual/x009.npy").write_bytes((sides / "actual/x009.npy").read_bytes()[:-8])
    done = quick_aclcmp("explain", "report", "x009")
    assert "no second look: " in done.out and "x009.npy: is truncated: 8 of its 2048 bytes" in done.out
    (sides / "actual").rename(sides / "moved")
    done = quick_aclcmp("explain", "report", "x007")
    assert done.code == 0 and twice not in done.out and "no second look: " in done.out and "actual" in done.out


def test_explain_looks_at_what_the_layout_of_the_report_compares(quick_aclcmp: Command, tmp_path: Path) -> None:
    """Six layers of 5 columns on two ranks that hold 3 each: the others prove the layout of the one that is wrong."""
    ranks: list[list[tuple[str, str, Array]]] = [[], []]
    for layer in range(6):
        x = np.random.default_rng(layer).standard_normal((32, 5)).astype(np.float32)
        slices = x[:, :3], np.pad(x[:, 3:], ((0, 0), (0, 1)))
        for rank, labels in enumerate(ranks):
            actual = -x[:, :3] if (layer, rank) == (5, 1) else slices[rank]
            labels += [("pta", f"layers.{layer}", x), ("acl", f"layers.{layer}", actual)]
    write_run(tmp_path / "run", ranks)
    assert quick_aclcmp("compare", "run", "--second-look", "none").code == 1
    explained = quick_aclcmp("explain", "run", "layers.5").out
    assert "Shard(dim=1, size=5), proved on the values" in explained and "where: rank 1 alone" in explained
    assert "sign turned" not in explained


def test_explain_where_several_layouts_have_one_name(quick_aclcmp: Command, tmp_path: Path) -> None:
    """Which golden rank serves which actual ones is not in the name of the layout."""
    wholes = np.random.default_rng(0).standard_normal((2, 32, 6)).astype(np.float32)
    write_run(tmp_path / "golden", [[("pta", name, whole) for name in "xy"] for whole in wholes])
    served: list[list[tuple[str, str, Array]]] = []
    for rank in range(4):
        factor = np.float32(1 + (rank == 1))
        served.append([("acl", "x", wholes[rank // 2] * factor), ("acl", "y", wholes[rank % 2] * factor)])
    write_run(tmp_path / "actual", served)
    assert quick_aclcmp("compare", "golden", "actual", "--output", "report", "--second-look", "none").code == 1
    for name in "xy":
        explained = quick_aclcmp("explain", "report", name).out
        assert "looks like: every value is twice golden's" in explained and "(100% of the error, rank 1)" in explained


def test_explain_looks_into_the_shards_of_a_run(quick_aclcmp: Command, tmp_path: Path) -> None:
    """Whose folder need not have the run's name."""
    x = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
    run = write_run(tmp_path / "run", [[("pta", "x", x), ("acl", "x", -x)]] * 2, run_id="20260101-000000")
    assert quick_aclcmp("compare", "run", "--second-look", "none").code == 1
    explained = quick_aclcmp("explain", "run", "x").out
    assert "looks like: every value is golden's with the sign turned (100% of the error, ranks 0-1)" in explained
    assert quick_aclcmp("compare", "run", "--second-look", "none").code == 1
    for shard in run.shards.glob("*.h5"):
        shard.write_bytes(shard.read_bytes().replace((-x).tobytes(), x.tobytes()))
    assert "no second look: " in (explained := quick_aclcmp("explain", "run", "x").out) and "checksum" in explained
