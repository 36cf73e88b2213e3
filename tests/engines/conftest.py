"""A real vLLM with real weights: SmolLM2 cut to three layers, and an environment of its own."""

import subprocess
from pathlib import Path

import pytest

from tests.processes import PATIENCE

ROOT = Path(__file__).parents[2]
BIN = ROOT / ".venv-engine" / "bin"
CUT = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
source, target = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
model.model.layers = model.model.layers[:3]
model.config.num_hidden_layers = 3
model.save_pretrained(target)
AutoTokenizer.from_pretrained(source).save_pretrained(target)
"""


@pytest.fixture(scope="session")
def engine() -> Path:
    """The folder of the programs of the environment that has vLLM."""
    if not (BIN / "aclcmp").exists():
        pytest.skip("no .venv-engine: `make .venv-engine/ready` installs vLLM")
    return BIN


@pytest.fixture(scope="session")
def smollm2(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers of SmolLM2 as a folder of transformers."""
    source = ROOT / ".trained" / "smollm2"
    if not source.exists():
        pytest.skip("no .trained/smollm2: `make .venv/ready` makes it")
    target = tmp_path_factory.mktemp("models") / "smollm2"
    subprocess.run([engine / "python", "-c", CUT, source, target], check=True, timeout=PATIENCE, capture_output=True)
    return target
