"""Propose rules between two runs that name their labels differently, by names, order and shapes.

Labels that differ only in the numbers of their layers and experts are one form; forms are paired, and a pair is a rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.plan.likeness import (
    LIKENESS,
    Form,
    Matrix,
    Seen,
    forms_of,
    name_likeness,
    relation_of,
    shape_likeness,
)
from aclcmp.orchestrator.plan.mapping import MOST_STARS, IdMap, Rule, stars

CERTAIN = 0.65
"""A rule with at least this score is proposed to be followed, one below to be looked at."""

_BY_NAME, _BY_SHAPE, _BY_ORDER = 0.55, 0.25, 0.2
_ALIKE = 0.5
"""Names that share less, by weight of words, pair by their order only."""
_TIE = 0.02
_UNSURE = 0.75
"""What is left of a score where other labels would fit as well by name, or not all shapes fit."""
_MOST_CELLS = 1 << 24


@dataclass(frozen=True, slots=True)
class Proposal:
    """A rule, how sure it is from 0 to 1, why, in words, and how many labels of actual it is about."""

    rule: Rule
    score: float
    reasons: tuple[str, ...]
    labels: int

    @property
    def certain(self) -> bool:
        """Whether it is to be followed without a look."""
        return self.score >= CERTAIN


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What is proposed, rules without stars first, each kind in golden order; and what is left."""

    same: int
    """How many ids both sides have: they need no rule."""
    proposals: tuple[Proposal, ...]
    golden_only: tuple[str, ...]
    """Ids that nothing is proposed for."""
    actual_only: tuple[str, ...]

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules to follow: the certain ones."""
        return tuple(proposal.rule for proposal in self.proposals if proposal.certain)


def suggest(golden: Sequence[Seen], actual: Sequence[Seen]) -> Suggestion:
    """Propose rules from actual to golden for one task's labels of each side; of one id the first label counts.

    Layer numbers have to agree: a run that counts its layers from 1 where the other counts from 0 is not recognised.
    The same labels give the same proposal, in whatever order they are given. Takes time and memory as the number of
    golden forms times that of actual ones. Raises UsageError where these are too many.
    """
    theirs, ours = forms_of(golden), forms_of(actual)
    if len(theirs) * len(ours) > _MOST_CELLS:
        raise UsageError(
            f"{len(theirs)} golden and {len(ours)} actual ids that differ in more than layer numbers are too many to "
            "propose rules between; write rules by hand, with stars"
        )
    same = {seen.data_id for seen in golden} & {seen.data_id for seen in actual}
    pairing = _Pairing(theirs, ours)
    pairs = pairing.solve()
    proposals = [
        proposal
        for i, j in sorted(pairs.items())
        if theirs[i].text != ours[j].text and (proposal := pairing.proposal(i, j))
    ]
    proposals = _that_hold(proposals, actual)
    paired = IdMap(proposal.rule for proposal in proposals)
    caught = sorted(data_id for data_id in same if paired.golden_name_of(data_id) != data_id)
    proposals = [
        Proposal(Rule(name, name), 1.0, ("same name, which a pattern would change",), 1) for name in caught
    ] + proposals
    paired = IdMap(proposal.rule for proposal in proposals)
    golden_ids, actual_ids = _ids(golden), _ids(actual)
    targets = {actual_id: paired.golden_name_of(actual_id) for actual_id in actual_ids}
    reached = set(targets.values())
    return Suggestion(
        len(same),
        tuple(proposals),
        tuple(data_id for data_id in golden_ids if data_id not in reached),
        tuple(data_id for data_id, target in targets.items() if target not in golden_ids),
    )


def _ids(side: Sequence[Seen]) -> dict[str, None]:
    return dict.fromkeys(seen.data_id for seen in sorted(side, key=lambda s: (s.order, s.data_id)))


def _that_hold(proposals: list[Proposal], actual: Sequence[Seen]) -> list[Proposal]:
    """Put those without stars first, then leave out, the least sure first, what gives two labels of actual one id."""
    kept = sorted(proposals, key=lambda p: stars(p.rule.actual or "") > 0)
    while kept:
        taken: dict[str | None, str] = {}
        rules = IdMap(proposal.rule for proposal in kept)
        clash = [
            data_id for data_id in _ids(actual) if taken.setdefault(rules.golden_name_of(data_id), data_id) != data_id
        ]
        if not clash:
            break
        followed = [rule for name in (clash[0], taken[rules.golden_name_of(clash[0])]) if (rule := rules.rule_of(name))]
        kept.remove(min((p for p in kept if p.rule in followed), key=lambda p: p.score))
    return kept


class _Pairing:
    """Which form of golden goes with which of actual; golden's are rows, actual's columns, both in their order."""

    def __init__(self, golden: list[Form], actual: list[Form]) -> None:
        self._golden, self._actual = golden, actual
        self._shape = shape_likeness(golden, actual)
        self._name = name_likeness(golden, actual) * (self._shape >= 0)
        self._pairs: dict[int, int] = {}
        self._in_order: set[tuple[int, int]] = set()
        self._unsure: set[tuple[int, int]] = set()

    def solve(self) -> dict[int, int]:
        """Pair what is named alike beyond doubt, then what the order between those decides, then the rest by name."""
        columns = {form.text: j for j, form in enumerate(self._actual)}
        self._take({i: columns[form.text] for i, form in enumerate(self._golden) if form.text in columns})
        while self._take(self._mutual(strict=True)):
            pass
        anchors = self._chain(self._pairs_as_matrix())
        self._take(self._between(anchors), unsure=True)
        while self._take(self._mutual(strict=False), unsure=True):
            pass
        self._in_order = set(self._chain(self._pairs_as_matrix()))
        return self._pairs

    def _take(self, pairs: dict[int, int], *, unsure: bool = False) -> bool:
        if unsure:
            free = self._free()
            for i, j in pairs.items():
                others = np.concatenate([np.delete(free[i], j), np.delete(free[:, j], i)])
                if others.size and others.max() >= free[i, j] - _TIE and free[i, j] > 0:
                    self._unsure.add((i, j))
        self._pairs |= pairs
        return bool(pairs)

    def _free(self) -> Matrix:
        """The likeness of names among what is not paired yet, zero elsewhere."""
        free = self._name.copy()
        free[list(self._pairs)] = 0
        free[:, list(self._pairs.values())] = 0
        return free

    def _mutual(self, *, strict: bool) -> dict[int, int]:
        """Return pairs of which each is the best for the other by name; `strict`: and no other comes near."""
        free = self._free()
        if not free.size:
            return {}
        rows, columns = free.argmax(axis=1), free.argmax(axis=0)
        found = {}
        for i, j in enumerate(rows.tolist()):
            if free[i, j] < _ALIKE or columns[j] != i:
                continue
            near = (free[i] >= free[i, j] - _TIE).sum() + (free[:, j] >= free[i, j] - _TIE).sum() > 2
            if not (strict and near):
                found[i] = j
        return found

    def _pairs_as_matrix(self) -> Matrix:
        weights = np.zeros_like(self._name)
        for i, j in self._pairs.items():
            weights[i, j] = max(self._name[i, j], 0.1)
        return weights

    def _between(self, anchors: list[tuple[int, int]]) -> dict[int, int]:
        """Pair what lies between the same anchors on both sides, in its order, by names and shapes."""
        before_row, before_column = (np.zeros(len(side), int) for side in (self._golden, self._actual))
        for i, j in anchors:
            before_row[i:] += 1
            before_column[j:] += 1
        free = (self._shape > 0) & (before_row[:, None] == before_column[None, :])
        free[list(self._pairs)] = False
        free[:, list(self._pairs.values())] = False
        weights = (_BY_NAME * self._name + _BY_SHAPE * self._shape.clip(0)) * free
        return dict(self._chain(weights))

    @staticmethod
    def _chain(weights: Matrix) -> list[tuple[int, int]]:
        """Return the heaviest sequence of cells, each below and to the right of the one before."""
        rows, columns = weights.shape
        best = np.zeros((rows + 1, columns + 1))
        for i in range(rows):
            best[i + 1, 1:] = np.maximum.accumulate(np.maximum(best[i, 1:], best[i, :-1] + weights[i]))
        chain = []
        i, j = rows, columns
        while i and j:
            if best[i, j] == best[i - 1, j]:
                i -= 1
            elif best[i, j] == best[i, j - 1]:
                j -= 1
            else:
                i, j = i - 1, j - 1
                chain.append((i, j))
        return chain[::-1]

    def proposal(self, i: int, j: int) -> Proposal | None:
        """Return the pair as a rule; None where it cannot be written as one."""
        golden, actual = self._golden[i], self._actual[j]
        if stars(golden.text) != stars(actual.text) or stars(golden.text) > MOST_STARS:
            return None
        common = [(golden.labels[n], seen) for n, seen in actual.labels.items() if n in golden.labels]
        relations = Counter(relation_of(one.shape, other.shape) for one, other in common)
        shape = sum(LIKENESS[relation] * count for relation, count in relations.items()) / len(common)
        name, in_order = float(self._name[i, j]), (i, j) in self._in_order
        unsure = (i, j) in self._unsure
        score = _BY_NAME * name + _BY_SHAPE * shape + _BY_ORDER * in_order
        score *= _UNSURE if unsure or relations["different"] else 1
        reasons = [f"names {name:.0%} alike", *_in_words(relations), "in order" if in_order else "out of order"]
        if unsure:
            reasons.append("others fit as well by name")
        if len(common) < max(len(golden.labels), len(actual.labels)):
            reasons.append(f"{len(common)} labels of {len(golden.labels)} golden and {len(actual.labels)} actual")
        texts = (golden.text, actual.text) if len(common) > 1 else (common[0][0].data_id, common[0][1].data_id)
        return Proposal(Rule(*texts), round(score, 2), tuple(reasons), len(common))


_WORDS = {
    "equal": "equal shapes",
    "same elements": "shapes of as many elements",
    "a part": "shapes that differ by a factor in one dimension",
    "different": "different shapes",
}


def _in_words(relations: Counter[str]) -> list[str]:
    if len(relations) == 1:
        return [_WORDS[next(iter(relations))]]
    return [f"{count} times {_WORDS[relation]}" for relation, count in sorted(relations.items())]
