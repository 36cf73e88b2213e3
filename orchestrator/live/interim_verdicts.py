"""Verdicts on the labels compared so far, task by task: plans and outcomes go in. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from aclcmp.orchestrator.core.diagnosis import TieQuestion
from aclcmp.orchestrator.core.evidence import Evidence, LabelEvidence, ReplicaVerdict
from aclcmp.orchestrator.core.floors import FloorSource, Profile
from aclcmp.orchestrator.core.plan import LabelPlan, Plan
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.stats import Outcomes, RowSums
from aclcmp.orchestrator.core.verdicts import WRONG, Judgement, LabelVerdict, Origin, Status
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.judge.collect_evidence import add_floors, collect_evidence
from aclcmp.orchestrator.judge.floor_profile import floors_from
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.measured_floors import floors_of
from aclcmp.orchestrator.judge.policy import Policy
from aclcmp.orchestrator.pipeline.resolve_layouts import ResolvedComparison
from aclcmp.orchestrator.pipeline.ties import add_ties, tie_questions
from aclcmp.orchestrator.plan.golden_order import golden_order

_MOST_KEPT_TASKS = 2
"""Finished tasks with something wrong that are kept and shown; of other finished tasks labels are only counted."""
MOST_KEPT = 100_000
"""Most (label, rank) of one task that are kept, some 150 MB. At this number the first half of the labels, up to the
first wrong one, is put away and only counted. While that makes no room, no more labels are taken."""


@dataclass(slots=True)
class _TaskVerdicts:
    labels: dict[LabelKey, LabelEvidence] = field(default_factory=dict)
    plans: dict[LabelKey, LabelPlan] = field(default_factory=dict)
    replicas: list[ReplicaVerdict] = field(default_factory=list)
    ties: dict[tuple[LabelKey, int], int] = field(default_factory=dict)
    asked: set[tuple[LabelKey, int]] = field(default_factory=set)
    judgement: Judgement | None = None
    """None if labels came since it was judged."""
    kept: int = 0
    """Number of (label, rank)."""


class InterimVerdicts:
    """Verdicts on what was compared so far, as the report would give them if nothing more came."""

    def __init__(self, policy: Policy, profile: Profile | None) -> None:
        self._policy = policy
        self._profile = profile
        self._tasks: dict[int, _TaskVerdicts] = {}
        self.compared = 0
        """Number of labels that were taken."""
        self.put_away: dict[Status, int] = {}
        """Number, by status, of labels that are not kept: of finished tasks, or to make room."""

    def add(self, done: ResolvedComparison, references: Outcomes) -> None:
        """Take labels that were planned together, and golden compared with its references."""
        evidence = collect_evidence(done.plan, done.outcomes, run_failed=False)
        floors = floors_of([(FloorSource.REPEAT, done.noise), (FloorSource.REFERENCE, references)])
        evidence = add_floors(evidence, floors)
        if self._profile is not None:
            evidence = add_floors(evidence, floors_from(self._profile, evidence))
        for label, plan in zip(evidence.labels, done.plan.labels, strict=True):
            if any((pair.key, pair.rank) not in done.outcomes for pair in plan.pairs):
                continue  # its follower is gone; the comparison at the end takes it
            task = self._task(label.key)
            if task.kept < MOST_KEPT:
                task.labels[label.key] = _slim(label)
                task.plans[label.key] = plan
                task.kept += len(label.ranks)
                self.compared += 1
        for replica in done.replicas:
            self._task(replica.key).replicas.append(replica)

    def withdraw(self, keys: Iterable[LabelKey]) -> None:
        """Forget labels that were planned too early."""
        for key in keys:
            task = self._tasks.get(key.task)
            if task is not None and (label := task.labels.pop(key, None)) is not None:
                task.plans.pop(key, None)
                task.kept -= len(label.ranks)
                task.replicas = [replica for replica in task.replicas if replica.key != key]
                task.judgement = None
                self.compared -= 1

    def judge(self, chains: Mapping[int, Sequence[Sequence[LabelKey]]]) -> list[TieQuestion]:
        """Judge tasks with new labels. `chains`: by task, the labels in the order of each rank.

        Return questions about ids that may be ties. After `answer` judge again.
        """
        questions: list[TieQuestion] = []
        for number, task in self._tasks.items():
            if task.judgement is not None or not task.labels:
                continue
            ordered = self._in_golden_order(task, chains.get(number, ()))
            evidence = Evidence(tuple(task.labels[key] for key in ordered), tuple(task.replicas))
            task.judgement = judge_evidence(add_ties(evidence, task.ties), self._policy)
            plan = Plan(tuple(task.plans[key] for key in ordered if key in task.plans), {}, (), 0, ())
            for question in tie_questions(plan, task.judgement):
                name = question.ids.key, question.ids.rank
                if name not in task.asked:
                    task.asked.add(name)
                    questions.append(question)
            if not questions and task.kept >= MOST_KEPT:
                self._make_room(task, ordered)
        return questions

    def answer(self, ties: Mapping[tuple[LabelKey, int], int]) -> None:
        """Take the number of ids of (label, rank) that are ties."""
        for (key, rank), count in ties.items():
            task = self._task(key)
            task.ties[key, rank] = count

    @property
    def tasks(self) -> list[int]:
        """Tasks with labels that came since they were judged."""
        return [number for number, task in self._tasks.items() if task.judgement is None]

    def first_own(self) -> tuple[LabelKey, tuple[int, ...]] | None:
        """Return the first label known so far with an error of its own that is not excused, and its ranks; or None."""
        for _, task in sorted(self._tasks.items()):
            for label in task.judgement.labels if task.judgement else ():
                own = [v.rank for v in label.ranks if v.status in WRONG and v.origin is Origin.OWN and not v.excused]
                if own:
                    return label.key, tuple(own)
        return None

    def close_tasks(self, before: int) -> None:
        """Put away tasks that no rank will return to: those before `before`."""
        over = [number for number, task in sorted(self._tasks.items()) if number < before and task.judgement]
        for number in over:
            labels = self._labels_of(number)
            wrong = [n for n in self._tasks if n < number and n in over]
            if any(label.status in WRONG for label in labels) and len(wrong) < _MOST_KEPT_TASKS:
                self._tasks[number].plans = {}
                continue
            self._put_away(labels)
            del self._tasks[number]

    def as_judgement(self) -> Judgement | None:
        """Return all that is shown as one judgement, labels in golden order; None before anything was judged."""
        tasks = [task.judgement for _, task in sorted(self._tasks.items()) if task.judgement is not None]
        if not tasks:
            return None
        labels = tuple(label for judgement in tasks for label in judgement.labels)
        return Judgement("", ExitCode.MATCH, None, {}, labels, tasks[0].coverage)

    def _make_room(self, task: _TaskVerdicts, ordered: Sequence[LabelKey]) -> None:
        """Put away the first half of a task, up to the first wrong label."""
        verdicts = {label.key: label for label in task.judgement.labels} if task.judgement else {}
        gone: list[LabelVerdict] = []
        for key in ordered[: len(ordered) // 2]:
            if verdicts[key].status in WRONG:
                break
            gone.append(verdicts[key])
            task.kept -= len(task.labels.pop(key).ranks)
            task.plans.pop(key, None)
        self._put_away(gone)

    def _put_away(self, labels: Iterable[LabelVerdict]) -> None:
        for label in labels:
            self.put_away[label.status] = self.put_away.get(label.status, 0) + 1

    def _labels_of(self, number: int) -> tuple[LabelVerdict, ...]:
        judgement = self._tasks[number].judgement
        return judgement.labels if judgement is not None else ()

    def _task(self, key: LabelKey) -> _TaskVerdicts:
        task = self._tasks.setdefault(key.task, _TaskVerdicts())
        task.judgement = None
        return task

    def _in_golden_order(self, task: _TaskVerdicts, chains: Sequence[Sequence[LabelKey]]) -> list[LabelKey]:
        """Return the task's labels in golden order by the order of the ranks, and otherwise in order of arrival."""
        came = {key: float(place) for place, key in enumerate(task.labels)}
        known = [[(key, came[key]) for key in chain if key in came] for chain in chains]
        order = golden_order([each for each in known if each])
        rest = sorted(came.keys() - set(order), key=lambda key: came[key])
        first = min((came[key] for key in order), default=0.0)
        return [*(key for key in rest if came[key] < first), *order, *(key for key in rest if came[key] >= first)]


def _slim(label: LabelEvidence) -> LabelEvidence:
    """Return evidence without sums by row: they are large, and no verdict here depends on them."""
    none = RowSums.empty()
    ranks = [
        each if each.stats is None else replace(each, stats=replace(each.stats, rows=none)) for each in label.ranks
    ]
    return replace(label, ranks=tuple(ranks))
