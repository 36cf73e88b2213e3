"""The plug-ins in SIMULATED engines (`stand_in.py`) that replay graphs of a SIMULATED device (`tests/device_graph.py`).

Each run is compared with the same one without graphs: the labels, their rows, values and order are the same.
"""

from pathlib import Path

import numpy as np
import pytest

from aclcmp.labeling.shard.shard_index import ShardIndex
from tests.device_graph import DEVICE_GRAPH
from tests.engines.stand_in import ASCEND, SGLANG
from tests.engines.test_sglang_simulated import by_row
from tests.labeling.test_api import run_script

pytestmark = pytest.mark.model

VLLM_START = """
from aclcmp.labeling import api
from aclcmp.labeling.engines.vllm import register
register()
compilation = types.SimpleNamespace(mode=None, cudagraph_mode=types.SimpleNamespace(name="FULL"))
NPUModelRunner.vllm_config = types.SimpleNamespace(compilation_config=compilation)
worker = NPUWorker()
worker.load_model()
runner = worker.model_runner
torch.set_grad_enabled(False)
"""
ROUNDS = """
runner._dummy_run(4)
runner.execute(("a", 0, [5, 6, 7]), ("b", 2, [3]))
runner.execute(("a", 3, [8]))
runner._dummy_run(4)
runner.execute(("b", 3, [2]), ("a", 4, [9]))
"""
FULL = """
graphs = {}
def replay(self, padded, input_ids=None, positions=None, intermediate_tensors=None, inputs_embeds=None):
    captured, output = graphs[min(size for size in graphs if size >= padded)]
    before = api._recorder and api._recorder._seq
    captured.replay()
    # vllm-ascend sends parameters here, for which the graph waits: until then there is no result to record
    assert before == (api._recorder and api._recorder._seq)
    return output
NPUModelRunner._model_forward = replay
"""
CAPTURE = """
for size in (8, 4):
    with graph(captured := CPUGraph()):
        output = runner.model(runner.input_ids.gpu[:size], runner.positions[:size])
    graphs[size] = captured, output
"""
PIECES = """
def piecewise(self, input_ids, positions, intermediate_tensors=None, inputs_embeds=None):
    hidden, residual = self.model.embed_tokens(input_ids), None
    for number, layer in enumerate(self.model.layers):
        if number == 1 or len(hidden) not in pieces:  # the second layer runs eagerly
            hidden, residual = layer(positions, hidden, residual)
            continue
        captured, before, places, outputs = pieces[len(hidden)]
        before.copy_(hidden)
        places.copy_(positions)
        captured.replay()
        hidden, residual = outputs
    return self.model.norm(hidden, residual)[0]
pieces = {}
Model.forward = piecewise
"""
CAPTURE_PIECES = """
for size in (3, 4, 6):
    before, places = torch.zeros(size, 8), torch.zeros(size, dtype=torch.int64)
    with graph(captured := CPUGraph()):
        outputs = runner.model.model.layers[0](places, before, None)
    pieces[size] = captured, before, places, outputs
"""


def run(folder: Path, *parts: str) -> tuple[ShardIndex, str]:
    folder.mkdir()
    (index,), told = run_script(folder, "".join(parts))
    return index, told


def order(index: ShardIndex) -> list[str]:
    return [each.data_id for each in index.records if each.side == "acl"]


def assert_equal_labels(replayed: ShardIndex, eager: ShardIndex) -> None:
    assert not [each for each in replayed.records if each.error]
    assert order(replayed) == order(eager)
    for name in set(order(eager)):
        expected, found = by_row(eager, "acl", name), by_row(replayed, "acl", name)
        assert found.keys() == expected.keys()
        for row, value in expected.items():
            assert np.allclose(found[row], value, rtol=1e-5, atol=1e-6), (name, row)
    layouts = [{each.data_id: each.layout for each in index.records} for index in (replayed, eager)]
    assert layouts[0] == layouts[1]


@pytest.mark.parametrize(("setup", "captures"), [(FULL, CAPTURE), (PIECES, CAPTURE_PIECES)])
def test_vllms_labels_in_graphs_are_those_of_eager_runs(tmp_path: Path, setup: str, captures: str) -> None:
    eager, _ = run(tmp_path / "eager", ASCEND, VLLM_START, ROUNDS)
    replayed, told = run(tmp_path / "graph", ASCEND, DEVICE_GRAPH, setup, VLLM_START, captures, ROUNDS)
    assert len(set(order(eager))) > 20 and len(eager.records) > 60
    assert_equal_labels(replayed, eager)
    assert told.count("aclcmp:") == 1 and "the model runs in graphs (cudagraph_mode FULL)" in told


def test_only_labels_that_could_not_be_copied_are_failed(tmp_path: Path) -> None:
    little = "CPUGraph.memory = 8 * 8"
    index, _ = run(tmp_path / "graph", ASCEND, DEVICE_GRAPH, FULL, VLLM_START, little, CAPTURE, ROUNDS)
    failed = {each.data_id: each.error for each in index.records if each.error}
    wide = ("gate_proj", "up_proj", "down_proj.input")
    assert set(failed) == {f"model.layers.{layer}.mlp.{name}" for layer in (0, 1) for name in wide}
    assert all("could not be cloned there (OutOfMemoryError" in each for each in failed.values())
    assert len(by_row(index, "acl", "model.norm")) == 7


SGLANG_START = """
import aclcmp
from aclcmp.labeling.engines.sglang import register
register()
HookRegistry.apply_hooks()
prompts = {"a": [5, 6, 7, 8, 9], "b": [5, 6, 3]}
runner = ModelRunner()
runner.load_model()
torch.set_grad_enabled(False)

def step(mode, *rows):
    return runner.forward(ForwardBatch.init_new(batch_of(mode, rows, prompts), runner))
"""
SGLANG_ROUNDS = """
step(ForwardMode.EXTEND, ("a", 0, [5, 6, 7]))
step(ForwardMode.DECODE, ("b", 3, [2]), ("a", 5, [1]))
step(ForwardMode.DECODE, ("a", 6, [4]))
"""
DECODE_GRAPHS = """
graphs = {}
def run(self, batch, skip_attn_backend_init=None, pp_proxy_tensors=None):
    if batch.forward_mode != ForwardMode.DECODE:
        return types.SimpleNamespace(
            logits_output=self.model(batch.input_ids, batch.positions, batch), can_run_graph=False
        )
    count = len(batch.input_ids)
    captured, static, logits = graphs[2]
    static.input_ids[:count], static.positions[:count] = batch.input_ids, batch.positions
    captured.replay()
    output = types.SimpleNamespace(next_token_logits=logits.next_token_logits[:count])
    return types.SimpleNamespace(logits_output=output, can_run_graph=True)
ModelRunner.forward = run

def capture_decode(runner):
    static = ForwardBatch(ForwardMode.DECODE, *(torch.zeros(2, dtype=torch.int64) for _ in range(3)))
    with graph(captured := CPUGraph()):
        logits = runner.model(static.input_ids, static.positions, static)
    graphs[2] = captured, static, logits
"""
CAPTURE_EARLY = """
def load_and_capture(self):
    self.model = Model()
    capture_decode(self)
ModelRunner.load_model = load_and_capture
"""


@pytest.mark.parametrize("early", [False, True])
def test_sglangs_labels_in_graphs_are_those_of_eager_runs(tmp_path: Path, early: bool) -> None:
    """Graphs that were captured before the model was watched hold no labels, which is told."""
    eager, _ = run(tmp_path / "eager", SGLANG, SGLANG_START, SGLANG_ROUNDS)
    captures = (CAPTURE_EARLY, SGLANG_START) if early else (SGLANG_START, "capture_decode(runner)")
    replayed, told = run(tmp_path / "graph", SGLANG, DEVICE_GRAPH, DECODE_GRAPHS, *captures, SGLANG_ROUNDS)
    if early:
        assert set(by_row(replayed, "acl", "model.norm")) == {("a", 0, 5), ("a", 1, 6), ("a", 2, 7)}
        assert told.count("replayed a captured graph of which no module was labelled") == 1
    else:
        assert_equal_labels(replayed, eager)
        assert "aclcmp:" not in told
