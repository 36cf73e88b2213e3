"""The part of golden's tensor that a rank holds, against the whole that the parts make up."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.golden_values.slices import local_part
from aclcmp.labeling.layout import Partial, Replicate, Shard

torch: Any = pytest.importorskip("torch")


@given(
    ranks=st.integers(1, 4),
    parts=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    dim=st.sampled_from([0, 1, -1, -2]),
    of_local=st.booleans(),
)
def test_parts_make_up_the_whole(ranks: int, parts: list[int], dim: int, of_local: bool) -> None:
    pieces = [[torch.rand(*((part, 5) if dim in (0, -2) else (5, part))) for _ in range(ranks)] for part in parts]
    whole = torch.cat([torch.cat(piece, dim) for piece in pieces], dim)
    told = tuple(parts) if of_local else tuple(part * ranks for part in parts)
    group = [10 + rank for rank in range(ranks)]
    for place, rank in enumerate(group):
        own = torch.cat([piece[place] for piece in pieces], dim)
        shard = Shard(dim, parts=told if len(parts) > 1 else None, ranks=group)
        assert torch.equal(local_part(whole, torch.zeros_like(own), shard, rank), own)


def test_neighbours_hold_the_same_heads() -> None:
    """Queries of four ranks, and keys of which two neighbours hold the same."""
    queries, keys = torch.randn(3, 8), torch.randn(3, 4)
    shard = Shard(-1, parts=(2, (2, 2)), ranks=range(4))
    for rank in range(4):
        own = torch.cat([queries[:, 2 * rank : 2 * rank + 2], keys[:, 2 * (rank // 2) : 2 * (rank // 2) + 2]], 1)
        assert torch.equal(local_part(torch.cat([queries, keys], 1), torch.zeros(3, 4), shard, rank), own)
        alone = Shard(-1, parts=((2, 2),), ranks=range(4))
        assert torch.equal(local_part(keys, torch.zeros(3, 2), alone, rank), own[:, 2:])


@given(st.integers(2, 5), st.integers(0, 4), st.floats(-3, 3).filter(lambda factor: abs(factor) > 0.1))
def test_without_a_layout_values_tell_the_slice(count: int, place: int, factor: float) -> None:
    whole = torch.randn(6, 4 * count)
    slices = whole.split(4, -1)
    own = slices[place % count]
    found = local_part(whole, own * abs(factor) + 0.1 * torch.randn(6, 4), None, 0)
    assert torch.equal(found, own), "a fault of scale or noise does not hide which slice it is"


@pytest.mark.parametrize(
    ("whole", "own", "placement", "words"),
    [
        ((4, 6), (4, 4), None, "no layout tells the part"),
        ((4, 6), (2, 3), None, "no layout tells the part"),
        ((4, 6), (4, 3), Replicate(), "is not"),
        ((4, 6), (4, 3), Shard(1), "is not"),
        ((4, 7), (4, 3), Shard(1, ranks=[0, 1]), "is not"),
        ((4, 6), (4, 3), Shard(1, ranks=[4, 5]), "is not"),
        ((4, 6), (4, 3), Shard(1, ranks=[0, 1], zigzag=True), "is not"),
        ((4, 6), (6,), Shard(0, ranks=[0, 1]), "is not"),
    ],
)
def test_what_cannot_be_cut_is_refused(whole: Any, own: Any, placement: Any, words: str) -> None:
    with pytest.raises(LabelError, match=words):
        local_part(torch.randn(whole), torch.randn(own), placement, 0)


def test_equal_slices_cannot_be_told() -> None:
    half = torch.randn(3, 4)
    with pytest.raises(LabelError, match="cannot be told"):
        local_part(torch.cat([half, half], 1), half, None, 0)
    with pytest.raises(LabelError, match="cannot be told"):
        local_part(torch.randn(3, 8), torch.zeros(3, 4), None, 0)


def test_summands_add_up_to_golden() -> None:
    whole = torch.randn(3, 4)
    whole[1, 2] = torch.inf
    found = [local_part(whole, torch.randn(3, 4), Partial(ranks=[2, 3]), rank) for rank in (2, 3)]
    assert torch.equal(sum(found), whole)
    for placement in (Partial(), Partial(ranks=[2, 3], op="max")):
        with pytest.raises(LabelError, match="summand"):
            local_part(whole, whole, placement, 2)
