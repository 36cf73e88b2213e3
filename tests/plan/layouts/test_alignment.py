"""Tensors are placed where layouts say or the shapes of all ranks prove it, and refused where they do not."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.labeling.layout import Layout, Partial, Replicate, Shard
from aclcmp.orchestrator.core.regions import Region
from aclcmp.orchestrator.plan.layouts.alignment import (
    AlignedRegion,
    Alignment,
    LabelSide,
    find_alignments,
    other_alignments,
)
from aclcmp.orchestrator.plan.layouts.box_cover import cover, intersection
from aclcmp.orchestrator.plan.layouts.interpretations import AlignmentError, LocalTensor


def plain(*shape: int, layout: str | None = None) -> LocalTensor:
    """A tensor with a layout as journals hold it: what cannot be compared is kept as it was told."""
    return LocalTensor(shape, Layout.from_json(json.dumps({"placements": [layout]})) if layout else None)


def options(
    goldens: dict[int, LocalTensor],
    actuals: dict[int, LocalTensor],
    world: int = 0,
    *,
    alike: bool = False,
    one_run: bool = True,
) -> list[Alignment]:
    sides = (LabelSide(pieces, world, alike or len(pieces) == 1) for pieces in (goldens, actuals))
    return find_alignments(*sides, one_run=one_run)


def only_option(
    goldens: dict[int, LocalTensor], actuals: dict[int, LocalTensor], world: int = 0, **kind: bool
) -> Alignment:
    (option,) = options(goldens, actuals, world, **kind)
    return option


def only(placer: Alignment, rank: int) -> AlignedRegion:
    (placing,), left = placer.place(rank)
    assert not left
    return placing


BOXES = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=3)


@given(st.data())
def test_boxes_are_covered_once(data: st.DataObject) -> None:
    dims = data.draw(st.integers(0, 3))

    def box() -> Region:
        spans = [data.draw(st.tuples(st.integers(0, 4), st.integers(1, 5))) for _ in range(dims)]
        return Region(tuple(s for s, _ in spans), tuple(n for _, n in spans))

    wanted, offered = box(), [(number, box()) for number in range(data.draw(st.integers(0, 4)))]
    seen = np.full((10,) * dims, -1)
    given_parts, left = cover(wanted, offered)
    for holder, part in given_parts:
        assert (seen[part.slices] == -1).all()
        assert intersection(part, dict(offered)[holder]) == part
        seen[part.slices] = holder
    for part in left:
        assert (seen[part.slices] == -1).all()
        assert all(intersection(part, other) is None for _, other in offered)
        seen[part.slices] = 99
    inside = np.zeros((10,) * dims, bool)
    inside[wanted.slices] = True
    assert ((seen != -1) == inside).all()
    for number, _ in offered:  # the earlier offer serves
        earlier = [b for n, b in offered if n < number]
        assert all(intersection(p, e) is None for h, p in given_parts if h == number for e in earlier)


@given(st.data())
def test_any_split_against_any_other(data: st.DataObject) -> None:
    """Golden split along one dimension, actual along another, over other ranks: every element meets its own."""
    shape = tuple(data.draw(st.lists(st.integers(2, 7), min_size=1, max_size=3), label="shape"))
    whole = np.arange(math.prod(shape)).reshape(shape)

    def side(told: bool) -> tuple[dict[int, LocalTensor], dict[int, np.ndarray]]:
        dim = data.draw(st.integers(-1, len(shape) - 1), label="dim")
        if dim < 0:
            arrays = [whole] * data.draw(st.integers(1, 3))
            layout = Layout((Replicate(),))
        else:
            most = shape[dim] - 1
            cuts = sorted(data.draw(st.sets(st.integers(1, most), min_size=1, max_size=most), label="cuts"))
            arrays, layout = np.split(whole, cuts, axis=dim), Layout((Shard(dim),))
        locals_ = {r: LocalTensor(a.shape, layout if told else None) for r, a in enumerate(arrays)}
        return locals_, dict(enumerate(arrays))

    told = data.draw(st.booleans(), label="layouts are told")
    (goldens, golden_arrays), (actuals, actual_arrays) = side(told), side(told)
    alike = len({a.tobytes() for a in golden_arrays.values()}) == 1
    try:
        sides = (
            LabelSide(goldens, 0, alike),
            LabelSide(actuals, 0, len({a.tobytes() for a in actual_arrays.values()}) == 1),
        )
        found = find_alignments(*sides, one_run=False)
    except AlignmentError:
        assert not told
        return
    if told:
        assert len(found) == 1
    assert any(all(agrees(option, rank, golden_arrays, actual_arrays) for rank in actual_arrays) for option in found)


def agrees(option: Alignment, rank: int, goldens: dict[int, np.ndarray], actuals: dict[int, np.ndarray]) -> bool:
    """Whether every element of a rank's actual tensor meets an equal golden one, once."""
    parts, left = option.place(rank)
    seen = np.zeros(actuals[rank].shape, int)
    for part in parts:
        golden = goldens[part.golden_rank][part.golden_region.slices]
        if not np.array_equal(golden, actuals[rank][part.actual_region.slices]):
            return False
        seen[part.actual_region.slices] += 1
    return not left and bool((seen == 1).all())


def test_same_shape_is_compared_as_it_is_on_its_own_rank() -> None:
    placer = only_option({r: plain(2, 3) for r in range(4)}, {r: plain(2, 3) for r in range(4)}, 4)
    for rank in range(4):
        placing = only(placer, rank)
        assert placing.region == placing.golden_region == placing.actual_region == Region((0, 0), (2, 3))
        assert placing.golden_rank == rank
    assert placer.layout == "same shape"


@pytest.mark.parametrize(
    ("golden", "actual", "world", "words"),
    [
        ({0: plain(4, 4)}, {0: plain(2, 2)}, 1, "shape"),
        ({0: plain(4)}, {0: plain(4, 1)}, 1, "shape"),
        ({r: plain(9) for r in range(4)}, {r: plain(4) for r in range(4)}, 4, "no layout fits"),
        (
            {0: plain(8)},
            {r: plain(4, layout="Shard(dim=0)") for r in range(4)},
            4,
            r"\[8\] on rank 0.*\[4\] on ranks 0, 1, 2, 3",
        ),
        ({0: plain(8), 1: plain(8)}, {0: plain(3), 1: plain(4)}, 2, "no layout fits"),
        ({0: plain(8, 8), 1: plain(8, 8)}, {r: plain(4, 8, layout="Shard(dim=1)") for r in range(2)}, 2, "Shard"),
        ({0: plain(8), 1: plain(8)}, {r: plain(4, layout="Replicate()") for r in range(2)}, 2, "Replicate"),
        ({0: plain(8)}, {0: plain(8, layout="Partial(max)")}, 1, "only sums"),
        (
            {0: plain(8)},
            {0: plain(8, layout="Partial(sum)"), 1: plain(4, layout="Partial(sum)")},
            2,
            "sizes differ",
        ),
        ({0: plain(8)}, {0: plain(8, layout="Shard(dim=3)")}, 1, "does not fit"),
        (
            {0: plain(8)},
            {0: plain(4, layout="Shard(dim=0)"), 1: plain(4, layout="Replicate()")},
            2,
            "different layouts",
        ),
    ],
)
def test_what_does_not_fit_is_said(
    golden: dict[int, LocalTensor], actual: dict[int, LocalTensor], world: int, words: str
) -> None:
    with pytest.raises(AlignmentError, match=words):
        only_option(golden, actual, world).place(0)


def test_even_slices_are_placed_though_a_rank_is_gone() -> None:
    placing = only(only_option({3: plain(8, 4)}, {1: plain(2, 4), 3: plain(2, 4)}, 4), 3)
    assert placing.golden_region.start == (6, 0)


def test_negative_dim_and_explicit_layout() -> None:
    golden, actual = {r: plain(4, 8) for r in range(2)}, {r: plain(4, 4, layout="Shard(dim=-1)") for r in range(2)}
    placer = only_option(golden, actual, 2)
    assert only(placer, 1).golden_region == Region((0, 4), (4, 4))
    assert placer.layout == "Shard(dim=-1)"


def test_dtensor_tells_its_own_place() -> None:
    layout = Layout((Shard(0), Shard(1)), (4, 4), (((2, 2),), ((0, 2),)))
    placing = only(only_option({0: plain(4, 4)}, {0: LocalTensor((2, 2), layout)}, 8), 0)
    assert placing.golden_region == Region((2, 0), (2, 2))


@pytest.mark.parametrize(("spans", "shape"), [((((2, 1),), ((0, 4),)), (2, 4)), ((((0, 2),),), (2, 4)), ((), (2,))])
def test_impossible_places_are_refused(spans: tuple[tuple[tuple[int, int], ...], ...], shape: tuple[int, ...]) -> None:
    layout = Layout((Shard(0),), (4, 4), spans)
    with pytest.raises(AlignmentError, match="cannot lie at"):
        options({0: plain(4, 4)}, {0: LocalTensor(shape, layout)}, 1)


def test_equal_shapes_at_different_places_do_not_meet() -> None:
    first, second = (LocalTensor((4, 4), Layout((Shard(0),), (8, 4), (((start, 4),), ((0, 4),)))) for start in (0, 4))
    assert only_option({0: first}, {0: second}, 2).place(0) == ([], [Region((4, 0), (4, 4))])


def test_slices_that_nobody_labelled_are_told() -> None:
    placer = only_option({0: plain(8), 1: plain(8)}, {0: plain(2), 1: plain(2)}, 4)
    assert only(placer, 1).golden_region.start == (2,)
    assert placer.missing == {2: True, 3: True}


def test_another_ranks_replica_serves_only_where_all_are_the_same() -> None:
    actual = {r: plain(4) for r in range(3)}
    alone = only_option({1: plain(4)}, actual, 3)
    assert only(alone, 0).golden_rank == 1
    golden = {0: plain(4), 1: plain(4)}
    assert only(only_option(golden, actual, 3, alike=True), 2).golden_rank == 0
    unlike = only_option(golden, actual, 3)
    assert only(unlike, 1).golden_rank == 1
    assert unlike.place(2) == ([], [Region((0,), (4,))])


def test_summands_are_added_on_the_first_of_their_ranks() -> None:
    actual = {r: plain(4, 6, layout="Partial(sum)") for r in (3, 1, 2)}
    placer = only_option({1: plain(4, 6)}, actual, 4)
    placing = only(placer, 1)
    assert (placing.golden_rank, placing.actual_summands) == (1, (2, 3))
    assert placing.region == placing.golden_region == Region.whole((4, 6))
    assert placer.place(2) == ([], []) and placer.layout == "Partial(sum) over 3 ranks"
    back = only(only_option(actual, {0: plain(4, 6)}, 4), 0)
    assert (back.golden_rank, back.golden_summands) == (1, (2, 3))


def test_sharded_summands() -> None:
    """A DTensor over 2 x 2 ranks: summands along one mesh dimension, slices along the other."""

    def local(start: int) -> LocalTensor:
        return LocalTensor((4, 3), Layout((Partial(), Shard(1)), (4, 6), (((0, 4),), ((start, 3),))))

    placer = only_option({0: plain(4, 6)}, {0: local(0), 1: local(3), 2: local(0), 3: local(3)}, 4)
    assert [only(placer, rank).actual_summands for rank in (0, 1)] == [(2,), (3,)]
    assert only(placer, 1).golden_region == Region((0, 3), (4, 3))
    assert placer.place(3) == ([], [])


def test_the_nearest_golden_is_taken() -> None:
    """The rank's own, then one of its host, then any."""
    golden = {r: LocalTensor((8,), None, host=host) for r, host in enumerate("aabb")}
    actual = {r: LocalTensor((8,), None, host=host) for r, host in enumerate("aabbba")}
    option = only_option(golden, actual, 6, alike=True)
    assert [only(option, rank).golden_rank for rank in range(6)] == [0, 1, 2, 3, 2, 0]
    option = only_option({0: golden[0]}, {r: LocalTensor((4,), None, host="ab"[r]) for r in range(2)}, 2)
    assert only(option, 1).golden_region == Region((4,), (4,))


def test_tensors_without_elements() -> None:
    placing = only(only_option({0: plain(0, 4)}, {0: plain(0, 4)}, 1), 0)
    assert placing.region.shape == (0, 4)
    sliced = only_option({r: plain(4, 0) for r in range(2)}, {r: plain(2, 0) for r in range(2)}, 2)
    assert only(sliced, 1).region == Region((2, 0), (2, 0))


def test_two_shapes_of_a_square_need_not_be_guessed() -> None:
    """4 x 4 over two ranks by rows or by columns: the shapes of the slices tell."""
    for rows, columns in itertools.product((4, 2), repeat=2):
        if rows != columns:
            placer = only_option({0: plain(4, 4)}, {r: plain(rows, columns) for r in range(2)}, 2)
            assert placer.place(1)[0][0].region.start == ((0, 2) if rows == 4 else (2, 0))
            assert "inferred" in placer.layout


def test_groups_are_told_apart_by_their_ranks_only() -> None:
    """Data parallel over 2, tensor parallel over 2: each rank has the golden tensor of its own group."""
    golden, actual = {r: plain(8) for r in range(4)}, {r: plain(4) for r in range(4)}
    found = options(golden, actual, 4)
    assert sorted(option.actual.words for option in found) == [
        "Shard(dim=0) in 2 groups of ranks",
        "Shard(dim=0), Replicate()",
    ]
    starts = {option.actual.words: [only(option, r).region.start[0] for r in range(4)] for option in found}
    assert starts == {"Shard(dim=0) in 2 groups of ranks": [0, 4, 0, 4], "Shard(dim=0), Replicate()": [0, 0, 4, 4]}
    assert all(only(option, r).golden_rank == r for option in found for r in range(4))


def test_slices_along_two_dimensions() -> None:
    found = options({0: plain(8, 6)}, {r: plain(4, 3) for r in range(4)}, 4)
    places = {tuple(only(option, r).region.start for r in range(4)) for option in found}
    assert places == {((0, 0), (0, 3), (4, 0), (4, 3)), ((0, 0), (4, 0), (0, 3), (4, 3))}


def test_a_padded_last_slice() -> None:
    option = only_option({0: plain(10, 2)}, {r: plain(4, 2) for r in range(3)}, 3)
    assert option.layout == "Shard(dim=0, size=10), inferred"
    last = only(option, 2)
    assert (last.region, last.actual_region) == (Region((8, 0), (2, 2)), Region.whole((2, 2)))


def test_zigzag_is_what_is_looked_at_next() -> None:
    option = only_option({0: plain(8)}, {r: plain(4) for r in range(2)}, 2)
    second, *others = other_alignments(option)
    assert {each.actual.words for each in others} == {"Shard(dim=0, parts=(2, 2))", "Shard(dim=0, parts=(2, 1, 1))"}
    assert [part.region.start for part in second.place(0)[0]] == [(0,), (6,)]
    assert [part.region.start for part in second.place(1)[0]] == [(2,), (4,)]
    assert not other_alignments(only_option({0: plain(8)}, {0: plain(8)}, 1))


def test_two_runs_of_two_and_four_groups() -> None:
    """Golden tensors of two groups of ranks that differ: neighbours share one, or every second does."""
    found = options({r: plain(8) for r in range(2)}, {r: plain(8) for r in range(4)}, one_run=False)
    assert [[only(option, r).golden_rank for r in range(4)] for option in found] == [[0, 0, 1, 1], [0, 1, 0, 1]]
    with pytest.raises(AlignmentError, match="which belong together is not known"):
        options({r: plain(8) for r in range(2)}, {r: plain(8) for r in range(3)}, one_run=False)


def test_what_no_rank_holds_of_the_whole_is_told() -> None:
    """A DTensor over three ranks of which the last has no label."""
    actual = {r: LocalTensor((2, 3), Layout((Shard(0),), (6, 3), (((2 * r, 2),), ((0, 3),)))) for r in range(2)}
    option = only_option({0: plain(6, 3)}, actual, 2)
    assert option.holes == {0: [Region((4, 0), (2, 3))]} and not option.missing
