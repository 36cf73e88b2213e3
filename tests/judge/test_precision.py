"""Labels count as the narrowest type on their way, and as the type of their values, whatever type holds them."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.policy import LimitRule, Policy, Scope
from tests.judge.series import BF16, Array, Both, evidence_on, first, judge_on, round_to, verdict_on, with_error, wrong

F16, F32 = np.dtype(np.float16), np.dtype(np.float32)
X = np.random.default_rng(3).standard_normal((12, 64))


def both(dtype: npt.DTypeLike, error: float, seed: int = 0) -> Both:
    """A pair in a type, of which every row has this error."""
    return X.astype(dtype), with_error(X, error, seed).astype(dtype)


def softmax(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    each = np.exp(values - values.max(-1, keepdims=True))
    return (each / each.sum(-1, keepdims=True)).astype(np.float32)


def islands(layers: int = 6, *, dtype: npt.DTypeLike = BF16, seed: int = 0, eps: float = 2.0**-8) -> dict[str, Both]:
    """A model in half precision of which statistics of norms, scores, probabilities and logits are float32."""
    random = np.random.default_rng(seed)
    labels: dict[str, Both] = {}

    def see(name: str, golden: npt.NDArray[np.float64], actual: npt.NDArray[np.float64], held: npt.DTypeLike) -> None:
        labels[name] = golden.astype(held), actual.astype(held)

    x = random.standard_normal((12, 64))
    see("embed", x, x, dtype)
    for layer in range(layers):
        y = with_error(x, eps, seed + layer)
        name = f"layers.{layer}"
        see(f"{name}.norm.var", (x**2).mean(-1, keepdims=True), (y**2).mean(-1, keepdims=True), F32)
        see(f"{name}.norm", x, y, dtype)
        scores = x @ x.T / 8, y @ y.T / 8
        see(f"{name}.attn.scores", *scores, F32)
        labels[f"{name}.attn.probs"] = softmax(scores[0]), softmax(scores[1])
        see(f"{name}.attn", x, y, dtype)
        see(f"{name}.router_logits", x[:, :8], y[:, :8], F32)
        see(name, x, y, dtype)
        x = random.standard_normal((12, 64))
    see("logits", x, with_error(x, 2 * eps, 99), F32)
    return labels


@pytest.mark.parametrize(("dtype", "eps"), [(BF16, 2.0**-8), (F16, 2.0**-10)])
@pytest.mark.parametrize("seed", [0, 7])
def test_float32_islands_in_a_model_of_half_precision_are_right(dtype: npt.DTypeLike, eps: float, seed: int) -> None:
    name = np.dtype(dtype).name
    found = judge_on(islands(dtype=dtype, seed=seed, eps=eps))
    assert wrong(found) == {}
    for label in ("layers.3.attn.scores", "layers.3.attn.probs", "layers.3.norm.var", "logits"):
        limits = verdict_on(found, label).limits
        assert limits is not None and limits.dtype == name and f"fed by {name}" in limits.source


@pytest.mark.parametrize("label", ["layers.3.attn.scores", "layers.3.norm.var", "layers.3.attn", "logits"])
def test_a_fault_in_one_of_them_is_wrong(label: str) -> None:
    labels = islands()
    golden = labels[label][0]
    labels[label] = golden, with_error(golden, 0.4).astype(golden.dtype)
    assert first(judge_on(labels)) == label


def test_the_same_errors_are_wrong_where_all_is_float32() -> None:
    assert first(judge_on(islands(dtype=F32))) == "layers.0.norm.var"


def test_an_island_before_anything_in_half_precision_counts_as_what_it_is() -> None:
    assert first(judge_on({"positions": both(F32, 4e-3), "embed": both(BF16, 4e-3)})) == "positions"


def test_labels_in_a_row_that_keep_to_their_own_limits_are_not_fed_by_a_narrower_type() -> None:
    """A float32 tower behind one in bfloat16: three labels whose errors are those of float32 say so."""
    labels = {"vision": both(BF16, 4e-3), **{f"text.{n}": both(F32, 1e-7, n) for n in range(4)}}
    assert wrong(judge_on({**labels, "text.out": both(F32, 4e-3)})) == {"text.out": "own"}
    few = {name: each for name, each in labels.items() if name not in ("text.2", "text.3")}
    assert wrong(judge_on({**few, "text.out": both(F32, 4e-3)})) == {}, "two may be equal by chance"


def test_equal_bits_say_nothing_of_what_feeds_them() -> None:
    """Masks, positions and rotary tables are the same on both sides in any model."""
    same = {f"rope.{n}": both(F32, 0.0) for n in range(5)}
    assert wrong(judge_on({"embed": both(BF16, 4e-3), **same, "scores": both(F32, 4e-3)})) == {}


def test_named_inputs_tell_instead_of_what_came_before() -> None:
    labels = {"a": both(BF16, 4e-3), "b": both(F32, 1e-7), "c": both(F32, 4e-3)}
    assert wrong(judge_on(labels, inputs={"c": ("a",)})) == {}
    assert wrong(judge_on(labels, inputs={"b": ("weights",), "c": ("a",)})) == {}, "of inputs without labels nothing"
    labels = {"a": both(F32, 1e-7), "b": both(BF16, 4e-3), "c": both(F32, 4e-3)}
    assert wrong(judge_on(labels)) == {}
    assert wrong(judge_on(labels, inputs={"c": ("a",)})) == {"c": "own"}
    assert wrong(judge_on(labels, inputs={"c": ("a", "b")})) == {}, "the narrowest of them counts"


def test_integers_on_the_way_say_nothing() -> None:
    ids = np.arange(12)
    labels = {"embed": both(BF16, 4e-3), "ids": (ids, ids), "scores": both(F32, 4e-3)}
    assert wrong(judge_on(labels)) == {}
    assert wrong(judge_on({"ids": (ids, ids), "scores": both(F32, 4e-3)})) == {"scores": "own"}


def test_rules_of_the_policy_and_exact_types_stay_what_they_are() -> None:
    policy = Policy(rules=(LimitRule(Scope("scores", "float32"), 1e-6, 1e-5),))
    ids = np.arange(12)
    labels = {"embed": both(BF16, 4e-3), "scores": both(F32, 4e-3), "ids": (ids, ids[::-1].copy())}
    found = judge_on(labels, policy)
    assert verdict_on(found, "scores").status is verdict_on(found, "ids").status is Status.DIVERGED


def held(golden: npt.DTypeLike, actual: npt.DTypeLike, labels: int = 5, error: float = 4e-3) -> dict[str, Both]:
    """Labels that are float32 on both sides and have values of narrower types."""
    return {
        f"layers.{n}.mlp": (round_to(X + n, golden), round_to(with_error(X + n, error, n), actual))
        for n in range(labels)
    }


@pytest.mark.parametrize(("dtype", "error"), [(ml_dtypes.bfloat16, 4e-3), (np.float16, 6e-4)])
def test_a_half_precision_label_held_as_float32_counts_as_it(dtype: npt.DTypeLike, error: float) -> None:
    name = np.dtype(dtype).name
    found = judge_on(held(dtype, dtype, error=error))
    assert found.exit_code is ExitCode.MATCH
    limits = verdict_on(found, "layers.0.mlp").limits
    assert limits is not None and limits.dtype == name and f"{name} held as float32" in limits.source


def test_an_actual_side_that_is_all_narrow_is_compared_as_it_though_golden_is_float32() -> None:
    found = judge_on(held(np.float32, ml_dtypes.bfloat16))
    assert found.exit_code is ExitCode.MATCH


def test_a_silent_cast_of_one_label_is_none_of_its_own_type() -> None:
    """All others of the actual side are float32: this one lost its digits."""
    labels = {f"layers.{n}.mlp": both(F32, 1e-7, n) for n in range(6)}
    golden = X.astype(F32)
    labels["layers.6.mlp"] = golden, round_to(golden)
    assert first(judge_on(labels)) == "layers.6.mlp"


def test_true_float32_values_are_held_against_their_own_limits() -> None:
    found = judge_on(held(np.float32, np.float32))
    assert first(found) == "layers.0.mlp" and "float32 table" in verdict_on(found, "layers.0.mlp").reason


@pytest.mark.parametrize(
    "values",
    [np.ones((12, 64)), np.arange(768.0).reshape(12, 64) // 64, (X > 0) * 1.0, X[:2, :64]],
    ids=["ones", "counts", "mask", "few"],
)
def test_masks_counts_and_few_values_tell_nothing_of_their_type(values: Array) -> None:
    golden = round_to(values)
    labels = {"a": (golden, (golden * 1.01).astype(np.float32))}
    assert wrong(judge_on(labels)) == {"a": "own"}


def test_each_rank_counts_by_the_inputs_that_it_names() -> None:
    known = evidence_on({"wide": both(F32, 1e-6), "half": both(BF16, 5e-3), "y": both(F32, 2e-3, 5)})
    *before, label = known.labels
    (only,) = label.ranks
    assert only.golden is not None
    ranks = [
        replace(only, rank=rank, golden=replace(only.golden, inputs=(name,)))
        for rank, name in enumerate(("half", "wide"))
    ]
    found = judge_evidence(replace(known, labels=(*before, replace(label, ranks=tuple(ranks)))))
    assert [each.status for each in found.labels[-1].ranks] == [Status.MATCH, Status.DIVERGED]
