"""Interpretations of layouts and shapes: where the tensors of one side lie in a global tensor, or in several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from aclcmp.labeling.layout import Layout
from aclcmp.orchestrator.core.regions import Region
from aclcmp.orchestrator.core.text import ranks_text

Shape = tuple[int, ...]

SAME_SHAPE = "same shape"
"""Words of a layout of which nothing needs to be said: every rank holds the whole."""
INFERRED = ", inferred"
"""End of the words of a layout that was inferred from shapes alone."""
PROVED = ", proved on the values"
"""End of the words of a layout that shapes leave open, and values prove."""
UNPROVED = ", one of several that fit"
"""End of the words of a layout that is one of several, under each of which the values are wrong."""
_MOST_SHAPES = 4


class AlignmentError(Exception):
    """The shapes and layouts of a label do not fit; the message says how."""


@dataclass(frozen=True, slots=True)
class LocalTensor:
    """One side of a label on one rank."""

    shape: Shape
    layout: Layout | None
    host: str = ""


@dataclass(frozen=True, slots=True)
class TensorBox:
    """A box of a rank's local tensor, and the same box in the whole."""

    local: Region
    whole: Region


@dataclass(frozen=True, slots=True)
class GlobalTensor:
    """A tensor that several ranks hold together. Values of a rank outside of its pieces are padding."""

    shape: Shape
    pieces: Mapping[int, tuple[TensorBox, ...]]
    summands: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Ranks whose tensors are added to that of a rank in `pieces`; they have no pieces of their own."""
    missing: tuple[int, ...] = ()
    """Ranks that hold a part of it but have no label."""

    @property
    def ranks(self) -> set[int]:
        """All ranks that hold something of it."""
        return {*self.pieces, *(rank for several in self.summands.values() for rank in several)}

    @property
    def replicated(self) -> bool:
        """True if every rank holds all of it."""
        return not self.summands and all(
            len(pieces) == 1 and pieces[0].whole.shape == self.shape for pieces in self.pieces.values()
        )


@dataclass(frozen=True, slots=True)
class LayoutInterpretation:
    """The place of every rank's tensor of one side."""

    words: str
    declared: bool
    """True if layouts say so, or nothing needs to be said; False if only shapes suggest it."""
    wholes: tuple[GlobalTensor, ...]
    """More than one where groups of ranks hold tensors of their own, as data-parallel groups do."""
    sliced: int | None = None
    """The dimension along which shapes alone suggest plain slices."""
    layouts: Mapping[int, Layout] = field(default_factory=dict)
    """The layout that each rank would have to declare for this; empty where nothing is inferred."""

    @property
    def replicated(self) -> bool:
        """True if every rank holds all of its whole."""
        return all(whole.replicated for whole in self.wholes)

    @property
    def said(self) -> str:
        """The layout as the report tells it."""
        return self.words if self.declared else f"{self.words}{INFERRED}"


def same_place(reading: LayoutInterpretation) -> list[list[int]]:
    """Return the sets of ranks that hold the same pieces of one whole."""
    return [ranks for whole in reading.wholes for ranks in same_pieces([whole])]


def same_pieces(wholes: Iterable[GlobalTensor]) -> list[list[int]]:
    """Return the sets of ranks that hold the same pieces, each of its whole; sums have none."""
    alike: dict[tuple[TensorBox, ...], list[int]] = defaultdict(list)
    for whole in wholes:
        for rank, pieces in whole.pieces.items() if not whole.summands else ():
            alike[pieces].append(rank)
    return [ranks for ranks in alike.values() if len(ranks) > 1]


def shapes_text(pieces: Mapping[int, LocalTensor]) -> str:
    """Say which ranks have which shapes: "[4, 8] on ranks 0, 1; [2, 8] on rank 2"."""
    shapes: dict[Shape, list[int]] = {}
    for rank, piece in sorted(pieces.items()):
        shapes.setdefault(piece.shape, []).append(rank)
    each = [f"{list(shape)} on {ranks_text(ranks)}" for shape, ranks in shapes.items()]
    return "; ".join(each[:_MOST_SHAPES]) + (" ..." if len(each) > _MOST_SHAPES else "")
