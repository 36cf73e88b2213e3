"""Propose rules between two runs that name their labels differently: by names, order, shapes, and values if known.

Labels that differ only in the numbers of their layers and experts are one form; forms are paired, and a pair is a rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from aclcmp.orchestrator.idmap.joins import JoinCandidate
from aclcmp.orchestrator.idmap.matching import BY_NAME, BY_ORDER, BY_SHAPE, FormMatch, match_forms
from aclcmp.orchestrator.idmap.similarity import SIMILARITY, CandidateLabel, Form, forms_of, relation_of
from aclcmp.orchestrator.idmap.value_evidence import (
    AgreementTrend,
    PairVerdict,
    ValueEvidence,
    evidence_of,
    value_reasons,
)
from aclcmp.orchestrator.plan.id_rules import MOST_STARS, IdMap, IdRule, JoinRule, stars

CERTAIN = 0.65
"""Rules with at least this score are used; those below are proposed for a person to check."""

_UNSURE = 0.75
"""Factor of a score where other labels have names that match as well, or where some shapes differ."""
_PROVED = 0.2
"""Factor of a score's distance to 1 where values prove the pair; then neither names nor shapes make it unsure."""
_AGAINST = 0.6
"""Factor of a score where values speak against the pair; less than CERTAIN, so that the rule is never used."""
_WORDS = {
    "equal": "equal shapes",
    "same elements": "shapes of as many elements",
    "a part": "shapes that differ by a factor in one dimension",
    "different": "different shapes",
}


Rule = TypeVar("Rule", IdRule, JoinRule)


@dataclass(frozen=True, slots=True)
class Proposal(Generic[Rule]):
    """Proposed rule, with its score from 0 to 1, the reasons in words, and the number of actual's labels it maps."""

    rule: Rule
    score: float
    reasons: tuple[str, ...]
    labels: int

    @property
    def certain(self) -> bool:
        """True if the rule is used without a check by a person."""
        return self.score >= CERTAIN


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Proposals, those without stars first, each kind in golden order; and the labels without a proposal."""

    same: int
    """Number of ids that both sides have: they need no rule."""
    proposals: tuple[Proposal[IdRule], ...]
    golden_only: tuple[str, ...]
    """Ids without a proposal."""
    actual_only: tuple[str, ...]
    joins: tuple[Proposal[JoinRule], ...] = ()
    """Proposals that join labels. Their rules come first: a pattern may match one of their labels, too."""

    @property
    def rules(self) -> tuple[IdRule | JoinRule, ...]:
        """Rules that are used: the certain ones."""
        joins = (proposal.rule for proposal in self.joins if proposal.certain)
        return *joins, *(proposal.rule for proposal in self.proposals if proposal.certain)


def propose_join(candidate: JoinCandidate, rule: JoinRule, agreeing: Sequence[bool]) -> Proposal[JoinRule]:
    """Return the proposal of a join that values prove; `agreeing` are its labels in golden order."""
    score = (1 - _PROVED * (1 - candidate.name)) * (_UNSURE if candidate.rivals else 1)
    reasons = [f"names {candidate.name:.0%} alike", f"values agree ({sum(agreeing)} of {len(agreeing)} labels)"]
    if candidate.rivals:
        reasons.append("others have the same values")
    return Proposal(rule, round(score, 2), tuple(reasons), len(candidate.numbers) * len(candidate.actual))


def suggest(
    golden: Sequence[CandidateLabel], actual: Sequence[CandidateLabel], joins: Sequence[Proposal[JoinRule]] = ()
) -> Suggestion:
    """Propose rules from actual to golden for one task's labels of each side; of each id the first label counts.

    `joins` are proposals that were proved: their labels are left to them.

    Values that agree prove a pair. A pair whose values mostly differ is doubtful, unless labels before it agree and
    hardly any after it: that is the pattern of a bug, which is what the runs are compared for.
    Layer numbers must agree: runs that count their layers from 1 and from 0 are not matched.
    The order in which the labels are given does not matter. Time and memory grow with the number of golden forms times
    that of actual ones. Raises UsageError where these are too many.
    """
    same = {label.data_id for label in golden} & {label.data_id for label in actual}
    for join in joins:
        golden, actual = _without_joined(golden, actual, join.rule)
    theirs, ours = forms_of(golden), forms_of(actual)
    fits = match_forms(theirs, ours)
    evidence = [evidence_of(theirs[fit.golden], ours[fit.actual]) for fit in fits]
    trend = AgreementTrend(evidence)
    proposals = [
        proposal
        for fit, pair in zip(fits, evidence, strict=True)
        if theirs[fit.golden].text != ours[fit.actual].text
        and (proposal := _proposal(theirs[fit.golden], ours[fit.actual], fit, pair, trend.verdict(pair)))
    ]
    kept_names = {pattern for join in joins for pattern in join.rule.actual}
    proposals = [proposal for proposal in proposals if proposal.rule.golden not in kept_names]
    proposals = _drop_conflicts(proposals, actual)
    ids = IdMap(proposal.rule for proposal in proposals)
    changed = sorted(data_id for data_id in same & {*_ids(actual)} if ids.golden_name_of(data_id) != data_id)
    proposals = [
        Proposal(IdRule(name, name), 1.0, ("same name, which a pattern would change",), 1) for name in changed
    ] + proposals
    ids = IdMap(proposal.rule for proposal in proposals)
    golden_ids, actual_ids = _ids(golden), _ids(actual)
    targets = {actual_id: ids.golden_name_of(actual_id) for actual_id in actual_ids}
    reached = set(targets.values())
    return Suggestion(
        len(same),
        tuple(proposals),
        tuple(data_id for data_id in golden_ids if data_id not in reached),
        tuple(data_id for data_id, target in targets.items() if target not in golden_ids),
        tuple(joins),
    )


def _without_joined(
    golden: Sequence[CandidateLabel], actual: Sequence[CandidateLabel], rule: JoinRule
) -> tuple[list[CandidateLabel], list[CandidateLabel]]:
    """Return the labels of both sides that a rule does not join."""
    theirs, ours = _ids(golden), _ids(actual)
    joined = [pair for pair in rule.names(theirs) if theirs.keys() >= {*pair[0]} and ours.keys() >= {*pair[1]}]
    goldens, actuals = ({name for pair in joined for name in pair[side]} for side in (0, 1))
    return (
        [label for label in golden if label.data_id not in goldens],
        [label for label in actual if label.data_id not in actuals],
    )


def _ids(side: Sequence[CandidateLabel]) -> dict[str, None]:
    return dict.fromkeys(label.data_id for label in sorted(side, key=lambda s: (s.order, s.data_id)))


def _drop_conflicts(proposals: list[Proposal[IdRule]], actual: Sequence[CandidateLabel]) -> list[Proposal[IdRule]]:
    """Sort proposals without stars first; drop the least sure ones until no two labels of actual get one id."""
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


def _proposal(
    golden: Form, actual: Form, fit: FormMatch, evidence: ValueEvidence, verdict: PairVerdict
) -> Proposal[IdRule] | None:
    """Return the rule for a pair of forms; None where no rule can express it."""
    if stars(golden.text) != stars(actual.text) or stars(golden.text) > MOST_STARS:
        return None
    common = [(golden.labels[n], label) for n, label in actual.labels.items() if n in golden.labels]
    relations = Counter(relation_of(one.shape, other.shape) for one, other in common)
    shape = sum(SIMILARITY[relation] * count for relation, count in relations.items()) / len(common)
    score = BY_NAME * fit.name + BY_SHAPE * shape + BY_ORDER * fit.in_order
    if verdict is PairVerdict.PROVED:
        score = 1 - _PROVED * (1 - score)
        unsure = fit.rivals == "values"
    else:
        unsure = bool(fit.rivals or relations["different"])
    score *= (_UNSURE if unsure else 1) * (_AGAINST if verdict is PairVerdict.AGAINST else 1)
    reasons = [
        f"names {fit.name:.0%} alike",
        *_shape_reasons(relations),
        "in order" if fit.in_order else "out of order",
    ]
    reasons += value_reasons(evidence)
    if fit.rivals == "values":
        reasons.append("others have the same values")
    elif fit.rivals:
        reasons.append("others fit as well by name")
    if len(common) < max(len(golden.labels), len(actual.labels)):
        reasons.append(f"{len(common)} labels of {len(golden.labels)} golden and {len(actual.labels)} actual")
    texts = (golden.text, actual.text) if len(common) > 1 else (common[0][0].data_id, common[0][1].data_id)
    return Proposal(IdRule(*texts), round(score, 2), tuple(reasons), len(common))


def _shape_reasons(relations: Counter[str]) -> list[str]:
    if len(relations) == 1:
        return [_WORDS[next(iter(relations))]]
    return [f"{count} times {_WORDS[relation]}" for relation, count in sorted(relations.items())]
