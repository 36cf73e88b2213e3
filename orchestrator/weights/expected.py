"""What each parameter should hold of golden's: what the same parameter does in most layers and on most ranks.

No names are told. Where layers and ranks cannot decide, or all agree, the names that both sides have in common do, and
the parts that the engine's class tells of a fused module.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from aclcmp.labeling.shard.weight_table import NOT_ZERO, HashedParameter, Hashes, RowForm
from aclcmp.orchestrator.weights.golden_rows import GoldenRows, Segment
from aclcmp.orchestrator.weights.names import module_of, of_any_layer, shift_of, shifted, template_of

Family = tuple[str, ...]
"""Templates of golden's parameters, in the order in which their rows come first."""


@dataclass(frozen=True, slots=True)
class Run:
    """A segment as it is in every layer."""

    count: int
    template: str = ""
    """Of golden's parameter; "" for rows that are not golden's."""
    shift: tuple[tuple[str, int], ...] = ()
    part: int = 0
    parts: int = 1
    transposed: bool = False
    row: int = 0
    zero: bool = False


Signature = tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Holding:
    """What one parameter holds on one rank."""

    rank: int
    model: int
    """Number of its model on the rank."""
    parameter: HashedParameter
    segments: tuple[Segment, ...]
    signature: Signature

    @property
    def template(self) -> tuple[int, str]:
        """What it is in every layer and on every rank."""
        return self.model, of_any_layer(self.parameter.name)

    @property
    def family(self) -> Family:
        """The parameters of golden of which it holds rows."""
        return family_of(self.signature)

    @property
    def rows(self) -> Hashes:
        """The hashes of its rows."""
        (rows,) = self.parameter.forms.values()
        return rows


def signature_of(name: str, segments: Iterable[Segment], golden: Sequence[HashedParameter]) -> Signature:
    """Return segments as they are in every layer."""
    return tuple(
        Run(
            each.count,
            template_of(golden[each.golden].name),
            shift_of(name, golden[each.golden].name),
            each.form.part,
            each.form.parts,
            each.form.transposed,
            each.row,
        )
        if each.known
        else Run(each.count, zero=each.zero)
        for each in segments
    )


def family_of(signature: Signature) -> Family:
    """Return the templates of a signature, each once."""
    return tuple(dict.fromkeys(run.template for run in signature if run.template))


class Expectations:
    """What is expected of all parameters, after what they hold."""

    def __init__(self, holdings: Sequence[Holding], golden: GoldenRows, packed: Mapping[str, Sequence[str]]) -> None:
        self._golden = golden
        self._numbers = {each.name: number for number, each in reversed([*enumerate(golden.parameters)])}
        self._order = {template_of(each.name): -n for n, each in reversed([*enumerate(golden.parameters)])}
        self._packed = packed
        self._names: dict[str, list[str]] = defaultdict(list)
        """Names of golden's parameters, by their template."""
        for each in golden.parameters:
            self._names[template_of(each.name)].append(each.name)
        self._of_template: dict[tuple[int, str], list[Holding]] = defaultdict(list)
        for holding in holdings:
            self._of_template[holding.template].append(holding)
        self._shifts = {rank: self._usual_shift(rank, holdings) for rank in {each.rank for each in holdings}}
        self._families = {name: self._expected_family(found) for name, found in self._of_template.items()}
        self._signatures: dict[tuple[tuple[int, str], tuple[int, ...], int], Signature | None] = {}

    def family(self, holding: Holding) -> Family:
        """Return of which parameters of golden it should hold rows; empty where nothing is known of it anywhere."""
        return self._families[holding.template]

    def signature(self, holding: Holding) -> Signature | None:
        """Return what a parameter should hold on its rank; None where no layer of the rank tells."""
        place = holding.template, holding.parameter.shape, holding.rank
        if place not in self._signatures:
            self._signatures[place] = self._expected_signature(holding)
        return self._signatures[place]

    def explains(self, holding: Holding, signature: Signature) -> bool:
        """Tell whether a signature is true of a parameter too: rows that are equal may be found in several places."""
        begin = 0
        for run in signature:
            rows = holding.rows[begin : begin + run.count]
            begin += run.count
            if not run.template:
                if run.zero and not (rows < NOT_ZERO).all():
                    return False
                continue
            number = self.golden_number(holding, run)
            form = RowForm("", run.part, run.parts, run.transposed)
            if number is None or not any(
                len(each) == len(rows) and (each == rows).all()
                for each in self._golden.rows(number, form, run.row, run.count)
            ):
                return False
        return begin == len(holding.rows)

    def golden_number(self, holding: Holding, run: Run) -> int | None:
        """Return the number of golden's parameter that a run means for a parameter."""
        return self._numbers.get(shifted(run.template, holding.parameter.name, run.shift))

    def number_in_layer(self, holding: Holding, template: str) -> int | None:
        """Return the number of golden's parameter of a template that belongs to a parameter's layer."""
        names = self._names.get(template, [])
        if len(names) == 1:
            return self._numbers[names[0]]
        shift = self._shifts[holding.rank]
        for name in names:
            seen = shift_of(holding.parameter.name, name)
            if seen and seen[0] == ("+", shift) and all(kind == "=" or not n for kind, n in seen[1:]):
                return self._numbers[name]
        return None

    def _expected_family(self, found: Sequence[Holding]) -> Family:
        votes = Counter(each.family for each in found if each.family)
        if not votes:
            return ()
        named = self._family_by_name(found[0], votes)
        if named is not None:
            return named
        return max(votes, key=lambda family: (votes[family], len(family), self._is_in_order(family)))

    def _family_by_name(self, holding: Holding, votes: Iterable[Family]) -> Family | None:
        """Return the family that the names tell; None where they tell none of those that were found, reordered."""
        name, seen = template_of(holding.parameter.name), {template for family in votes for template in family}
        if name in self._order and self._same_shape(holding):
            return (name,)
        parts = self._packed.get(module_of(name).rpartition(".")[2], ())
        by_part = {module_of(template).rpartition(".")[2]: template for template in seen}
        family = tuple(by_part[part] for part in parts if part in by_part)
        return family if len(family) == len(parts) > 1 and set(family) == seen else None

    def _same_shape(self, holding: Holding) -> bool:
        """Tell whether golden has a parameter of the same name whose rows could be those of a parameter."""
        number = self._numbers.get(holding.parameter.name)
        return number is not None and bool(self._golden.rows(number, RowForm(), 0, len(holding.rows)))

    def _is_in_order(self, family: Family) -> bool:
        places = [-self._order[template] for template in family]
        return places == sorted(places)

    def _expected_signature(self, holding: Holding) -> Signature | None:
        alike = [
            each
            for each in self._of_template[holding.template]
            if each.rank == holding.rank and each.parameter.shape == holding.parameter.shape
        ]
        votes = Counter(each.signature for each in alike)
        family, shift = self.family(holding), self._shifts[holding.rank]
        right = [each for each in votes if family_of(each) == family and _has_shift(each, shift)]
        best = max(right, key=lambda each: (_is_known(each), votes[each]), default=None)
        return best if best is None or votes[best] > 1 else _in_order(best)

    def _usual_shift(self, rank: int, holdings: Sequence[Holding]) -> int:
        """Return by how much golden's layers have other numbers than a rank's, which may count its own stage's."""
        votes = Counter(
            run.shift[0][1]
            for holding in holdings
            if holding.rank == rank
            for run in holding.signature
            if run.shift and run.shift[0][0] == "+"
        )
        return max(votes, key=lambda shift: (votes[shift], shift == 0), default=0)


def _has_shift(signature: Signature, shift: int) -> bool:
    return all(not run.shift or run.shift[0] in (("+", shift),) or run.shift[0][0] == "=" for run in signature)


def _is_known(signature: Signature) -> bool:
    return all(run.template or run.zero for run in signature)


def _in_order(signature: Signature) -> Signature:
    """Return a signature that is a stretch of one parameter's rows in another order as that stretch; others as is."""
    first = signature[0]
    if not _is_known(signature) or len({replace(run, count=0, row=0) for run in signature}) > 1:
        return signature
    total, begin = sum(run.count for run in signature), min(run.row for run in signature)
    stretches = sorted((run.row, run.count) for run in signature)
    follows = all(row + count == after for (row, count), (after, _) in pairwise(stretches))
    return (replace(first, count=total, row=begin),) if follows else signature
