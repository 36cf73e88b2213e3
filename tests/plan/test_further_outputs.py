"""Modules of an engine that return (hidden, residual), where the original returns their sum."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.errors import ExitCode
from tests.dumped_ranks import Tensors, dump
from tests.models.comparing import judge_runs, layouts, statuses

LAYERS, TOKENS, WIDTH = 5, 7, 12


def decoder(wrong: int | None = None) -> tuple[Tensors, Tensors]:
    """Return what the original and the engine label; the engine's mlp of one layer may be wrong."""
    rng = np.random.default_rng(0)

    def draw() -> npt.NDArray[np.float32]:
        return rng.standard_normal((TOKENS, WIDTH)).astype(np.float32)

    golden: Tensors = {}
    actual: Tensors = {}
    stream = error = np.zeros((TOKENS, WIDTH), np.float32)
    for layer in range(LAYERS):
        mlp, residual = draw(), stream
        golden[f"layers.{layer}.mlp"] = mlp[None]
        golden[f"layers.{layer}"] = (mlp + residual)[None]
        computed = mlp * 2 if layer == wrong else mlp
        actual |= {f"layers.{layer}.mlp": computed, f"layers.{layer}": computed, f"layers.{layer}.1": residual + error}
        error = error + computed - mlp
        stream = mlp + residual
    golden["norm"] = stream[None]
    actual |= {"norm": stream + error, "norm.1": stream}
    return golden, actual


@pytest.mark.parametrize("swapped", [False, True])
def test_the_sum_is_found(tmp_path: Path, swapped: bool) -> None:
    golden, actual = decoder()
    sides = [dump(tmp_path / "g", golden), dump(tmp_path / "a", actual)]
    judgement = judge_runs(*(reversed(sides) if swapped else sides))
    assert statuses(judgement) == dict.fromkeys(golden, Status.MATCH)
    assert judgement.exit_code is ExitCode.MATCH and judgement.coverage.complete
    assert all("sum of two outputs, proved" in words for words in layouts(judgement)["layers.1"])
    assert not any("sum" in words for name in ("norm", "layers.1.mlp") for words in layouts(judgement)[name])


@pytest.mark.parametrize("wrong", range(LAYERS))
def test_the_sum_hides_no_fault(tmp_path: Path, wrong: int) -> None:
    """The wrong module is the first divergence, also where few sound layers, or none, tell that the sum counts."""
    golden, actual = decoder(wrong)
    judgement = judge_runs(dump(tmp_path / "g", golden), dump(tmp_path / "a", actual))
    first = judgement.first_divergence
    assert first is not None and first.key.label == f"layers.{wrong}.mlp" and judgement.exit_code is ExitCode.DIVERGED
    found = statuses(judgement)
    assert {found[f"layers.{layer}"] for layer in range(wrong)} <= {Status.MATCH}


def test_other_outputs_of_golden_ought_to_be_there(tmp_path: Path) -> None:
    x, weights = (np.random.default_rng(0).standard_normal(shape).astype(np.float32) for shape in ((3, 4), (3, 3)))
    golden = dump(tmp_path / "g", {"attn": x, "attn.1": weights})
    judgement = judge_runs(golden, dump(tmp_path / "a", {"attn": x}))
    assert statuses(judgement) == {"attn": Status.MATCH, "attn.1": Status.MISSING}
    assert judgement.exit_code is ExitCode.INCOMPLETE


def test_submodules_and_lone_outputs_are_no_further_outputs(tmp_path: Path) -> None:
    """Items of a Sequential come before it, and its item 0 has a label: those that golden lacks are missing."""
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    golden = dump(tmp_path / "g", {"seq.0": x, "seq": x, "alone": x})
    for number, tensors in enumerate(
        [
            {"seq.0": x, "seq": x, "seq.1": x, "alone": x},
            {"seq.0": x, "seq": x, "alone.1": x, "alone": x},
            {"seq.0": x, "seq": x, "alone": x, "other": x, "alone.1": x},
            {"seq.0": x, "seq": x, "alone": x, "nothing.1": x},
        ]
    ):
        judgement = judge_runs(golden, dump(tmp_path / str(number), tensors))
        assert judgement.exit_code is ExitCode.INCOMPLETE, tensors.keys()
