"""The plug-in of vLLM in a SIMULATED vllm-ascend (`stand_in.py`): its worker is no subclass of vLLM's for GPUs."""

from pathlib import Path

import pytest

from tests.engines.stand_in import ASCEND
from tests.engines.test_sglang_simulated import by_row
from tests.labeling.test_api import run_script

pytestmark = pytest.mark.model

START = (
    ASCEND
    + """
from aclcmp.labeling.engines.vllm import register
register()
register()
worker = NPUWorker()
worker.load_model()
runner = worker.model_runner
torch.set_grad_enabled(False)
"""
)


def test_the_worker_of_another_platform_is_watched(tmp_path: Path) -> None:
    (index,), told = run_script(tmp_path, START + 'runner.execute(("a", 0, [5, 6, 7]), ("b", 2, [3]))')
    rows = {("a", 0, 5), ("a", 1, 6), ("a", 2, 7), ("b", 2, 3)}
    for name in (
        "model.layers.1",
        "model.norm",
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.mlp.down_proj.input",
    ):
        assert set(by_row(index, "acl", name)) == rows
    assert set(by_row(index, "acl", "lm_head")) == {("a", 2, 7), ("b", 2, 3)}
    assert [each.occurrence for each in index.records if each.data_id == "model.norm"] == [0] and "aclcmp:" not in told
    (weights,) = index.weights
    assert "model.layers.0.self_attn.qkv_proj.weight" in {each.name for each in weights.parameters}


def test_dummy_runs_have_no_rows(tmp_path: Path) -> None:
    """Of vllm-ascend they call `_model_forward`, with the batch of the last step still in the runner."""
    script = 'runner._dummy_run(4)\nrunner.execute(("a", 0, [5]))\nrunner._dummy_run(4)\nrunner.execute(("a", 1, [6]))'
    (index,), _ = run_script(tmp_path, START + script)
    assert [each.occurrence for each in index.records if each.data_id == "model.norm"] == [0, 1]
    assert set(by_row(index, "acl", "model.norm")) == {("a", 0, 5), ("a", 1, 6)}
