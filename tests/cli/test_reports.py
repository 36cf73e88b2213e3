"""Judging again, explaining, and comparing reports, through the real command on a real run."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.request import urlopen

import h5py
import pytest

from tests.cli.conftest import Command, assert_one_line
from tests.processes import PATIENCE
from tests.recorded import read_report

pytestmark = pytest.mark.ray

MODEL = """
import sys
import torch
import aclcmp

made = torch.Generator().manual_seed(0)
weights = [torch.randn(32, 32, generator=made) / 6 for _ in range(8)]
x = aclcmp.perturb(torch.randn(8, 32, generator=made).bfloat16())
golden = actual = x
exact = x.double()
for i, w in enumerate(weights):
    golden = golden + torch.tanh(golden @ w.bfloat16())
    exact = exact + torch.tanh(exact @ w.double())
    step = torch.tanh((actual.float() @ w.bfloat16().float()).bfloat16())
    actual = actual + (step * 1.1 if i == 4 and "fault" in sys.argv else step)
    if "ref" in sys.argv:
        aclcmp.set_label("ref", f"layers.{i}.out", exact)
    aclcmp.set_label("pta", f"layers.{i}.out", golden, inputs=[f"layers.{i - 1}.out"] if i else None)
    aclcmp.set_label("acl", f"layers.{i}.out", actual)
"""

POLICY = """
[[allow]]
pattern = "layers.4.out"
reason = "scaled on purpose"
"""


def run(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aclcmp", *arguments]
    environ = os.environ | more | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that has a fault which only a floor makes wrong by level."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "model.py").write_text(MODEL)
    done = run(folder, "--exec", "python model.py fault ref", "--output", "wrong")
    assert done.returncode == 1 and "layers.4.out" in done.stdout and "reference floor" in done.stdout, done
    return folder


@pytest.fixture
def wrong(recorded: Path, tmp_path: Path) -> Path:
    """That run, in the test's own folder."""
    shutil.copytree(recorded, tmp_path, dirs_exist_ok=True)
    return tmp_path / "wrong"


def test_a_report_is_judged_explained_and_shown_again(aclcmp: Command, wrong: Path, tmp_path: Path) -> None:
    shutil.rmtree(wrong / "shards")  # nothing of this needs tensors
    (tmp_path / "policy.toml").write_text(POLICY)
    done = aclcmp("verdict", "wrong", "--policy", "policy.toml", "--fail-on", "own")
    assert done.code == 0 and "Allowed to differ by the policy: layers.4.out: scaled on purpose." in done.out
    done = aclcmp("verdict", "wrong", "--json")
    assert done.code == 1 and json.loads(done.out)["first_divergence"]["label"] == "layers.4.out"
    assert aclcmp("verdict", "wrong", "--policy", "policy.toml", "--fail-on", "own", "--save").code == 0
    assert read_report(wrong)["verdict"] == "match"
    assert aclcmp("verdict", "wrong", "--save").code == 1
    done = aclcmp("explain", "wrong", "layers.4.out")
    assert done.code == 0 and "reference: relative L2" in done.out and "computed from layers.3.out" in done.out
    assert "did you mean layers.4.out" in aclcmp("explain", "wrong", "layer.4.out").err
    done = aclcmp("report", "wrong", "--html")
    assert done.code == 0 and b"layers.4.out" in (wrong / "report.html").read_bytes()
    cases = {case.get("name"): case for case in ET.parse(wrong / "report.xml").getroot().iter("testcase")}
    assert cases["layers.4.out"].find("failure") is not None and cases["layers.3.out"].find("failure") is None


def test_the_page_is_served_until_ctrl_c(wrong: Path) -> None:
    environ = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "aclcmp", "report", "wrong", "--serve"]
    with subprocess.Popen(
        command, cwd=wrong.parent, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        told = process.stdout.readline()
        address = re.fullmatch(r"Page: (http://127\.0\.0\.1:\d+)/ \(on this host alone; Ctrl-C ends\)\n", told)
        assert address, told
        with urlopen(f"{address[1]}/rows?order=status&descending=true") as answer:
            (number, rank, *_), *_ = json.load(answer)["rows"]
        with urlopen(f"{address[1]}/label?number={number}") as answer:
            label = json.load(answer)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert (process.stdout.read(), process.stderr.read()) == ("The page is no longer served.\n", "")
    found = label["verdicts"][0]
    assert (rank, label["datasets"][str(number)]) == (0, "/tasks/0/layers.4.out/0")
    with h5py.File(found["golden"][4]) as shard:  # as the page's lines of Python open it
        golden, actual = (shard[f"{label['datasets'][str(number)]}/{side}"][:] for side in ("pta", "acl"))
    (row,), start, kept = found["worst_row"]["row"], found["worst_row"]["start"], found["worst_row"]["actual"]
    assert found["worst_row"]["shape"] == list(golden.shape) == list(actual.shape)
    assert kept == pytest.approx(actual[row, start : start + len(kept)].tolist(), rel=1e-4)


def test_two_reports_and_floors(aclcmp: Command, wrong: Path, tmp_path: Path) -> None:
    done = aclcmp("--exec", "python model.py", "--output", "right", "--floor", "perturb")
    assert done.code == 0 and (tmp_path / "right" / "again-perturbed" / "run.json").exists(), done
    floors = read_report(tmp_path / "right")["labels"][3]["ranks"]["0"]["floors"]
    assert floors["perturbed"]["rel_l2"] > 0
    done = aclcmp("diff", "wrong", "right")
    assert done.code == 0 and "First divergence: layers.4.out, task 0, rank 0 -> none" in done.out
    assert aclcmp("diff", "right", "wrong").code == 1
    assert "taken from runs that match" in aclcmp("report", "wrong", "--save-floor", "floor.h5").err
    assert aclcmp("report", "right", "--save-floor", "floor.h5").code == 0
    assert aclcmp("verdict", "wrong", "--floor", "floor.h5").code == 1
    done = aclcmp("compare", "right", "--floor", "wrong")
    assert done.code == 0, "golden of the one against golden of the other"
    content = read_report(tmp_path / "right")
    assert content["labels"][3]["ranks"]["0"]["floors"]["repeat"] == {"rel_l2": 0.0, "worst_row": 0.0, "row_p50": 0.0}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("verdict", "nowhere"), "nowhere is not a folder"),
        (("verdict", "."), "neither run.json nor report.h5"),
        (("verdict", ".", "--floor", "absent"), "--floor absent is no file"),
        (("explain", ".", "x"), "neither run.json nor report.h5"),
        (("diff", ".", "."), "neither run.json nor report.h5"),
        (("report", ".", "--html"), "neither run.json nor report.h5"),
        (("--exec", "python x.py", "--floor", "absent"), "neither perturb nor repeat"),
        (("--exec", "python x.py", "--floor", "."), "is a folder; give perturb, repeat"),
        (("--exec", "python x.py", "--policy", "absent.toml"), "absent.toml: No such file"),
        (("compare", ".", "--floor", "perturb"), "needs a launch"),
    ],
)
def test_wrong_usage_is_one_line(quick_aclcmp: Command, arguments: tuple[str, ...], told: str) -> None:
    assert_one_line(quick_aclcmp(*arguments), told)


def test_stdout_that_takes_nothing(wrong: Path, tmp_path: Path) -> None:
    aclcmp = f"{shlex.quote(sys.executable)} -m aclcmp"

    def shell(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)

    for command in ("verdict wrong", "verdict wrong --json"):
        done = shell(f"{aclcmp} {command} > /dev/full")
        assert done.returncode == 2 and done.stderr == "aclcmp: error: cannot write: No space left on device\n", done
        done = shell(f"{aclcmp} {command} >&-")
        assert done.returncode == 1 and not done.stderr, done


def test_json_alone_on_stdout(wrong: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "report", "wrong", "--html", "--json")
    assert json.loads(done.stdout)["verdict"] == "diverged" and done.stderr.startswith("Page: ")


def test_annotations_and_json_on_stdout(wrong: Path, recorded: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "compare", "wrong", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["exit_code"] == 1
    done = run(tmp_path, "compare", "wrong", GITHUB_ACTIONS="true", GITHUB_WORKSPACE=str(recorded))
    assert "::error file=model.py,line=" in done.stdout


TOKENS = """
import torch
from aclcmp import set_label

logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
logits[2, 7] = logits[2].max() + 1
logits[2, 8] = logits[2, 7] - 1e-6
actual = logits.clone()
actual[2, 8] += 2e-6
set_label("pta", "logits", logits)
set_label("acl", "logits", actual)
set_label("pta", "tokens", logits.argmax(-1))
set_label("acl", "tokens", actual.argmax(-1))
"""


def test_a_flipped_token_is_a_tie(aclcmp: Command, tmp_path: Path) -> None:
    (tmp_path / "tokens.py").write_text(TOKENS)
    done = aclcmp("--exec", "python tokens.py", "--output", "out")
    assert done.code == 0 and "1 label is above the noise floor: tokens" in done.out, done
    explained = aclcmp("explain", "out", "tokens").out
    assert "1 of 6 values differ, all of them ties" in explained
