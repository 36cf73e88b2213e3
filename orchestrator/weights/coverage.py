"""Which rows of golden's weights are on some rank, and which on none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.weight_table import HashedParameter, Hashes, row_length
from aclcmp.orchestrator.weights.expected import Holding
from aclcmp.orchestrator.weights.golden_rows import GoldenRows, Segment
from aclcmp.orchestrator.weights.names import module_of, short_name
from aclcmp.orchestrator.weights.words import ranges


class Coverage:
    """The rows of golden's parameters that no rank holds."""

    def __init__(self, golden: GoldenRows, holdings: Sequence[Holding], *, all_ranks: bool) -> None:
        """`all_ranks`: every rank recorded its weights; else nothing is said of what no rank holds."""
        self._golden = golden
        self._holdings = holdings
        self._all_ranks = all_ranks
        self._hashes: Hashes = np.unique(np.concatenate([np.empty(0, np.uint64), *(each.rows for each in holdings)]))
        self.unheld: dict[int, npt.NDArray[np.bool_]] = dict(self._find_unheld())
        """By number of golden's parameter, for each of its rows."""
        self._lost_near: dict[tuple[str, int], list[int]] = defaultdict(list)
        """The parameters that no rank holds, by what they have in common with those beside them."""
        for number, rows in self.unheld.items():
            if rows.all():
                self._lost_near[_neighbourhood(golden.parameters[number])].append(number)

    def lacks_beside(self, parameter: HashedParameter) -> bool:
        """Tell whether golden has a parameter beside one, of rows as long, that no rank holds."""
        return _neighbourhood(parameter) in self._lost_near

    def siblings(self, golden: Collection[int]) -> list[int]:
        """Return the parameters of golden beside these, of rows as long, that no rank holds."""
        near = {_neighbourhood(self._golden.parameters[each]) for each in golden}
        return sorted(number for each in near & self._lost_near.keys() for number in self._lost_near[each])

    def lost(self, holding: Holding, golden: Collection[int]) -> list[str]:
        """Return which rows of parameters of golden no rank holds, in words."""
        names = {each: short_name(holding.parameter.name, self._golden.parameters[each].name) for each in golden}
        lost = {each: self.unheld[each] for each in golden if self.unheld[each].any()}
        return [names[each] if rows.all() else f"{names[each]}[{ranges(rows)}]" for each, rows in lost.items()]

    def _find_unheld(self) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
        """Yield for each parameter of golden which rows nobody holds, in any form that ranks have of it."""
        forms: dict[int, set[tuple[int, bool]]] = defaultdict(set)
        for holding in self._holdings:
            for each in holding.segments:
                if each.known:
                    forms[each.golden].add((each.form.parts, each.form.transposed))
        for number, golden in enumerate(self._golden.parameters):
            used = forms.get(number) or {(form.parts, form.transposed) for form in list(golden.forms)[:1]}
            unheld = self._golden.unheld(number, self._hashes, used)
            yield number, unheld if self._all_ranks else np.zeros_like(unheld)


def out_of_place(
    holders: Sequence[tuple[Holding, Segment]], twice: Sequence[tuple[Holding, Segment]], rows: int
) -> Sequence[tuple[Holding, Segment]]:
    """Return who holds rows twice and is not where the order of ranks puts that slice; if all are, all of them."""
    places = {holding.rank: place for place, (holding, _) in enumerate(holders)}
    even = len(places) == len(holders) and len({segment.count for _, segment in holders}) == 1
    size = holders[0][1].count
    if even and size * len(holders) == rows:
        return [each for each in twice if each[1].row != places[each[0].rank] * size] or twice
    return twice


def _neighbourhood(parameter: HashedParameter) -> tuple[str, int]:
    """Return what parameters have in common that a fused one may be made of: the part of the model, and the rows."""
    return module_of(module_of(parameter.name)), row_length(parameter.shape)
