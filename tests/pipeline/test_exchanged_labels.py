"""What is golden's other label: exchanged outputs, calls off by one; and labels that merely resemble."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aclcmp.orchestrator.core.diagnosis import Hint
from aclcmp.orchestrator.core.regions import LabelKey, Region
from tests.judge.test_hints import World

SHAPE = (48, 64)


def values(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def rounded(x: np.ndarray) -> np.ndarray:
    return x * (1 + 1e-6 * values(999, x.shape))


class Labels(World):
    """Labels of which some are calls, or tasks, of one name."""

    def put(self, name: str, golden: np.ndarray, *actual: np.ndarray, occurrence: int = 0, task: int = 0) -> None:
        """Add a label; without `actual` it is right, on one rank."""
        self.add(golden, actual or [rounded(golden)], name)
        key = LabelKey(task, name, occurrence)
        plan = self.labels[-1]
        self.labels[-1] = replace(plan, key=key, pairs=tuple(replace(pair, key=key) for pair in plan.pairs))

    def told(self) -> list[tuple[str, str]]:
        return [(hint.key.label, hint.words) for hint in self.hints() if hint.kind == "another label"]

    def hints(self) -> tuple[Hint, ...]:
        return self.diagnose()[2]


@pytest.fixture
def labels(tmp_path: Path) -> Labels:
    return Labels(tmp_path)


def layer(labels: Labels, number: int, **actual: np.ndarray) -> dict[str, np.ndarray]:
    """Add a layer's queries, keys and values; those given are what actual has instead."""
    golden = {name: values(10 * number + i) for i, name in enumerate("qkv")}
    for name, x in golden.items():
        labels.put(f"layers.{number}.attn.{name}_proj", x, rounded(actual.get(name, x)))
    return golden


def test_keys_and_values_that_are_exchanged(labels: Labels) -> None:
    layer(labels, 0)
    layer(labels, 1, k=values(12), v=values(11))
    layer(labels, 2)
    words = "it is golden's layers.1.attn.v_proj: outputs, weights or names exchanged, or a layer left out?"
    assert labels.told() == [("layers.1.attn.k_proj", words)]  # what follows counts as inherited
    assert all(hint.ranks == (0,) and 0.99 < hint.explained <= 1.0 for hint in labels.hints())


@pytest.mark.parametrize("both", [True, False])
def test_parts_of_one_tensor_that_are_exchanged(labels: Labels, both: bool) -> None:
    """As a rule of a map plans them: each part under its own name, both in one stored tensor."""
    k, v = values(1), values(2)
    fused = labels.source(np.concatenate([rounded(v), rounded(k) if both else values(3)], 1))
    for place, (name, x) in enumerate((("k", k), ("v", v))):
        labels.put(f"layers.0.attn.{name}_proj", x)
        here = labels.labels[-1]
        region = Region((0, place * SHAPE[1]), SHAPE)
        labels.labels[-1] = replace(here, pairs=(replace(here.pairs[0], actual=fused, actual_region=region),))
    ((name, words),) = labels.told()
    assert name == "layers.0.attn.k_proj"
    if both:
        own = "layers.0.attn.k_proj and layers.0.attn.v_proj"
        assert words == f"{own} are exchanged in the tensor of rank 0 that holds both"
    else:
        assert words.startswith("it is golden's layers.0.attn.v_proj:")


def test_the_gate_in_place_of_the_up_projection(labels: Labels) -> None:
    labels.put("layers.0.mlp.gate_proj", values(1))
    labels.put("layers.0.mlp.up_proj", values(2), rounded(values(1)))
    ((name, words),) = labels.told()
    assert name == "layers.0.mlp.up_proj" and words.startswith("it is golden's layers.0.mlp.gate_proj:")


def test_the_weights_of_another_layer(labels: Labels) -> None:
    for number in range(3):
        layer(labels, number, **({"q": values(20)} if number == 1 else {}))
    assert [words.partition(":")[0] for _, words in labels.told()] == ["it is golden's layers.2.attn.q_proj"]


def test_a_call_that_is_off_by_one_is_told_by_its_number(labels: Labels) -> None:
    for call in range(4):
        labels.put(
            "head", values(call), rounded(values(call)) if call < 2 else rounded(values(call - 1)), occurrence=call
        )
    assert labels.told()[0] == (
        "head",
        "it is golden's of call 1: a step, a position or an order of calls off by one?",
    )


def test_two_calls_apart_is_not_asked(labels: Labels) -> None:
    for call in range(4):
        labels.put("head", values(call), rounded(values(call if call < 3 else 0)), occurrence=call)
    assert labels.told() == []


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_labels_that_merely_resemble_are_no_other_labels(labels: Labels, share: float) -> None:
    """Of what lies between two labels of golden most of the error may be gone beside the other; it is still wrong."""
    labels.put("layers.0.k", values(1), share * values(2) + (1 - share) * values(1))
    labels.put("layers.0.v", values(2))
    assert labels.told() == []


def test_a_label_that_is_nearly_the_other_in_golden_too_is_not_told(labels: Labels) -> None:
    """Neighbours of a residual stream: beside the other label the error is about as large."""
    stream = 10 * values(1)
    labels.put("layers.0.out", stream)
    labels.put("layers.1.out", stream + 1e-2 * values(2), stream + 1e-2 * values(2) + values(3))
    labels.put("layers.2.out", stream + 2e-2 * values(4))
    assert labels.told() == []


def test_other_shapes_and_other_tasks_are_not_asked(labels: Labels) -> None:
    labels.put("layers.0.k", values(1), rounded(values(2)))
    labels.put("layers.0.v", values(2), task=1)
    labels.put("layers.0.w", values(3, (48, 32)))
    assert labels.told() == []


def test_all_ranks_must_hold_it(labels: Labels) -> None:
    one, two = values(1), values(2)
    labels.put("layers.0.k", one, rounded(two), rounded(two), rounded(one))
    labels.put("layers.0.v", two, *[rounded(two)] * 3)
    (hint,) = (hint for hint in labels.hints() if hint.kind == "another label")
    assert hint.ranks == (0, 1)  # the third is right


def test_on_one_rank_alone_something_else_is_wrong(labels: Labels) -> None:
    one, two = values(1), values(2)
    labels.put("layers.0.k", one, rounded(two), values(3))
    labels.put("layers.0.v", two, rounded(two), rounded(two))
    assert labels.told() == []


def test_slices_of_ranks_are_held_against_the_same_slices(labels: Labels) -> None:
    one, two = values(1), values(2)
    labels.put("layers.0.k", one, *np.split(rounded(two), 2, 1))
    labels.put("layers.0.v", two, *np.split(rounded(one), 2, 1))
    assert [words.partition(":")[0] for _, words in labels.told()] == ["it is golden's layers.0.v"]
    assert [hint.ranks for hint in labels.hints()] == [(0, 1)]


@pytest.mark.parametrize("told", [True, False])
def test_another_label_is_told_instead_of_what_it_looks_like(labels: Labels, told: bool) -> None:
    labels.put("layers.0.gate", values(1), rounded(2 * values(1)))
    labels.put("layers.0.up", 2 * values(1) if told else values(2))
    assert [hint.kind for hint in labels.hints()] == ["another label" if told else "scale"]
