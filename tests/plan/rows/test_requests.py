"""Which requests of two sides are the same text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.labeling.shard.row_table import RowTable
from aclcmp.orchestrator.plan.rows.requests import SideRequests, pair_requests

MANY = 700
"""More than are held against one request."""


def side(texts: Sequence[Sequence[int]], names: str = "", begin: int = 0) -> SideRequests:
    """Return one rank's requests, each with one forward of its own; those without `names` have none."""
    tables = []
    for number, tokens in enumerate(texts):
        rows = [(0, begin + place, token) for place, token in enumerate(tokens)]
        name = f"{names} {number}" if names else ""
        tables.append((0, RowTable(np.array(rows, np.int32), {0: (0, name)}, {})))
    return SideRequests(tables)


def common(text: Sequence[int], other: Sequence[int]) -> int:
    return next((at for at, (x, y) in enumerate(zip(text, other, strict=False)) if x != y), min(len(text), len(other)))


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("shared", [1, 100])
def test_many_requests_that_begin_alike(named: bool, shared: int) -> None:
    random = np.random.default_rng(0)
    texts = [[*range(shared), *random.integers(0, 50_000, 20).tolist()] for _ in range(MANY)]
    order = random.permutation(MANY).tolist()
    golden, actual = side(texts, "golden" * named), side([texts[number] for number in order], "actual" * named)
    pairs = pair_requests(golden, actual)
    assert [pairs[number].golden for number in range(MANY)] == order
    assert all(pair.end == shared + 20 and pair.tokens is None for pair in pairs.values())


def test_many_equal_requests_pair_one_with_one() -> None:
    pairs = pair_requests(side([[1, 2, 3]] * MANY, "golden"), side([[1, 2, 3]] * MANY, "actual"))
    assert [pair.golden for pair in pairs.values()] == list(range(MANY))


def test_rows_of_a_cache_among_many_requests() -> None:
    texts = [[1] * 99 + [number, 7] for number in range(MANY)]
    golden, actual = side(texts, "golden"), side([text[96:] for text in texts], "actual", begin=96)
    assert [pair.golden for pair in pair_requests(golden, actual).values()] == list(range(MANY))


def test_tokens_that_are_not_told_agree_with_any() -> None:
    golden = side([[1, 2, 3, 4], [1, 2, -1, -1, 5], [1, 9, 3]], "golden")
    pairs = pair_requests(golden, side([[1, 2, 3, 6, 5], [1, -1, 3, 4]], "actual"))
    assert [(pair.golden, pair.end, pair.tokens) for pair in pairs.values()] == [(1, 5, None), (0, 4, None)]


def test_a_forward_without_rows() -> None:
    assert SideRequests([(0, RowTable(np.empty((0, 3), np.int32), {}, {}))]).requests == []


TEXTS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=5), min_size=1, max_size=8)


@given(TEXTS, TEXTS)
def test_the_golden_request_with_most_of_the_tokens_is_found(
    goldens: list[list[int]], actuals: list[list[int]]
) -> None:
    golden, actual = side(goldens, "golden"), side(actuals, "actual")
    pairs = pair_requests(golden, actual)
    for number, text in enumerate(actuals):
        best = max(common(text, other) for other in goldens)
        found = common(text, goldens[pairs[number].golden]) if number in pairs else 0
        assert found == best


@given(TEXTS)
def test_texts_of_one_name_that_agree_are_one_request(texts: list[list[int]]) -> None:
    tables = [
        (rank, RowTable(np.array([(0, at, token) for at, token in enumerate(text)], np.int32), {0: (0, "a")}, {}))
        for rank, text in enumerate(texts)
    ]
    found = SideRequests(tables)
    for rank, table in tables:
        text = found.requests[found.number_of(rank, table, 0)].tokens.tolist()
        assert text[: len(texts[rank])] == texts[rank]
    wholes = [each.tokens.tolist() for each in found.requests]
    assert not any(x is not y and x == y[: len(x)] for x in wholes for y in wholes)


def test_what_a_cache_held_was_not_computed() -> None:
    rows = [np.array([(0, at, 5 + at) for at in places], np.int32) for places in (range(4), range(3, 6))]
    blocks = np.zeros(4, np.int32)
    tables = [RowTable(rows[0], {0: (0, "a")}, {}, blocks), RowTable(rows[1], {0: (0, "a")}, {})]
    found = SideRequests([(0, table) for table in tables])
    assert found.requests[0].tokens.tolist() == [5, 6, 7, 8, 9, 10] and found.computed_from == [3]
