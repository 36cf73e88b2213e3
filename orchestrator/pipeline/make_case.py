"""From a report and a label to a case: the worst rows of one rank, and how they were computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.case.checkpoint import Checkpoint, nbytes_of, read_rows
from aclcmp.orchestrator.case.computation import Computation, Target, find_computation
from aclcmp.orchestrator.case.folder import Case, as_code
from aclcmp.orchestrator.case.formulas import embedding
from aclcmp.orchestrator.case.label_rows import LabelRows, RowName, StoredTensor
from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.compare.local_comparer import LocalComparer
from aclcmp.orchestrator.core.metrics import metrics_of
from aclcmp.orchestrator.core.plan import LabelPlan
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.stats import Outcomes, PairStats
from aclcmp.orchestrator.core.text import figure, fold_ranks, of_ranks
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, RankVerdict
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.judge.dtype_limits import RELATIVE, narrower, table_name
from aclcmp.orchestrator.pipeline.plan_of_report import is_on_golden_values, plan_of_report, settle_as_in_report
from aclcmp.orchestrator.pipeline.resolve_layouts import compare_and_resolve
from aclcmp.orchestrator.pipeline.worst_rows import WorstRows, find_worst_rows, metrics_with_memory
from aclcmp.orchestrator.report.text.explain import choose_labels
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.terminal.screen import Screen

_NEAR = 16
"""Labels before one that may be its inputs."""


@dataclass(frozen=True, slots=True)
class Wish:
    """The label, rank and rows that a case is to be of, and how large it may be."""

    label: str
    task: int | None = None
    rank: int | None = None
    rows: int = 1
    model: Path | None = None
    most_bytes: int = 64 << 20
    """Most bytes of its tensors."""


def make_case(run: RunDir, report: Report, wish: Wish, screen: Screen) -> Case:
    """Make the case of a label. Raises UsageError where there is none to make, and AclcmpError for damaged files."""
    if report.run is not None and report.run.inject:
        raise UsageError(
            f"{run.root} was run with --inject, behind which inputs are golden's; give {report.run.golden}"
        )
    label, verdict = _choose(report, wish)
    with TemporaryDirectory(prefix="aclcmp-") as scratch:
        planned = plan_of_report(run, report, Path(scratch), screen)
        own = planned.own if verdict.own is not None else None
        on_golden = is_on_golden_values(run, report) and (planned.own is None or own is not None)
        plan = own or planned.plan
        near = _near(plan.labels, label.key)
        if own is None:
            verdicts = {each.key: each for each in report.judgement.labels}
            near = [settle_as_in_report(each, verdicts[each.key]) for each in near if each.key in verdicts]
        load_library()
        comparer = LocalComparer()

        def compare(pairs: Sequence[Pair]) -> Outcomes:
            return comparer.compare_pairs(pairs, lambda pairs, nbytes: None)

        resolved = compare_and_resolve(replace(plan, labels=tuple(near)), compare)
        summed = next(each for each in resolved.plan.labels if each.key == label.key)
        verdict = next(each for each in label.ranks if each.rank == _rank_of_sum(summed, verdict.rank))
        stats = resolved.outcomes.get((label.key, verdict.rank))
        if not isinstance(stats, PairStats):
            raise UsageError(f"{label.key.label} cannot be read on rank {verdict.rank}: {stats or 'it is not here'}")
        maker = _Maker(resolved.plan.labels, label.key, verdict, on_golden=on_golden)
        metrics = metrics_of(stats)
        if metrics.worst_row > maker.reported:
            metrics = metrics_with_memory(plan, label.key, verdict.rank, stats, compare)
        worst = find_worst_rows(maker.label, verdict.rank, stats, metrics, wish.rows)
        return maker.make(worst, wish, report)


def _choose(report: Report, wish: Wish) -> tuple[LabelVerdict, RankVerdict]:
    """Return the worst call of a label, and its worst rank or the one that is asked for. Raises UsageError."""
    labels = choose_labels(report, wish.label, wish.task)
    names = {each.key.label for each in labels}
    if len(names) > 1:
        raise UsageError(f"{wish.label} means {len(names)} labels: {', '.join(sorted(names))}; a case is of one")
    found = [(label, each) for label in labels for each in label.ranks if wish.rank in (None, each.rank)]
    if not found:
        ranks = {each.rank for label in labels for each in label.ranks}
        raise UsageError(f"{wish.label} is not on rank {wish.rank}, but on {of_ranks(ranks)}")
    compared = [(label, each) for label, each in found if each.stats is not None]
    if not compared:
        raise UsageError(f"{wish.label} was not compared: {found[0][1].gap_reason or found[0][1].reason}")
    return max(compared, key=lambda each: (each[1].origin is Origin.OWN, each[1].margin or 0.0, -each[1].rank))


def _near(labels: Sequence[LabelPlan], key: LabelKey) -> list[LabelPlan]:
    """Return a label, and those that may be its inputs, in golden order. Raises UsageError where it is not there."""
    same = [each for each in labels if (each.key.task, each.key.occurrence) == (key.task, key.occurrence)]
    places = [place for place, each in enumerate(same) if each.key == key]
    if not places:
        raise UsageError(f"the tensors of {key.label} are not on this host")
    kept = range(max(places[0] - _NEAR, 0), places[0] + 1)
    inputs = {name for each in same[places[0]].sides.values() if each.golden for name in each.golden.facts.inputs}
    return [
        each
        for place, each in enumerate(same)
        if place in kept or each.key.label in inputs or _is_input(each.key.label, key.label)
    ]


def _rank_of_sum(plan: LabelPlan, rank: int) -> int:
    """Return the rank on which the sum is compared to which a rank adds its part; the rank itself if there is none."""
    if any(pair.rank == rank for pair in plan.pairs):
        return rank
    sums = (
        pair.rank for pair in plan.pairs if any(each.rank == rank for each in (*pair.more_golden, *pair.more_actual))
    )
    return next(sums, rank)


def _is_input(name: str, of: str) -> bool:
    return name == f"{of}.input" or name.startswith(f"{of}.input.")


class _Maker:
    """A label and those near it, read for its case."""

    def __init__(self, plans: Sequence[LabelPlan], key: LabelKey, verdict: RankVerdict, *, on_golden: bool) -> None:
        self._key, self._verdict, self._on_golden = key, verdict, on_golden
        self._plan = next(each for each in plans if each.key == key)
        told = {name for each in self._plan.sides.values() if each.golden for name in each.golden.facts.inputs}
        self._recorded: list[LabelRows] = []
        self._before: list[LabelRows] = []
        try:
            self.label = LabelRows(self._plan)
        except ValueError as error:
            raise UsageError(f"{key.label} makes no case: {error}") from None
        for each in reversed(plans[: plans.index(self._plan)]):
            try:
                rows = LabelRows(each) if each.pairs else None
            except ValueError:
                continue
            if rows is not None:
                is_recorded = each.key.label in told or _is_input(each.key.label, key.label)
                (self._recorded if is_recorded else self._before).append(rows)
        self._recorded.reverse()

    @property
    def reported(self) -> float:
        """The error of the worst row, as the report says."""
        own, metrics = self._verdict.own, self._verdict.metrics
        if self._on_golden and own is not None:
            return own.worst_row
        return metrics.worst_row if metrics is not None else math.nan

    def make(self, worst: WorstRows, wish: Wish, report: Report) -> Case:
        """Make the case of some rows."""
        label, rank, rows = self.label, self._verdict.rank, worst.rows
        columns = label.columns(rank)
        checkpoint = Checkpoint(wish.model) if wish.model is not None else None
        parameters = {} if checkpoint is None else checkpoint.parameters(self._key.label)
        eps = () if checkpoint is None else checkpoint.eps
        heads = None if checkpoint is None else checkpoint.heads
        how = find_computation(Target(label, rows, columns, parameters, eps, heads), self._recorded, self._before)
        names = label.names(rows)
        context = list(how.names or (names if how.formula is not None else label.names_up_to(rows)) or names)
        tensors: dict[str, StoredTensor] = {}
        for side in ("golden", "actual"):
            output = label.read(side, rows, columns, rank)
            if output is None:
                raise UsageError(f"a part of {self._key.label} is on no rank")
            tensors[f"{side}.output"] = output
        for side in ("golden", "actual"):
            tensors |= self._inputs(side, how, context)
        held, left_out = dict(how.parameters), ""
        if how.formula is None:
            small = {name: each for name, each in parameters.items() if nbytes_of(each) <= wish.most_bytes}
            held = {name: read_rows(each) for name, each in small.items()}
            left_out = " and ".join(parameters.keys() - small.keys())
        tensors |= {f"parameter.{name}": each for name, each in held.items()}
        dtype = DTYPES[narrower(tensors["golden.output"].dtype, tensors["actual.output"].dtype)]
        return Case(
            self._key.label,
            rank,
            self._statements(report),
            [label.words(row) for row in rows],
            worst.sizes,
            self.reported,
            0.0 if dtype.eps is None else RELATIVE[table_name(dtype.name)][0],
            how.formula,
            tensors,
            [context.index(name) for name in names],
            self._notes(how, wish, checkpoint, left_out),
        )

    def _inputs(self, side: str, how: Computation, names: Sequence[RowName]) -> dict[str, StoredTensor]:
        """Return the inputs of a side by their names in the case; none where one is not there."""
        found = {}
        from_side = "golden" if self._on_golden else side
        for number, (each, columns) in enumerate(zip_longest(how.inputs, how.columns)):
            tensor = each.read_by_name(from_side, names, columns, self._verdict.rank)
            if tensor is None:
                return {}
            found[f"{side}.input.{number}"] = tensor
        return found

    def _statements(self, report: Report) -> list[str]:
        """Return what the report says of the label on the rank, without names of hosts."""
        verdict = self._verdict
        origin = f" ({verdict.origin.value})" if verdict.origin else ""
        lines = [f"task {self._key.task}: {verdict.status.value}{origin}", verdict.reason]
        if verdict.own is not None:
            error, row = figure(verdict.own.rel_l2), figure(verdict.own.worst_row)
            lines.append(f"own error, from golden's values: relative L2 {error}, worst row {row}")
        hints = [each for each in report.hints if each.key == self._key and verdict.rank in each.ranks]
        return [*filter(None, lines), *(f"looks like: {each.words}" for each in hints)]

    def _notes(self, how: Computation, wish: Wish, checkpoint: Checkpoint | None, left_out: str) -> list[str]:
        """Return sentences on where the inputs and parameters are from, and what is missing."""
        names = ", ".join(as_code(each.plan.key.label) for each in how.inputs)
        if how.formula is embedding:
            notes = ["Input: the token ids."]
        elif not names:
            notes = ["Its input is not known: record the run again with `--inputs`."]
        elif how.recorded:
            notes = [f"Input: {names}, recorded as such."]
        else:
            notes = [f"Input: {names}, as golden's values prove."]
        if how.formula is None:
            notes.append("How it is computed is not known: put the call of the module into `compute` of case.py.")
            if checkpoint is None:
                notes.append("If it has weights, give the folder of golden's checkpoint: `--model DIR`.")
            elif checkpoint.is_quantised(self._key.label):
                notes.append("Its weight is quantised in the checkpoint, of which no case is computed again.")
            elif left_out:
                notes.append(f"Its {left_out} in the checkpoint is larger than --max-size and left out.")
        if self._on_golden:
            notes.append("The actual side was computed from golden's input (`--local`).")
        columns = self.label.columns(self._verdict.rank)
        if len(columns) < self.label.features:
            notes.append(f"Rank {self._verdict.rank} holds features {fold_ranks(columns)} of {self.label.features}.")
        return notes
