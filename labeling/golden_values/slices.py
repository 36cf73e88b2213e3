"""The part of golden's whole tensor that one rank holds, as the layout of its own tensor says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.layout import Partial, Placement, Shard, placement_text


def local_part(whole: Any, own: Any, placement: Placement | None, rank: int) -> Any:
    """Return the part of `whole` that a rank holds, with the shape of its `own` tensor (both torch.Tensor).

    Without a placement it is the one slice, along the one dimension that differs, that is nearest to `own`. Raises
    LabelError where the layout or the shapes do not tell.
    """
    if isinstance(placement, Partial):  # the sum over the ranks is golden's
        if placement.op != "sum" or not placement.ranks or whole.shape != own.shape:
            raise LabelError(f"{placement_text(placement)} does not tell this rank's summand of {list(whole.shape)}")
        return whole if rank == placement.ranks[0] else whole.new_zeros(whole.shape)
    if whole.shape == own.shape:
        return whole
    if whole.ndim != own.ndim:
        raise LabelError(f"golden's shape {list(whole.shape)} is not {list(own.shape)}")
    if placement is None:
        return _nearest_slice(whole, own)
    if not isinstance(placement, Shard):
        raise LabelError(f"golden's shape {list(whole.shape)} is not {list(own.shape)}")
    part = _shard(whole, placement, rank)
    if part is None or part.shape != own.shape:
        raise LabelError(f"{placement_text(placement)} of golden's {list(whole.shape)} is not {list(own.shape)}")
    return part


def _shard(whole: Any, shard: Shard, rank: int) -> Any:
    """Return a rank's slices along the sharded dimension, side by side; None where they are uneven."""
    import torch

    if shard.ranks is None or rank not in shard.ranks or shard.zigzag or shard.size is not None:
        return None
    place, size = list(shard.ranks).index(rank), whole.shape[shard.dim]
    copies = [number for _, number in shard.sizes_and_copies] or [1]
    parts = [part for part, _ in shard.sizes_and_copies] or [size]
    counts = [len(shard.ranks) // number if len(shard.ranks) % number == 0 else 0 for number in copies]
    if sum(part * count for part, count in zip(parts, counts, strict=True)) == size:  # of the local tensor
        parts = [part * count for part, count in zip(parts, counts, strict=True)]
    if sum(parts) != size or any(not count or part % count for part, count in zip(parts, counts, strict=True)):
        return None
    local = [
        piece.chunk(count, shard.dim)[place // number]
        for piece, count, number in zip(torch.split(whole, parts, shard.dim), counts, copies, strict=True)
    ]
    return local[0] if len(local) == 1 else torch.cat(local, shard.dim)


def _nearest_slice(whole: Any, own: Any) -> Any:
    """Return the slice of `whole`, among those that lie side by side, that is nearest to `own`."""
    differing = [dim for dim in range(whole.ndim) if whole.shape[dim] != own.shape[dim]]
    if len(differing) != 1 or not own.numel() or whole.shape[differing[0]] % own.shape[differing[0]]:
        raise LabelError(f"golden's shape {list(whole.shape)} is not {list(own.shape)}, and no layout tells the part")
    (dim,) = differing
    slices = whole.split(own.shape[dim], dim)
    seen = own.to(whole.device)
    return slices[nearest([_distance(each, seen) for each in slices])]


def nearest(distances: Sequence[float]) -> int:
    """Return the place of the smallest distance. Raises LabelError where none can be told from the others."""
    order = sorted(range(len(distances)), key=distances.__getitem__)
    best = distances[order[0]]
    if not math.isfinite(best) or (len(order) > 1 and distances[order[1]] <= best):
        raise LabelError("golden's slices cannot be told from each other by their values")
    return order[0]


def _distance(golden: Any, own: Any) -> float:
    """Return how far two tensors are from being multiples of each other: 1 minus their cosine."""
    one, other = golden.double().flatten(), own.double().flatten()
    norms = float(one.norm() * other.norm())
    return 1.0 - float(one @ other) / norms if norms else math.inf
