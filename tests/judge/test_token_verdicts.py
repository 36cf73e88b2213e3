"""Which rows of logits ranks hold whole, where their slices of the vocabulary overlap."""

from dataclasses import replace

import numpy as np
import pytest

from aclcmp.orchestrator.core.choices import choices_of
from aclcmp.orchestrator.core.plan import LabelPlan, Plan, RowNames
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.stats import Outcomes, PairStats
from aclcmp.orchestrator.judge.token_verdicts import collect_tokens

VOCABULARY, ROWS = 60, 4
KEY = LabelKey(0, "lm_head", 0)
LOGITS = np.random.default_rng(0).normal(size=(ROWS, VOCABULARY))


def collected(*slices: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    """Return (position, golden's best) of the rows that ranks with such slices hold whole: rows, then ids."""
    source = Source("shard.h5", 0, "float32", (ROWS, VOCABULARY))
    pairs = []
    outcomes: Outcomes = {}
    for rank, (first, last, begin, end) in enumerate(slices):
        region = Region((first, begin), (last - first, end - begin))
        pairs.append(Pair(KEY, rank, source, region, source, region, (ROWS, VOCABULARY), region, ""))
        part = LOGITS[first:last, begin:end]
        outcomes[KEY, rank] = replace(PairStats.empty(), choices=choices_of(part, part, first, begin))
    table = np.array([[0, row, row] for row in range(ROWS)], np.int32)
    label = LabelPlan(KEY, {}, tuple(pairs), rows=RowNames(("r",), table))
    found = collect_tokens(Plan((label,), {}, (), 0, ()), outcomes, [])
    return [(token.position - 1, token.golden) for evidence in found for token in evidence.tokens]


BEST = [(row, int(LOGITS[row].argmax())) for row in range(ROWS)]


@pytest.mark.parametrize(
    ("slices", "whole"),
    [
        ([(0, 4, 0, 40), (0, 4, 40, 60)], BEST),
        ([(0, 4, 0, 40), (0, 4, 0, 40), (0, 4, 40, 60)], BEST),
        ([(0, 4, 0, 40), (0, 4, 20, 40)], []),  # their widths add up to the vocabulary
        ([(0, 4, 0, 40), (0, 4, 20, 40), (0, 4, 40, 60)], BEST),
        ([(0, 2, 0, 30), (0, 4, 0, 30), (0, 4, 30, 60)], BEST[:2]),  # ids of rows 0 and 1 count once
        ([(0, 2, 0, 30), (2, 4, 0, 30), (0, 4, 30, 60)], BEST),
        ([(0, 4, 0, 30)], []),
    ],
)
def test_a_row_is_whole_where_each_id_is_held(
    slices: list[tuple[int, int, int, int]], whole: list[tuple[int, int]]
) -> None:
    assert collected(*slices) == whole
