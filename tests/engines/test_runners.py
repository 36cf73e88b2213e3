"""Runners of vLLM as stand-ins: which rows the labels of a forward have, and that nothing is silently empty.

The V1 runner itself runs in test_vllm.py. The V2 runner needs Triton, so its stand-in has the calls and fields of
vllm/v1/worker/gpu/model_runner.py of 0.32.0: `execute_model` calls `prepare_inputs`, unless it is a dummy run.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aclcmp.labeling import api
from aclcmp.labeling.engines import vllm
from aclcmp.labeling.engines.golden import recorded_requests
from aclcmp.labeling.engines.module_labels import label_output
from aclcmp.labeling.engines.points import Point
from aclcmp.labeling.identity import GOLDEN
from aclcmp.labeling.rows import Rows
from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_label, read_shard
from tests.recorded import recorder_of

torch: Any = pytest.importorskip("torch")

EAGER = SimpleNamespace(compilation_config=SimpleNamespace(mode=SimpleNamespace(name="NONE"), cudagraph_mode=None))
GRAPHS = SimpleNamespace(
    compilation_config=SimpleNamespace(
        mode=SimpleNamespace(name="VLLM_COMPILE"), cudagraph_mode=SimpleNamespace(name="FULL_AND_PIECEWISE")
    )
)


class Net(torch.nn.Module):
    """A model with a layer; `replayed` stands for a captured graph, which computes without a call of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.layer: Any = torch.nn.Linear(4, 4)
        self.replayed = False

    def forward(self, input_ids: Any, positions: Any) -> Any:
        hidden = torch.stack([input_ids, positions, input_ids, positions], dim=1).float()
        return hidden if self.replayed else self.layer(hidden)

    def compute_logits(self, hidden: Any) -> Any:
        return hidden * 2


class RunnerV2:
    """The calls of a V2 runner."""

    def __init__(self, model: Net, config: Any = EAGER) -> None:
        self.model, self.vllm_config = model, config
        self.batch: Any = None

    def prepare_inputs(self, scheduled: Any, *_state: Any) -> Any:
        return scheduled.batch

    def execute_model(self, scheduled: Any, intermediate_tensors: Any = None, dummy_run: bool = False) -> None:
        self.batch = scheduled.batch if dummy_run else self.prepare_inputs(scheduled, None)
        self.hidden = self.model(self.batch.input_ids, self.batch.positions)

    def sample(self) -> None:
        self.model.compute_logits(self.hidden[self.batch.logits_indices])


def scheduled(parts: Sequence[tuple[str, int, list[int]]], padding: int = 0, prompts: Any = None) -> Any:
    """Return what a scheduler gives for (request, first position, tokens), in the order of the batch."""
    sizes = [len(tokens) for _, _, tokens in parts]
    tokens = [token for _, _, tokens in parts for token in tokens] + [0] * padding
    positions = [first + place for _, first, tokens in parts for place in range(len(tokens))] + [0] * padding
    starts = np.cumsum([0, *sizes])
    batch = SimpleNamespace(
        req_ids=[name for name, _, _ in parts],
        num_reqs=len(parts),
        query_start_loc_np=np.pad(starts, (0, padding), mode="edge"),
        positions=torch.tensor(positions),
        input_ids=torch.tensor(tokens),
        logits_indices=torch.tensor(starts[1:] - 1),
    )
    new = [SimpleNamespace(req_id=name, prompt_token_ids=tokens) for name, tokens in (prompts or {}).items()]
    return SimpleNamespace(batch=batch, scheduled_new_reqs=new, finished_req_ids=set())


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the labels of this process."""
    recorder = recorder_of(tmp_path)
    monkeypatch.setattr(api, "_on", True)
    monkeypatch.setattr(api, "_recorder", recorder)
    yield tmp_path
    recorder.close()


def watch(monkeypatch: pytest.MonkeyPatch, runner: Any, *points: Point) -> None:
    monkeypatch.setattr(vllm, "points_of", lambda _model: iter(points))
    vllm._watch(runner, runner.model)


def sealed(folder: Path) -> ShardIndex:
    assert api._recorder is not None
    api._recorder.close()
    (index,) = [read_shard(files) for files in shards_in(folder)]
    return index


def test_rows_of_a_v2_runner(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks, a sorted batch, padding and a prefix hit; profile and dummy runs have no rows."""
    model = Net()
    runner = RunnerV2(model)
    watch(monkeypatch, runner, Point("vllm", "layer", model.layer))
    runner.execute_model(scheduled([("dummy", 0, [1, 2])]), dummy_run=True)
    runner.sample()
    prompts = {"0-0123abcd": [5, 6, 7], "1-0123abcd": [8, 9, 10, 11]}
    runner.execute_model(scheduled([("1-0123abcd", 2, [10, 11]), ("0-0123abcd", 0, [5, 6])], 3, prompts))
    runner.sample()
    runner.execute_model(scheduled([("0-0123abcd", 2, [7])]))
    runner.sample()
    index = sealed(shards)
    assert [(each.data_id, each.shape) for each in index.records if each.side == "acl"] == [
        ("layer", (4, 4)),
        ("lm_head", (2, 4)),
        ("layer", (1, 4)),
        ("lm_head", (1, 4)),
    ]
    first = next(each for each in index.records if each.data_id == "layer")
    table = index.rows[first.rows]
    assert table.numbers.tolist() == [[0, 2, 10], [0, 3, 11], [1, 0, 5], [1, 1, 6]]
    found = {each.name: each for each in recorded_requests([index])}
    assert found["1"].tokens == {0: 8, 1: 9, 2: 10, 3: 11}, "what the prefix cache held is known from the prompt"
    assert found["0"].tokens == {0: 5, 1: 6, 2: 7} and found["0"].logits == {1, 2}
    assert read_label(index, first).shape == (4, 4)


@pytest.mark.parametrize("config", [EAGER, GRAPHS])
def test_a_module_in_a_replayed_graph_is_a_failed_label(
    shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], config: Any
) -> None:
    model = Net()
    runner = RunnerV2(model, config)
    watch(monkeypatch, runner, Point("vllm", "layer", model.layer))
    model.replayed = True
    for position in range(3):
        runner.execute_model(scheduled([("0", position, [5])]))
        runner.sample()
    failed = [each for each in sealed(shards).records if each.error]
    told = capsys.readouterr().err
    if config is EAGER:
        assert not failed and told.count("1 modules were not called and have no labels: layer") == 1
        return
    assert [each.data_id for each in failed] == ["layer"] and "cudagraph_mode FULL_AND_PIECEWISE" in failed[0].error
    assert "--enforce-eager" in failed[0].error and "the model runs in graphs (mode VLLM_COMPILE" in told


def test_an_output_that_is_not_understood_is_a_failed_label(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Strange(torch.nn.Module):
        def forward(self, hidden: Any) -> Any:
            return {"hidden": hidden}

    model = Net()
    model.layer = Strange()
    fused = torch.nn.Linear(4, 4)
    runner = RunnerV2(model)
    parts = (("q_proj", 2, None), ("k_proj", 3, None))
    watch(monkeypatch, runner, Point("vllm", "layer", model.layer), Point("vllm", "qkv_proj", fused, parts=parts))
    inner = model.forward
    monkeypatch.setattr(model, "forward", lambda *args: fused(inner(*args)["hidden"]))
    for position in range(2):
        runner.execute_model(scheduled([("0", position, [5])]))
    failed = {each.data_id: each.error for each in sealed(shards).records if each.error}
    assert set(failed) == {"layer", "q_proj", "k_proj"}
    assert failed["layer"].startswith("dict is no output that is known of this module")


def test_impossible_names_of_rows_fail_the_label(shards: Path) -> None:
    with Rows(["0"], [-1], None):
        label_output(Point("vllm", "layer", torch.nn.Identity()), torch.ones(1, 4))
    (failed,) = sealed(shards).records
    assert failed.data_id == "layer" and failed.error == "positions must be integers from 0 to 2^31 - 1"


def test_a_runner_that_is_not_known_is_told(
    shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Net()
    watch(monkeypatch, SimpleNamespace(model=model, vllm_config=EAGER), Point("vllm", "layer", model.layer))
    assert "SimpleNamespace has neither _model_forward nor prepare_inputs" in capsys.readouterr().err


def test_a_batch_that_is_not_understood_leaves_the_engine_alone(
    shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Net()
    runner = RunnerV2(model)
    watch(monkeypatch, runner, Point("vllm", "layer", model.layer))
    for position in range(2):
        strange = scheduled([("0", position, [5])])
        del strange.batch.query_start_loc_np
        runner.execute_model(strange)
        assert runner.hidden.shape == (1, 4)
    assert (
        capsys.readouterr().err.count("rows of a forward cannot be named, so it is not labelled: AttributeError") == 1
    )


class Fused(torch.nn.Module):
    """A projection of two parts, and a bias that is none; padded rows stay."""

    def forward(self, hidden: Any) -> Any:
        return torch.cat([hidden, 2 * hidden], dim=-1), None


class Layer(torch.nn.Module):
    """A decoder layer as vLLM has them: it returns (hidden, residual)."""

    def forward(self, hidden: Any) -> Any:
        return hidden * 3, hidden


class Deep(torch.nn.Module):
    """A model of both, which notes what each was given."""

    def __init__(self) -> None:
        super().__init__()
        self.fused, self.layer = Fused(), Layer()
        self.seen: list[Any] = []

    def forward(self, input_ids: Any, positions: Any) -> Any:
        both, _ = self.fused(torch.stack([input_ids, positions], dim=1).float())
        self.seen.append(both)
        self.seen.append(self.layer(both[:, :2]))
        return both

    def compute_logits(self, hidden: Any) -> Any:
        logits = torch.zeros(len(hidden), 64)
        logits[:, 1] = 1.0
        return logits


@pytest.fixture
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Golden's labels of one request of four tokens."""
    folder = tmp_path_factory.mktemp("golden")
    recorder = recorder_of(folder)
    values = {"one": 5.0, "two": 6.0, "layer": 7.0}
    with Rows("0", range(4), [20, 21, 22, 23]):
        for name, value in values.items():
            recorder.record("pta", name, torch.full((1, 4, 2), value), None, None, "", None, "g")
        recorder.record("pta", "lm_head", torch.zeros(4, 64), None, None, "", None, "g")
    recorder.close()
    return folder


def test_a_runner_goes_on_with_golden_values(shards: Path, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts, sums and padding; the next tokens are those of the golden run; dummy runs stay as they are."""
    from aclcmp.labeling.golden_values.substitution import substitution

    monkeypatch.setenv(GOLDEN, str(golden))
    monkeypatch.setattr(api, "_local", True)
    substitution.cache_clear()
    model: Any = Deep()
    runner = RunnerV2(model)
    parts = (("one", 2, None), ("two", 2, None))
    fused = Point("vllm", "fused", model.fused, parts=parts)
    watch(monkeypatch, runner, fused, Point("vllm", "layer", model.layer, residual=True))
    runner.execute_model(scheduled([("0", 0, [20, 21])]), dummy_run=True)
    assert model.seen[0].tolist() == [[20, 0, 40, 0], [21, 1, 42, 2]]
    runner.execute_model(scheduled([("0-0123abcd", 0, [20, 21])], 1))
    both, (hidden, residual) = model.seen[2:]
    assert both.tolist() == [[5, 5, 6, 6], [5, 5, 6, 6], [0, 0, 0, 0]], "the padded row is the engine's own"
    assert hidden.tolist() == [[0, 0]] * 3 and residual[:2].tolist() == [[7, 7]] * 2
    sampled = model.compute_logits(runner.hidden[runner.batch.logits_indices])
    assert sampled.argmax(-1).tolist() == [22] and torch.softmax(sampled, -1)[0, 22] == 1
    runner.execute_model(scheduled([("0-0123abcd", 3, [23])]))
    last = model.compute_logits(runner.hidden[runner.batch.logits_indices])
    assert last.tolist() == [[0.0] * 64], "no token is known behind the last one: golden's logits stand"
    substitution.cache_clear()
    records = [each for each in sealed(shards).records if each.side == "acl"]
    assert not [each.error for each in records if each.error]
    assert [each.shape for each in records if each.data_id == "layer"] == [(2, 2), (1, 2)]
