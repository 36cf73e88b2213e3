"""Patterns of a label's error: on which ranks it sits, in which rows and channels, and what that suggests. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import pairwise

from aclcmp.orchestrator.core.diagnosis import ChannelSums, Look, Pattern, nonfinite_places
from aclcmp.orchestrator.core.plan import RowNames
from aclcmp.orchestrator.core.stats import RowSums
from aclcmp.orchestrator.core.text import ranks_text
from aclcmp.orchestrator.core.verdicts import LabelVerdict, RankVerdict, Status
from aclcmp.orchestrator.judge.error_places import AxisSums, place_of

_ALONE = 0.9
_ALIKE = 4.0
"""Ranks are wrong alike if the error energies of any two differ by less than this factor."""


def pattern_of(
    label: LabelVerdict,
    looks: Mapping[int, Look],
    hosts: Mapping[int, str],
    noise: Mapping[int, float] | None = None,
    *,
    after_collective: bool = False,
    names: RowNames | None = None,
) -> Pattern:
    """Return where the error sits of a label that is wrong, or drifts, on at least one rank.

    `looks`, `hosts` and `noise` (see `judge.noise`) are by rank, as far as known. `after_collective`: all ranks hold
    the same of the label, while of the one before it, which is right, each holds another part.
    """
    wrong = label.differing
    energies = {v.rank: v.stats.sum_dd for v in wrong if v.stats is not None}
    total = sum(energies.values())
    by_rank = {rank: energy / total for rank, energy in energies.items()} if 0.0 < total < float("inf") else {}
    wrong_looks = [looks[v.rank] for v in wrong if v.rank in looks]
    if any(verdict.status is Status.NONFINITE for verdict in wrong):
        return Pattern(
            label.key, by_rank, _ranks(label, by_rank, hosts, after_collective), *nonfinite_places(wrong_looks)
        )
    usual = max([(noise or {}).get(verdict.rank, 0.0) for verdict in wrong], default=0.0)
    places = [
        place_of(each.beyond(usual)) if each is not None else None
        for each in (rows_of(wrong, names), channels_of(wrong_looks))
    ]
    words = [place.words if place is not None else "" for place in places]
    return Pattern(label.key, by_rank, _ranks(label, by_rank, hosts, after_collective), *words)


def rows_of(verdicts: Sequence[RankVerdict], names: RowNames | None = None) -> AxisSums | None:
    """Add up the sums by row of several ranks; None where there are none, or the ranks' wholes differ."""
    rows = [verdict.stats.rows for verdict in verdicts if verdict.stats is not None and verdict.stats.rows.index.size]
    if not rows or len({each.group for each in rows}) > 1:
        return None
    total = reduce(RowSums.merge, rows)
    return AxisSums("row", total.group, total.index, total.sum_xx, total.sum_dd, names)


def channels_of(looks: Sequence[Look]) -> AxisSums | None:
    """Add up the sums by channel of several ranks; None where there are none, or the ranks' wholes differ."""
    channels = [look.channels for look in looks if look.channels.index.size]
    if not channels or len({each.group for each in channels}) > 1:
        return None
    total = reduce(ChannelSums.merge, channels)
    return AxisSums("channel", total.group, total.index, total.sum_xx, total.sum_dd)


def _ranks(label: LabelVerdict, by_rank: Mapping[int, float], hosts: Mapping[int, str], collective: bool) -> str:
    compared = sorted({v.rank for v in label.ranks if v.stats is not None})
    wrong = sorted(v.rank for v in label.differing)
    named = ranks_text(wrong)
    if len(compared) <= 1:
        return f"{named}, the only one compared"
    if len(wrong) == 1:
        last = ", its device, or padding and an uneven slice at the end" if wrong == compared[-1:] else " or its device"
        return f"{named} alone of {len(compared)}: its weights, its slice{last}"
    if len(wrong) == len(compared):
        worst = max(by_rank, key=lambda rank: by_rank[rank], default=wrong[0])
        if by_rank.get(worst, 0.0) >= _ALONE:
            return f"all {len(wrong)} ranks, but rank {worst} holds {by_rank[worst]:.0%} of it"
        if not by_rank or max(by_rank.values()) > _ALIKE * min(by_rank.values()):
            return f"all {len(wrong)} ranks, not alike"
        if collective:
            return (
                f"all {len(wrong)} ranks alike, right on all before: the collective between, or what is done after it"
            )
        return f"all {len(wrong)} ranks alike: the model, a kernel, or what they do together"
    if host := _of_hosts(wrong, compared, hosts):
        return f"{named}, {host}"
    return f"{named} of {len(compared)}{_regular(wrong, compared)}"


def _of_hosts(wrong: Sequence[int], compared: Sequence[int], hosts: Mapping[int, str]) -> str:
    """Say that the wrong ranks are all those of some hosts, or the same one on each; or ""."""
    ranks: dict[str, list[int]] = defaultdict(list)
    for rank in compared:
        ranks[hosts.get(rank, "")].append(rank)
    if "" in ranks or len(ranks) < 2:
        return ""
    names = [name for name, here in ranks.items() if set(here) & set(wrong)]
    if sum(len(ranks[name]) for name in names) == len(wrong):
        several = "s" if len(names) > 1 else ""
        return (
            f"all ranks of host{several} {', '.join(names[:3])}{' ...' * (len(names) > 3)}, no other: the host{several}"
        )
    places = {here.index(rank) for here in ranks.values() for rank in here if rank in wrong}
    if len(places) == 1 and len(wrong) == len(ranks):
        return f"number {places.pop()} of every host: the device in that place, or its part of the model"
    return ""


def _regular(wrong: Sequence[int], compared: Sequence[int]) -> str:
    """Say that the wrong ranks are neighbours, or every n-th, as groups of parallel ranks are; or ""."""
    place = {rank: number for number, rank in enumerate(compared)}
    at = [place[rank] for rank in wrong]
    steps = {b - a for a, b in pairwise(at)}
    if len(steps) != 1:
        return ""
    step = steps.pop()
    if step == 1 and at[0] % len(at) == 0:
        return ", neighbours: one group of parallel ranks?"
    if step > 1 and at[0] < step and at[-1] + step >= len(compared):
        return f", one in every {step}: a place in each group of parallel ranks, or a group of ranks {step} apart?"
    return ""
