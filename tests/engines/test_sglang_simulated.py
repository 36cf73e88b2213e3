"""The plug-in of SGLang in a SIMULATED SGLang (`stand_in.py`): which rows it names, and what it labels of a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_label
from tests.engines.stand_in import SGLANG
from tests.labeling.test_api import run_script

pytestmark = pytest.mark.model

START = (
    SGLANG
    + """
import aclcmp
from aclcmp.labeling.engines.sglang import register
register()
HookRegistry.apply_hooks()
runner = ModelRunner()
runner.load_model()
prompts = {"a": [5, 6, 7, 8, 9], "b": [5, 6, 3]}

@torch.no_grad()
def step(mode, *rows):
    return runner.forward(ForwardBatch.init_new(batch_of(mode, rows, prompts), runner))

# the whole texts, without a plug-in: layers as the original has them
@torch.no_grad()
def original():
    model = Model()
    for name, tokens in (("a", [5, 6, 7, 8, 9, 1]), ("b", [5, 6, 3, 2])):
        with aclcmp.rows(name, list(range(len(tokens))), tokens):
            positions, hidden = torch.arange(len(tokens)), model.model.embed_tokens(torch.tensor(tokens))
            for number, layer in enumerate(model.model.layers):
                middle = hidden + layer.self_attn(positions, layer.input_layernorm(hidden))
                hidden = middle + layer.mlp(layer.post_attention_layernorm(middle))
                aclcmp.set_label("pta", f"model.layers.{number}", hidden)
            hidden = model.model.norm(hidden)
            aclcmp.set_label("pta", "model.norm", hidden)
            aclcmp.set_label("pta", "lm_head", hidden @ model.lm_head.weight.T)
"""
)
ROUND = """
step(ForwardMode.EXTEND, ("a", 0, [5, 6, 7]))
step(ForwardMode.MIXED, ("a", 3, [8, 9]), ("b", 2, [3]))  # a prefix of 2 rows from the cache
step(ForwardMode.DECODE, ("b", 3, [2]), ("a", 5, [1]))
original()
"""


def by_row(index: ShardIndex, side: str, name: str) -> dict[tuple[str, int, int], npt.NDArray[Any]]:
    """Return the rows of a label by (request, position, token)."""
    found: dict[tuple[str, int, int], npt.NDArray[Any]] = {}
    for record in index.records:
        if (record.side, record.data_id) == (side, name):
            table, values = index.rows[record.rows], read_label(index, record)
            assert not record.error and len(values) == len(table.numbers)
            for (request, position, token), value in zip(table.numbers.tolist(), values, strict=True):
                found[table.requests[request][1], position, token] = value
    return found


def layouts(index: ShardIndex) -> Mapping[str, str]:
    return {each.data_id: str(each.layout) for each in index.records if each.layout and each.side == "acl"}


def test_chunks_mixed_batches_and_decode_steps_are_rows_of_the_requests(tmp_path: Path) -> None:
    (index,), told = run_script(tmp_path, START + ROUND)
    for name in ("model.layers.0", "model.layers.1", "model.norm", "lm_head"):
        golden, actual = by_row(index, "pta", name), by_row(index, "acl", name)
        rows = {("a", 2, 7), ("a", 4, 9), ("a", 5, 1), ("b", 2, 3), ("b", 3, 2)}
        if name != "lm_head":
            rows |= {("a", 0, 5), ("a", 1, 6), ("a", 3, 8)}
        assert set(actual) == rows, name
        for row, value in actual.items():
            assert np.allclose(value, golden[row], atol=1e-5), (name, row)
    table = next(iter(index.rows.values()))
    assert {table.requests[number][1]: list(prompt) for number, prompt in table.prompts.items()}["b"] == [5, 6, 3]
    labels = {each.data_id for each in index.records if each.side == "acl"}
    attention = {
        f"model.layers.0.self_attn.{each}" for each in ("q_proj", "k_proj", "v_proj", "o_proj.input", "o_proj")
    }
    assert attention | {"model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj", "model.embed_tokens"} <= labels
    assert not {each for each in labels if "qkv" in each or "gate_up" in each} and "aclcmp:" not in told


def test_layouts_are_those_of_the_layers_groups(tmp_path: Path) -> None:
    """Two ranks would share each layer: what is not summed in it is a summand."""
    script = START.replace("group = Group([0], 0)", "group = Group([4, 5], 1)")
    (index,), _ = run_script(tmp_path, script + 'step(ForwardMode.EXTEND, ("a", 0, [5]))')
    found = layouts(index)
    assert "Shard(dim=-1, ranks=range(4, 6)" in found["model.layers.0.self_attn.q_proj"]
    for name in ("self_attn.o_proj", "mlp.down_proj", "self_attn", "mlp"):
        assert "Partial" in found[f"model.layers.0.{name}"], name
    for name in ("model.embed_tokens", "model.layers.0", "model.layers.0.input_layernorm"):
        assert "Replicate" in found[name], name


@pytest.mark.parametrize(
    "rounds",
    [
        'step(ForwardMode.TARGET_VERIFY, ("a", 0, [5]))',
        "runner.forward(ForwardBatch(**batch_of(ForwardMode.DECODE, [('a', 4, [5])], prompts).fields))",  # a warm-up
        'runner = ModelRunner(is_draft_worker=True); runner.load_model(); step(ForwardMode.DECODE, ("a", 4, [9]))',
    ],
)
def test_what_is_no_forward_of_requests_is_not_labelled(tmp_path: Path, rounds: str) -> None:
    indices, told = run_script(tmp_path, START + rounds)
    assert not any(index.records for index in indices) and "aclcmp:" not in told


def test_rows_that_are_not_known_and_captured_graphs_are_told(tmp_path: Path) -> None:
    script = (
        START
        + """
batch = ForwardBatch.init_new(batch_of(ForwardMode.EXTEND, [("a", 0, [5, 6])], prompts), runner)
batch.extend_seq_lens_cpu = [3]
with torch.no_grad():
    assert runner.forward(batch).logits_output.next_token_logits.shape == (1, 32)
run = ModelRunner.__dict__["forward"]
import aclcmp.labeling.engines.sglang as plugin
replay = lambda self, batch: types.SimpleNamespace(logits_output=None, can_run_graph=True)
batch.extend_seq_lens_cpu = [2]
for _ in range(3):
    plugin._run_with_rows(replay, runner, batch)
"""
    )
    _, told = run_script(tmp_path, script)
    assert told.count("the rows of a forward are not known: ValueError: 2 tokens for requests of 3") == 1
    assert told.count("replayed a captured graph") == 1 and "--cuda-graph-backend-decode disabled" in told


def test_off_and_unknown_versions_change_nothing(tmp_path: Path) -> None:
    off = START + "assert not HookRegistry.hooks"
    assert run_script(tmp_path / "off", off, ACLCMP_SHARD_DIR="") == ([], "")
    script = "from aclcmp.labeling.engines.sglang import register; register()"
    _, told = run_script(tmp_path / "unknown", script)
    assert told.startswith("aclcmp: this version of SGLang has no hooks that are known") and told.count("\n") == 1
