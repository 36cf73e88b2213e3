"""Shapes that differ along one dimension: what both have, and the difference in words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.orchestrator.core.regions import LabelKey, Source
from aclcmp.orchestrator.plan.sizes import common_pair, describe_sizes, odd_dimension

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@pytest.mark.parametrize(
    ("golden", "actual", "words"),
    [
        ((24, 16), (32, 16), "golden [24, 16], actual [32, 16]: 8 rows more; rows 0-23"),
        ((5, 4), (6, 4), "golden [5, 4], actual [6, 4]: 1 row more; rows 0-4"),
        ((2, 4), (1, 4), "golden [2, 4], actual [1, 4]: 1 row fewer; row 0"),
        ((3, 4), (3, 2), "golden [3, 4], actual [3, 2]: 2 columns fewer; columns 0-1"),
        ((25,), (24,), "golden [25], actual [24]: 1 value fewer; values 0-23"),
        (
            (1, 8, 4),
            (2, 8, 4),
            "golden [1, 8, 4], actual [2, 8, 4]: 1 slice of dimension 0 more; slice 0 of dimension 0",
        ),
        (
            (32000, 4),
            (32064, 4),
            "golden [32000, 4], actual [32064, 4]: 64 rows more; rows 0-31999",
        ),
    ],
)
def test_the_difference_in_words(golden: tuple[int, ...], actual: tuple[int, ...], words: str) -> None:
    assert describe_sizes(golden, actual) == words


@pytest.mark.parametrize(
    ("golden", "actual"),
    [
        ((4, 4), (4, 4)),
        ((4, 4), (2, 8)),
        ((4, 4), (4, 4, 1)),
        ((16,), (4, 4)),
        ((0, 4), (2, 4)),
        ((2, 4), (2, 0)),
        ((), ()),
    ],
)
def test_what_is_no_difference_in_one_size(golden: tuple[int, ...], actual: tuple[int, ...]) -> None:
    assert odd_dimension(golden, actual) is None and describe_sizes(golden, actual) is None


@given(SHAPES, SHAPES)
def test_what_both_have_is_the_start_of_each(golden: tuple[int, ...], actual: tuple[int, ...]) -> None:
    dim = odd_dimension(golden, actual)
    swapped = odd_dimension(actual, golden)
    assert dim == swapped
    if dim is None:
        return
    words, reverse = describe_sizes(golden, actual), describe_sizes(actual, golden)
    assert words is not None and str(list(golden)) in words and str(list(actual)) in words
    larger = actual[dim] > golden[dim]
    assert reverse is not None and ("more" in words) is larger and "fewer" in (words, reverse)[larger]
    sources = [Source("f", 0, "float32", shape) for shape in (golden, actual)]
    pair = common_pair(LabelKey(0, "x", 0), 3, *sources)
    assert pair.golden_region == pair.actual_region == pair.region and pair.rank == 3
    assert pair.region.shape == tuple(map(min, golden, actual)) and not any(pair.region.start)
    last = re.search(r"(?:-| )(\d+)(?: of dimension \d)?$", words)
    assert last is not None and int(last[1]) == pair.region.shape[dim] - 1
