"""Sample the values of two sides' labels: a few pages of each tensor, read from files on this host."""

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
"""id -> rank -> that rank's part of the label."""
Signatures: TypeAlias = dict[str, tuple[ValueSignature, ...]]

_MOST_FURTHER = 8
_LARGEST = 1 << 60


def sample_values(golden: Labels, actual: Labels, advance: Callable[[], None]) -> tuple[Signatures, Signatures]:
    """Return the signatures of both sides' labels, by id; `advance` is called after each label.

    A label gets a signature for each layout that it declares, or else that its shapes allow, if the global tensor then
    has a shape of the other side, or as many elements; a golden one also with its first two dimensions exchanged, where
    only then it has a shape of the other side. Sampled values are exact for slices and replicas, and correct up
    to float64's rounding for sums over ranks; whether the layout is right shows only when the signature agrees with
    another. Of replicas the first rank is read, of groups of ranks with tensors of their own the first group.

    Reads 16 pages for each signature, or all of a global tensor of at most FEW elements (128 KiB of float64). There is
    no signature for summaries, for tensors in blocks (FRACTAL_NZ), for bool, and for files that cannot be read.
    """
    sides = golden, actual
    plain = [{name: _plain_guesses(ranks) for name, ranks in side.items()} for side in sides]
    known = [{guess.shapes[0] for guess in chain.from_iterable(side.values())} for side in plain]
    guesses = [
        {name: each + _further_guesses(each, side[name], others) for name, each in found.items()}
        for side, found, others in zip(sides, plain, reversed(known), strict=True)
    ]
    global_shapes = [_GlobalShapes.of(chain.from_iterable(side.values())) for side in guesses]
    signatures: tuple[Signatures, Signatures] = ({}, {})
    for side, found, others, into in zip(sides, guesses, reversed(global_shapes), signatures, strict=True):
        for name, ranks in side.items():
            fitting = [(guess, False) for guess in others.fitting(found[name])]
            if side is golden:
                fitting += [(guess, True) for guess in found[name] if others.has_exchanged(guess.shapes[0])]
            possible = (_signature(guess, ranks, exchanged) for guess, exchanged in fitting)
            if signed := tuple(signature for signature in possible if signature is not None):
                into[name] = signed
            advance()
    return signatures


@dataclass(frozen=True, slots=True)
class _GlobalShapes:
    """Shapes that the global tensors of one side's labels may have."""

    shapes: set[Shape]
    without_ones: set[Shape]
    sizes: set[int]

    @staticmethod
    def of(guesses: Iterable[Guess]) -> _GlobalShapes:
        shapes = {guess.shapes[0] for guess in guesses}
        sizes = {size for shape in shapes if (size := math.prod(shape)) <= _LARGEST}
        return _GlobalShapes(shapes, set(map(without_ones, shapes)), sizes)

    def has_exchanged(self, shape: Shape) -> bool:
        """Tell whether this side has a shape with its first two dimensions exchanged, and not itself."""
        seen = without_ones(shape)
        return len(seen) > 1 and seen not in self.without_ones and exchange_first(seen) in self.without_ones

    def fitting(self, guesses: Sequence[Guess]) -> list[Guess]:
        """Return the guesses for the other side's label that give a shape of this side, or else as many elements."""
        found = [guess for guess in guesses if without_ones(guess.shapes[0]) in self.without_ones]
        return found or [guess for guess in guesses if math.prod(guess.shapes[0]) in self.sizes]


def _plain_guesses(ranks: Mapping[int, RankLabel]) -> list[Guess]:
    """Return the plain layouts that a label's tensors may have; none if their values cannot be sampled."""
    kinds = {DTYPES[label.dtype].kind for label in ranks.values()}
    whole = all(label.source.is_whole and not label.in_blocks for label in ranks.values())
    if len(kinds) > 1 or Kind.BOOL in kinds or not whole:
        return []
    try:
        return guess_plain_layouts(_locals(ranks), 0, alike=False)
    except AlignmentError:
        return []


def _further_guesses(plain: Sequence[Guess], ranks: Mapping[int, RankLabel], others: set[Shape]) -> list[Guess]:
    """Return layouts of data-parallel groups of slices and the like, if no plain guess gives a known shape."""
    declared = any(label.record.layout is not None for label in ranks.values())
    if declared or not plain or any(guess.shapes[0] in others for guess in plain):
        return []
    further = (
        guess
        for guess in guess_further_layouts(_locals(ranks), others, False, golden=False)
        if guess.shapes[0] in others
    )
    return list(islice(further, _MOST_FURTHER))


def _locals(ranks: Mapping[int, RankLabel]) -> dict[int, LocalTensor]:
    return {rank: LocalTensor(label.shape, label.record.layout) for rank, label in ranks.items()}


def _signature(guess: Guess, ranks: Mapping[int, RankLabel], exchanged: bool) -> ValueSignature | None:
    """Return the signature of a label, or of it with its first two dimensions of more than one exchanged."""
    try:
        whole = guess.read().wholes[0]
    except AlignmentError:
        return None
    if not exchanged:
        return signature_of(whole.shape, lambda places: _numbers_at(whole, ranks, places))
    seen = exchange_first(without_ones(whole.shape))
    return signature_of(seen, lambda places: _numbers_at(whole, ranks, exchanged_places(places, seen)))


def _numbers_at(whole: GlobalTensor, ranks: Mapping[int, RankLabel], places: Places) -> Numbers:
    """Return the values at flat places of a global tensor, shape (places, 1), or (places, 2) for complex elements.

    Values are NaN where no rank holds them, or where its file cannot be read.
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
                numbers[inside] = sum(
                    numbers_of(label, np.ravel_multi_index(within, label.shape)) for label in summands
                )
            except (AclcmpError, OSError):
                continue
            missing &= ~inside
    return numbers


def exchange_first(shape: Shape) -> Shape:
    """Return a shape with its first two dimensions exchanged."""
    return (shape[1], shape[0], *shape[2:])


def exchanged_places(places: Places, shape: Shape) -> Places:
    """Return where elements of a tensor of `shape` lie in one with its first two dimensions exchanged."""
    first, second, *rest = np.unravel_index(places, shape)
    return np.ravel_multi_index((second, first, *rest), exchange_first(shape))


def numbers_of(label: RankLabel, places: Places) -> Numbers:
    """Return a stored tensor's values at flat places, shape (places, components). Raises ShardError."""
    stored = open_bits(label.source)
    if stored.pages is not None and stored.bits.size > FEW:
        stored.pages.madvise(mmap.MADV_RANDOM)  # else each page would be read with 31 of its neighbours
    bits = stored.bits[places].view(np.uint8)
    stored.check_pages()
    return decode(bits, label.dtype).astype(np.float64).reshape(places.size, -1)
