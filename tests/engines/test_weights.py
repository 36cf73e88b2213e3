"""Loader faults planted in a real vLLM with trained weights on three ranks: each is named, before any label."""

from pathlib import Path
from typing import Any

import pytest

from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import load_record
from tests.engines.engine_runs import add_golden, compare_round, record_rounds, run
from tests.recorded import read_report, record_run

pytestmark = pytest.mark.engine

LAYERS = "model.layers"
FOUND = {
    "swapped": ("order", "1.self_attn.qkv_proj", [1], "q_proj[192:384], **v_proj[64:128]**, **k_proj[64:128]**"),
    "half": ("unknown", "2.mlp.gate_up_proj", [2], "gate_proj[1024:1536], **512 zero rows**"),
    "layer": ("layer", "0.self_attn.o_proj", [0, 1, 2], f"**{LAYERS}.2.self_attn.o_proj[:, 0:192]**"),
    "axis": ("unknown", "2.mlp.down_proj", [0, 1, 2], "**576 unknown rows**"),
}
"""Kind, module, ranks, and what it holds."""


@pytest.fixture(scope="module")
def rounds(engine: Path, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run directories; `all` has labels and the golden side, with which the others are compared."""
    folder = tmp_path_factory.mktemp("weights")
    record_rounds(engine, folder, f"weight_rounds.py {smollm2} {folder}/rounds", 3)
    (folder / "out.txt").write_text(add_golden(engine, folder / "rounds" / "all", smollm2, 3, "weight_rounds.py"))
    return folder


def found_in(folder: Path, engine: Path, name: str) -> dict[str, Any]:
    return read_report(compare_round(engine, folder, "all", name))


def test_weights_as_they_are_are_golden_s(rounds: Path, engine: Path) -> None:
    found = found_in(rounds, engine, "clean")
    assert found["weights"]["findings"] == [] and found["first_divergence"] is None
    assert found["weights"]["known"] == found["weights"]["parameters"] == 20
    held = {(each["parameter"], *each["ranks"]): each["words"] for each in found["weights"]["held"]}
    assert held["model.layers.{0-2}.self_attn.qkv_proj.weight", 1] == "q_proj[192:384], k_proj[64:128], v_proj[64:128]"
    assert held["model.layers.{0-2}.mlp.down_proj.weight", 2] == "down_proj[:, 1024:1536]"
    assert held["model.norm.weight", 0, 1, 2] == "norm"


@pytest.mark.parametrize("name", FOUND)
def test_a_fault_of_the_loader_is_named(rounds: Path, engine: Path, name: str) -> None:
    found = found_in(rounds, engine, name)
    kind, module, ranks, held = FOUND[name]
    parameter = f"{LAYERS}.{module}.weight"
    (finding,) = found["weights"]["findings"]
    assert (finding["kind"], finding["parameter"], finding["ranks"]) == (kind, parameter, ranks)
    assert held in finding["words"] and finding["wrong"] and finding["others"] == []
    assert found["exit_code"] == 1 and found["first_divergence"]["label"] == parameter


def test_all_faults_are_named_before_the_labels_that_they_explain(rounds: Path) -> None:
    found = read_report(rounds / "rounds" / "all")
    assert found["exit_code"] == 1 and found["first_divergence"]["of_weight"]
    wrong = {each["parameter"]: each for each in found["weights"]["findings"]}
    assert set(wrong) == {f"{LAYERS}.{module}.weight" for _, module, _, _ in FOUND.values()}
    assert all(each["wrong"] for each in wrong.values())
    assert found["first_divergence"]["label"] == "model.layers.0.self_attn.o_proj.weight"
    labels = {each["label"]: each for each in found["labels"]}
    assert len(labels) == 45
    differing = [each for each in labels.values() if each["status"] == "diverged"]
    assert len(differing) > 25
    assert all(rank["origin"] == "inherited" for each in differing for rank in each["ranks"].values() if rank["origin"])
    first = labels["model.layers.0.self_attn.o_proj"]
    assert first["root"]["label"] == "model.layers.0.self_attn.o_proj.weight"
    assert first["ranks"]["0"]["reason"].startswith("its weight model.layers.0.self_attn.o_proj.weight is wrong")
    assert labels["model.layers.1.self_attn.k_proj"]["root"]["label"] == "model.layers.1.self_attn.qkv_proj.weight"
    out = (rounds / "out.txt").read_text()
    assert out.index("weights: 16 of 20 parameters on 3 ranks") < out.index("task 0")
    assert "First divergence: weight model.layers.0.self_attn.o_proj.weight, ranks 0-2" in out


def test_fused_modules_that_a_script_watches_are_named_by_their_weights(
    rounds: Path, engine: Path, smollm2: Path
) -> None:
    """No point of the plug-in and no map: weights tell what lies side by side, though four of them are wrong."""
    golden = f"{engine}/python {Path(__file__).parent}/watched_golden.py {smollm2}"
    done = run(engine, rounds, "run", "--exec", golden, "--ranks", "1", "--no-compare", "--output", "golden")
    assert done.returncode == 0, done
    made = RunDir(rounds / "rounds" / "watched", "run")
    made.logs.mkdir()
    record_run(made, "weight_rounds.py", 3, load_record(rounds / "engine" / "run.json").run_id)
    out = rounds / "compared-watched"
    done = run(engine, rounds, "compare", "golden", "rounds/watched", "--output", str(out))
    found = read_report(out)
    assert len(found["weights"]["findings"]) == len(FOUND), done.stdout
    assert any("self_attn.qkv_proj = q_proj | k_proj | v_proj, " in note for note in found["notes"]), found["notes"]
    labels = {each["label"]: each for each in found["labels"]}
    for name in "qkv":
        each = labels[f"{LAYERS}.0.self_attn.{name}_proj"]
        assert each["status"] == "match" and "Shard(dim=1), part" in each["ranks"]["1"]["layout"], each
    assert {labels[f"{LAYERS}.1.self_attn.{name}_proj"]["status"] for name in "qkv"} == {"diverged"}
