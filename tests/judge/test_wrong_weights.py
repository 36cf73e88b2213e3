"""A wrong weight is the first divergence, and the labels that it explains inherit from it."""

from dataclasses import replace

import pytest

from aclcmp.orchestrator.core.evidence import Evidence, LabelEvidence
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.verdicts import Judgement, Origin, Status
from aclcmp.orchestrator.core.weights import WeightFault, WeightFinding, WeightReport
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.policy import Excuse, Policy, Scope
from aclcmp.orchestrator.report.text.diff import changes, diff_lines, worse
from tests.report.made_up import label, report_of, verdict

WEIGHT = "layers.1.q_proj.weight"
NAMES = ("embed", "layers.0", "layers.1.q_proj", "layers.1", "layers.2", "norm")


def finding(labels: tuple[str, ...] = ("layers.1.q_proj",), *, wrong: bool = True) -> WeightFinding:
    return WeightFinding(WeightFault.ORDER, WEIGHT, (), (1,), "holds **k_proj**", labels, wrong)


def judged(wrong: set[str], *findings: WeightFinding, policy: Policy | None = None) -> Judgement:
    """Judge labels of two ranks, these wrong, with these findings on weights."""
    labels = tuple(
        LabelEvidence(
            made.key,
            made.level,
            tuple(replace(each, dtypes=("float32", "float32")) for each in made.ranks),
        )
        for made in (
            label(name, [verdict(rank, Status.DIVERGED if name in wrong else Status.MATCH) for rank in range(2)])
            for name in NAMES
        )
    )
    weights = WeightReport(9, 9 - len(findings), (0, 1), findings, ())
    return judge_evidence(Evidence(labels, weights=weights), policy or Policy())


def origins(judgement: Judgement) -> dict[str, Origin | None]:
    return {each.key.label: each.ranks[0].origin for each in judgement.labels}


def test_labels_from_the_weight_on_inherit_from_it() -> None:
    found = judged({"layers.1.q_proj", "layers.1", "layers.2", "norm"}, finding())
    first = found.first_divergence
    assert first is not None and first.of_weight and (first.key.label, first.ranks) == (WEIGHT, (1,))
    assert found.exit_code is ExitCode.DIVERGED
    by_name = {each.key.label: each for each in found.labels}
    for name in NAMES[2:]:
        assert origins(found)[name] is Origin.INHERITED
        assert by_name[name].root == LabelKey(0, WEIGHT, 0)
    assert by_name["layers.1.q_proj"].ranks[0].reason.startswith(f"its weight {WEIGHT} is wrong (rank 1): ")
    assert "its weight" not in by_name["layers.1"].ranks[0].reason


def test_what_is_wrong_before_the_weight_is_wrong_by_itself() -> None:
    found = judged({"layers.0", "layers.1.q_proj", "layers.1"}, finding())
    assert found.first_divergence is not None and found.first_divergence.of_weight
    assert origins(found)["layers.0"] is Origin.OWN
    by_name = {each.key.label: each for each in found.labels}
    assert by_name["layers.1.q_proj"].root == LabelKey(0, WEIGHT, 0)


def test_the_first_wrong_label_behind_the_weight_inherits() -> None:
    """The module's own label may be right for these tokens, or not recorded."""
    found = judged({"layers.2", "norm"}, finding())
    assert origins(found) == dict.fromkeys(NAMES) | {"layers.2": Origin.INHERITED, "norm": Origin.INHERITED}


def test_a_wrong_weight_counts_where_all_labels_match() -> None:
    found = judged(set(), finding())
    assert found.exit_code is ExitCode.DIVERGED and found.first_divergence is not None


def test_without_a_label_of_the_module_that_around_it_is_explained() -> None:
    found = judged({"layers.1", "layers.2"}, finding(("layers.1.self_attn.k_proj",)))
    assert {each.key.label: each.root for each in found.labels}["layers.1"] == LabelKey(0, WEIGHT, 0)


@pytest.mark.parametrize("wrong", [set(), {"layers.2"}])
def test_a_doubtful_weight_is_not_wrong_while_its_labels_are_right(wrong: set[str]) -> None:
    found = judged(wrong, finding(wrong=False))
    assert found.weights is not None and not found.weights.wrong
    assert found.exit_code is (ExitCode.DIVERGED if wrong else ExitCode.MATCH)
    if wrong:
        assert found.first_divergence is not None and found.first_divergence.key.label == "layers.2"


def test_a_doubtful_weight_is_wrong_if_its_label_is_wrong_by_itself() -> None:
    found = judged({"layers.1.q_proj", "layers.1"}, finding(wrong=False))
    assert found.first_divergence is not None and found.first_divergence.of_weight
    assert origins(found)["layers.1.q_proj"] is Origin.INHERITED
    inherited = judged({"embed", "layers.1.q_proj"}, finding(wrong=False))
    assert inherited.first_divergence is not None and inherited.first_divergence.key.label == "embed"


def test_what_was_not_checked_is_never_wrong() -> None:
    unchecked = replace(finding(wrong=False), kind=WeightFault.UNCHECKED)
    found = judged({"layers.1.q_proj"}, unchecked)
    assert found.first_divergence is not None and not found.first_divergence.of_weight


def test_what_labels_settle_is_open_again_where_they_are_judged_again() -> None:
    settled = judged({"layers.1.q_proj"}, finding(wrong=False)).weights
    assert settled is not None and [(each.wrong, each.by_labels) for each in settled.findings] == [(True, True)]
    assert judged(set(), *settled.findings).exit_code is ExitCode.MATCH
    certain = judged(set(), finding()).weights
    assert certain is not None and judged(set(), *certain.findings).exit_code is ExitCode.DIVERGED


def test_a_label_that_the_policy_allows_settles_no_doubt() -> None:
    policy = Policy(allow=(Excuse(Scope("layers.1.q_proj"), "known"),))
    found = judged({"layers.1.q_proj"}, finding(wrong=False), policy=policy)
    assert found.exit_code is ExitCode.MATCH and found.weights is not None and not found.weights.wrong


def test_a_weight_that_is_wrong_now_is_worse() -> None:
    before, after = (replace(report_of([]), judgement=judged(set(), *each)) for each in ((), (finding(),)))
    found = changes(before.judgement, after.judgement)
    assert worse(before.judgement, after.judgement, found) and not worse(after.judgement, before.judgement, found)
    assert f"Weights wrong now: {WEIGHT} (rank 1)" in diff_lines(before, after, found)
    assert f"Weights wrong no more: {WEIGHT} (rank 1)" in diff_lines(after, before, found)
