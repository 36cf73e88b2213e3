"""One name for two tensors: wrong in every layer, and nothing that is computed from it is."""

from pathlib import Path

import numpy as np
import pytest

from aclcmp.orchestrator.judge.other_tensors import notes_on_other_tensors
from tests.dumped_ranks import Tensors, dump
from tests.models.comparing import judge_runs

LAYERS = 4
KINDS = ("norm", "attn", "mlp")


def draw(offset: int) -> Tensors:
    return {
        f"layers.{layer}.{kind}": np.random.default_rng(97 * layer + 7 * number + offset)
        .standard_normal((5, 8))
        .astype(np.float32)
        for layer in range(LAYERS)
        for number, kind in enumerate(KINDS)
    }


def notes(folder: Path, actual: Tensors) -> list[str]:
    judgement = judge_runs(dump(folder / "golden", draw(0)), dump(folder / "actual", actual))
    return list(notes_on_other_tensors(judgement.labels))


@pytest.mark.parametrize("kind", KINDS)
def test_one_name_for_two_tensors_is_asked_about(tmp_path: Path, kind: str) -> None:
    other = draw(5000)
    (note,) = notes(tmp_path, {name: other[name] if name.endswith(kind) else x for name, x in draw(0).items()})
    assert note.startswith(f"layers.*.{kind}: its values agree in none of 4 layers, while most of what comes behind")


@pytest.mark.parametrize("begin", [0, 1, 3])
def test_a_fault_that_goes_on_is_none(tmp_path: Path, begin: int) -> None:
    other = draw(5000)
    actual = {name: other[name] if int(name.split(".")[1]) >= begin else x for name, x in draw(0).items()}
    assert notes(tmp_path, actual) == []


def test_one_wrong_layer_is_none(tmp_path: Path) -> None:
    assert notes(tmp_path, draw(0) | {"layers.1.mlp": draw(5000)["layers.1.mlp"]}) == []
