"""From what ranks hold of golden's weights to what is wrong about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from aclcmp.labeling.shard.weight_table import NOT_ZERO, RowForm, row_length
from aclcmp.orchestrator.core.weights import HeldRows, WeightFault, WeightFinding, WeightReport
from aclcmp.orchestrator.weights.coverage import Coverage, out_of_place
from aclcmp.orchestrator.weights.expected import Holding, Signature
from aclcmp.orchestrator.weights.golden_rows import GoldenRows, Segment
from aclcmp.orchestrator.weights.names import fold_layers, module_of, short_name, template_of
from aclcmp.orchestrator.weights.weight_map import WeightMap
from aclcmp.orchestrator.weights.words import held_words, length_of, ranges, rows_words, told_rows

_QUANTISED = ("int8", "uint8", "int32", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")


def check_weights(found: WeightMap, ranks: int) -> WeightReport:
    """Return what is wrong about what ranks hold of golden's weights.

    `ranks` is how many there are; where some recorded no weights, rows that nobody holds are not told.
    """
    return _Check(found, ranks).report()


def note_on_order(found: WeightMap) -> Iterator[str]:
    """Say where most slices that ranks hold are not in the order of the ranks' numbers, nor of groups of them."""
    _, votes = _slices_of(found.golden, found.holdings)
    count = len(found.ranks)
    for slices in sorted({slices for _, slices in votes}):
        of_ranks = [votes[rank, slices] for rank in found.ranks if (rank, slices) in votes]
        places = [each.most_common(1)[0][0] for each in of_ranks]
        if len(places) < count or count % slices or len(set(places)) < slices:
            continue
        if places not in ([n % slices for n in range(count)], [n * slices // count for n in range(count)]):
            told = ", ".join(f"rank {rank} slice {n + 1}" for rank, n in zip(found.ranks, places, strict=True))
            yield f"ranks hold the slices of golden's weights in another order than that of their numbers: {told}"


def _slices_of(
    golden: GoldenRows, holdings: Sequence[Holding]
) -> tuple[list[tuple[Holding, int, int]], dict[tuple[int, int], Counter[int]]]:
    """Return what holds one even slice, its number, and how many there are; and how often a rank has which number.

    The latter is by rank and how many slices there are.
    """
    of_holding: list[tuple[Holding, int, int]] = []
    votes: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    for holding in holdings:
        found = {each for each in map(golden.slice_of, holding.segments) if each is not None}
        if len(found) == 1:
            ((place, slices),) = found
            of_holding.append((holding, place, slices))
            votes[holding.rank, slices][place] += 1
    return of_holding, votes


class _Check:
    """One comparison of the weights of two sides."""

    def __init__(self, found: WeightMap, ranks: int) -> None:
        self._golden, self._holdings, self._expected = found.golden, found.holdings, found.expected
        self._unread, self._ranks = found.unread, found.ranks
        self._names = [each.name for each in found.golden.parameters]
        self._types = {each.dtype for each in found.golden.parameters}
        self._lengths = {length_of(each, form) for each in found.golden.parameters for form in each.forms}
        self._places = {module_of(name): place for place, name in reversed([*enumerate(self._names)])}
        self._coverage = Coverage(found.golden, found.holdings, all_ranks=len(found.ranks) >= ranks)
        self._whole: dict[str, set[int]] = defaultdict(set)
        """By name of a parameter, the ranks on which all of its rows are golden's or zero."""
        self._holders: dict[int, list[tuple[Holding, Segment]]] = defaultdict(list)
        """By number of golden's parameter, what holds rows of it."""
        for holding in found.holdings:
            if all(each.known or each.zero for each in holding.segments):
                self._whole[holding.parameter.name].add(holding.rank)
            for each in holding.segments:
                if each.known:
                    self._holders[each.golden].append((holding, each))

    def report(self) -> WeightReport:
        """Return all that was found."""
        findings: list[tuple[Holding, WeightFinding]] = []
        right: list[Holding] = []
        for holding in self._holdings:
            finding, corrected = self._judge(holding)
            if finding is None:
                right.append(corrected)
            else:
                findings.append((corrected, finding))
        findings += self._out_of_order(right)
        slices = list(self._slices(findings))
        findings += [(holding, each) for holding, each in slices if holding is not None]
        found = [*_merge(findings), *(each for holding, each in slices if holding is None)]
        found += [*self._unchecked(), *self._never_held(findings)]
        names = {(each.model, each.parameter.name) for each in self._holdings}
        names |= {(0, each.name) for _, each in self._unread}
        # of rows that no rank holds the name is golden's
        bad = {n for each in found if each.kind is not WeightFault.UNHELD for n in (each.parameter, *each.others)}
        known = sum(name not in bad for _, name in names)
        found.sort(key=lambda each: (not each.wrong, self._place(each)))
        return WeightReport(len(names), known, self._ranks, tuple(found), tuple(self._held(right)))

    def _judge(self, holding: Holding) -> tuple[WeightFinding | None, Holding]:
        """Return what is wrong with one parameter on its rank, and what it holds where rows are in several places."""
        family = self._expected.family(holding)
        if not family:
            return self._unknown_everywhere(holding), holding
        signature = self._expected.signature(holding)
        if signature is not None:
            if signature == holding.signature or self._expected.explains(holding, signature):
                told = replace(holding, signature=signature, segments=self._segments(holding, signature))
                return (None if all(each.known for each in told.segments) else self._of_expected(told)), told
            wrong = self._wrong_rows(holding, signature)
            return self._finding(holding, wrong, signature), holding
        wrong = self._rows_of_others(holding)
        if not wrong.any():
            return None, holding
        return self._finding(holding, wrong, None), holding

    def _segments(self, holding: Holding, signature: Signature) -> tuple[Segment, ...]:
        """Return the segments that a signature means for a parameter."""
        found, begin = [], 0
        for run in signature:
            number = self._expected.golden_number(holding, run) if run.template else None
            if number is None:
                found.append(Segment(begin, run.count, zero=run.zero))
            else:
                form = RowForm("", run.part, run.parts, run.transposed)
                found.append(Segment(begin, run.count, number, form, run.row))
            begin += run.count
        return tuple(found)

    def _of_expected(self, holding: Holding) -> WeightFinding | None:
        """Return what is wrong with a parameter that is as in most layers: rows that are not golden's in any.

        It is wrong for certain where other rows of golden's parameter are known, which a loader that changes a
        parameter on purpose does not leave. Zero rows are padding where all of golden's are held.
        """
        unknown = [each for each in holding.segments if not each.known]
        held = {each.golden for each in holding.segments if each.known}
        gaps = any(self._coverage.unheld[each].any() for each in held)
        if all(each.zero for each in unknown) and not gaps and not self._coverage.siblings(held):
            return None
        wrong = np.zeros(len(holding.rows), bool)
        for each in unknown:
            wrong[each.begin : each.begin + each.count] = True
        finding = self._finding(holding, wrong, None, certain=gaps or self._is_whole_elsewhere(holding))
        siblings = self._coverage.siblings(held)
        lost = self._coverage.lost(holding, siblings)
        words = f"{finding.words}; no rank holds {', '.join(lost)}" if lost else finding.words
        return replace(finding, words=words, labels=self._labels(holding, [*held, *siblings]))

    def _unknown_everywhere(self, holding: Holding) -> WeightFinding:
        parameter = holding.parameter
        length = row_length(parameter.shape)
        words, kind = "holds no row of golden's, on any rank or in any layer", WeightFault.UNKNOWN
        if parameter.dtype in _QUANTISED and parameter.dtype not in self._types:
            words, kind = f"quantised ({parameter.dtype}): golden has no such rows", WeightFault.UNCHECKED
        elif length not in self._lengths:
            words, kind = f"golden's rows were not hashed in pieces of {length:,} values", WeightFault.UNCHECKED
        elif parameter.name not in self._names and not self._coverage.lacks_beside(parameter):
            words, kind = "golden has no such parameter", WeightFault.UNCHECKED
        elif (holding.rows < NOT_ZERO).all():
            words = "is zero throughout, as no rows of golden are"
        return WeightFinding(kind, parameter.name, (), (holding.rank,), words, self._labels(holding, ()), False)

    def _wrong_rows(self, holding: Holding, signature: Signature) -> np.ndarray:
        """Tell which rows of a parameter are not those that a signature means."""
        wrong = np.zeros(len(holding.rows), bool)
        for each in self._segments(holding, signature):
            rows = holding.rows[each.begin : each.begin + each.count]
            if each.known:
                meant = self._golden.rows(each.golden, each.form, each.row, each.count)
                equal = np.logical_or.reduce([rows == one for one in meant if len(one) == len(rows)] or [rows != rows])
                wrong[each.begin : each.begin + each.count] = ~equal
            elif each.zero:
                wrong[each.begin : each.begin + each.count] = rows >= NOT_ZERO
        return wrong

    def _rows_of_others(self, holding: Holding) -> np.ndarray:
        """Tell which rows of a parameter are of others than it should hold, where no layer of its rank is right."""
        family = self._expected.family(holding)
        wrong = np.zeros(len(holding.rows), bool)
        expected = iter(family)
        meant = ""
        for place, run in enumerate(holding.signature):
            segment = holding.segments[place]
            new = not place or run.template != holding.signature[place - 1].template
            meant = next(expected, meant) if new else meant
            number = self._expected.number_in_layer(holding, meant)
            at = slice(segment.begin, segment.begin + segment.count)
            if number is None:
                wrong[at] = run.template != meant
            elif number != segment.golden:
                wrong[at] = ~np.isin(
                    holding.rows[at], np.concatenate(list(self._golden.parameters[number].forms.values()))
                )
        return wrong

    def _finding(
        self, holding: Holding, wrong: np.ndarray, signature: Signature | None, *, certain: bool | None = None
    ) -> WeightFinding:
        """Return the finding on a parameter some of whose rows are wrong."""
        bad = [each for each in holding.segments if wrong[each.begin : each.begin + each.count].any()]
        meant = self._segments(holding, signature) if signature is not None else ()
        in_layer = [self._expected.number_in_layer(holding, each) for each in self._expected.family(holding)]
        should = dict.fromkeys([each.golden for each in meant if each.known] or [n for n in in_layer if n is not None])
        kind = self._kind(bad, should)
        words = held_words(self._golden, holding, bad)
        if meant:
            words += f"; it should hold {rows_words(self._golden, holding, meant)}"
        elif kind is not WeightFault.UNKNOWN:
            names = [short_name(holding.parameter.name, self._names[each]) for each in should]
            words += f"; it should hold rows of {', '.join(names)}"
        if lost := self._coverage.lost(holding, should):
            words += f"; no rank holds {', '.join(lost)}"
        if certain is None:
            certain = signature is not None or kind is not WeightFault.UNKNOWN or self._is_whole_elsewhere(holding)
        return WeightFinding(
            kind, holding.parameter.name, (), (holding.rank,), words, self._labels(holding, should), certain
        )

    def _is_whole_elsewhere(self, holding: Holding) -> bool:
        """Tell whether another rank holds nothing but golden's rows under the name of a parameter."""
        return bool(self._whole[holding.parameter.name] - {holding.rank})

    def _kind(self, bad: Sequence[Segment], should: Collection[int]) -> WeightFault:
        others = [each for each in bad if each.known]
        if not others:
            return WeightFault.UNKNOWN
        templates = {template_of(self._names[each]) for each in should}
        if all(each.golden in should for each in others):
            alone = len({each.golden for each in others}) == len(should) == 1
            return WeightFault.SLICE if alone else WeightFault.ORDER
        of_layer = all(template_of(self._names[each.golden]) in templates for each in others)
        return WeightFault.LAYER if of_layer else WeightFault.ORDER

    def _labels(self, holding: Holding, golden: Collection[int]) -> tuple[str, ...]:
        """Return the names of labels that a parameter explains, on either side."""
        own = holding.parameter.label or module_of(holding.parameter.name)
        return tuple(dict.fromkeys([*(module_of(self._names[each]) for each in sorted(golden)), own]))

    def _out_of_order(self, right: Sequence[Holding]) -> Iterator[tuple[Holding, WeightFinding]]:
        """Yield the parameters of which a rank holds another slice than it does of most that are cut into as many."""
        of_holding, votes = _slices_of(self._golden, right)
        for holding, place, slices in of_holding:
            of_rank = votes[holding.rank, slices]
            ((usual, most),) = of_rank.most_common(1)
            if place == usual or 3 * most < 2 * of_rank.total():
                continue
            golden = {each.golden for each in holding.segments}
            lost = self._coverage.lost(holding, golden)
            words = f"{held_words(self._golden, holding, holding.segments)}: slice {place + 1} of {slices}"
            words += f"; of most others it holds slice {usual + 1}" + (
                f"; no rank holds all of {', '.join(lost)}" if lost else ""
            )
            labels, ranks, name = self._labels(holding, golden), (holding.rank,), holding.parameter.name
            yield holding, WeightFinding(WeightFault.SLICE, name, (), ranks, words, labels, bool(lost))

    def _slices(
        self, findings: Sequence[tuple[Holding, WeightFinding]]
    ) -> Iterator[tuple[Holding | None, WeightFinding]]:
        """Yield the parameters that hold rows of golden which others hold too, while some rows are on no rank."""
        told = {label for _, each in findings for label in each.labels}
        blamed: dict[tuple[int, int, str], tuple[Holding, list[Segment], set[int]]] = {}
        for number, unheld in self._coverage.unheld.items():
            name = self._names[number]
            if not unheld.any() or unheld.all() or module_of(name) in told:
                continue
            holders = self._holders[number]
            times = np.zeros(len(unheld), int)
            for _, each in holders:
                times[each.row : each.row + each.count] += 1
            often = times > np.median(times[~unheld])
            twice = [(h, s) for h, s in holders if often[s.row : s.row + s.count].any()]
            if not twice:  # the rows behind those that all hold: the engine has a smaller table
                lost = f"no rank holds {name}[{ranges(unheld)}]"
                yield None, WeightFinding(WeightFault.UNHELD, name, (), (), lost, (module_of(name),), False)
                continue
            for holding, segment in out_of_place(holders, twice, len(unheld)):
                place = holding.rank, holding.model, holding.parameter.name
                _, segments, golden = blamed.setdefault(place, (holding, [], set()))
                segments.append(segment)
                golden.add(number)
        for holding, segments, golden in blamed.values():
            words = f"{held_words(self._golden, holding, segments)}, as another does; no rank holds "
            words += ", ".join(self._coverage.lost(holding, sorted(golden)))
            labels = self._labels(holding, golden)
            ranks = (holding.rank,)
            yield (
                holding,
                WeightFinding(WeightFault.SLICE, holding.parameter.name, (), ranks, words, labels, True),
            )

    def _unchecked(self) -> Iterator[WeightFinding]:
        """Yield the parameters that could not be looked at, those of one reason together."""
        reasons: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
        for rank, each in self._unread:
            reasons[each.problem or "it has no hashes"][each.name].add(rank)
        for reason, ranks in reasons.items():
            first, *others = ranks
            on = tuple(sorted(set().union(*ranks.values())))
            yield WeightFinding(WeightFault.UNCHECKED, first, tuple(others), on, reason, (), False)

    def _never_held(self, findings: Sequence[tuple[Holding, WeightFinding]]) -> Iterator[WeightFinding]:
        """Yield the parameters of golden of which no rank holds a row, those of all layers together."""
        if self._unread or any(each.kind is WeightFault.UNCHECKED for _, each in findings):
            return  # they may be in what could not be looked at
        told = {label for _, each in findings for label in each.labels}
        lost: dict[str, list[str]] = defaultdict(list)
        for number, unheld in self._coverage.unheld.items():
            name = self._names[number]
            if len(unheld) and unheld.all() and module_of(name) not in told:
                lost[template_of(name)].append(name)
        for names in lost.values():
            words = f"no rank holds a row of {fold_layers(names)}"
            yield WeightFinding(WeightFault.UNHELD, names[0], tuple(names[1:]), (), words, (), False)

    def _place(self, finding: WeightFinding) -> int:
        """Return where in golden's order a finding belongs."""
        places = (self._places[label] for label in finding.labels if label in self._places)
        return min(places, default=len(self._names))

    def _held(self, right: Sequence[Holding]) -> Iterator[HeldRows]:
        """Yield what ranks hold that is as it should be, folded over layers, then over ranks."""
        layers: dict[tuple[int, tuple[int, str], Signature], list[Holding]] = defaultdict(list)
        for each in right:
            layers[each.rank, each.template, each.signature].append(each)
        ranks: dict[tuple[str, str], list[int]] = defaultdict(list)
        for (rank, _, _), found in layers.items():
            name = fold_layers([each.parameter.name for each in found])
            ranks[name, told_rows(self._golden, found[0])].append(rank)
        for (name, words), on in ranks.items():
            yield HeldRows(name, tuple(on), words)


def _merge(findings: Sequence[tuple[Holding, WeightFinding]]) -> Iterator[WeightFinding]:
    """Yield findings, those that are the same on several ranks or in several layers as one."""
    by_rank: dict[object, list[tuple[Holding, WeightFinding]]] = defaultdict(list)
    for holding, each in findings:
        shape = tuple((run.template, run.shift) for run in holding.signature)
        by_rank[holding.model, each.parameter, each.kind, each.wrong, shape].append((holding, each))
    by_layer: dict[object, list[tuple[Holding, WeightFinding]]] = defaultdict(list)
    for found in by_rank.values():
        holding, first = found[0]
        merged = replace(first, ranks=tuple(sorted({each.rank for each, _ in found})))
        shape = tuple((run.template, run.shift) for run in holding.signature)
        alike = (holding.template, shape) if first.kind is not WeightFault.UNCHECKED else first.words
        by_layer[alike, merged.kind, merged.wrong, merged.ranks].append((holding, merged))
    for found in by_layer.values():
        _, first = found[0]
        labels = tuple(dict.fromkeys(label for _, each in found for label in each.labels))
        yield replace(first, others=tuple(each.parameter for _, each in found[1:]), labels=labels)
