"""Shapes that differ by dimensions of one, merges or a transposition: what is paired is the same elements."""

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aclcmp.labeling.layout import Layout, Partial, Replicate, Shard
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.core.plan import GapKind, LabelPlan
from aclcmp.orchestrator.core.regions import Pair, Region
from aclcmp.orchestrator.plan.planner import plan_run, plan_two
from tests.plan.test_planner import index, label

Numbers = np.ndarray
Locals = Mapping[int, Numbers]


def run_of(side: str, locals_: Locals, layouts: Mapping[int, Layout] | None = None) -> list[ShardIndex]:
    def record(rank: int, array: Numbers) -> LabelRecord:
        layout = (layouts or {}).get(rank)
        return label("x", side, 0, array.shape, layout=layout, nbytes=4 * array.size, checksum=rank)

    return [index(rank, record(rank, array), world_size=len(locals_)) for rank, array in locals_.items()]


def plan_of(goldens: Locals, actuals: Locals, layouts: Mapping[int, Layout] | None = None) -> LabelPlan:
    plan = plan_two(run_of("pta", goldens), run_of("acl", actuals, layouts), len(actuals))
    return plan.labels[0]


def read(array: Numbers, shape: tuple[int, ...], region: Region) -> Numbers:
    """What a pair reads of a stored tensor: a box of its flat elements under the shape of the source."""
    assert math.prod(shape) == array.size and all(
        0 <= s <= s + n <= m for s, n, m in zip(region.start, region.shape, shape, strict=True)
    )
    return array.reshape(-1).reshape(shape)[region.slices]


def agrees(pair: Pair, goldens: Locals, actuals: Locals) -> bool:
    assert pair.golden_region.shape == pair.actual_region.shape == pair.region.shape
    inside = all(end <= size for end, size in zip(pair.region.end, pair.whole_shape, strict=True))
    assert inside or not pair.region.size
    golden = read(goldens[pair.golden.rank], pair.golden.shape, pair.golden_region)
    actual = read(actuals[pair.actual.rank], pair.actual.shape, pair.actual_region)
    return np.array_equal(golden, actual)


def check(plan: LabelPlan, goldens: Locals, actuals: Locals) -> None:
    """All pairs have equal numbers, and compare all elements of every actual tensor once."""
    assert plan.pairs and not plan.gaps and not plan.questions and not plan.uncovered
    assert all(agrees(pair, goldens, actuals) for pair in plan.pairs)
    for rank, array in actuals.items():
        read_ = [read(array, p.actual.shape, p.actual_region) for p in plan.pairs if p.rank == rank]
        assert sorted(itertools.chain(*(each.reshape(-1).tolist() for each in read_))) == sorted(
            array.reshape(-1).tolist()
        )


def options_of(plan: LabelPlan) -> tuple[LabelPlan, ...]:
    (question,) = plan.questions
    return question.options


def holding(plan: LabelPlan, goldens: Locals, actuals: Locals) -> LabelPlan:
    """The option of a label's question under which all numbers are equal."""
    found = [each for each in options_of(plan) if each.pairs and all(agrees(p, goldens, actuals) for p in each.pairs)]
    check(found[0], goldens, actuals)
    return found[0]


def whole(*shape: int) -> Numbers:
    return np.arange(math.prod(shape)).reshape(shape)


def cut(array: Numbers, dim: int, ranks: int) -> dict[int, Numbers]:
    return dict(enumerate(np.split(array, ranks, dim)))


def with_ones(array: Numbers, places: list[int]) -> Numbers:
    for place in places:
        array = np.expand_dims(array, place % (array.ndim + 1))
    return array


def says_another_cut(golden: Numbers, actuals: Locals) -> bool:
    """Tell whether the shapes as they are say that another dimension was cut than was: nothing but values shows it."""
    shape, ranks = actuals[0].shape, len(actuals)
    if golden.ndim != len(shape) or golden.shape == shape:
        return False
    (dim, *others) = [d for d in range(golden.ndim) if golden.shape[d] != shape[d]]
    if others or golden.shape[dim] != ranks * shape[dim]:
        return False
    return not all(np.array_equal(piece, actuals[rank]) for rank, piece in cut(golden, dim, ranks).items())


ONES = st.lists(st.integers(0, 4), max_size=2)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), ONES, ONES, st.integers(1, 3), st.booleans(), st.data())
def test_dimensions_of_one_anywhere(
    sizes: list[int], golden_ones: list[int], actual_ones: list[int], ranks: int, declared: bool, data: st.DataObject
) -> None:
    """Any dimension may be cut over ranks, with or without a layout that says so, in the user's own dimensions."""
    dim = data.draw(st.integers(0, len(sizes) - 1))
    sizes[dim] *= ranks
    array = whole(*sizes)
    goldens = {0: with_ones(array, golden_ones)}
    actuals = {rank: with_ones(each, actual_ones) for rank, each in cut(array, dim, ranks).items()}
    told = declared and ranks > 1
    assume(told or not says_another_cut(goldens[0], actuals))
    marked = with_ones(np.empty([2 if d == dim else 1 for d in range(len(sizes))]), actual_ones)
    layout = Layout((Shard(marked.shape.index(2) - data.draw(st.sampled_from([0, marked.ndim]))),))
    plan = plan_of(goldens, actuals, dict.fromkeys(actuals, layout) if told else None)
    if plan.questions:
        holding(plan, goldens, actuals)
    else:
        check(plan, goldens, actuals)


def test_one_prompt_of_a_batch_is_told_in_the_layout() -> None:
    goldens, actuals = {0: whole(1, 5, 576)}, {0: whole(5, 576)}
    plan = plan_of(goldens, actuals)
    check(plan, goldens, actuals)
    assert {pair.layout for pair in plan.pairs} == {"golden [1, 5, 576] as [5, 576]"}
    side = plan.sides[0].golden
    assert side is not None and side.facts.shape == (1, 5, 576), "the report has the shape as it was labelled"
    both = plan_of({0: whole(5, 1)}, {0: whole(1, 5)})
    assert {pair.layout for pair in both.pairs} == {"golden [5, 1] as [5]; [1, 5] as [5]"}


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("merged_side", ["golden", "actual"])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_a_batch_and_its_tokens_in_a_row(ranks: int, merged_side: str, dim: int) -> None:
    """[B, S, H] beside [B * S, H], cut along the batch, the sequence or the features."""
    array = whole(4, 8, 16)
    pieces = cut(array, dim, ranks)
    if merged_side == "golden":
        goldens, actuals = {0: array.reshape(32, 16)}, pieces
    else:
        goldens, actuals = {0: array}, {rank: each.reshape(-1, each.shape[-1]) for rank, each in pieces.items()}
    plan = plan_of(goldens, actuals)
    if plan.questions:
        holding(plan, goldens, actuals)
    else:
        check(plan, goldens, actuals)
        assert " as [" in plan.pairs[0].layout


def test_a_declared_dimension_is_one_of_the_labelled_tensor() -> None:
    array = whole(4, 6, 8)
    goldens = {0: array.reshape(24, 8)}
    for dim in (0, 1, 2, -1, -2, -3):
        pieces = cut(array, dim, 2)
        layouts = dict.fromkeys(pieces, Layout((Shard(dim),)))
        check(plan_of(goldens, pieces, layouts), goldens, pieces)
    flat = dict(enumerate(np.split(array.reshape(24, 8), 2)))
    check(plan_of({0: array}, flat, dict.fromkeys(flat, Layout((Shard(0),)))), {0: array}, flat)


def test_declared_parts_sizes_and_places_go_along() -> None:
    array = whole(6, 4, 8)
    goldens = {0: array.reshape(24, 8)}
    parts = {0: array[[0, 1, 4]], 1: array[[2, 3, 5]]}
    check(plan_of(goldens, parts, dict.fromkeys(parts, Layout((Shard(0, parts=(2, 1)),)))), goldens, parts)
    padded = {0: array[:4], 1: np.concatenate([array[4:], -np.ones((2, 4, 8), int)])}
    plan = plan_of(goldens, padded, dict.fromkeys(padded, Layout((Shard(0, size=6),))))
    assert len(plan.pairs) == 2 and all(agrees(pair, goldens, padded) for pair in plan.pairs)
    halves = cut(array, 2, 2)
    spans = {rank: ((((0, 6),), ((0, 4),), ((rank * 4, 4),))) for rank in halves}
    layouts = {rank: Layout((Shard(2),), (6, 4, 8), spans[rank]) for rank in halves}
    check(plan_of(goldens, halves, layouts), goldens, halves)


def test_a_sum_stays_a_sum() -> None:
    pieces = {0: whole(1, 4, 8), 1: whole(1, 4, 8)}
    plan = plan_of({0: whole(4, 8)}, pieces, dict.fromkeys(pieces, Layout((Partial(),))))
    (pair,) = plan.pairs
    assert [each.shape for each in (pair.actual, *pair.more_actual)] == [(4, 8), (4, 8)]
    assert pair.layout == "[1, 4, 8] as [4, 8]; Partial(sum) over 2 ranks"
    check(
        plan_of({0: whole(4, 8)}, {0: whole(1, 4, 8)}, {0: Layout((Replicate(),))}), {0: whole(4, 8)}, {0: whole(4, 8)}
    )


@given(st.integers(2, 5), st.integers(2, 5), st.lists(st.integers(1, 3), max_size=2), st.integers(1, 3), st.data())
def test_exchanged_dimensions_are_proved(
    outer: int, inner: int, rest: list[int], ranks: int, data: st.DataObject
) -> None:
    """[S, B, H] beside [B, S, H], cut anywhere: an option has all numbers right, and none is taken for sure."""
    sizes = [outer, inner, *rest]
    dim = data.draw(st.integers(0, len(sizes) - 1))
    sizes[dim] *= ranks
    array = whole(*sizes)
    goldens = {0: array}
    actuals = {rank: np.ascontiguousarray(each.swapaxes(0, 1)) for rank, each in cut(array, dim, ranks).items()}
    plan = plan_of(goldens, actuals)
    assert not any("transposed" in pair.layout for pair in plan.pairs)
    for option in options_of(plan) if plan.questions else ():
        for pair in option.pairs:
            agrees(pair, goldens, actuals)  # every read lies within its tensor
    if plan.questions and any("transposed" in pair.layout for each in options_of(plan) for pair in each.pairs):
        found = holding(plan, goldens, actuals)
        assert "transposed to" in found.pairs[0].layout and found.pairs[0].layout.endswith("proved on the values")
        assert question_reason(plan)


def question_reason(plan: LabelPlan) -> str:
    unsettled = plan.questions[0].unsettled
    assert not unsettled.pairs or unsettled.unlike
    return "; ".join(gap.reason for gap in unsettled.gaps) or "; ".join(unsettled.unlike.values())


def test_one_transposition_is_the_only_reading() -> None:
    goldens, actuals = {0: whole(3, 5, 8)}, {0: np.ascontiguousarray(whole(3, 5, 8).swapaxes(0, 1))}
    plan = plan_of(goldens, actuals)
    (option,) = options_of(plan)
    check(option, goldens, actuals)
    assert len(option.pairs) == 3, "as many slices as the smaller dimension has"
    (gap,) = plan.questions[0].unsettled.gaps
    assert gap.kind is GapKind.MISMATCH and "transposed to [3, 5, 8]" in gap.reason


def test_tokens_of_a_batch_in_the_other_order_are_another_look() -> None:
    """[B, S, H] beside [S * B, H]: read as it lies, and another way is there to try where that does not hold."""
    array = whole(3, 5, 8)
    goldens, actuals = {0: array}, {0: np.ascontiguousarray(array.swapaxes(0, 1)).reshape(15, 8)}
    for one, other in ((goldens, actuals), (actuals, goldens)):
        plan = plan_of(one, other)
        assert plan.pairs and plan.second_look is not None
        (option,) = plan.second_look()
        check(option, one, other)


def test_a_flat_matrix_may_be_of_either_order() -> None:
    array = whole(3, 4)
    for flat in (array.reshape(-1), np.ascontiguousarray(array.T).reshape(-1)):
        for goldens, actuals in (({0: array}, {0: flat}), ({0: flat}, {0: array})):
            plan = plan_of(goldens, actuals)
            assert len(options_of(plan)) == 2
            holding(plan, goldens, actuals)


SHAPES = st.lists(st.integers(0, 6), max_size=4).map(tuple)


@given(SHAPES, SHAPES, st.integers(1, 3), st.integers(1, 4))
def test_no_shapes_break_the_search(
    golden: tuple[int, ...], actual: tuple[int, ...], golden_ranks: int, ranks: int
) -> None:
    """What is paired lies within its tensors, whatever the shapes; a rank has pairs or a gap."""
    goldens = {rank: whole(*golden) for rank in range(golden_ranks)}
    actuals = {rank: whole(*actual) for rank in range(ranks)}
    plan = plan_of(goldens, actuals)
    every = [plan, *(plan.second_look() if plan.second_look else ())]
    every += [each for question in plan.questions for each in (*question.options, question.unsettled)]
    for each in every:
        for pair in each.pairs:
            agrees(pair, goldens, actuals)


def test_a_summary_keeps_its_rows() -> None:
    def one(side: str, *shape: int) -> LabelRecord:
        return label("x", side, side == "acl", shape, capture="fingerprint", nbytes=8)

    def plan(golden: tuple[int, ...], actual: tuple[int, ...]) -> LabelPlan:
        return plan_run([index(0, one("pta", *golden), one("acl", *actual), world_size=1)], 1).labels[0]

    assert plan((1, 4, 8), (4, 8)).pairs and plan((2, 2, 8), (4, 8)).pairs
    (gap,) = plan((4, 8, 1), (4, 8)).gaps
    assert gap.kind is GapKind.MISMATCH and "fingerprint" in gap.reason
