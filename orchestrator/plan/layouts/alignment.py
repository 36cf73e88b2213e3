"""Alignments of both sides of a label: the golden regions, on its own or other ranks, that an actual tensor holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

from aclcmp.orchestrator.core.regions import Region
from aclcmp.orchestrator.core.text import ranks_text
from aclcmp.orchestrator.plan.layouts.box_cover import BoxIndex, cover
from aclcmp.orchestrator.plan.layouts.inferred import (
    GROUPED,
    PLAIN,
    Guess,
    fused_interpretations,
    guess_further_layouts,
    guess_plain_layouts,
    guess_stacks,
    zigzag_interpretation,
)
from aclcmp.orchestrator.plan.layouts.interpretations import (
    AlignmentError,
    GlobalTensor,
    LayoutInterpretation,
    LocalTensor,
    TensorBox,
    same_place,
    shapes_text,
)

Shape = tuple[int, ...]

OWN = -1
"""In place of a golden whole's number: the whole of which the rank itself holds a part, if any."""
MOST_ALIGNMENTS = 8
"""Number of alignments beyond which they are not told apart by comparing them all."""
_MOST_OTHERS = 20


@dataclass(frozen=True, slots=True)
class AlignedRegion:
    """A part of a rank's actual tensor and the same part of a golden one, each as a region of its own local tensor."""

    whole_shape: Shape
    region: Region
    golden_rank: int
    golden_region: Region
    actual_region: Region
    golden_summands: tuple[int, ...] = ()
    """Ranks whose golden tensors are added to that of `golden_rank`."""
    actual_summands: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelSide:
    """One side of a label: the ranks' tensors, the number of ranks of the job, and whether all are surely the same."""

    pieces: Mapping[int, LocalTensor]
    world_size: int
    alike: bool


def find_alignments(golden: LabelSide, actual: LabelSide, *, one_run: bool) -> list[Alignment]:
    """Return the ways in which the two sides of a label fit each other; more than one if the shapes do not tell.

    The wholes of both sides must have one shape. Where several guesses fit, replicas go before slices, and plain slices
    before groups of ranks, padding and missing ranks. Raises AlignmentError when nothing fits.
    """
    goldens = guess_plain_layouts(golden.pieces, golden.world_size, golden.alike, golden=True)
    actuals = guess_plain_layouts(actual.pieces, actual.world_size, actual.alike)
    fitting = _fitting(goldens, actuals)
    if not any(max(g.tier, a.tier) == PLAIN for g, a in fitting):
        fitting = _fitting(*_further_guesses(golden, actual, goldens, actuals))
    best = min(map(_rank, fitting), default=None)
    options = _options(golden, actual, [pair for pair in fitting if _rank(pair) == best], one_run)
    if not options:
        sides = ", ".join(f"{name} has {_words(side)}" for name, side in (("golden", golden), ("actual", actual)))
        raise AlignmentError(f"{sides}: no layout fits both")
    if len(options) > MOST_ALIGNMENTS:
        raise AlignmentError(ambiguity(options))
    return options


def other_alignments(option: Alignment) -> list[Alignment]:
    """Return the other alignments that shapes allow of a label whose layout was inferred; at most _MOST_OTHERS.

    These are the order of context parallelism, fused projections, and what `find_alignments` puts behind plain slices.
    Tensors of one shape on both sides are what they seem: a layout for each would explain a fault away. So would a sum:
    where the reduction is missing, that is the fault.
    """
    if option.golden.replicated and option.actual.replicated:
        return []
    return list(islice(_others(option), _MOST_OTHERS))


def _others(option: Alignment) -> Iterator[Alignment]:
    golden, actual = option.golden_side, option.actual_side
    zigzags = [
        zigzag_interpretation(reading, side.pieces)
        for reading, side in ((option.golden, golden), (option.actual, actual))
    ]
    goldens = fused_interpretations(option.golden, golden.pieces)
    actuals = fused_interpretations(option.actual, actual.pieces)
    pairs: list[tuple[LayoutInterpretation | None, LayoutInterpretation | None]] = [
        *((zigzags[0], option.actual), (option.golden, zigzags[1]), (zigzags[0], zigzags[1])),
        *((fused, actuals[shares]) for shares, fused in goldens.items() if shares in actuals),
        *((option.golden, fused) for fused in actuals.values()),
        *((fused, option.actual) for fused in goldens.values()),
    ]
    for g, a in pairs:
        if g is not None and a is not None:
            yield Alignment(golden, actual, g, a, option.matches, option.one_run)
    plain = [
        guess_plain_layouts(side.pieces, side.world_size, side.alike, golden=side is golden)
        for side in (golden, actual)
    ]
    fitting = [
        pair for pair in _fitting(*_further_guesses(golden, actual, *plain)) if max(g.tier for g in pair) == GROUPED
    ]
    for guesses in sorted(fitting, key=_rank):
        with suppress(AlignmentError):
            # a golden tensor that nothing is compared with proves nothing
            yield from (
                each
                for each in _options(golden, actual, [guesses], option.one_run)
                if len(each.golden.wholes) <= len(each.actual.wholes) or OWN in each.matches.values()
            )


def _further_guesses(
    golden: LabelSide, actual: LabelSide, goldens: list[Guess], actuals: list[Guess]
) -> tuple[list[Guess], list[Guess]]:
    """Add the guesses that are tried after plain ones."""

    def further(side: LabelSide, guesses: list[Guess], wholes: set[Shape]) -> list[Guess]:
        if _is_declared(side):
            return [*guesses, *guess_stacks(guesses)]
        return [*guesses, *guess_further_layouts(side.pieces, wholes, side.alike, golden=side is golden)]

    goldens = further(golden, goldens, _shapes(actuals))
    return goldens, further(actual, actuals, _shapes(goldens))


def _rank(pair: tuple[Guess, Guess]) -> tuple[bool, int, bool]:
    """Return the sort key of two guesses: replicas on both sides first, then the tier, then replicas on one side."""
    golden, actual = pair
    both, one = golden.replicas and actual.replicas, golden.replicas or actual.replicas
    return not both, max(golden.tier, actual.tier), not one


def _options(golden: LabelSide, actual: LabelSide, pairs: list[tuple[Guess, Guess]], one_run: bool) -> list[Alignment]:
    """Return the alignments of pairs of guesses. Raises AlignmentError when all of several cannot be."""
    options: list[Alignment] = []
    problem: AlignmentError | None = None
    for first, second in pairs:
        try:
            g, a = first.read(), second.read()
            options += [
                Alignment(golden, actual, g, a, each, one_run, second.padded) for each in _matches(g, a, one_run)
            ]
        except AlignmentError as error:
            problem = error
    if not options and problem is not None:
        raise problem
    return options


def ambiguity(options: Sequence[Alignment]) -> str:
    """Say that several alignments are possible, and which."""
    ways = "; ".join(dict.fromkeys(option.words for option in options[:4]))
    return f"ambiguous: the shapes of all ranks allow {len(options)} layouts: {ways}"


def _is_declared(side: LabelSide) -> bool:
    return any(piece.layout is not None for piece in side.pieces.values())


def _shapes(guesses: list[Guess]) -> set[Shape]:
    return {shape for guess in guesses for shape in guess.shapes}


def _fitting(goldens: list[Guess], actuals: list[Guess]) -> list[tuple[Guess, Guess]]:
    """Return pairs of guesses whose wholes have the same shapes; where all are of one shape their number may differ."""
    return [
        (golden, actual)
        for golden in goldens
        for actual in actuals
        if golden.shapes == actual.shapes or len({*golden.shapes, *actual.shapes}) == 1
    ]


def _words(side: LabelSide) -> str:
    layouts = {str(piece.layout.brief) for piece in side.pieces.values() if piece.layout is not None}
    declared = f" with layout {', '.join(sorted(layouts))}" if layouts else ""
    return f"shape {shapes_text(side.pieces)}{declared}"


def _matches(golden: LayoutInterpretation, actual: LayoutInterpretation, one_run: bool) -> list[dict[int, int]]:
    """Return which golden whole goes with which actual one, by their numbers, in each way that is possible.

    In one run the wholes that ranks share belong together. Otherwise they pair in order; where several of one side go
    with each of the other, those may be neighbours or every n-th.
    """
    goldens, actuals = len(golden.wholes), len(actual.wholes)
    if goldens == 1:
        return [dict.fromkeys(range(actuals), 0)]
    near = {number: number * goldens // actuals for number in range(actuals)}
    far = {number: number % goldens for number in range(actuals)}
    ways = [near] if near == far else [near, far]
    even = max(goldens, actuals) % min(goldens, actuals) == 0
    if one_run:
        holders = {rank: number for number, whole in enumerate(golden.wholes) for rank in whole.ranks}
        shared = [{holders.get(rank, OWN) for rank in whole.ranks} for whole in actual.wholes]
        if not any(OWN in each for each in shared):
            return [dict.fromkeys(range(actuals), OWN)]
        others = {number: each - {OWN} for number, each in enumerate(shared)}
        if all(len(each) == 1 for each in others.values()):
            return [{number: next(iter(each)) for number, each in others.items()}]
        fitting = [way for way in ways if even and all(each <= {way[number]} for number, each in others.items())]
        return fitting or [dict.fromkeys(range(actuals), OWN)]
    if not even:
        raise AlignmentError(
            f"golden is {golden.words} and makes {goldens} tensors, actual {actual.words} and makes {actuals}: "
            "which belong together is not known; tell their ranks"
        )
    return ways


def _beside(own: LayoutInterpretation, other: LayoutInterpretation, one_run: bool) -> list[list[int]]:
    """Return sets of ranks that each hold all of what ranks of the other side hold in parts."""
    if not own.replicated or other.replicated or len(own.wholes) == 1:
        return []
    holders = [rank for whole in own.wholes for rank in whole.pieces]
    if not one_run:
        return [holders] if len(other.wholes) == 1 else []
    groups = ([rank for rank in holders if rank in ranks] for ranks in [whole.ranks for whole in other.wholes])
    return [ranks for ranks in groups if len(ranks) > 1]


@dataclass
class Alignment:
    """One way in which the two sides of a label lie beside each other; all labels that lie alike share it."""

    golden_side: LabelSide
    actual_side: LabelSide
    golden: LayoutInterpretation
    actual: LayoutInterpretation
    matches: Mapping[int, int]
    """Number of the golden whole for that of each actual one, or OWN."""
    one_run: bool
    padded: bool = False
    """True if a part of the last actual slice counts as padding though no layout says so: its values must prove it."""
    _placed: dict[int, tuple[list[AlignedRegion], list[Region]]] = field(default_factory=dict)
    _boxes: dict[int, BoxIndex] = field(default_factory=dict)
    _numbers: tuple[dict[int, int], dict[int, int]] = field(init=False)
    """The number of each rank's whole, of golden and actual."""

    def __post_init__(self) -> None:
        golden, actual = (
            {rank: number for number, whole in enumerate(reading.wholes) for rank in whole.ranks}
            for reading in (self.golden, self.actual)
        )
        self._numbers = golden, actual

    @cached_property
    def words(self) -> str:
        """Both layouts, for people who have to choose."""
        return f"golden {self.golden.words}, actual {self.actual.words}{self._shared}"

    @property
    def _shared(self) -> str:
        """The ranks that the first golden tensor serves, in words, where there are several."""
        if len(self.golden.wholes) == 1 or OWN in self.matches.values():
            return ""
        serves: dict[int, list[int]] = defaultdict(list)
        for number, whole in enumerate(self.actual.wholes):
            serves[self.matches[number]] += sorted(whole.ranks)
        first = min(self.golden.wholes[0].pieces)
        return f" with that of golden rank {first} for {ranks_text(serves.get(0, []))}"

    @cached_property
    def layout(self) -> str:
        """The layout that was used, in the report's words."""
        if self.golden.replicated:
            return self.actual.said
        if self.actual.replicated:
            return f"golden {self.golden.said}"
        return f"golden {self.golden.said}; actual {self.actual.said}"

    def lines(self, label: str) -> tuple[str, ...]:
        """Return the lines of a layouts file that declare this for a label."""
        lines = [
            f"{side}{label} -> {layout}"
            for side, reading in (("golden ", self.golden), ("", self.actual))
            for layout in dict.fromkeys(map(str, reading.layouts.values()))
        ]
        return tuple(lines) or (f"{label} -> Replicate()",)

    @property
    def guessed(self) -> bool:
        """True if no layout is declared for a side that several ranks hold."""
        return any(len(side.pieces) > 1 and not _is_declared(side) for side in (self.golden_side, self.actual_side))

    @cached_property
    def replica_groups(self) -> tuple[list[list[int]], list[list[int]]]:
        """The sets of ranks that ought to hold the same, of golden and actual."""
        return (
            same_place(self.golden) + _beside(self.golden, self.actual, self.one_run),
            same_place(self.actual) + _beside(self.actual, self.golden, self.one_run),
        )

    @cached_property
    def served_together(self) -> list[list[GlobalTensor]]:
        """Golden wholes of another run that belong to the same actual ones, where it has more of them."""
        goldens, actuals = len(self.golden.wholes), len(self.actual.wholes)
        if goldens <= actuals:
            return []
        far = all(golden == actual for actual, golden in self.matches.items()) and actuals > 1
        of_actual = [number % actuals if far else number * actuals // goldens for number in range(goldens)]
        return [
            [whole for number, whole in zip(of_actual, self.golden.wholes, strict=True) if number == actual]
            for actual in range(actuals)
        ]

    @cached_property
    def missing(self) -> dict[int, bool]:
        """The ranks that hold a part of a whole but did not label it; True if it is one of the actual side."""
        found: dict[int, bool] = {}
        for reading, of_actual in ((self.golden, False), (self.actual, True)):
            found |= {rank: of_actual for whole in reading.wholes for rank in whole.missing}
        return found

    @cached_property
    def holes(self) -> dict[int, list[Region]]:
        """The parts of actual wholes that no rank holds, by the first of the ranks that hold the rest."""
        found = {}
        for whole in self.actual.wholes:
            boxes = list(dict.fromkeys(piece.whole for pieces in whole.pieces.values() for piece in pieces))
            left = cover(Region.whole(whole.shape), ((None, box) for box in boxes))[1] if 0 not in whole.shape else []
            if left:
                found[min(whole.pieces)] = left
        return found

    def is_summand(self, rank: int) -> bool:
        """Tell whether a rank's actual tensor is added to that of another rank, with which it is compared."""
        return any(rank in others for whole in self.actual.wholes for others in whole.summands.values())

    def place(self, rank: int) -> tuple[list[AlignedRegion], list[Region]]:
        """Find the golden regions for `rank`'s actual tensor, and the parts of the whole that none holds.

        The nearest golden is taken first: the rank's own, then those of its host, then others. A rank whose tensor is
        added to another's has nothing to find. Raises AlignmentError.
        """
        if rank not in self._placed:
            self._placed[rank] = self._place(rank)
        return self._placed[rank]

    def _place(self, rank: int) -> tuple[list[AlignedRegion], list[Region]]:
        actual = self.actual.wholes[self._numbers[1][rank]]
        golden, number = self._golden_of(rank)
        if rank not in actual.pieces:
            return [], []
        if golden is None:
            return [], [piece.whole for piece in actual.pieces[rank]]
        if golden.shape != actual.shape:
            raise AlignmentError(
                f"golden makes a whole of {list(golden.shape)}, actual one of {list(actual.shape)} on rank {rank}"
            )
        regions: list[AlignedRegion] = []
        left: list[Region] = []
        for piece in actual.pieces[rank]:
            if piece.whole.size == 0:
                parts, rest = self._empty(rank, golden, piece)
            else:
                parts, rest = cover(piece.whole, self._nearest(rank, golden, number, piece.whole))
            left += rest
            back = tuple(a - b for a, b in zip(piece.local.start, piece.whole.start, strict=True))
            for (holder, golden_piece), part in parts:
                there = tuple(a - b for a, b in zip(golden_piece.local.start, golden_piece.whole.start, strict=True))
                regions.append(
                    AlignedRegion(
                        whole_shape=actual.shape,
                        region=part,
                        golden_rank=holder,
                        golden_region=part.translate(there),
                        actual_region=part.translate(back),
                        golden_summands=golden.summands.get(holder, ()),
                        actual_summands=actual.summands.get(rank, ()),
                    )
                )
        return regions, left

    def _golden_of(self, rank: int) -> tuple[GlobalTensor | None, int]:
        goldens, actuals = self._numbers
        number = self.matches[actuals[rank]]
        if number == OWN:
            number = goldens.get(rank, OWN)
        return (self.golden.wholes[number] if number != OWN else None), number

    def _empty(
        self, rank: int, golden: GlobalTensor, piece: TensorBox
    ) -> tuple[list[tuple[tuple[int, TensorBox], Region]], list[Region]]:
        """Pair a tensor without elements with any golden one that it fits into."""
        holder = rank if rank in golden.pieces else min(golden.pieces)
        golden_piece = golden.pieces[holder][0]
        if any(n > m for n, m in zip(piece.whole.shape, golden_piece.whole.shape, strict=True)):
            return [], [piece.whole]
        nowhere = Region((0,) * len(golden.shape), piece.whole.shape)
        at_start = TensorBox(nowhere, Region(piece.whole.start, golden_piece.whole.shape))
        return [((holder, at_start), piece.whole)], []

    def _nearest(
        self, rank: int, golden: GlobalTensor, number: int, wanted: Region
    ) -> Iterator[tuple[tuple[int, TensorBox], Region]]:
        """Yield golden pieces by nearness; of other ranks only those that have something of what is wanted."""
        for piece in golden.pieces.get(rank, ()):
            yield (rank, piece), piece.whole
        if number not in self._boxes:
            self._boxes[number] = BoxIndex(
                (holder, piece) for holder, several in golden.pieces.items() for piece in several
            )
        host = self.actual_side.pieces[rank].host
        others = [each for each in self._boxes[number].touching(wanted) if each[0] != rank]
        others.sort(key=lambda each: (self.golden_side.pieces[each[0]].host != host, each[0]))
        for holder, piece in others:
            yield (holder, piece), piece.whole
