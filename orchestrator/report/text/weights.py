"""The lines on weights: what ranks hold of golden's, before all labels."""

from __future__ import annotations

from collections.abc import Iterable

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.text import count, of_ranks
from aclcmp.orchestrator.core.weights import WeightFault, WeightFinding
from aclcmp.orchestrator.terminal.cells import shorten

_MOST = 6
_LONGEST = 600


def weight_lines(report: Report) -> list[str]:
    """Return what is known of the weights, the worst first; [] where they were not looked at."""
    weights = report.judgement.weights
    if weights is None:
        return []
    on = f"on {count(len(weights.ranks), 'rank')}"
    if weights.known == weights.parameters and not weights.findings:
        return [f"weights: {count(weights.parameters, 'parameter')} {on} {_are(weights.parameters)} golden's"]
    known = f"{weights.known:,} of {count(weights.parameters, 'parameter')} {on} {_are(weights.known)} golden's"
    lines = [f"weights: {known}", *(f"  {finding_line(each)}" for each in weights.findings[:_MOST])]
    more = len(weights.findings) - _MOST
    return lines + ([f"  and {more:,} more: see report.json"] if more > 0 else [])


def finding_line(finding: WeightFinding) -> str:
    """Return a finding as one line."""
    others = f" (and {_likewise(finding.others)})" if finding.others else ""
    what = f"{finding.parameter}{others}"
    if finding.kind is WeightFault.UNHELD:
        return shorten(finding.words, _LONGEST, "...")
    if finding.kind is WeightFault.UNCHECKED:
        return shorten(f"not checked: {what}, {of_ranks(finding.ranks)}: {finding.words}", _LONGEST, "...")
    doubt = "" if finding.wrong else "not golden's, perhaps on purpose: "
    return shorten(f"{doubt}{of_ranks(finding.ranks)}: {what} {finding.words}", _LONGEST, "...")


def is_wrong(report: Report) -> bool:
    """Tell whether a weight is wrong."""
    return report.judgement.weights is not None and bool(report.judgement.weights.wrong)


def _likewise(names: Iterable[str]) -> str:
    return f"likewise {count(len(list(names)), 'other')}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
