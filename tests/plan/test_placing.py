"""Slices are placed where the shapes of all ranks prove it, and refused where they do not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.labeling.layout import Layout
from aclcmp.orchestrator.plan.placing import Local, Placer, PlacingError
from aclcmp.orchestrator.plan.regions import Region


def plain(*shape: int, layout: str | None = None) -> Local:
    return Local(shape, Layout((layout,)) if layout else None)


@given(st.data())
def test_slices_of_any_split_are_found_in_place(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(2, 6), min_size=1, max_size=4), label="shape"))
    dim = data.draw(st.integers(0, len(shape) - 1), label="dim")
    cuts = sorted(data.draw(st.sets(st.integers(1, shape[dim] - 1), min_size=1, max_size=4), label="cuts"))
    whole = np.arange(np.prod(shape)).reshape(shape)
    slices = np.split(whole, cuts, axis=dim)
    swapped = data.draw(st.booleans(), label="golden is the sharded side")
    wholes = {rank: Local(shape, None) for rank in range(len(slices))}
    pieces = {rank: Local(piece.shape, None) for rank, piece in enumerate(slices)}
    for rank, piece in enumerate(slices):
        placing = Placer(pieces if swapped else wholes, wholes if swapped else pieces, len(slices)).place(rank)
        inside = placing.actual_region if swapped else placing.golden_region
        box = tuple(slice(s, s + n) for s, n in zip(inside.start, inside.shape, strict=True))
        np.testing.assert_array_equal(whole[box], piece)
        assert placing.region == inside and placing.whole_shape == shape
        assert "inferred" in placing.layout


def test_same_shape_is_compared_as_it_is() -> None:
    placing = Placer({0: plain(2, 3)}, {0: plain(2, 3)}, 1).place(0)
    assert placing.region == placing.golden_region == placing.actual_region == Region((0, 0), (2, 3))


@pytest.mark.parametrize(
    ("golden", "actual", "world", "words"),
    [
        ({0: plain(4, 4)}, {0: plain(2, 2)}, 1, "shape"),
        ({0: plain(4)}, {0: plain(4, 1)}, 1, "shape"),
        ({r: plain(8) for r in range(4)}, {r: plain(4) for r in range(4)}, 4, "ambiguous"),
        ({0: plain(8), 1: plain(8)}, {0: plain(3), 1: plain(4)}, 2, "ambiguous"),
        ({0: plain(8, 8), 1: plain(8, 8)}, {r: plain(4, 8, layout="Shard(dim=1)") for r in range(2)}, 2, "Shard"),
        ({0: plain(8), 1: plain(8)}, {r: plain(4, layout="Replicate()") for r in range(2)}, 2, "Replicate"),
        ({0: plain(8)}, {0: plain(8, layout="Partial(sum)")}, 1, "summands"),
    ],
)
def test_what_does_not_fit_is_said(golden: dict[int, Local], actual: dict[int, Local], world: int, words: str) -> None:
    with pytest.raises(PlacingError, match=words):
        Placer(golden, actual, world).place(0)


def test_even_slices_are_placed_though_a_rank_is_gone() -> None:
    placing = Placer({3: plain(8, 4)}, {1: plain(2, 4), 3: plain(2, 4)}, 4).place(3)
    assert placing.golden_region.start == (6, 0)


def test_negative_dim_and_explicit_layout() -> None:
    golden, actual = {r: plain(4, 8) for r in range(2)}, {r: plain(4, 4, layout="Shard(dim=-1)") for r in range(2)}
    placing = Placer(golden, actual, 2).place(1)
    assert placing.golden_region == Region((0, 4), (4, 4))
    assert "inferred" not in placing.layout


def test_dtensor_tells_its_own_place() -> None:
    layout = Layout(("Shard(dim=0)", "Shard(dim=1)"), (4, 4), (2, 0))
    placing = Placer({0: plain(4, 4)}, {0: Local((2, 2), layout)}, 8).place(0)
    assert placing.golden_region == Region((2, 0), (2, 2))
    with pytest.raises(PlacingError):
        Placer({0: plain(6, 4)}, {0: Local((2, 2), layout)}, 8).place(0)
    swapped = Placer({0: Local((2, 2), layout)}, {0: plain(4, 4)}, 8).place(0)
    assert swapped.actual_region == Region((2, 0), (2, 2))


@pytest.mark.parametrize(("whole", "start"), [((2, 4), (10**12, 0)), ((2, 4), (1, 0)), ((4,), (0,)), ((2, 4), (0, -1))])
def test_impossible_dtensor_places_are_refused(whole: tuple[int, ...], start: tuple[int, ...]) -> None:
    local = Local((2, 4), Layout(("Shard(dim=0)",), whole, start))
    for goldens, actuals in (({0: plain(2, 4)}, {0: local}), ({0: local}, {0: plain(2, 4)})):
        with pytest.raises(PlacingError):
            Placer(goldens, actuals, 1).place(0)


def test_equal_shapes_with_contradicting_layouts_are_refused() -> None:
    first, second = (Local((4, 4), Layout(("Shard(dim=0)",), (8, 4), (start, 0))) for start in (0, 4))
    with pytest.raises(PlacingError):
        Placer({0: first}, {0: second}, 2).place(0)
    with pytest.raises(PlacingError):
        Placer({0: plain(4, 4, layout="Replicate()")}, {0: plain(4, 4, layout="Shard(dim=0)")}, 2).place(0)


def test_slices_that_nobody_labelled_are_told() -> None:
    placer = Placer({0: plain(8), 1: plain(8)}, {0: plain(2), 1: plain(2)}, 4)
    placer.place(0)
    assert placer.uncovered == {2: True, 3: True}
