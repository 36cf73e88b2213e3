"""From a plan and what compares to the report: compare, resolve layouts, judge, diagnose."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.filesize import decimal

from aclcmp.orchestrator.compare.comparer import Comparer
from aclcmp.orchestrator.compare.result_cache import ResultCache
from aclcmp.orchestrator.compare.schedule import pair_bytes
from aclcmp.orchestrator.compare.summaries import error_bar
from aclcmp.orchestrator.core.diagnosis import NO_TIME, Looks, Suspect, TieQuestion, first_problem
from aclcmp.orchestrator.core.evidence import Evidence
from aclcmp.orchestrator.core.floors import FloorSource, Profile
from aclcmp.orchestrator.core.margins import pairs_of
from aclcmp.orchestrator.core.plan import Plan
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import has_failure
from aclcmp.orchestrator.core.stats import Basis, Outcomes
from aclcmp.orchestrator.core.tokens import texts_of
from aclcmp.orchestrator.core.verdicts import Judgement, RankVerdict, Status
from aclcmp.orchestrator.judge.collect_evidence import add_floors, collect_evidence
from aclcmp.orchestrator.judge.floor_profile import floors_from
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.margin_shares import share_margins
from aclcmp.orchestrator.judge.measured_floors import floors_of
from aclcmp.orchestrator.judge.other_tensors import notes_on_other_tensors
from aclcmp.orchestrator.judge.own_errors import OwnErrors, add_own_errors, own_errors
from aclcmp.orchestrator.judge.policy import Policy
from aclcmp.orchestrator.judge.token_verdicts import MeasuredNoise, collect_tokens
from aclcmp.orchestrator.pipeline.diagnose import (
    MOST_LOOKS,
    NO_DIAGNOSIS,
    NOT_WHOLE,
    DiagnosisResult,
    diagnose,
    suspicious,
)
from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions
from aclcmp.orchestrator.pipeline.load_and_plan import ComparedRun, ComparisonPlan
from aclcmp.orchestrator.pipeline.resolve_layouts import ResolvedComparison, compare_and_resolve
from aclcmp.orchestrator.pipeline.ties import add_ties, tie_questions
from aclcmp.orchestrator.plan.layouts.interpretations import PROVED
from aclcmp.orchestrator.run.sources import LabelSource
from aclcmp.orchestrator.terminal.screen import Screen

LOOK_SHARE = 0.3
"""Share of the time of comparing in which what does not match is looked at again."""
_MOST_NAMED = 8
"""Labels that are named of those without an own error, for each reason."""
_KNOWN_PER_SECOND = 4e9
"""Bytes that count as a second of comparing where they were compared while the ranks ran."""


def answer_two(
    golden: LabelSource,
    actual: LabelSource,
    run: ComparedRun,
    planned: ComparisonPlan,
    comparer: Comparer,
    screen: Screen,
    options: JudgingOptions,
    *,
    in_part: bool = True,
) -> Report:
    """Compare what was planned of two sides and judge it; the report gets the folder of `run`."""
    run = replace(run, failed=golden.failed or actual.failed)
    report = answer(run, planned, comparer, screen, options, in_part=in_part)
    notes = [f"{name}: {side.root}, {side.words}" for name, side in (("golden", golden), ("actual", actual))]
    if golden.order != "calls":
        kept = "the times of its files" if golden.order == "times" else "their names, for its files keep no other"
        notes.append(f"golden's labels are in the order of {kept}; what is own and what inherited rests on that")
    return replace(report, notes=(*notes, *golden.notes, *actual.notes, *report.notes), order=golden.order)


def answer(
    run: ComparedRun,
    planned: ComparisonPlan,
    comparer: Comparer,
    screen: Screen,
    options: JudgingOptions,
    *,
    clean: bool = False,
    in_part: bool = True,
) -> Report:
    """Compare what was planned, judge it, and diagnose what is wrong; `clean` removes the library's dumps that match.

    Ctrl-C ends the comparison: what is not compared by then is `failed`, and nothing is diagnosed. The answer is
    `failed` too where nothing was compared by then. There is no answer `in_part` if that is False: KeyboardInterrupt
    is raised.
    """
    comparison = _RunComparison(comparer, screen, run.known)
    resolved = compare_and_resolve(planned.plan, comparison.compare)
    noise = _measure_noise(planned, comparison)
    cut_off = comparison.interrupted and not resolved.outcomes
    evidence = _collect_evidence(replace(run, failed=run.failed or cut_off), resolved, noise, options.profile)
    own, not_measured = _measure_own_errors(planned, resolved, comparison)
    evidence = add_own_errors(evidence, own)
    evidence = replace(evidence, weights=planned.weights)
    shares = share_margins(planned.margins, comparison.compare(pairs_of(planned.margins)))
    evidence = replace(evidence, tokens=collect_tokens(resolved.plan, resolved.outcomes, noise, shares))
    judgement = _judge(resolved.plan, evidence, options.policy, comparison)
    diagnosis = _diagnose(run, resolved.plan, judgement, comparison, options.second_look)
    if not in_part and (comparison.interrupted or (diagnosis is NO_DIAGNOSIS and options.second_look != 0.0)):
        raise KeyboardInterrupt
    notes = [
        *_notes_on_run(run, planned, resolved.plan),
        *_notes_on_layouts(resolved.plan),
        *_notes_on_basis(resolved),
        *_notes_on_own_errors(planned, judgement, not_measured),
        *notes_on_other_tensors(judgement.labels),
        *_notes_on_second_look(judgement, diagnosis, comparison, options.second_look),
    ]
    if clean:
        notes.append(_remove_matching_dumps(run, judgement, comparison))
    return Report(
        run=run.record,
        run_id=run.directory.run_id,
        judgement=judgement,
        policy=options.policy.table(),
        notes=tuple(notes),
        patterns=diagnosis.patterns,
        hints=diagnosis.hints,
        looks=diagnosis.looks,
        token_texts=texts_of(judgement.tokens, planned.token_texts),
        price=planned.price,
    )


class _RunComparison:
    """Compares pairs until it is interrupted; takes what is known from while the ranks ran."""

    def __init__(self, comparer: Comparer, screen: Screen, known: ResultCache | None) -> None:
        self.comparer = comparer
        self.interrupted = False
        self.out_of_time = False
        """True if the second look left something out because its time was over."""
        self.problem = ""
        """Why something could not be looked at again."""
        self._seconds = 0.0
        """Time that comparing took."""
        self._screen = screen
        self._known = known

    def compare(self, pairs: Sequence[Pair]) -> Outcomes:
        """Return what came of each (label, rank), as far as it was compared."""
        if self.interrupted:  # Ctrl-C ends the comparison, not one round of it
            return {}
        names = {(pair.key, pair.rank) for pair in pairs}
        self._screen.add_pairs(len(names))
        outcomes, left = self._known.take(pairs) if self._known is not None else ({}, pairs)
        known = sum(map(pair_bytes, pairs)) - sum(map(pair_bytes, left)) if outcomes else 0
        self._seconds += known / _KNOWN_PER_SECOND
        self._screen.advance(len(outcomes), 0)
        start = time.monotonic()
        outcomes |= self.comparer.compare_pairs(left, self._screen.advance)
        self._seconds += time.monotonic() - start
        self.interrupted = len(outcomes) < len(names)
        return outcomes

    def count_ties(self, questions: Sequence[TieQuestion]) -> dict[tuple[LabelKey, int], int]:
        """Return how many ids of each question are ties; Ctrl-C ends the comparison here, too."""
        try:
            return self.comparer.count_ties(questions)
        except KeyboardInterrupt:
            self.interrupted = True
            return {}

    def look_again(self, suspects: Sequence[Suspect], seconds: float | None) -> Looks:
        """Look at what does not match, by default in a share of the time that comparing took."""
        self._screen.add_looks(len(suspects))
        limit = LOOK_SHARE * self._seconds if seconds is None else seconds
        looks = self.comparer.look_again(suspects, limit, self._screen.advance_looks)
        self.interrupted = len(looks) < len(suspects)
        self.out_of_time = NO_TIME in looks.values()
        self.problem = first_problem(looks)
        return looks


def _measure_noise(planned: ComparisonPlan, comparison: _RunComparison) -> list[MeasuredNoise]:
    """Compare golden with its repeats and references."""
    plans = (*planned.floors.items(), *planned.samples)
    return [(source, plan, comparison.compare(plan.pairs)) for source, plan in plans]


def _measure_own_errors(
    planned: ComparisonPlan, resolved: ResolvedComparison, comparison: _RunComparison
) -> tuple[OwnErrors, dict[str, str]]:
    """Return the errors of what was computed from golden's values, and labels that have none, each with the reason."""
    if planned.own is None:
        return {}, {}
    same = planned.own.labels is planned.plan.labels  # a golden run without an actual side: compared already
    measured = resolved if same else compare_and_resolve(planned.own, comparison.compare)
    evidence = collect_evidence(measured.plan, measured.outcomes, run_failed=False)
    reasons = {label.key.label: each.gap_reason for label in evidence.labels for each in label.ranks if each.gap}
    return own_errors(evidence), reasons


def _notes_on_own_errors(planned: ComparisonPlan, judgement: Judgement, reasons: Mapping[str, str]) -> Iterator[str]:
    """Say of how many labels the own error was measured, and of which it was not, and why."""
    if planned.own is None:
        return
    verdicts = [(label.key.label, verdict) for label in judgement.labels for verdict in label.ranks]
    left = dict.fromkeys(name for name, verdict in verdicts if verdict.own is None)
    measured = sum(verdict.own is not None for _, verdict in verdicts)
    yield f"own errors measured: {measured:,} of {len(verdicts):,}, each label computed from golden's values"
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name in left:
        by_reason[reasons.get(name, "the run on golden's values has no such label")].append(name)
    for reason, names in by_reason.items():
        shown = ", ".join(names[:_MOST_NAMED]) + f" and {len(names) - _MOST_NAMED:,} more" * (len(names) > _MOST_NAMED)
        yield f"own errors not measured, so judged by what comes before: {shown} ({reason})"


def _collect_evidence(
    run: ComparedRun,
    resolved: ResolvedComparison,
    noise: Sequence[MeasuredNoise],
    profile: Profile | None,
) -> Evidence:
    """Golden replicas, which are compared already, count as repeats."""
    failed = run.failed or has_failure(run.record)
    evidence = collect_evidence(resolved.plan, resolved.outcomes, run_failed=failed, replicas=resolved.replicas)
    measured = [(FloorSource.REPEAT, resolved.noise), *((source, outcomes) for source, _, outcomes in noise)]
    evidence = add_floors(evidence, floors_of(measured))
    return evidence if profile is None else add_floors(evidence, floors_from(profile, evidence))


def _judge(plan: Plan, evidence: Evidence, policy: Policy, comparison: _RunComparison) -> Judgement:
    """Judge the evidence, and again where ids that diverged may be ties."""
    judgement = judge_evidence(evidence, policy)
    questions = tie_questions(plan, judgement)
    if not questions:
        return judgement
    return judge_evidence(add_ties(evidence, comparison.count_ties(questions)), policy)


def _diagnose(
    run: ComparedRun, plan: Plan, judgement: Judgement, comparison: _RunComparison, seconds: float | None
) -> DiagnosisResult:
    if comparison.interrupted or seconds == 0.0:
        return NO_DIAGNOSIS
    return diagnose(
        plan,
        judgement,
        comparison.compare,
        lambda suspects: comparison.look_again(suspects, seconds),
        run.record.hosts if run.record else {},
        most_looks=sys.maxsize if seconds == math.inf else MOST_LOOKS,
    )


def _notes_on_run(run: ComparedRun, planned: ComparisonPlan, plan: Plan) -> Iterator[str]:
    if run.record is not None and run.record.stopped:
        yield run.record.stopped
    yield from plan.notes
    for floor in planned.floors.values():
        yield from floor.notes


def _notes_on_layouts(plan: Plan) -> Iterator[str]:
    """Say of how many labels the layout was inferred or proved, with an example."""
    for end, how in ((", inferred", "inferred from the shapes of all ranks"), (PROVED, "proved on the values")):
        layouts = {pair.key.label: pair.layout for pair in plan.pairs if pair.layout.endswith(end)}
        if layouts:
            name, layout = next(iter(layouts.items()))
            count = f"{len(layouts):,} label{'s' * (len(layouts) > 1)}"
            yield f"layout {how} for {count}, e.g. {name}: {layout.removesuffix(end)}"


def _notes_on_basis(resolved: ResolvedComparison) -> Iterator[str]:
    """Say how many pairs were compared by summaries, and how many not at all."""
    bases = Counter(outcome.basis for outcome in resolved.outcomes.values() if not isinstance(outcome, str))
    for basis, what in ((Basis.FINGERPRINT, "fingerprints"), (Basis.ROW_FINGERPRINT, "fingerprints of rows")):
        if estimated := bases[basis]:
            bar = error_bar(basis) or 0.0
            yield f"compared by {what}: {estimated:,}; their relative L2 is an estimate, ±{bar:.0%} (2 σ)"
    if bounded := bases[Basis.NORMS]:
        yield f"compared by moments and norms: {bounded:,}; their relative L2 is at least what is told"
    missing = resolved.plan.comparable - len(resolved.outcomes)
    if missing > 0:
        yield f"interrupted: {missing:,} pairs were not compared"


def _notes_on_second_look(
    judgement: Judgement, diagnosis: DiagnosisResult, comparison: _RunComparison, seconds: float | None
) -> Iterator[str]:
    """Say how many pairs that do not match were not looked at again, and why. A sum is one pair."""
    names = {(label.key, (*verdict.summed, verdict.rank)[0]) for label, verdict in suspicious(judgement.labels)}
    looked = len(names & diagnosis.looks.keys())
    if looked == len(names):
        return
    if seconds == 0.0:
        why = "--second-look none"
    elif comparison.interrupted or diagnosis is NO_DIAGNOSIS:
        why = "interrupted"
    elif comparison.out_of_time:
        why = f"limit: {LOOK_SHARE:.0%} of the time that comparing took" if seconds is None else f"limit: {seconds:g} s"
    else:
        most = f"at most {MOST_LOOKS} are" if len(names) > MOST_LOOKS and seconds != math.inf else ""
        why = "; ".join(filter(None, (most, comparison.problem))) or NOT_WHOLE
    best = ", the most telling" * (looked > 0)
    yield (
        f"second look: {looked:,} of {len(names):,} pairs that do not match{best}; not looked at: "
        f"{len(names) - looked:,} ({why}; `aclcmp explain RUN LABEL` looks at one label)"
    )


def _remove_matching_dumps(run: ComparedRun, judgement: Judgement, comparison: _RunComparison) -> str:
    """Remove the accelerated library's files that match, on the nodes where they are; return a sentence on it."""
    removed, nbytes = comparison.comparer.remove_dumps(_matching_dumps(judgement), run.directory.dumps)
    return f"removed {removed:,} dumped files that match ({decimal(nbytes)})"


def _matching_dumps(judgement: Judgement) -> dict[int, list[Path]]:
    """Return by rank the accelerated library's files that match wherever they are compared."""
    dumped = [
        (verdict, verdict.actual.path)
        for label in judgement.labels
        for verdict in label.ranks
        if label.level.low and verdict.actual is not None
    ]
    wrong = {path for verdict, path in dumped if not _matches_by_values(verdict)}
    matching: dict[int, dict[Path, None]] = defaultdict(dict)
    for verdict, path in dumped:
        if path not in wrong:
            matching[verdict.rank][Path(path)] = None
    return {rank: list(paths) for rank, paths in matching.items()}


def _matches_by_values(verdict: RankVerdict) -> bool:
    by_values = verdict.stats is not None and (verdict.stats.basis is Basis.VALUES or verdict.bitwise)
    return verdict.status is Status.MATCH and by_values
