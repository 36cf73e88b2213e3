"""Dataclasses as bytes: made, read, replaced, compared and sent as any other; whole batches as tables."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, fields, replace
from math import inf, isnan, nan
from typing import Any

import numpy as np
import pytest

from aclcmp.orchestrator.compare.outcomes import OutcomeCollector
from aclcmp.orchestrator.core.compact import from_columns, from_table, number_reader, table
from aclcmp.orchestrator.core.metrics import Metrics, all_metrics, metrics_of
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.stats import Basis, PairStats, RowSums

NUMBERS = [field.name for field in fields(PairStats) if field.name not in ("rows", "basis", "choices")]


def stats(seed: int, rows: int = 4) -> PairStats:
    """Statistics with other numbers in every field."""
    random = np.random.default_rng(seed)
    values: dict[str, Any] = {
        field.name: int(random.integers(1, 2**40)) if field.type == "int" else float(random.lognormal())
        for field in fields(PairStats)
        if field.name in NUMBERS
    }
    return PairStats(rows=RowSums(1, np.arange(rows) * 2, random.random(rows), random.random(rows)), **values)


def test_it_is_a_frozen_dataclass() -> None:
    one = stats(1)
    assert replace(one, n=7, sum_x=inf).n == 7 and replace(one, sum_x=inf).sum_x == inf
    assert replace(one, sum_x=inf).sum_y == one.sum_y and one.basis is Basis.VALUES
    assert f"n_equal={one.n_equal}, " in repr(one)
    with pytest.raises(FrozenInstanceError):
        one.n = 3  # type: ignore[misc]
    with pytest.raises(TypeError, match="takes n, n_equal"):
        PairStats(n=1)  # type: ignore[call-arg]
    values = {name: getattr(one, name) for name in NUMBERS}
    with pytest.raises(TypeError):
        PairStats(rows=one.rows, other=1, **values)  # type: ignore[call-arg]


def test_equal_are_those_with_equal_numbers_and_nan_is_one() -> None:
    one = metrics_of(stats(1))
    odd = replace(one, pcc=nan)
    assert one == replace(one) and one != replace(one, pcc=0.5) and odd == replace(odd, pcc=float("nan"))
    assert len({one, replace(one), odd}) == 2


def test_it_travels() -> None:
    one = stats(2)
    for rows in (one.rows, RowSums(4, np.arange(3, 9), np.ones(6), np.zeros(6)), RowSums.empty(2)):
        found = pickle.loads(pickle.dumps(replace(one, rows=rows, basis=Basis.NORMS)))
        assert [getattr(found, name) for name in NUMBERS] == [getattr(one, name) for name in NUMBERS]
        assert found.basis is Basis.NORMS and found.rows.group == rows.group
        for name in ("index", "sum_xx", "sum_dd"):
            np.testing.assert_array_equal(getattr(found.rows, name), getattr(rows, name))


def test_a_batch_is_a_table() -> None:
    each = [stats(seed) for seed in range(5)]
    found = table(each, PairStats)
    assert found["sum_dd"].tolist() == [one.sum_dd for one in each]
    assert found["n"].tolist() == [one.n for one in each]
    again = from_table(PairStats, found, [one.rows for one in each], [Basis.NORMS] * 5, [None] * 5)
    assert [(one.max_ulp, one.basis) for one in again] == [(one.max_ulp, Basis.NORMS) for one in each]
    figures = all_metrics(each)
    columns = {field.name: [getattr(one, field.name) for one in figures] for field in fields(Metrics)}
    assert from_columns(Metrics, columns) == figures
    assert number_reader(PairStats, "n", "sum_dd")(each[0]) == (each[0].n, each[0].sum_dd)
    assert from_table(Metrics, table([], Metrics)) == [] and all_metrics([]) == []


def test_figures_of_many_are_those_of_each() -> None:
    """Whatever the number of rows, and where sums are nothing, infinite or not a number."""
    each = [stats(seed, rows) for seed, rows in enumerate([0, 1, 2, 3, 16, 17, 100, 4])]
    changes: list[dict[str, Any]] = [{name: odd} for name in ("sum_xx", "sum_dd", "min_x") for odd in (0.0, inf, nan)]
    each += [replace(each[5], **change) for change in changes]
    each += [replace(each[4], rows=RowSums(1, np.arange(4), np.array([0.0, 0, inf, 1]), np.array([0.0, 1, nan, 2])))]
    each += [replace(each[3], n=0, n_finite=0), PairStats.empty()]
    assert all_metrics(each) == [metrics_of(one) for one in each]
    assert metrics_of(PairStats.empty()).rel_l2 == 0.0 and isnan(metrics_of(PairStats.empty()).worst_row)


def test_what_is_collected_is_complete_whatever_comes_first() -> None:
    """A pair of no elements adds nothing, before and after the last of the others; words stay where one part failed."""
    shapes = ((0, 4), (2, 4), (2, 4))
    source = Source("x.h5", 0, "float32", (4, 4))

    def pairs(rank: int) -> list[Pair]:
        regions = [Region((2 * place, 0), shape) for place, shape in enumerate(shapes)]
        return [Pair(LabelKey(0, "x", 0), rank, source, each, source, each, (4, 4), each, "") for each in regions]

    first, second, third = pairs(0), pairs(1), pairs(2)
    collected = OutcomeCollector([*first, *second, *third])
    empty, some = PairStats.empty(), stats(3)
    assert collected.add(first, [empty, replace(some, rows=RowSums.empty(1)), empty]) == 1
    assert collected.add(second[1:], ["gone", some]) == 1 and collected.add(second[:1], [empty]) == 0
    assert collected.add(third[:2], [empty, some]) == 0
    found = collected.complete()
    assert sorted(rank for _, rank in found) == [0, 1] and found[LabelKey(0, "x", 0), 1] == "gone"


def test_sums_do_not_depend_on_which_actor_was_first() -> None:
    source = Source("x.h5", 0, "float32", (6,))
    regions = [Region((at,), (2,)) for at in (0, 2, 4)]
    pairs = [Pair(LabelKey(0, "x", 0), 0, source, each, source, each, (6,), each, "") for each in regions]
    results = [replace(stats(seed), sum_dd=value) for seed, value in enumerate((1.0, 1e16, -1e16))]
    found = []
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        collected = OutcomeCollector(pairs)
        for place in order:
            collected.add([pairs[place]], [results[place]])
        found.append(collected.complete()[LabelKey(0, "x", 0), 0])
    assert isinstance(found[0], PairStats)
    assert [each.sum_dd for each in found if isinstance(each, PairStats)] == [found[0].sum_dd] * 3
