"""What is looked at of the values of two sides' labels: a few pages of each tensor, read from files on this host."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeAlias

import numpy as np

from aclcmp.labeling.errors import AclcmpError
from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.labeling.shard.element_values import components_of, decode
from aclcmp.orchestrator.compare.kernels.memory_map import open_bits
from aclcmp.orchestrator.idmap.signatures import FEW, Numbers, Places, ValueSignature, signature_of, without_ones
from aclcmp.orchestrator.plan.layouts.inferred import Guess, guess_further_layouts, guess_plain_layouts
from aclcmp.orchestrator.plan.layouts.interpretations import AlignmentError, GlobalTensor, LocalTensor, Shape
from aclcmp.orchestrator.plan.rank_labels import RankLabel

Labels: TypeAlias = Mapping[str, Mapping[int, RankLabel]]
"""id -> rank -> what that rank holds of the label."""
Signatures: TypeAlias = dict[str, tuple[ValueSignature, ...]]

_MOST_FURTHER = 8
_LARGEST = 1 << 60


def sample_values(golden: Labels, actual: Labels, looked: Callable[[], None]) -> tuple[Signatures, Signatures]:
    """Return how the values of both sides' labels look, by id; `looked` is called after each label.

    A side is seen in each way that its layouts, or else its shapes, allow and that gives a shape of the other side, or
    as many elements. The values of a view are exact, of slices and replicas, and of sums over ranks up to
    float64's rounding; whether the view itself is right is known only once it agrees with another. Of a replica the
    first rank counts, of groups of ranks with tensors of their own the first group.

    Reads 16 pages for each view, or all of a whole of at most FEW elements (128 KiB of float64). No view has what is
    not whole (summaries), not plain (FRACTAL_NZ), bool, or in files that cannot be read.
    """
    sides = golden, actual
    plain = [{name: _plain_guesses(ranks) for name, ranks in side.items()} for side in sides]
    known = [{guess.shapes[0] for guess in chain.from_iterable(side.values())} for side in plain]
    guesses = [
        {name: each + _further_guesses(each, side[name], others) for name, each in found.items()}
        for side, found, others in zip(sides, plain, reversed(known), strict=True)
    ]
    wholes = [_Wholes.of(chain.from_iterable(side.values())) for side in guesses]
    views: tuple[Signatures, Signatures] = ({}, {})
    for side, found, others, into in zip(sides, guesses, reversed(wholes), views, strict=True):
        for name, ranks in side.items():
            seen = [view for guess in others.fitting(found[name]) if (view := _view(guess, ranks))]
            if seen:
                into[name] = tuple(seen)
            looked()
    return views


@dataclass(frozen=True, slots=True)
class _Wholes:
    """What the labels of one side may be as wholes."""

    shapes: set[Shape]
    without_ones: set[Shape]
    sizes: set[int]

    @staticmethod
    def of(guesses: Iterable[Guess]) -> _Wholes:
        shapes = {guess.shapes[0] for guess in guesses}
        sizes = {size for shape in shapes if (size := math.prod(shape)) <= _LARGEST}
        return _Wholes(shapes, set(map(without_ones, shapes)), sizes)

    def fitting(self, guesses: Sequence[Guess]) -> list[Guess]:
        """Of a label of the other side, the guesses that give a shape of this one, or else as many elements."""
        found = [guess for guess in guesses if without_ones(guess.shapes[0]) in self.without_ones]
        return found or [guess for guess in guesses if math.prod(guess.shapes[0]) in self.sizes]


def _plain_guesses(ranks: Mapping[int, RankLabel]) -> list[Guess]:
    """Return the first ways in which a label's tensors may make up a whole; none if they cannot be looked at."""
    kinds = {DTYPES[held.dtype].kind for held in ranks.values()}
    whole = all(held.source.is_whole and not held.in_blocks for held in ranks.values())
    if len(kinds) > 1 or Kind.BOOL in kinds or not whole:
        return []
    try:
        return guess_plain_layouts(_locals(ranks), 0, alike=False)
    except AlignmentError:
        return []


def _further_guesses(plain: Sequence[Guess], ranks: Mapping[int, RankLabel], others: set[Shape]) -> list[Guess]:
    """Where plain guesses give no shape of the other side, those of data-parallel groups of slices and their like."""
    told = any(held.record.layout is not None for held in ranks.values())
    if told or not plain or any(guess.shapes[0] in others for guess in plain):
        return []
    further = (
        guess
        for guess in guess_further_layouts(_locals(ranks), others, False, golden=False)
        if guess.shapes[0] in others
    )
    return list(islice(further, _MOST_FURTHER))


def _locals(ranks: Mapping[int, RankLabel]) -> dict[int, LocalTensor]:
    return {rank: LocalTensor(held.shape, held.record.layout) for rank, held in ranks.items()}


def _view(guess: Guess, ranks: Mapping[int, RankLabel]) -> ValueSignature | None:
    try:
        whole = guess.read().wholes[0]
    except AlignmentError:
        return None
    return signature_of(whole.shape, lambda places: _numbers_at(whole, ranks, places))


def _numbers_at(whole: GlobalTensor, ranks: Mapping[int, RankLabel], places: Places) -> Numbers:
    """Return the values at flat places of a whole, shape (places, 1), of complex elements (places, 2).

    NaN where no rank holds them, or its file cannot be read.
    """
    numbers = np.full((places.size, components_of(next(iter(ranks.values())).dtype)), np.nan)
    missing = np.ones(places.size, bool)
    along = np.unravel_index(places, whole.shape)
    for rank, pieces in whole.pieces.items():
        for piece in pieces:
            inside = missing.copy()
            for place, start, size in zip(along, piece.whole.start, piece.whole.shape, strict=True):
                inside &= (place >= start) & (place < start + size)
            if not inside.any():
                continue
            within = [
                place[inside] - start + local
                for place, start, local in zip(along, piece.whole.start, piece.local.start, strict=True)
            ]
            summands = [ranks[each] for each in (rank, *whole.summands.get(rank, ()))]
            try:
                numbers[inside] = sum(_numbers_of(held, np.ravel_multi_index(within, held.shape)) for held in summands)
            except (AclcmpError, OSError):
                continue
            missing &= ~inside
    return numbers


def _numbers_of(held: RankLabel, places: Places) -> Numbers:
    """Return a stored tensor's values at flat places, shape (places, components). Raises ShardError."""
    stored = open_bits(held.source)
    if stored.pages is not None and stored.bits.size > FEW:
        stored.pages.madvise(mmap.MADV_RANDOM)  # each page touched would bring 31 of its neighbours
    bits = stored.bits[places].view(np.uint8)
    return decode(bits, held.dtype).astype(np.float64).reshape(places.size, -1)
