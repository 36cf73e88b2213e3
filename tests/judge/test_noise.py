"""The noise before a label: the median error of what is right there, by rank."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.stats import Basis
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Status
from aclcmp.orchestrator.judge.noise import noise_of
from tests.judge.wrong import label_of

X = np.random.default_rng(0).standard_normal((32, 64))


def label(name: str, error: float | dict[int, float], x: np.ndarray = X, task: int = 0) -> LabelVerdict:
    """A label whose rows all have about this relative error, on one rank or on several."""
    errors = error if isinstance(error, dict) else {0: error}
    d = np.random.default_rng(1).standard_normal(x.shape)
    d *= np.linalg.norm(x, axis=1, keepdims=True) / np.linalg.norm(d, axis=1, keepdims=True)
    return replace(label_of(x, {rank: x + each * d for rank, each in errors.items()}), key=LabelKey(task, name, 0))


def noise(labels: list[LabelVerdict]) -> dict[int, float]:
    """The noise before the last label."""
    return dict(noise_of(labels, [labels[-1].key])[labels[-1].key])


def test_it_is_the_median_of_the_last_right_labels() -> None:
    labels = [label(str(i), 1e-5 * (1 + i)) for i in range(12)]
    found = noise([*labels, label("wrong", 0.5)])
    assert found == {0: pytest.approx(np.median(1e-5 * np.arange(5, 13)), rel=1e-2)}


def test_what_is_wrong_before_is_no_noise() -> None:
    labels = [label("a", 1e-5), label("b", 0.4), label("c", 0.3), label("wrong", 0.5)]
    assert labels[1].status is Status.DIVERGED
    assert noise(labels) == {0: pytest.approx(1e-5, rel=1e-2)}
    assert noise(labels[1:]) == noise(labels[3:]) == {}


def test_what_is_equal_bit_by_bit_or_of_another_task_tells_nothing() -> None:
    assert noise([label("a", 0.0), label("wrong", 0.5)]) == {}
    assert noise([label("a", 1e-5, task=1), label("wrong", 0.5)]) == {}
    assert noise([label("a", 1e-5, task=1), label("wrong", 0.5, task=1)]) == {0: pytest.approx(1e-5, rel=1e-2)}


def test_what_was_compared_by_summaries_tells_nothing() -> None:
    before = label("a", 1e-5)
    (verdict,) = before.ranks
    assert verdict.stats is not None
    brief = replace(before, ranks=(replace(verdict, stats=replace(verdict.stats, basis=Basis.NORMS)),))
    assert noise([brief, label("wrong", 0.5)]) == {}


def test_each_rank_has_its_own() -> None:
    labels = [label("a", {0: 1e-5, 1: 4e-5, 2: 1e-5}), label("b", {0: 1e-5}), label("wrong", {0: 0.5, 1: 0.5, 3: 0.5})]
    found = noise(labels)
    assert found == {0: pytest.approx(1e-5, rel=1e-2), 1: pytest.approx(4e-5, rel=1e-2)}


def test_a_massive_row_does_not_count_for_all() -> None:
    x = X.copy()
    x[0] *= 1e4
    right = label("a", 1e-5, x)
    y = x * (1 + 1e-5 * np.random.default_rng(1).standard_normal(x.shape))
    y[0] = x[0] * (1 + 2e-4)
    right = replace(label_of(x, {0: y}), key=right.key)
    assert right.ranks[0].metrics is not None and right.ranks[0].metrics.rel_l2 > 1e-4
    assert noise([right, label("wrong", 0.5)])[0] < 2e-5


def test_labels_far_before_are_not_asked() -> None:
    between = [label(f"equal {i}", 0.0) for i in range(70)]
    assert noise([label("a", 1e-5), *between, label("wrong", 0.5)]) == {}
    assert noise([label("a", 1e-5), *between[:60], label("wrong", 0.5)]) != {}


def test_only_what_is_wanted_is_told() -> None:
    labels = [label("a", 1e-5), label("b", 1e-5), label("c", 0.5)]
    assert noise_of(labels, []) == {}
    assert set(noise_of(labels, [labels[0].key, labels[2].key])) == {labels[0].key, labels[2].key}
