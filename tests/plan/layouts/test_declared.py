"""What layouts tell is where the values lie: any mesh, any order of ranks, fused parts, zigzag, padding."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.labeling.layout import Layout, Partial, Placement, Replicate, Shard
from aclcmp.orchestrator.plan.layouts.declared import complete_layouts, interpret_layouts
from aclcmp.orchestrator.plan.layouts.interpretations import (
    AlignmentError,
    GlobalTensor,
    LayoutInterpretation,
    LocalTensor,
)


def reading_of(locals_: dict[int, LocalTensor], everyone: range = range(0)) -> LayoutInterpretation:
    layouts = complete_layouts(locals_)
    assert layouts is not None
    return interpret_layouts(locals_, layouts, everyone)


def check(whole: GlobalTensor, array: np.ndarray, locals_: dict[int, np.ndarray], complete: bool = True) -> None:
    """Every piece holds what the whole has there; all pieces together hold all of it."""
    seen = np.zeros(array.shape, bool)
    assert whole.shape == array.shape
    for rank, pieces in whole.pieces.items():
        inside = np.zeros(locals_[rank].shape, int)
        for piece in pieces:
            np.testing.assert_array_equal(locals_[rank][piece.local.slices], array[piece.whole.slices])
            inside[piece.local.slices] += 1
            seen[piece.whole.slices] = True
        assert (inside <= 1).all()
        if complete:
            assert inside.all()
    assert seen.all()


@given(st.data())
def test_any_mesh_as_torch_has_it(data: st.DataObject) -> None:
    """Placements are applied from the outermost mesh dimension in; slices may be uneven; ranks come in any order."""
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3), label="shape"))
    mesh = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3), label="mesh"))
    kinds = [data.draw(st.one_of(st.none(), st.integers(0, len(shape) - 1)), label="placement") for _ in mesh]
    numbers = data.draw(st.permutations(range(math.prod(mesh))), label="ranks")
    array = np.arange(math.prod(shape)).reshape(shape)
    ranks = dict(zip(itertools.product(*map(range, mesh)), numbers, strict=True))
    arrays: dict[int, np.ndarray] = {}
    layouts: dict[int, Layout] = {}
    for place, rank in ranks.items():
        local = array
        placements: list[Placement] = []
        for axis, dim in enumerate(kinds):
            group = [ranks[(*place[:axis], n, *place[axis + 1 :])] for n in range(mesh[axis])]
            if dim is None:
                placements.append(Replicate(tuple(group)))
            else:
                local = np.array_split(local, mesh[axis], axis=dim)[place[axis]]
                placements.append(Shard(dim - data.draw(st.sampled_from([0, len(shape)])), ranks=tuple(group)))
        arrays[rank], layouts[rank] = local, Layout(tuple(placements))
    (whole,) = interpret_layouts({r: LocalTensor(a.shape, layouts[r]) for r, a in arrays.items()}, layouts).wholes
    check(whole, array, arrays)


@given(st.data())
def test_parts_of_which_neighbours_hold_the_same_slice(data: st.DataObject) -> None:
    """Grouped-query attention on more ranks than it has heads of keys and values."""
    count = data.draw(st.sampled_from([2, 4, 6, 12]), label="ranks")
    copies = [
        data.draw(st.sampled_from([each for each in range(1, count + 1) if count % each == 0]), label="copies")
        for _ in range(data.draw(st.integers(1, 4), label="parts"))
    ]
    dim, order = data.draw(st.integers(0, 1), label="dim"), data.draw(st.permutations(range(count)), label="order")
    even = data.draw(st.booleans(), label="even")
    sizes = [
        (count // n) * data.draw(st.integers(0, 3), label="size")
        if even
        else data.draw(st.integers(0, 20), label="size")
        for n in copies
    ]
    shape = (sum(sizes), 3) if dim == 0 else (3, sum(sizes))
    array = np.arange(math.prod(shape)).reshape(shape)
    parts = np.split(array, np.cumsum(sizes)[:-1], axis=dim)
    cut = [np.array_split(part, count // n, axis=dim) for part, n in zip(parts, copies, strict=True)]
    of_whole = even and data.draw(st.booleans(), label="of whole")
    held: dict[int, np.ndarray] = {}
    told: dict[int, LocalTensor] = {}
    for place, rank in enumerate(order):
        own = [slices[place // n] for slices, n in zip(cut, copies, strict=True)]
        held[rank] = np.concatenate(own, axis=dim)
        local_sizes = sizes if of_whole else [each.shape[dim] for each in own]
        layout = Layout((Shard(dim, parts=tuple(zip(local_sizes, copies, strict=True)), ranks=tuple(order)),))
        told[rank] = LocalTensor(held[rank].shape, Layout.from_json(layout.to_json()))
    (whole,) = reading_of(told).wholes
    check(whole, array, held)


def test_the_slice_of_a_lost_neighbour_is_known_by_the_other() -> None:
    held = {rank: local((2, 8), Shard(1, parts=(4, (2, 2), (2, 2)))) for rank in (0, 1, 3)}
    (whole,) = reading_of(held, range(4)).wholes
    assert whole.shape == (2, 16 + 4 + 4)
    starts = [[piece.whole.start[1] for piece in whole.pieces[rank]] for rank in (0, 1, 3)]
    assert starts == [[0, 16, 20], [4, 16, 20], [12, 18, 22]]


@given(st.data())
def test_fused_parts(data: st.DataObject) -> None:
    """Each part is cut by itself, evenly or not, told as a rank holds it or, where even, as the whole has it."""
    count = data.draw(st.integers(1, 4), label="ranks")
    dim, rows = data.draw(st.integers(0, 1)), data.draw(st.integers(1, 4))
    even = data.draw(st.booleans())
    sizes = [data.draw(st.integers(0, 4)) * (count if even else 1) for _ in range(data.draw(st.integers(1, 4)))]
    total = sum(sizes)
    array = np.arange(rows * total).reshape((rows, total) if dim else (total, rows))
    parts = np.split(array, np.cumsum(sizes)[:-1], axis=dim)
    cut = [np.array_split(part, count, axis=dim) for part in parts]
    arrays = {rank: np.concatenate([each[rank] for each in cut], axis=dim) for rank in range(count)}
    of_whole = even and data.draw(st.booleans())
    locals_ = {
        r: LocalTensor(
            a.shape, Layout((Shard(dim, parts=tuple(sizes if of_whole else [e[r].shape[dim] for e in cut])),))
        )
        for r, a in arrays.items()
    }
    (whole,) = reading_of(locals_).wholes
    if total:
        check(whole, array, arrays)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_zigzag(count: int, chunk: int, columns: int, first: bool) -> None:
    array = np.arange(2 * count * chunk * columns).reshape(2 * count * chunk, columns)
    array = array if first else array.T
    chunks = np.split(array, 2 * count, axis=0 if first else 1)
    arrays = {r: np.concatenate([chunks[r], chunks[2 * count - 1 - r]], axis=0 if first else 1) for r in range(count)}
    layout = Layout((Shard(0 if first else -1, zigzag=True),))
    (whole,) = reading_of({r: LocalTensor(a.shape, layout) for r, a in arrays.items()}).wholes
    check(whole, array, arrays)


@given(st.integers(1, 5), st.integers(1, 6), st.data())
def test_padding_is_not_compared(count: int, size: int, data: st.DataObject) -> None:
    """Ranks hold `size` each, of which the last, or the last few, are filled up."""
    total = data.draw(st.integers(1, count * size))
    array = np.arange(total * 2).reshape(total, 2)
    padded = np.concatenate([array, np.full((count * size - total, 2), -1)])
    arrays = dict(enumerate(np.split(padded, count)))
    layout = Layout((Shard(0, size=total),))
    (whole,) = reading_of({r: LocalTensor(a.shape, layout) for r, a in arrays.items()}).wholes
    check(whole, array, arrays, complete=False)


def local(shape: tuple[int, ...], *placements: Placement) -> LocalTensor:
    return LocalTensor(shape, Layout(placements))


def test_summands_by_their_groups() -> None:
    """Tensor parallel over 2 inside of data parallel over 2, told with and without the latter."""
    held = {r: local((4,), Partial(range(r // 2 * 2, r // 2 * 2 + 2))) for r in range(4)}
    assert [whole.summands for whole in reading_of(held).wholes] == [{0: (1,)}, {2: (3,)}]
    both = {r: LocalTensor((4,), Layout((Replicate(), Partial(range(r // 2 * 2, r // 2 * 2 + 2))))) for r in range(4)}
    (whole,) = reading_of(both).wholes
    assert whole.summands == {0: (1,), 2: (3,)}


def test_absent_ranks_of_a_group_are_missing() -> None:
    (whole,) = reading_of({r: local((2,), Shard(0, ranks=range(4))) for r in (0, 3)}).wholes
    assert whole.missing == (1, 2) and whole.shape == (8,)
    assert whole.pieces[3][0].whole.start == (6,)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({0: local((4,), Shard(1))}, r"Shard\(dim=1\) does not fit \[4\] on rank 0: no such dimension"),
        (
            {0: local((4,), Shard(0)), 1: local((4,), Replicate())},
            r"different layouts: Shard\(dim=0\) for \[4\] on rank 0, Rep",
        ),
        (
            {0: local((4,), Shard(0)), 1: local((4, 4), Shard(0))},
            r"\[4\] on rank 0, Shard\(dim=0\) for \[4, 4\] on rank 1",
        ),
        (
            {r: local((2, 6), Shard(1, parts=(2, 2))) for r in range(3)},
            r"dimension 1 has parts=\(2, 2\), which add up to 4: neither to the 6 of rank 0 nor to the 18 of the "
            r"whole; \[2, 6\] on ranks 0, 1, 2",
        ),
        ({r: local((4,), Shard(0, parts=(3, 5))) for r in range(2)}, "which 2 ranks cannot share evenly"),
        ({0: local((4,), Shard(0, parts=(4,))), 1: local((4,), Shard(0, parts=(2, 2)))}, "different numbers of parts"),
        ({r: local((4,), Shard(0, parts=(2, (2, 2)))) for r in range(3)}, "a slice for each 2 of 3 ranks"),
        ({r: local((4,), Shard(0, parts=((8, 2), (3, 2)))) for r in range(4)}, "add up to 11"),
        (
            {r: local((4,), Shard(0, parts=((4, 2 - r),))) for r in range(2)},
            "parts of which different numbers of ranks hold a slice",
        ),
        ({r: local((3,), Shard(0, zigzag=True)) for r in range(2)}, r"must be even; \[3\] on ranks 0, 1"),
        ({r: local((r + 2,), Shard(0, zigzag=True)) for r in range(2)}, "must be equal"),
        ({r: local((3,), Shard(0, size=9)) for r in range(2)}, "size=9, but the slices add up to 6"),
        ({r: local((r + 1,), Replicate()) for r in range(2)}, r"sizes differ; \[1\] on rank 0; \[2\] on rank 1"),
        ({0: local((3,), Shard(0, ranks=range(1, 3)))}, "layout of rank 0 names ranks 1, 2, without rank 0"),
        (
            {0: local((3,), Shard(0, ranks=(0, 1))), 1: local((3,), Shard(0, ranks=(1, 2)))},
            r"layouts overlap: rank 0 names ranks 0, 1, rank 1 ranks 1, 2; \[3\] on ranks 0, 1",
        ),
        (
            {r: local((3,), Shard(0, ranks=((0, 1), (1, 0))[r])) for r in range(2)},
            r"order ranks differently: rank 0 names ranks 0, 1, rank 1 ranks 1, 0; \[3\]",
        ),
        ({0: local((3,), Partial((0, 1)))}, "the summand of rank 1 is missing"),
        (
            {r: local((r + 1,), Shard(0, ranks=range(4))) for r in range(2)},
            "4 slices of different sizes, and 2 are missing",
        ),
        ({0: local((3,), Shard(0, ranks=range(2))), 1: LocalTensor((3,), None)}, "rank 1 tell no layout"),
        (
            {r: local((3,), Shard(0, ranks=range(2)), Shard(0, ranks=(r,), size=3)) for r in range(2)},
            "is cut twice",
        ),
    ],
)
def test_what_cannot_be_is_said_with_ranks_and_shapes(held: dict[int, LocalTensor], words: str) -> None:
    with pytest.raises(AlignmentError, match=words):
        reading_of(held)
