"""Runs with planted faults and clean runs, each compared with golden: the statistics that every rule gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from planting import Fault, Recorded, Setting

from aclcmp.labeling.shard.element_codes import CODES
from aclcmp.orchestrator.compare.pair import Operand, pair_stats
from aclcmp.orchestrator.core.levels import level_of, with_parents
from aclcmp.orchestrator.core.metrics import Metrics, metrics_of
from aclcmp.orchestrator.core.plan import LabelPlan, Plan, SideFacts, Sides
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.stats import PairStats

TUNING, TABLE = (11, 12, 13), (1, 2, 3)
DEPTHS = (2, 8, 13)
PAIRS = ((2, 8), (8, 13))
"""Layers of two faults in one run."""
_APART = 5
"""Distance in the list between the kinds of two faults of one run."""
VISIBLE = 3.0
"""A fault is visible if it makes an error so many times what it is without the fault."""


class Model(Protocol):
    """A module that computes with planted faults (`faulty_decoder`, `faulty_transformer`)."""

    FAULTS: Mapping[str, tuple[str, ...]]
    NAME: str

    def subject(self, seed: int, *, outlier: bool) -> Callable[[Setting], Recorded]:
        """Return a function that runs the model of a seed."""


@dataclass(frozen=True)
class Case:
    """One run compared with golden: its statistics, and the labels that are wrong by themselves, if it has faults."""

    plan: Plan
    stats: dict[tuple[LabelKey, int], PairStats]
    metrics: dict[tuple[LabelKey, int], Metrics]
    dtype: str
    faults: tuple[Fault, ...] = ()
    roots: tuple[tuple[str, ...], ...] = ()
    """For each fault, the labels that are wrong by themselves, its first wrong label first."""
    apart: bool = True
    """True if, of two faults, the second one makes an error that is visible beside that of the first one."""


def seeds_of(given: str, *, tune: bool) -> tuple[int, ...]:
    """Return the seeds of a command line, separated by commas; without any, those for tuning or for the table."""
    if given:
        return tuple(int(seed) for seed in given.split(","))
    return TUNING if tune else TABLE


def cases(model: Model, seeds: tuple[int, ...]) -> Iterator[Case]:
    """Yield clean runs, runs with one visible fault, and runs with two faults that are both visible alone."""
    for seed in seeds:
        for outlier in (False, True):
            run = model.subject(seed, outlier=outlier)
            for dtype in (torch.float32, torch.bfloat16):
                golden = run(Setting(dtype))
                for ranks in (1, 4):
                    if ranks > 1:  # on one rank these are golden's own kernels
                        yield case_of(golden, run(Setting(dtype, ranks)))
                    yield from _of_setting(model, run, golden, Setting(dtype, ranks, other_kernels=True))


def _of_setting(model: Model, run: Callable[[Setting], Recorded], golden: Recorded, clean: Setting) -> Iterator[Case]:
    def case_with(*faults: Fault) -> Case:
        setting = Setting(clean.dtype, clean.ranks, clean.other_kernels, faults)
        roots = tuple(
            tuple(model.NAME.format(fault.layer, kind) for kind in model.FAULTS[fault.kind]) for fault in faults
        )
        return case_of(golden, run(setting), faults, roots)

    sound = case_of(golden, run(clean))
    yield sound
    alone: dict[tuple[int, int], Case] = {}
    for number, kind in enumerate(model.FAULTS):
        for layer in DEPTHS:
            found = case_with(Fault(kind, layer, (number + layer) % clean.ranks))
            if _visible(found, sound, found.roots[0][0]):
                alone[number, layer] = found
                yield found
    for number in range(len(model.FAULTS)):
        for first, second in PAIRS:
            one = alone.get((number, first))
            other = alone.get(((number + _APART) % len(model.FAULTS), second))
            if one and other:
                both = case_with(*one.faults, *other.faults)
                apart = _visible(both, one, other.roots[0][0])
                yield Case(both.plan, both.stats, both.metrics, both.dtype, both.faults, both.roots, apart)


def _visible(case: Case, beside: Case, label: str) -> bool:
    """Tell whether a label's error, of the whole or the worst row, is VISIBLE times another run's on some rank."""
    for place, with_fault in case.metrics.items():
        if place[0].label == label:
            without = beside.metrics[place]
            if with_fault.rel_l2 > VISIBLE * without.rel_l2 or with_fault.worst_row > VISIBLE * without.worst_row:
                return True
    return False


def case_of(
    golden: Recorded,
    actual: Recorded,
    faults: tuple[Fault, ...] = (),
    roots: tuple[tuple[str, ...], ...] = (),
) -> Case:
    """Compare two runs label by label."""
    stats: dict[tuple[LabelKey, int], PairStats] = {}
    metrics: dict[tuple[LabelKey, int], Metrics] = {}
    labels = []
    dtype = ""
    for name, tensors in actual.labels.items():
        key = LabelKey(0, name, 0)
        pairs = []
        known: dict[int, tuple[PairStats, Metrics]] = {}  # ranks that hold the same tensor share them
        for rank, tensor in enumerate(tensors):
            x, y = _operand(_slice_of(golden.labels[name][0], tensor, rank)), _operand(tensor)
            if id(tensor) not in known:
                found = pair_stats(x, y, x.shape, x.region)
                known[id(tensor)] = found, metrics_of(found)
            stats[key, rank], metrics[key, rank] = known[id(tensor)]
            dtype = x.dtype
            source = Source("f", 0, x.dtype, x.shape)
            pairs.append(Pair(key, rank, source, x.region, source, x.region, x.shape, x.region, ""))
        facts = SideFacts("f", dtype, tuple(tensors[0].shape), "cpu", "m.py:1", 0, 0.0)
        labels.append(LabelPlan(key, dict.fromkeys(range(len(tensors)), Sides(facts, facts)), tuple(pairs)))
    keys = [label.key for label in labels]
    levels = with_parents({key: level_of(key.label, "", "") for key in keys}, keys)
    return Case(Plan(tuple(labels), levels, (), 0, ()), stats, metrics, dtype, faults, roots)


def _operand(tensor: torch.Tensor) -> Operand:
    """Return a tensor as the comparison reads it."""
    name = str(tensor.dtype).removeprefix("torch.")
    assert name in CODES
    bits = tensor.contiguous().reshape(-1)
    array = bits.view(torch.uint16).numpy() if name == "bfloat16" else bits.numpy()
    return Operand(array, name, tuple(tensor.shape), Region.whole(tuple(tensor.shape)))


def _slice_of(golden: torch.Tensor, like: torch.Tensor, rank: int) -> torch.Tensor:
    """Return a rank's slice of the whole golden tensor."""
    width = like.shape[-1]
    return golden if golden.shape == like.shape else golden[..., rank * width : (rank + 1) * width]
