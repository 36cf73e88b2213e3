"""Trained weights: no false alarm beside other kernels or transformers' tensor parallelism, and faults are named."""

from pathlib import Path

import pytest

from aclcmp.orchestrator.cli.app import run_cli
from aclcmp.orchestrator.core.verdicts import Judgement, Origin, Status
from aclcmp.orchestrator.errors import ExitCode
from tests.case.showing import SMOLLM2, show_case
from tests.models.comparing import judge_runs
from tests.models.running import Made, Ranks, run_maker
from tests.recorded import read_report

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def made(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return the run of a trained model with these options on so many ranks; each is made once."""
    return run_maker(ranks, tmp_path_factory.mktemp("runs"), "trained_ranks.py")


def check_right(judgement: Judgement, at_least: int) -> None:
    """All was compared, nothing diverged, and next to nothing drifts."""
    assert judgement.exit_code is ExitCode.MATCH and judgement.coverage.complete, judgement.first_divergence
    assert len(judgement.labels) >= at_least
    drifting = [label.key.label for label in judgement.labels if label.status is Status.DRIFT]
    assert len(drifting) <= 0.05 * len(judgement.labels), drifting


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("prompt", ["", "--random 12"])
def test_sdpa_beside_eager_attention(made: Made, dtype: str, prompt: str) -> None:
    golden = made(f"golden --dtype {dtype} {prompt}")
    check_right(judge_runs(golden, made(f"actual --attention sdpa --dtype {dtype} {prompt}")), 390)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_an_encoder_on_a_batch_with_padding(made: Made, dtype: str) -> None:
    golden = made(f"golden --model minilm --dtype {dtype}")
    check_right(judge_runs(golden, made(f"actual --model minilm --attention sdpa --dtype {dtype}")), 60)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_transformers_own_tensor_parallelism(made: Made, dtype: str) -> None:
    judgement = judge_runs(made(f"golden --dtype {dtype}"), made(f"actual --dtype {dtype}", 3))
    check_right(judgement, 390)
    assert judgement.coverage.compared == 3 * len(judgement.labels)


@pytest.mark.parametrize(
    ("fault", "label"),
    [
        ("exchange", "model.layers.13.mlp.gate_proj"),
        ("scale", "model.layers.13.mlp.down_proj"),
        ("clamp", "model.layers.13"),
    ],
)
def test_a_fault_is_named_beside_another_kernel(made: Made, fault: str, label: str) -> None:
    judgement = judge_runs(
        made("golden --dtype bfloat16"), made(f"actual --attention sdpa --dtype bfloat16 --fault {fault}")
    )
    first = judgement.first_divergence
    assert first is not None and (first.key.label, first.origin) == (label, Origin.OWN)
    own = [each.key.label for each in judgement.labels if any(v.origin is Origin.OWN for v in each.ranks)]
    assert own in ([label], [label, label.replace("gate", "up")])


@pytest.mark.parametrize(
    ("fault", "label", "words"),
    [
        ("exchange", "model.layers.13.mlp.gate_proj", "confirms own: golden agrees with the recomputation"),
        ("exchange", "model.layers.13.mlp.act_fn", "does not confirm own: actual agrees with what its own input"),
        ("scale", "model.layers.13.mlp.down_proj", "confirms own: golden agrees with the recomputation"),
        ("scale", "model.layers.13.mlp", "does not confirm own: actual agrees with what its own input"),
        ("scale", "model.layers.14.input_layernorm", "does not confirm own: actual agrees with what its own input"),
    ],
)
def test_a_case_confirms_what_is_own(made: Made, tmp_path: Path, fault: str, label: str, words: str) -> None:
    """In half precision, from what was recorded in an ordinary run of two kernels: no input is told."""
    golden, actual = (
        made("golden --dtype bfloat16"),
        made(f"actual --attention sdpa --dtype bfloat16 --fault {fault}"),
    )
    report = ["--output", str(tmp_path / "report"), "--second-look", "none"]
    assert run_cli(["compare", str(golden), str(actual), *report]) == 1
    said, shown = show_case(tmp_path / "report", label, SMOLLM2, tmp_path / "case")
    assert words in said and "as golden's values prove" in said and words in shown
    (verdict,) = (each for each in read_report(tmp_path / "report")["labels"] if each["label"] == label)
    number = f"{verdict['ranks']['0']['metrics']['worst_row']:.1e}"
    assert f"worst row {number}; the report says {number}\n" in shown
