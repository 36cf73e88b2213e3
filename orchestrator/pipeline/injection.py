"""What golden's values in the place of some labels changed at the end of the model."""

from __future__ import annotations

from collections.abc import Sequence

from aclcmp.orchestrator.compare.comparer import Comparer
from aclcmp.orchestrator.core.choices import is_vocabulary
from aclcmp.orchestrator.core.plan import Plan
from aclcmp.orchestrator.core.text import figure
from aclcmp.orchestrator.core.verdicts import WRONG, Judgement, LabelVerdict, Status, StatusGroup
from aclcmp.orchestrator.judge.judge import judge
from aclcmp.orchestrator.plan.planner import plan_run
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.shards import read_indices
from aclcmp.orchestrator.run.sources import world_size


def injection_note(golden: RunDir, injected: Sequence[str], judgement: Judgement, comparer: Comparer) -> str:
    """Say whether the last label agrees with golden's since the values of labels were replaced, and what it did before.

    Before is what the golden run's own actual side recorded, if it did.
    """
    names = ", ".join(injected)
    by_name = {label.key.label: label for label in judgement.labels}
    for name in injected:
        label = by_name.get(name)
        failed = [v.gap_reason for v in label.ranks if v.status is Status.FAILED] if label is not None else []
        if label is None or failed or not any(verdict.actual is not None for verdict in label.ranks):
            why = failed[0] if failed else "no module of the actual side has that label"
            return f"{name} was not injected: {why}"
    last = last_label(judgement)
    if last is None:
        return f"with golden's {names}: no label was compared, so nothing tells what it changed"
    end = "the final logits" if is_vocabulary(last.key.label) else f"the last label, {last.key.label},"
    if is_gap(last):
        return f"with golden's {names}: {end} was not compared on all ranks, so nothing tells what it changed"
    agree = last.status not in WRONG
    after = error_of(last)
    before = _error_before(golden, last, comparer)
    change = f"error {figure(after)}" if before is None else f"error {figure(before)} -> {figure(after)}"
    verb = (
        ("agree" if is_vocabulary(last.key.label) else "agrees") if agree else "still differ" + "s" * (end[-1] == ",")
    )
    return f"with golden's {names} {end} {verb} ({change})"


def is_gap(label: LabelVerdict) -> bool:
    """Tell whether a label was not compared on some rank, so that nothing tells whether it is right."""
    return label.status.group is StatusGroup.GAP


def last_label(judgement: Judgement) -> LabelVerdict | None:
    """Return the label at the model's end: the last logits, or else the last label that was compared; None for none."""
    compared = [label for label in judgement.labels if any(verdict.metrics is not None for verdict in label.ranks)]
    return next(
        (each for each in reversed(compared) if is_vocabulary(each.key.label)), compared[-1] if compared else None
    )


def error_of(label: LabelVerdict) -> float:
    """Return the largest relative L2 error of a label that was compared, over its ranks."""
    return max(verdict.metrics.rel_l2 for verdict in label.ranks if verdict.metrics is not None)


def _error_before(golden: RunDir, last: LabelVerdict, comparer: Comparer) -> float | None:
    """Return the error of the same label in the golden run; None where that has no actual side."""
    indices = read_indices(golden).of_whole_ranks().indices
    plan = plan_run(indices, world_size(indices, None))
    labels = tuple(label for label in plan.labels if label.key[1:] == last.key[1:])
    pairs = [pair for label in labels for pair in label.pairs]
    if not pairs:
        return None
    only = Plan(labels, {label.key: plan.levels[label.key] for label in labels}, (), 0, ())
    found = judge(only, comparer.compare_pairs(pairs, lambda *_: None), run_failed=False)
    errors = [error_of(label) for label in found.labels if any(verdict.metrics is not None for verdict in label.ranks)]
    return errors[-1] if errors else None
