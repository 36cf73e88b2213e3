"""Trained weights: no false alarm beside other kernels or transformers' tensor parallelism, and faults are named."""

import pytest

from aclcmp.orchestrator.core.verdicts import Judgement, Origin, Status
from aclcmp.orchestrator.errors import ExitCode
from tests.models.comparing import judge_runs
from tests.models.running import Made, Ranks, run_maker

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
