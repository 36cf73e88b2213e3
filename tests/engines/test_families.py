"""vLLM against transformers for other families than Llama's, with tiny random models on two ranks.

Engines start one after the other in one process; `family_rounds.py` may be given more families than these.
"""

import subprocess
from pathlib import Path

import pytest

from tests.engines.engine_runs import add_golden, record_rounds
from tests.processes import PATIENCE
from tests.recorded import read_report

pytestmark = pytest.mark.engine

LABELS = {"gemma3_text": 43, "gpt2": 30, "qwen3_moe": 33}
"""Four of each are what the caches of its two layers hold: keys, and values."""
SWAPPED = "qwen3_moe-experts"


@pytest.fixture(scope="module")
def rounds(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run directories, each with its golden side."""
    folder = tmp_path_factory.mktemp("families")
    tiny_models = Path(__file__).with_name("tiny_models.py")
    subprocess.run([engine / "python", tiny_models, folder / "models", *LABELS], check=True, timeout=PATIENCE)
    families = f"{' '.join(LABELS)}:experts"
    record_rounds(engine, folder, f"family_rounds.py {folder}/models {folder}/rounds {families}", 2)
    for directory in (folder / "rounds").iterdir():
        model = folder / "models" / directory.name.partition("-")[0]
        add_golden(engine, directory, model, 2, "family_rounds.py")
    return folder / "rounds"


@pytest.mark.parametrize("family", LABELS)
def test_a_family_matches_completely(rounds: Path, family: str) -> None:
    found = read_report(rounds / family)
    assert found["verdict"] == "match" and found["exit_code"] == 0
    assert len(found["labels"]) == LABELS[family]
    weights = found["weights"]
    assert weights["findings"] == [] and weights["known"] == weights["parameters"] > 20
    ranks = [(label["label"], rank) for label in found["labels"] for rank in label["ranks"].values()]
    assert all(rank["metrics"]["rel_l2"] < 1e-5 for _, rank in ranks), ranks


def test_swapped_experts_are_named_at_the_output_of_their_block(rounds: Path) -> None:
    """The router is right: only what its choice led to is not."""
    found = read_report(rounds / SWAPPED)
    first = found["first_divergence"]
    assert (first["label"], first["origin"]) == ("model.layers.1.mlp", "own")
    by_name = {label["label"]: label["ranks"]["0"]["status"] for label in found["labels"]}
    assert by_name["model.layers.1.mlp.gate"] == by_name["model.layers.0.mlp"] == "match"
