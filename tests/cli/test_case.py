"""`aclcmp case` on a run of two ranks: what it writes, that it runs alone, what it says, and what it refuses."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from aclcmp.orchestrator.dumps.safetensors import write_safetensors
from tests.cli.conftest import Command, Done, assert_one_line
from tests.processes import PATIENCE
from tests.recorded import read_report, write_run

Values = npt.NDArray[np.float32]
FC, AFTER, ODD = "model.fc", "model.after", "../odd `name`/x"
ALONE = "import sys, runpy; sys.modules['aclcmp'] = None; sys.argv[0] = sys.argv.pop(1); "
ALONE += "runpy.run_path(sys.argv[0], run_name='__main__')"


def alone(folder: Path, *arguments: str) -> str:
    """What the case's script prints where there is torch and no aclcmp."""
    command = [sys.executable, "-I", "-c", ALONE, str(folder / "case.py"), *arguments]
    done = subprocess.run(
        command, cwd=folder.parent, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def drawn(tmp_path: Path) -> dict[str, Values]:
    """A run whose model.fc is wrong on rank 1, and golden's checkpoint in `model`."""
    rng = np.random.default_rng(0)
    x, weight, bias, norm = (rng.normal(size=size).astype(np.float32) for size in ((9, 8), (6, 8), (6,), (6,)))
    (tmp_path / "model").mkdir()
    parameters = {"model.fc.weight": weight, "model.fc.bias": bias, "model.after.weight": norm}
    stored = {name: ("float32", each) for name, each in parameters.items()}
    write_safetensors(tmp_path / "model" / "model.safetensors", stored, {})
    (tmp_path / "model" / "config.json").write_text('{"rms_norm_eps": 1e-5}')
    golden = (x.astype(np.float64) @ weight.T + bias).astype(np.float32)
    actual = golden.copy()
    actual[:, 3:] *= 1.25
    actual[4, 5] += 3.0

    def after(values: Values) -> Values:
        return (values / np.sqrt((values.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-5) * norm).astype("f4")

    goldens = [("pta", "model.fc.input", x), ("pta", FC, golden), ("pta", AFTER, after(golden)), ("pta", ODD, x)]
    both = [
        [("acl", "model.fc.input", x), ("acl", FC, part), ("acl", AFTER, after(actual)), ("acl", ODD, x * 2)]
        for part in (actual[:, :3], actual[:, 3:])
    ]
    write_run(tmp_path / "run", [goldens + both[0], both[1]])
    return {"weight": weight, "bias": bias, "golden": golden, "x": x}


def case(aclcmp: Command, *arguments: str) -> Done:
    done = aclcmp("case", "run", *arguments)
    assert done.code == 0, done
    return done


def test_an_own_error_is_confirmed_alone(quick_aclcmp: Command, tmp_path: Path, drawn: dict[str, Values]) -> None:
    assert quick_aclcmp("compare", "run").code == 1
    said = case(quick_aclcmp, FC, "--model", "model").out
    folder = tmp_path / "model.fc-case"
    assert "model.fc, rank 1: row 4" in said and "Rank 1 holds features 3-5 of 6." in said
    printed = alone(folder)
    (label,) = (each for each in read_report(tmp_path / "run")["labels"] if each["label"] == FC)
    number = label["ranks"]["1"]["metrics"]["worst_row"]
    assert f"worst row {number:.1e}; the report says {number:.1e}" in printed
    (confirmed,) = (line for line in printed.splitlines() if line.startswith("confirms own: golden agrees"))
    assert confirmed in said and confirmed in (folder / "README.md").read_text()
    (tmp_path / "my_kernel.py").write_text(
        "def right(x, weight, bias):\n    return x @ weight.T + bias\n"
        "def wrong(x, weight, bias):\n    return x @ weight.T\n"
    )
    held = alone(folder, "my_kernel.py:right", "my_kernel.py:wrong").splitlines()[-2:]
    assert float(held[0].split()[-3]) < 1e-6 < 1e-2 < float(held[1].split()[-3])


def test_an_inherited_error_is_not_confirmed(quick_aclcmp: Command, tmp_path: Path, drawn: dict[str, Values]) -> None:
    assert quick_aclcmp("compare", "run").code == 1
    said = case(quick_aclcmp, AFTER, "--model", "model", "--output", "c", "--rows", "3").out
    assert "Input: `model.fc`, as golden's values prove." in said
    printed = alone(tmp_path / "c")
    assert "does not confirm own: actual agrees with what its own input gives" in printed
    assert "the error came in with the input" in printed and printed.count("; row") == 2


def test_without_weights_it_says_so(quick_aclcmp: Command, tmp_path: Path, drawn: dict[str, Values]) -> None:
    assert quick_aclcmp("compare", "run").code == 1
    said = case(quick_aclcmp, FC).out
    assert "give the folder of golden's checkpoint: `--model DIR`" in said
    assert "confirms own: from the same input actual differs" in said
    text = (tmp_path / "model.fc-case" / "case.py").read_text()
    assert "PUT THE CALL OF YOUR MODULE HERE" in text


def test_other_weights_are_not_taken_for_goldens(
    quick_aclcmp: Command, tmp_path: Path, drawn: dict[str, Values]
) -> None:
    assert quick_aclcmp("compare", "run").code == 1
    (tmp_path / "other").mkdir()
    stored = {"fc.weight": ("float32", drawn["weight"] + 1), "model.fc.weight": ("float32", drawn["weight"][::-1])}
    write_safetensors(tmp_path / "other" / "a.safetensors", stored, {})
    assert (
        "does not confirm own: golden differs from the recomputation" in case(quick_aclcmp, FC, "--model", "other").out
    )


def test_nothing_of_the_host_goes_in(
    quick_aclcmp: Command, tmp_path: Path, drawn: dict[str, Values], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cret-of-mine")
    assert quick_aclcmp("compare", "run").code == 1
    case(quick_aclcmp, ODD, "--model", "model")
    (folder,) = tmp_path.glob("*-case")
    assert folder.name == "odd-name-x-case"
    written = b"".join(each.read_bytes() for each in folder.iterdir())
    for secret in ("s3cret", str(tmp_path), socket.gethostname() + "/", "x.py", "127.0.0.1"):
        assert secret.encode() not in written


def test_wrong_use_is_told_in_a_line(quick_aclcmp: Command, tmp_path: Path, drawn: dict[str, Values]) -> None:
    assert_one_line(quick_aclcmp("case", "run", FC), "nothing was compared there yet")
    assert quick_aclcmp("compare", "run").code == 1
    assert_one_line(quick_aclcmp("case", "run", "model.fd"), "no label is called model.fd; did you mean model.fc")
    assert_one_line(quick_aclcmp("case", "run", "model.*"), "a case is of one")
    assert_one_line(quick_aclcmp("case", "run", FC, "--rank", "7"), "model.fc is not on rank 7, but on ranks 0-1")
    assert_one_line(quick_aclcmp("case", "run", FC, "--task", "3"), "no label has task 3")
    assert_one_line(quick_aclcmp("case", "run", FC, "--model", "run"), "has no .safetensors file")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0damaged!")
    assert_one_line(quick_aclcmp("case", "run", FC, "--model", "model"), "not that of a .safetensors file")
    (tmp_path / "model.fc-case").mkdir()
    assert_one_line(quick_aclcmp("case", "run", FC), "exists; choose another folder with --output")
    for shard in (tmp_path / "run" / "shards").iterdir():
        shard.unlink()
    assert quick_aclcmp("case", "run", FC, "--output", "c").code == 2


def test_no_number_that_is_not_finite_is_lost(quick_aclcmp: Command, tmp_path: Path) -> None:
    values = np.ones((4, 3), np.float32)
    wrong = values.copy()
    wrong[2, 1] = np.nan
    write_run(tmp_path / "run", [[("pta", "a", values), ("acl", "a", wrong)]])
    assert quick_aclcmp("compare", "run").code == 1
    assert "a, rank 0: row 2" in case(quick_aclcmp, "a").out


def test_a_layout_that_a_file_corrects_cuts_the_weights(
    quick_aclcmp: Command, tmp_path: Path, drawn: dict[str, Values]
) -> None:
    """The ranks hold slices of two parts side by side."""
    golden, x = drawn["golden"], drawn["x"]
    places = [0, 2, 3], [1, 4, 5]
    first, second = (golden[:, each] for each in places)
    goldens = [("pta", "model.norm", x), ("pta", FC, golden)]
    ranks = [[("acl", "model.norm", x), ("acl", FC, each)] for each in (first, second * np.float32(1.5))]
    write_run(tmp_path / "cut", [[*goldens, *ranks[0]], ranks[1]])
    (tmp_path / "layouts.txt").write_text("actual model.fc -> Shard(dim=-1, parts=(2, 4))\n")
    assert quick_aclcmp("compare", "cut", "--layouts", "layouts.txt").code == 1
    done = quick_aclcmp("case", "cut", FC, "--model", "model", "--output", "c")
    assert done.code == 0 and "Rank 1 holds features 1, 4-5 of 6." in done.out, done
    assert "Input: `model.norm`, as golden's values prove." in done.out
    assert "confirms own: golden agrees with the recomputation" in done.out
