"""Which labels a wrong weight explains, and which doubtful weights are wrong because their labels are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from aclcmp.orchestrator.core.text import of_ranks
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin
from aclcmp.orchestrator.core.weights import WeightFault, WeightFinding, WeightReport

_NOT_WRONG = (WeightFault.UNCHECKED, WeightFault.UNHELD)
"""What says nothing about the values that are computed with."""


def explained_labels(weights: WeightReport | None, names: Collection[str]) -> dict[str, WeightFinding]:
    """Return the names of labels that wrong weights explain: outputs of their modules, or of the modules around."""
    found: dict[str, WeightFinding] = {}
    for finding in weights.wrong if weights is not None else ():
        for name in _labels_of(finding, names):
            found.setdefault(name, finding)
    return found


def settle_doubts(weights: WeightReport | None, labels: Sequence[LabelVerdict]) -> WeightReport | None:
    """Return the report in which weights that may have been changed on purpose are wrong if their labels are."""
    if weights is None or all(each.wrong or each.kind in _NOT_WRONG for each in weights.findings):
        return weights
    names = {label.key.label for label in labels}
    own = {label.key.label for label in labels if any(v.origin is Origin.OWN and not v.excused for v in label.ranks)}
    findings = [
        each
        if each.wrong or each.kind in _NOT_WRONG or not own & _labels_of(each, names)
        else replace(each, wrong=True, by_labels=True)
        for each in weights.findings
    ]
    return replace(weights, findings=tuple(sorted(findings, key=lambda each: not each.wrong)))


def with_doubts(weights: WeightReport | None) -> WeightReport | None:
    """Return the report as it was before its labels were judged: what they settled is open again."""
    if weights is None:
        return None
    findings = (replace(each, wrong=each.wrong and not each.by_labels, by_labels=False) for each in weights.findings)
    return replace(weights, findings=tuple(sorted(findings, key=lambda each: not each.wrong)))


def words_on(finding: WeightFinding) -> str:
    """Return why a label is wrong that a weight explains."""
    return f"its weight {finding.parameter} is wrong ({of_ranks(finding.ranks)})"


def _labels_of(finding: WeightFinding, names: Collection[str]) -> set[str]:
    """Return which of these names a finding is about; where there is none of its modules, those next around them."""
    if own := {label for label in finding.labels if label in names}:
        return own
    return {around for label in finding.labels if (around := _next_around(label, names))}


def _next_around(name: str, names: Collection[str]) -> str:
    while name and name not in names:
        name = name.rpartition(".")[0]
    return name
