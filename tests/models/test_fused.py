"""A trained model beside a fused, tensor-parallel network of other names: only weights tell names and layouts."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import load_record, save_record
from tests.models.running import RUN_ID, Made, Ranks, run_maker
from tests.recorded import read_report

pytestmark = pytest.mark.model

LAYERS = "model.layers"
MODULES = [f"self_attn.{each}_proj" for each in "qkvo"] + [f"mlp.{each}_proj" for each in ("gate", "up", "down")]
MODULES += ["input_layernorm", "post_attention_layernorm"]
NAMED = {f"{LAYERS}.{layer}.{name}" for layer in range(3) for name in MODULES}
NAMED |= {"model.embed_tokens", "model.norm", "lm_head"}


@pytest.fixture(scope="module")
def made(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return run_maker(ranks, tmp_path_factory.mktemp("runs"), "fused_ranks.py")


def compared(*runs: Path, out: Path | None = None) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Compare without map and layouts; return the report, its labels, and what was printed."""
    output = [] if out is None else ["--output", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "aclcmp", "compare", *runs, *output], capture_output=True, text=True, check=False
    )
    report = read_report(out or runs[0])
    return report, {each["label"]: each for each in report["labels"]}, done.stdout + done.stderr


def test_weights_name_partners_and_layouts(made: Made, tmp_path: Path) -> None:
    report, labels, out = compared(made("golden"), made("actual", 3), out=tmp_path / "out")
    assert {name: labels[name]["status"] for name in NAMED} == dict.fromkeys(NAMED, "match"), out
    assert labels[f"{LAYERS}.1.self_attn.k_proj"]["ranks"]["0"]["layout"].startswith("Shard(dim=-1)")
    assert (
        labels[f"{LAYERS}.1.self_attn.o_proj"]["ranks"]["0"]["layout"]
        == "Partial(sum) over 3 ranks, proved on the values"
    )
    (note,) = [each for each in report["notes"] if "from the weights" in each]
    assert note.startswith("names and layouts of ")
    assert "h.{0-2}.attn.wqkv = model.layers.{0-2}.self_attn.q_proj | model.layers.{0-2}.self_attn.k_proj | " in note


def test_both_sides_in_one_run(made: Made) -> None:
    _, labels, out = compared(made("both", 3))
    assert {name: labels[name]["status"] for name in NAMED} == dict.fromkeys(NAMED, "match"), out


def test_a_wrong_weight_does_not_name_a_partner(made: Made, tmp_path: Path) -> None:
    report, labels, _ = compared(made("golden"), made("actual --fault layer", 3), out=tmp_path / "out")
    (finding,) = report["weights"]["findings"]
    assert (finding["parameter"], finding["kind"]) == ("h.0.attn.wo.weight", "layer")
    assert report["first_divergence"]["label"] == "h.0.attn.wo.weight" and labels.keys() >= NAMED
    assert labels[f"{LAYERS}.0.self_attn.q_proj"]["status"] == "match"
    first = labels[f"{LAYERS}.0.self_attn.o_proj"]
    assert first["status"] == "diverged" and first["root"]["label"] == "h.0.attn.wo.weight"


def test_a_reduction_that_is_missing_is_no_layout(made: Made, tmp_path: Path) -> None:
    """The summands of the first layer are right, too: what follows tells that nobody added them up."""
    report, labels, out = compared(made("golden"), made("actual --fault reduction", 3), out=tmp_path / "out")
    assert report["first_divergence"]["label"] == f"{LAYERS}.0.self_attn.o_proj"
    assert "a reduction over them is missing" in out
    assert labels[f"{LAYERS}.0.mlp.gate_proj"]["status"] == "diverged"


def test_values_are_put_only_behind_names_that_the_process_knew(made: Made, tmp_path: Path) -> None:
    """Weights name modules after the run: none of them was computed from golden's values, and none was replaced."""
    both = made("both", 3)
    for inject in ((), (f"{LAYERS}.1.self_attn.q_proj",)):
        again = RunDir(shutil.copytree(both, tmp_path / f"again-{len(inject)}"), RUN_ID)
        record = load_record(again.record).model_copy(update={"golden": str(both), "inject": inject})
        save_record(record, again.record)
        report, labels, _ = compared(again.root)
        _, of_two, _ = compared(both, again.root, out=tmp_path / f"two-{len(inject)}")
        assert all(rank["own"] is None for each in of_two.values() for rank in each["ranks"].values())
        if inject:
            assert inject[0] not in labels and labels["lm_head"]["status"] == "match"
        else:
            assert all(rank["own"] is None for each in labels.values() for rank in each["ranks"].values())
            assert any(note.startswith("own errors measured: 0 of ") for note in report["notes"])
            assert {name: labels[name]["status"] for name in NAMED} == dict.fromkeys(NAMED, "match")
