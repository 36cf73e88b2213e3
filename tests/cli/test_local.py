"""`--local`, `--inject` and `bisect` on a script with two torch models, as a user types them."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command, assert_one_line
from tests.recorded import read_report

pytestmark = [pytest.mark.ray, pytest.mark.model]

SCRIPT = """
import copy, sys
import torch
from torch import nn
import aclcmp

torch.manual_seed(0)
aclcmp.set_label("pta", "by hand", torch.ones(2))
aclcmp.set_label("acl", "by hand", torch.ones(2))
golden = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(4)))
actual = copy.deepcopy(golden)
with torch.no_grad():
    if "--right" not in sys.argv:
        actual[0][0].weight.mul_(1.2)
    actual[2][0].weight[3] = 0.0
    aclcmp.watch(golden, "golden")
    aclcmp.watch(actual, "actual")
    golden(torch.ones(4, 8))
    actual(torch.ones(4, 8))
"""


def own(folder: Path) -> list[str]:
    return [each["label"] for each in read_report(folder)["labels"] if each["ranks"]["0"]["origin"] == "own"]


def test_all_faults_are_named_and_mended(aclcmp: Command, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(SCRIPT)
    command = ("--exec", "python run.py", "--device", "cpu")
    assert aclcmp(*command, "--inputs", "--output", "plain").code == 1
    assert own(tmp_path / "plain") == ["0.0"], "the first fault hides the second"
    labels = read_report(tmp_path / "plain")["labels"]
    assert "0.0.input" in {each["label"] for each in labels}

    done = aclcmp(*command, "--local", "plain", "--output", "local")
    assert done.code == 1 and own(tmp_path / "local") == ["0.0", "2.0"], done
    assert "own L2" in done.out and "Also wrong by itself: 2.0 (rank 0)" in done.out
    assert "own errors not measured, so judged by what comes before: by hand (acl: set_label gets no value" in done.out
    report = read_report(tmp_path / "local")
    by_name = {each["label"]: each["ranks"]["0"] for each in report["labels"]}
    assert by_name["1.0"]["own"]["rel_l2"] == 0.0 and by_name["1.0"]["origin"] == "inherited"
    assert by_name["by hand"]["own"] is None and report["run"]["golden"] == str(tmp_path / "plain")
    again = aclcmp("compare", "local")
    assert again.code == 1 and own(tmp_path / "local") == ["0.0", "2.0"]
    assert aclcmp("verdict", "local", "--save").code == 1 and own(tmp_path / "local") == ["0.0", "2.0"]
    two = aclcmp("compare", "plain", "local", "--output", "two")
    assert two.code == 1 and own(tmp_path / "two") == ["0.0", "2.0"], two
    assert "from golden's values: relative L2" in aclcmp("explain", "local", "2.0").out

    words = "was itself computed from golden's values"
    assert_one_line(aclcmp(*command, "--local", "local"), words)
    assert_one_line(aclcmp(*command, "--golden", "plain", "--inject", "0.1,2.9"), "no golden label '2.9' to inject")

    done = aclcmp(*command, "--golden", "plain", "--inject", "0.0", "--output", "half")
    assert "Note: with golden's 0.0 the last label, forward, still differs (error" in done.out
    done = aclcmp(*command, "--golden", "plain", "--inject", "0.0,2.0", "--output", "mended")
    assert "Note: with golden's 0.0, 2.0 the last label, forward, agrees (error" in done.out


def test_a_bisection_goes_on(aclcmp: Command, tmp_path: Path) -> None:
    """The fault is in layer 2: golden's values before it mend nothing."""
    script = SCRIPT.replace("actual[0][0]", "actual[2][0]").replace("weight[3] = 0.0", "weight.mul_(1.0)")
    (tmp_path / "run.py").write_text(script)
    command = ("--exec", "python run.py", "--device", "cpu")
    assert aclcmp(*command, "--output", "plain").code == 1
    bisect = ("bisect", "plain", *command, "--env", "A=B")
    done = aclcmp(*bisect, "--labels", "0.0,2.0")
    assert done.code == 0 and "With golden's 2.0 the end is right" in done.out, done
    trials = len(list((tmp_path / "plain" / "bisect").glob("trial-*")))
    again = aclcmp(*bisect, "--labels", "0.0,2.0")
    assert again.code == 0 and f"{trials} are done" in again.out
    assert len(list((tmp_path / "plain" / "bisect").glob("trial-*"))) == trials
    assert_one_line(aclcmp(*bisect, "--labels", "0.0"), "another command")
    right = aclcmp("bisect", "plain/bisect/trial-001", *command, "--labels", "0.0")
    assert_one_line(right, "its last label, forward, is right, so there is nothing to mend")
    done = aclcmp(*bisect, "--labels", "0.0", "--output", "b")
    assert done.code == 1 and "do not mend the end" in done.out
    done = aclcmp("bisect", "plain", "--switch=--other", "--switch=--right", "--output", "s")
    assert done.code == 0 and "With --right the end is right" in done.out, done
    assert_one_line(aclcmp("bisect", "plain", "--engine", "vllm"), "what `aclcmp check` started")
    assert_one_line(aclcmp("bisect", "plain", "--engine", "vllm", "--labels", "0.0"), "give one of them")
    record = tmp_path / "plain" / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"cwd": "/elsewhere"}))
    assert_one_line(aclcmp("bisect", "plain", "--labels", "0.0"), "ran in /elsewhere; go there, or give --exec")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"command": ["run", "--api-key", "k3y"]}))
    assert_one_line(aclcmp("bisect", "plain", "--labels", "0.0"), "hides secrets")
