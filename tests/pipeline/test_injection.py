"""The label at a model's end, and whether it tells that the end is right."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from aclcmp.orchestrator.core.verdicts import Judgement, Status
from aclcmp.orchestrator.pipeline.injection import is_gap, last_label
from tests.report.made_up import judgement_of, label, verdict


def judged(labels: Mapping[str, list[Status]]) -> Judgement:
    return judgement_of([label(n, [verdict(rank, each) for rank, each in enumerate(s)]) for n, s in labels.items()])


def test_a_router_s_logits_are_not_the_model_s() -> None:
    found = judged({"lm_head": [Status.MATCH], "layers.3.mlp.router.logits": [Status.MATCH], "norm": [Status.MATCH]})
    end = last_label(found)
    assert end is not None and end.key.label == "lm_head"
    end = last_label(replace(found, labels=found.labels[1:]))
    assert end is not None and end.key.label == "norm"


@pytest.mark.parametrize(
    ("of_other_rank", "gap"),
    [
        (Status.MATCH, False),
        (Status.DRIFT, False),
        (Status.DIVERGED, False),
        (Status.MISSING, True),
        (Status.MISMATCH, True),
        (Status.FAILED, True),
    ],
)
def test_an_end_that_one_rank_did_not_compare_tells_nothing(of_other_rank: Status, gap: bool) -> None:
    end = last_label(judged({"lm_head": [Status.MATCH, of_other_rank]}))
    assert end is not None and is_gap(end) is gap
