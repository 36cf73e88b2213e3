"""Recording and comparing of torch tensors, models and trained weights in one process."""

import copy
import sys
from typing import Any

import pytest

import aclcmp
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.errors import UsageError
from tests.test_house import ROOT

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.model


def two_layers() -> Any:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.Linear(8, 4))


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_dtype_and_shape(dtype: str) -> None:
    tensors = {}
    for shape in ((), (0, 3), (5,), (4, 6)):
        tensors[str(shape)] = torch.randn(shape).mul(3).to(getattr(torch, dtype))
    tensors["strided"] = torch.randn(6, 8).mul(3).to(getattr(torch, dtype)).T[1:, ::2]
    found = aclcmp.compare(tensors, {name: tensor.clone() for name, tensor in tensors.items()})
    assert {label.status for label in found.labels} == {"match"}, str(found)


def test_gradients_and_state_dicts() -> None:
    model = two_layers()
    other = copy.deepcopy(model)
    aclcmp.assert_matches(model.state_dict(), other.state_dict())
    aclcmp.assert_matches(model(torch.ones(2, 8)), other(torch.ones(2, 8)))  # both require gradients
    with torch.no_grad():
        other[2].weight[1] += 0.5
    found = aclcmp.compare(model.state_dict(), other.state_dict())
    assert found.first_divergence is not None and found.first_divergence.label == "2.weight"
    with pytest.raises(UsageError, match="golden is a Sequential: give its state_dict"):
        aclcmp.compare(model, {"a": torch.ones(1)})
    with pytest.raises(UsageError, match="golden is a Tensor and actual a dict"):
        aclcmp.compare(torch.ones(1), {})


def test_watch_ends_with_the_block() -> None:
    golden, actual = two_layers(), two_layers()
    with torch.no_grad():
        actual[2].bias += 1
    for _ in range(2):  # the hooks of the first round are gone in the second
        with aclcmp.record() as run:
            handle = aclcmp.watch(golden, "golden")
            aclcmp.watch(actual, "actual")
            golden(torch.ones(2, 8))
            actual(torch.ones(2, 8))
        assert "closed" in repr(handle) and not golden[0]._forward_hooks
        golden(torch.ones(2, 8))
        found = run.compare()
        assert [label.status for label in found.labels] == ["match", "match", "diverged", "diverged"]
        assert found.first_divergence is not None and found.first_divergence.label == "2"


def test_watch_from_before_the_block_stays_off() -> None:
    model = two_layers()
    handle = aclcmp.watch(model, "golden")
    with aclcmp.record() as run:
        model(torch.ones(2, 8))
    assert repr(handle) == "<Watch: off>" and run.compare().labels == ()


def test_compiled_code_sees_that_labels_are_switched() -> None:
    def label(x: Any) -> Any:
        y = x * 2
        aclcmp.set_label("golden", "y", y)
        aclcmp.set_label("actual", "y", y)
        return y + 1

    step = torch.compile(label, backend="eager")
    step(torch.ones(3))
    with aclcmp.record() as run:
        step(torch.ones(3))
    step(torch.ones(3))
    assert [(label.label, label.occurrence) for label in run.compare().labels] == [("y", 0)]


def test_a_fault_in_a_trained_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from trained import SMOLLM2, TEXTS

    golden, actual = SMOLLM2.model(torch.float32, "eager"), SMOLLM2.model(torch.float32, "sdpa")
    for model in (golden, actual):
        model.model.layers = model.model.layers[:3]
        model.config.num_hidden_layers = 3
    tokens = SMOLLM2.tokens([TEXTS[0]])["input_ids"][:, :32]

    def both() -> aclcmp.Comparison:
        with aclcmp.record() as run, torch.no_grad():
            aclcmp.watch(golden, "golden", exclude="**.self_attn.1")  # which sdpa does not return
            aclcmp.watch(actual, "actual")
            golden(tokens, use_cache=False)
            actual(tokens, use_cache=False)
        return run.compare()

    assert both(), "other kernels are no fault"
    with torch.no_grad():
        actual.model.layers[1].mlp.up_proj.weight *= 1.02
    found = both()
    first = found.first_divergence
    assert first is not None and (first.label, first.origin) == ("model.layers.1.mlp.up_proj", "own"), str(found)
    assert "model.layers.1.mlp.up_proj" in found._repr_html_()
    table = found.to_pandas()
    assert table.loc[table["label"] == first.label, "origin"].tolist() == ["own"]
    assert "ray" not in sys.modules
