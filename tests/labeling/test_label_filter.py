"""Which labels and tasks are recorded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.label_filter import LabelFilter, parse_labels, parse_tasks


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted), min_size=1, max_size=5))
def test_tasks_are_inclusive_ranges(bounds: list[list[int]]) -> None:
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in bounds)
    chosen = LabelFilter(tasks=parse_tasks(text))
    for task in range(60):
        assert chosen.wants(task, "x") == any(a <= task <= b for a, b in bounds)


@pytest.mark.parametrize("text", ["", ",", "a", "1-", "-1", "3-1", "1--2", "0x3", "1.5", "1;2", "٣-", "9" * 40])
def test_what_is_no_range_is_told(text: str) -> None:
    with pytest.raises(LabelError, match="--tasks"):
        parse_tasks(text)


def test_a_label_is_found_anywhere_in_its_id() -> None:
    chosen = LabelFilter(labels=parse_labels(r"layers\.(1|3)\.mlp"))
    assert chosen.wants(0, "model.layers.3.mlp.out")
    assert not chosen.wants(0, "model.layers.2.mlp.out")
    assert chosen.wants(0, 7)  # a mistake must reach the recorder, which tells it
    with pytest.raises(LabelError, match="not a regular expression"):
        parse_labels("a(")


def test_no_wish_is_everything() -> None:
    assert LabelFilter.from_environment({}) == LabelFilter()
    chosen = LabelFilter.from_environment({"ACLCMP_LABELS": "out", "ACLCMP_TASKS": "1"})
    assert chosen.wants(1, "out") and not chosen.wants(0, "out") and not chosen.wants(1, "in")
