"""Two tensors of which one is longer along one dimension: the part that both have, and the difference in words."""

from __future__ import annotations

from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.plan.layouts.interpretations import Shape


def odd_dimension(golden: Shape, actual: Shape) -> int | None:
    """Return the one dimension along which two shapes differ; None where they differ otherwise, or one is empty."""
    if len(golden) != len(actual):
        return None
    odd = [dim for dim, (one, other) in enumerate(zip(golden, actual, strict=True)) if one != other]
    return odd[0] if len(odd) == 1 and 0 not in golden and 0 not in actual else None


def describe_sizes(golden: Shape, actual: Shape) -> str | None:
    """Say how two shapes differ along one dimension: "golden [24, 16], actual [32, 16]: 8 rows more; rows 0-23"."""
    dim = odd_dimension(golden, actual)
    if dim is None:
        return None
    more = actual[dim] - golden[dim]
    noun = _noun(dim, len(golden))
    end = f" of dimension {dim}" if noun == "slice" else ""
    common = min(golden[dim], actual[dim])
    which = f"{noun}s 0-{common - 1}{end}" if common > 1 else f"{noun} 0{end}"
    difference = f"{abs(more):,} {noun}{'s' * (abs(more) > 1)}{end} {'more' if more > 0 else 'fewer'}"
    return f"golden {list(golden)}, actual {list(actual)}: {difference}; {which}"


def _noun(dim: int, dims: int) -> str:
    if dims == 1:
        return "value"
    if dim == dims - 1:
        return "column"
    return "row" if dim == dims - 2 else "slice"


def common_pair(key: LabelKey, rank: int, golden: Source, actual: Source) -> Pair:
    """Return the pair that compares the part that two tensors both have, from the start of each."""
    shape = tuple(min(one, other) for one, other in zip(golden.shape, actual.shape, strict=True))
    region = Region.whole(shape)
    return Pair(key, rank, golden, region, actual, region, shape, region, "")
