"""Doubts about layouts that shapes and values suggest, but names or sibling modules speak against."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from aclcmp.orchestrator.core.levels import Level, kind_in_layers
from aclcmp.orchestrator.core.plan import LabelPlan
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.plan.layouts.interpretations import INFERRED, PROVED

_FUSED = re.compile(
    r"(?:^|[._/])(?:w?qkv(?:_proj)?|query_key_value|c_attn|gate_?up(?:_proj)?|w13|in_proj)(?:$|[._/])", re.I
)
"""Names of projections that are several, side by side."""
_PLAIN = re.compile(r"Shard\(dim=\d+\)")


def layout_doubts(labels: Sequence[LabelPlan], levels: Mapping[LabelKey, Level]) -> Iterator[str]:
    """Say once for each kind of module what speaks against the layout under which its labels are compared."""
    reported: set[tuple[str, str]] = set()
    starts: dict[tuple[int, str, int], dict[str, tuple[LabelKey, dict[int, float]]]] = defaultdict(dict)
    for label in labels:
        pairs = [pair for pair in label.pairs if pair.rank not in label.unlike]
        if not pairs or not pairs[0].layout.endswith((INFERRED, PROVED)):
            continue
        name = label.key.label
        kind = kind_in_layers(name, levels[label.key].layer)
        if _FUSED.search(name) and _is_plain(pairs) and ("fused", kind) not in reported:
            reported.add(("fused", kind))
            yield (
                f"{kind}: read as plain slices, which its name speaks against: several projections side by side are "
                "cut one by one. If that is so here too, its weights are cut wrongly; else tell its layout"
            )
        parent, _, last = name.rpartition(".")
        order = _starts(pairs)
        if not parent or order is None:
            continue
        siblings = starts[label.key.task, parent, label.key.occurrence]
        for other, (key, other_order) in siblings.items():
            pair = (kind, kind_in_layers(key.label, levels[key].layer))
            if order != other_order and pair not in reported and not _same_order(order, other_order):
                reported.add(pair)
                yield (
                    f"{kind}: its slices lie on the ranks in another order than those of {other}; if the model does "
                    "not mean that, its weights are on the wrong ranks"
                )
        if all(order != other_order for _, other_order in siblings.values()):  # one of those alike stands for all
            siblings[last] = label.key, order


def _is_plain(pairs: Sequence[Pair]) -> bool:
    """Tell whether the last dimension is cut into plain slices over several ranks."""
    whole = pairs[0].whole_shape
    if not whole or not _PLAIN.fullmatch(re.sub(f"({INFERRED}|{PROVED})$", "", pairs[0].layout)):
        return False
    return len({pair.rank for pair in pairs}) > 1 and any(pair.region.shape[-1] < whole[-1] for pair in pairs)


def _starts(pairs: Sequence[Pair]) -> dict[int, float] | None:
    """Return where each rank's slice begins, from 0 to 1, along the one dimension that is cut; None unless one is."""
    whole = pairs[0].whole_shape
    cut = [dim for dim, size in enumerate(whole) if any(pair.region.shape[dim] < size for pair in pairs)]
    if len(cut) != 1 or len({pair.rank for pair in pairs}) < 2:
        return None
    found: dict[int, float] = {}
    for pair in pairs:
        start = pair.region.start[cut[0]] / whole[cut[0]]
        found[pair.rank] = min(start, found.get(pair.rank, start))
    return found


def _same_order(one: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Tell whether ranks with later slices of one tensor have no earlier slices of the other."""
    common = sorted((one[rank], other[rank]) for rank in one.keys() & other.keys())
    return all(b[0] == a[0] or b[1] >= a[1] for a, b in pairwise(common))
