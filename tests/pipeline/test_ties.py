"""Which ids are asked about, and what a tie means for the verdict."""

from dataclasses import replace

from aclcmp.orchestrator.core.evidence import Evidence
from aclcmp.orchestrator.core.levels import level_of
from aclcmp.orchestrator.core.plan import LabelPlan, Plan, SideFacts, Sides
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.core.verdicts import Judgement, Origin, Status
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.judge.collect_evidence import collect_evidence
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.pipeline.ties import add_ties, tie_questions
from tests.judge.test_judge import X, stats

IDS = (X[:, 0] * 100).astype("int64")
WRONG_IDS = IDS.copy()
WRONG_IDS[3] += 1


def made(*, scores_before: bool = True, named: str = "") -> tuple[Plan, Evidence]:
    """Scores of shape (8, 16), ids of shape (8,) of which one differs, and a label after them that is wrong."""
    facts = SideFacts("f.h5", "x", (), "cpu", "m.py:1", 0, 0.0, inputs=(named,) if named else ())
    kinds = {"logits": ("float32", X.shape), "ids": ("int64", IDS.shape), "next": ("float32", X.shape)}
    order = ["logits", "ids", "next"] if scores_before else ["ids", "logits", "next"]
    labels = []
    for name in order:
        dtype, shape = kinds[name]
        source, region = Source("f.h5", 0, dtype, shape), Region.whole(shape)
        key = LabelKey(0, name, 0)
        pair = Pair(key, 0, source, region, source, region, shape, region, "")
        labels.append(LabelPlan(key, {0: Sides(facts, facts)}, (pair,)))
    plan = Plan(tuple(labels), {each.key: level_of(each.key.label, "", "") for each in labels}, (), 0, ())
    outcomes: Outcomes = {
        (LabelKey(0, "logits", 0), 0): stats(X, X * (1 + 1e-6)),
        (LabelKey(0, "ids", 0), 0): stats(IDS, WRONG_IDS),
        (LabelKey(0, "next", 0), 0): stats(X, X * 2),
    }
    return plan, collect_evidence(plan, outcomes, run_failed=False)


def test_ids_are_held_beside_the_scores_before_them_or_named() -> None:
    plan, known = made()
    (question,) = tie_questions(plan, judge_evidence(known))
    assert question.scores.shape == X.shape and 0 < question.noise < 1e-5
    assert tie_questions(*_judged(made(scores_before=False))) == []
    assert tie_questions(*_judged(made(named="other"))) == []
    assert len(tie_questions(*_judged(made(named="logits")))) == 1


def test_a_mask_is_no_ids() -> None:
    plan, known = made()
    label = plan.labels[1]
    (pair,) = label.pairs
    mask = replace(pair, golden=replace(pair.golden, dtype="bool"), actual=replace(pair.actual, dtype="bool"))
    plan = replace(plan, labels=(plan.labels[0], replace(label, pairs=(mask,)), plan.labels[2]))
    assert tie_questions(plan, judge_evidence(known)) == []


def _judged(both: tuple[Plan, Evidence]) -> tuple[Plan, Judgement]:
    return both[0], judge_evidence(both[1])


def test_all_ties_drift_and_what_follows_inherits() -> None:
    _, known = made()
    key = LabelKey(0, "ids", 0)
    assert {v.key.label: v.status for v in judge_evidence(known).labels}["ids"] is Status.DIVERGED
    found = judge_evidence(add_ties(known, {(key, 0): 1}))
    ids, after = found.labels[1], found.labels[2]
    assert ids.status is Status.DRIFT and "all of them ties" in ids.ranks[0].reason
    assert after.ranks[0].origin is Origin.INHERITED and after.root == key
    assert found.exit_code is ExitCode.DIVERGED, "what follows is wrong all the same"


def test_some_ties_do_not_excuse_the_others() -> None:
    _, known = made()
    found = judge_evidence(add_ties(known, {(LabelKey(0, "ids", 0), 0): 0}))
    assert found.labels[1].status is Status.DIVERGED
    label = known.labels[1]
    more = replace(label, ranks=tuple(replace(each, ties=3) for each in label.ranks))
    found = judge_evidence(replace(known, labels=(known.labels[0], more, known.labels[2])))
    assert found.labels[1].status is Status.DIVERGED and "3 of them are ties" in found.labels[1].ranks[0].reason
