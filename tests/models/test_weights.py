"""Weights of a trained model in transformers, alone and as its own plan cuts them over ranks."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aclcmp.orchestrator.run.directory import RunDir
from tests.models.running import RUN_ID, Made, Ranks, run_maker
from tests.recorded import read_report, record_run

pytestmark = pytest.mark.model

FAULTS = {
    "0.self_attn.o_proj": ("layer", "model.layers.2.self_attn.o_proj"),
    "1.self_attn.k_proj": ("order", "v_proj"),
    "1.self_attn.v_proj": ("order", "k_proj"),
    "2.mlp.up_proj": ("unknown", "zero rows"),
    "2.mlp.down_proj": ("unknown", "576 unknown rows"),
}
"""Module of a layer -> kind of the finding, and what it holds."""


@pytest.fixture(scope="module")
def made(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return run_maker(ranks, tmp_path_factory.mktemp("runs"), "weight_ranks.py")


def compared(run: Path, ranks: int, code: int) -> dict[str, Any]:
    record_run(RunDir(run, RUN_ID), "weight_ranks.py", ranks, RUN_ID)
    done = subprocess.run([sys.executable, "-m", "aclcmp", "compare", run], capture_output=True, text=True)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-1000:]
    (run / "out.txt").write_text(done.stdout)
    return read_report(run)


@pytest.mark.parametrize(("ranks_of_actual", "dtype"), [(1, "bfloat16"), (3, "float32")])
def test_healthy_weights_are_golden_s(made: Made, ranks_of_actual: int, dtype: str) -> None:
    run = made(f"--dtype {dtype}", ranks_of_actual)
    weights = compared(run, ranks_of_actual, 0)["weights"]
    assert weights["findings"] == [] and weights["known"] == weights["parameters"] == 30
    held = {each["parameter"]: each["words"] for each in weights["held"] if 0 in each["ranks"]}
    words = held["model.layers.{0-2}.mlp.down_proj.weight"]
    assert words == ("down_proj (bfloat16 of float32)" if ranks_of_actual == 1 else "down_proj[:, 0:512]")
    on = "1 rank" if ranks_of_actual == 1 else "3 ranks"
    assert f"weights: 30 parameters on {on} are golden's\n" in (run / "out.txt").read_text()


@pytest.mark.parametrize("ranks_of_actual", [1, 3])
def test_faults_of_loaders_are_named_before_any_label(made: Made, ranks_of_actual: int) -> None:
    run = made("--faults", ranks_of_actual)
    found = compared(run, ranks_of_actual, 1)
    findings = {each["parameter"]: each for each in found["weights"]["findings"]}
    assert set(findings) == {f"model.layers.{module}.weight" for module in FAULTS}
    for module, (kind, holds) in FAULTS.items():
        finding = findings[f"model.layers.{module}.weight"]
        assert finding["kind"] == kind and finding["wrong"] and holds in finding["words"], finding
    first = found["first_divergence"]
    assert first["of_weight"] and first["label"] == "model.layers.0.self_attn.o_proj.weight"
    wrong = [each for each in found["labels"] if each["status"] == "diverged"]
    assert len(wrong) > 20 and {r["origin"] for each in wrong for r in each["ranks"].values()} <= {"inherited", None}
    assert "First divergence: weight model.layers.0.self_attn.o_proj.weight" in (run / "out.txt").read_text()
