"""A W8A8 checkpoint in a real vLLM with trained weights: a healthy engine is not red, a wrong scale is, by its name.

One engine has all rounds of `quantised_rounds.py`.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.engine_runs import add_golden, compare_round, record_rounds
from tests.engines.rounds_text import PROMPTS
from tests.processes import PATIENCE
from tests.recorded import read_report

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
LAYER = "model.layers.1"
FAULTS = {
    f"reversed_order:{LAYER}.mlp.gate_up_proj": (f"{LAYER}.mlp.gate_proj", f"{LAYER}.mlp.up_proj"),
    "along_inputs:model.layers.0.self_attn.qkv_proj": ("model.layers.0.self_attn.q_proj",),
    f"of_tensor:{LAYER}.self_attn.o_proj": (f"{LAYER}.self_attn.o_proj",),
    f"scaled:{LAYER}.mlp.down_proj:1.5": (f"{LAYER}.mlp.down_proj",),
    "coarse:model.layers.0.mlp.down_proj:16": ("model.layers.0.mlp.down_proj.input", "model.layers.0.mlp.down_proj"),
}
"""Round -> the labels of which one is named first."""
AGAINST_THE_LIBRARY = """
import torch
from compressed_tensors.compressors import PackedQuantizationCompressor, NaiveQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from aclcmp.labeling.engines.quantised import dequantise
from aclcmp.labeling.engines.quantised_config import Quantised

torch.manual_seed(3)
weight = torch.randn(24, 64)
for told, scale in (
    (Quantised("int", 8, "channel", symmetric=True, dynamic=False), torch.rand(24, 1) / 50),
    (Quantised("float", 8, "channel", symmetric=True, dynamic=False), torch.rand(24, 1) / 100),
    (Quantised("int", 8, "tensor", symmetric=True, dynamic=False), torch.tensor([0.02])),
    (Quantised("int", 4, "group", symmetric=True, dynamic=False, block=(32,)), torch.rand(24, 2) / 3),
    (Quantised("int", 4, "group", symmetric=False, dynamic=False, block=(32,)), torch.rand(24, 2) / 3),
    (Quantised("int", 4, "channel", symmetric=False, dynamic=False), torch.rand(24, 1) / 3),
):
    size = told.block[0] if told.block else None
    arguments = {"num_bits": told.bits, "type": told.kind, "strategy": told.strategy, "group_size": size}
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(symmetric=told.symmetric, **arguments))
    library = PackedQuantizationCompressor if told.bits == 4 else NaiveQuantizationCompressor
    state = {"weight": weight, "weight_scale": scale}
    if not told.symmetric:
        state["weight_zero_point"] = torch.randint(-8, 8, scale.shape, dtype=torch.int8)
    stored = library.compress(dict(state), scheme)
    theirs = library.decompress(dict(stored), scheme)["weight"].float()
    packed = stored.pop("weight", None)
    assert torch.allclose(dequantise(told, packed, stored), theirs, rtol=1e-6), told
    assert (theirs - weight).norm() < weight.norm(), told
print("all alike")
"""


@pytest.fixture(scope="module")
def rounds(engine: Path, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run directories; `clean` has the golden side, with which the others are compared."""
    folder = tmp_path_factory.mktemp("quantised")
    maker = ROOT / "benchmarks" / "quantised_checkpoint.py"
    command: list[str | Path] = [sys.executable, maker, smollm2, folder / "w8a8", "w8a8"]
    subprocess.run(command, check=True, timeout=PATIENCE, capture_output=True)
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    names = ("clean", *FAULTS)
    words = f"quantised_rounds.py {folder}/w8a8 {folder}/rounds {folder}/prompts.txt {' '.join(names)}"
    record_rounds(engine, folder, words, 1)
    out = add_golden(engine, folder / "rounds" / "clean", folder / "w8a8", 1, "quantised_rounds.py")
    (folder / "rounds" / "clean" / "out.txt").write_text(out)
    return folder


def test_a_healthy_engine_is_not_red(rounds: Path) -> None:
    clean = rounds / "rounds" / "clean"
    found, out = read_report(clean), (clean / "out.txt").read_text()
    assert found["exit_code"] == 0 and found["first_divergence"] is None
    ranks = {label["label"]: label["ranks"]["0"] for label in found["labels"]}
    assert len(ranks) == 45 and {rank["status"] for rank in ranks.values()} <= {"match", "drift"}
    first = ranks["model.layers.0.self_attn.q_proj"]
    assert first["metrics"]["rel_l2"] < 1e-3, "the scheme is the engine's: what both are given alike is rounded alike"
    deep = ranks["model.layers.1.mlp.down_proj"]
    assert deep["metrics"]["rel_l2"] > 2e-2 and deep["limits"]["source"] == "3 x quantised floor"
    assert "the price of quantisation" in deep["reason"] and deep["floors"]["quantised"]["rel_l2"] > 2e-2
    assert found["price"]["scheme"] == "W8A8" and 1e-3 < found["price"]["logits"] < 0.1
    assert "Price of quantisation (W8A8): final logits" in out and "price" in out.split("task 0")[-1]
    assert not any(finding["wrong"] for finding in found["weights"]["findings"])
    held = {each["parameter"] for each in found["weights"]["held"]}
    assert "model.layers.{0-2}.self_attn.qkv_proj.weight" in held, "int8 rows are known"
    assert "model.layers.{0-2}.self_attn.qkv_proj.weight_scale" in held


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_scale_is_named(rounds: Path, engine: Path, name: str) -> None:
    compared = compare_round(engine, rounds, "clean", name)
    found = read_report(compared)
    assert found["exit_code"] == 1
    assert found["first_divergence"]["label"] in FAULTS[name] and found["first_divergence"]["origin"] == "own"
    assert "It is a bug: more than the price of quantisation (W8A8)" in (compared / "out.txt").read_text()


def test_tensors_mean_what_the_library_of_the_format_says(engine: Path) -> None:
    command: list[str | Path] = [engine / "python", "-c", AGAINST_THE_LIBRARY]
    done = subprocess.run(command, timeout=PATIENCE, capture_output=True, text=True)
    assert done.stdout.strip() == "all alike", done.stderr[-2000:]
