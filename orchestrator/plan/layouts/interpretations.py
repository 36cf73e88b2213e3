"""Where the tensors of one side lie in the whole, or in several wholes: what readings of layouts and shapes give."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from aclcmp.labeling.layout import Layout
from aclcmp.orchestrator.core.regions import Region
from aclcmp.orchestrator.core.text import ranks_text

Shape = tuple[int, ...]

INFERRED = ", inferred"
"""What ends the words of a layout that only the shapes tell."""
PROVED = ", proved on the values"
"""What ends the words of a layout that the shapes alone leave open."""
UNPROVED = ", one of several that fit"
"""What ends the words of a layout of several under each of which the values are wrong."""
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
    """A box of a rank's local tensor, and the box of the same shape that it is in the whole."""

    local: Region
    whole: Region


@dataclass(frozen=True, slots=True)
class GlobalTensor:
    """A tensor that several ranks hold together. What a rank holds beyond its pieces is padding."""

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
        """Whether every rank holds all of it."""
        return not self.summands and all(
            len(pieces) == 1 and pieces[0].whole.shape == self.shape for pieces in self.pieces.values()
        )


@dataclass(frozen=True, slots=True)
class LayoutInterpretation:
    """Where every rank's tensor of one side lies."""

    words: str
    told: bool
    """Whether layouts say so, or nothing needs to be said, and not the shapes alone."""
    wholes: tuple[GlobalTensor, ...]
    """More than one where groups of ranks hold tensors of their own, as data-parallel groups do."""
    sliced: int | None = None
    """The dimension along which shapes alone say that plain slices lie."""
    layouts: Mapping[int, Layout] = field(default_factory=dict)
    """What each rank would have to tell for it to be read so; empty where nothing is inferred."""

    @property
    def replicated(self) -> bool:
        """Whether every rank holds all of its whole."""
        return all(whole.replicated for whole in self.wholes)

    @property
    def said(self) -> str:
        """The layout as the report tells it."""
        return self.words if self.told else f"{self.words}{INFERRED}"


def same_place(reading: LayoutInterpretation) -> list[list[int]]:
    """Return the sets of ranks that hold the same pieces of one whole."""
    found = []
    for whole in reading.wholes:
        alike: dict[tuple[TensorBox, ...], list[int]] = defaultdict(list)
        for rank, pieces in whole.pieces.items() if not whole.summands else ():
            alike[pieces].append(rank)
        found += [ranks for ranks in alike.values() if len(ranks) > 1]
    return found


def shapes_text(pieces: Mapping[int, LocalTensor]) -> str:
    """Say which ranks have which shapes: "[4, 8] on ranks 0, 1; [2, 8] on rank 2"."""
    shapes: dict[Shape, list[int]] = {}
    for rank, piece in sorted(pieces.items()):
        shapes.setdefault(piece.shape, []).append(rank)
    each = [f"{list(shape)} on {ranks_text(ranks)}" for shape, ranks in shapes.items()]
    return "; ".join(each[:_MOST_SHAPES]) + (" ..." if len(each) > _MOST_SHAPES else "")
