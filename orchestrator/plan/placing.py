"""Which golden regions hold what an actual tensor holds: on its own rank, or on others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aclcmp.orchestrator.plan.cover import cover
from aclcmp.orchestrator.plan.readings import Local, PlacingError, Reading, readings
from aclcmp.orchestrator.plan.regions import Region

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Placing:
    """A part of a rank's actual tensor and the same part of a golden one, each as a region of its own local tensor."""

    whole_shape: Shape
    region: Region
    golden_rank: int
    golden_region: Region
    actual_region: Region
    golden_summands: tuple[int, ...] = ()
    """Ranks whose golden tensors are added to that of `golden_rank`."""
    actual_summands: tuple[int, ...] = ()


class Placer:
    """Places one label, given both sides of all ranks that have it.

    Both sides are read such that their wholes have one shape. Where several readings do, replicas go before slices, and
    complete wholes before those of which ranks are missing; what is then left is ambiguous.
    """

    def __init__(self, goldens: Mapping[int, Local], actuals: Mapping[int, Local], world_size: int) -> None:
        self._goldens = goldens
        self._actuals = actuals
        self._world_size = world_size
        self._chosen: tuple[Reading, Reading] | PlacingError | None = None

    @property
    def layout(self) -> str:
        """The layout that was used, in words."""
        golden, actual = self._readings()
        if golden.replicated:
            return actual.said
        return f"golden {golden.said}" if actual.replicated else f"golden {golden.said}; actual {actual.said}"

    def missing(self) -> dict[int, bool]:
        """Return the ranks that hold a slice of the whole but did not label it, and whether of the actual side."""
        golden, actual = self._readings()
        return dict.fromkeys(golden.missing, False) | dict.fromkeys(actual.missing, True)

    def place(self, rank: int) -> tuple[list[Placing], list[Region]]:
        """Find the golden regions for `rank`'s actual tensor, and the parts of the whole that none holds.

        The nearest golden is taken first: the rank's own, then those of its host. A rank whose tensor is added to
        another's has nothing to find. Raises PlacingError.
        """
        golden, actual = self._readings()
        if rank not in actual.regions:
            return [], []
        wanted = actual.regions[rank]
        if wanted.size == 0:
            return self._empty(rank, golden, actual)
        parts, left = cover(wanted, self._nearest(rank, golden))
        self._check_hosts(self._actuals, rank, actual)
        for holder, _ in parts:
            self._check_hosts(self._goldens, holder, golden)
        placed = [
            Placing(
                whole_shape=actual.whole,
                region=part,
                golden_rank=holder,
                golden_region=part.moved(tuple(-s for s in golden.regions[holder].start)),
                actual_region=part.moved(tuple(-s for s in wanted.start)),
                golden_summands=golden.summands.get(holder, ()),
                actual_summands=actual.summands.get(rank, ()),
            )
            for holder, part in parts
        ]
        return placed, left

    def _empty(self, rank: int, golden: Reading, actual: Reading) -> tuple[list[Placing], list[Region]]:
        """A tensor without elements is compared with any golden one, if there is one."""
        none = Region((0,) * len(actual.whole), actual.regions[rank].shape)
        for holder, held in self._nearest(rank, golden):
            if all(n <= m for n, m in zip(none.shape, held.shape, strict=True)):
                return [Placing(actual.whole, actual.regions[rank], holder, none, none)], []
        return [], [actual.regions[rank]]

    def _nearest(self, rank: int, golden: Reading) -> Iterator[tuple[int, Region]]:
        """Golden tensors by nearness. Another rank's replica is taken only where all replicas are surely the same."""
        if rank in golden.regions:
            yield rank, golden.regions[rank]
        contents = {self._goldens[holder].content for holder in golden.regions}
        alike = len(golden.regions) == 1 or (len(contents) == 1 and None not in contents)
        if golden.replicated and not alike:
            return
        host = self._actuals[rank].host
        for holder in sorted(golden.regions):
            if holder != rank and self._goldens[holder].host == host:
                yield holder, golden.regions[holder]

    @staticmethod
    def _check_hosts(pieces: Mapping[int, Local], rank: int, reading: Reading) -> None:
        hosts = {pieces[each].host for each in (rank, *reading.summands.get(rank, ()))}
        if len(hosts) > 1:
            raise PlacingError(
                f"summands lie on {len(hosts)} hosts ({', '.join(sorted(hosts))}) and cannot be added yet"
            )

    def _readings(self) -> tuple[Reading, Reading]:
        if self._chosen is None:
            try:
                self._chosen = self._choose()
            except PlacingError as error:
                self._chosen = error
        if isinstance(self._chosen, PlacingError):
            raise self._chosen
        return self._chosen

    def _choose(self) -> tuple[Reading, Reading]:
        goldens, actuals = (readings(side, self._world_size) for side in (self._goldens, self._actuals))
        fitting = [(g, a) for g in goldens for a in actuals if g.whole == a.whole]
        for wanted in (
            [(g, a) for g, a in fitting if g.replicated and a.replicated],
            [(g, a) for g, a in fitting if not g.missing and not a.missing],
            fitting,
        ):
            if len(wanted) == 1:
                return wanted[0]
            if wanted:
                ways = "; ".join(f"golden {g.words}, actual {a.words}" for g, a in wanted[:4])
                raise PlacingError(f"ambiguous: the shapes of all ranks allow {len(wanted)} layouts: {ways}")
        raise PlacingError(f"{_words('golden', self._goldens)}, {_words('actual', self._actuals)}: no layout fits both")


def _words(side: str, pieces: Mapping[int, Local]) -> str:
    """Say which shapes a side has, and its layout."""
    shapes: dict[str, list[int]] = {}
    for rank, piece in sorted(pieces.items()):
        told = f" with layout {piece.layout}" if piece.layout else ""
        shapes.setdefault(f"{list(piece.shape)}{told}", []).append(rank)
    each = [f"{shape} on {len(ranks)} rank{'s' * (len(ranks) > 1)}" for shape, ranks in shapes.items()]
    return f"{side} has shape {'; '.join(each[:3])}{' ...' if len(each) > 3 else ''}"
