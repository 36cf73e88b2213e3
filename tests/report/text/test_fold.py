"""Folding and its words: what a row stands for is told truly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from aclcmp.orchestrator.core.text import count, figure, fold_ranks, of_ranks, visible
from aclcmp.orchestrator.core.verdicts import Origin, Status
from aclcmp.orchestrator.report.text.fold import RunNames, fold, merge, row_of
from aclcmp.orchestrator.terminal.cells import shorten
from tests.report.made_up import label, layer_names, verdict

LABELS = st.lists(
    st.lists(st.tuples(st.sampled_from(Status), st.sampled_from([None, *Origin])), min_size=3, max_size=3),
    min_size=1,
    max_size=60,
)


@given(LABELS, st.integers(6, 30))
def test_rows_cover_every_label_once(held: list[list[tuple[Status, Origin | None]]], most: int) -> None:
    names = layer_names(7)[: len(held)]
    labels = [
        label(name, [verdict(rank, *each) for rank, each in enumerate(ranks)])
        for name, ranks in zip(names, held, strict=True)
    ]
    rows = [row_of(i, one, range(3)) for i, one in enumerate(labels)]
    folded = fold(rows, names, most)
    assert len(folded) <= most
    assert [i for row in folded for i in range(row.first, row.last + 1)] == list(range(len(labels)))
    for row in folded:
        assert row == merge(rows[row.first : row.last + 1])


@pytest.mark.parametrize(
    ("first", "last", "ends"),
    [
        (0, 0, ("embed", "embed")),
        (0, 18, ("embed", "layers.1")),
        (1, 9, ("layers.0", "layers.0")),
        (1, 5, ("layers.0.attn", "layers.0.attn")),
        (1, 7, ("layers.0.attn", "mlp.up")),
        (2, 10, ("layers.0.attn.k", "layers.1.attn.q")),
        (28, 38, ("layers.3", "lm_head")),
        (1, 36, ("layers", "layers")),
    ],
)
def test_names_of_runs(first: int, last: int, ends: tuple[str, str]) -> None:
    """A prefix stands for its labels only where all of them are in the run."""
    names = layer_names(4)
    rows = [row_of(i, label(name, [verdict(0)]), [0]) for i, name in enumerate(names)]
    assert RunNames(names).ends(merge(rows[first : last + 1])) == ends


def test_generated_ids_fold() -> None:
    names = [f"data_20261122-101500_{i}" for i in range(3)]
    rows = [row_of(i, label(name, [verdict(0)]), [0]) for i, name in enumerate(names)]
    assert RunNames(names).ends(merge(rows)) == (names[0], names[2])


@given(st.text(), st.integers(1, 40))
def test_shorten_fits(text: str, width: int) -> None:
    short = shorten(visible(text), width)
    assert cell_len(short) <= max(width, 2)
    assert short == visible(text) or cell_len(visible(text)) > width


def test_words() -> None:
    assert fold_ranks([5, 0, 1, 2, 3]) == "0-3, 5"
    assert of_ranks([5]) == "rank 5"
    assert of_ranks([4, 5]) == "ranks 4-5"
    assert of_ranks(range(0, 40, 2)) == "ranks 0, 2, 4, 6, 8, 10, 12, 14, ... (20 ranks)"
    assert (count(1, "label"), count(1344, "label")) == ("1 label", "1,344 labels")
    assert [figure(v) for v in (0.0, 0.42, float("inf"), float("nan"), None)] == ["0", "4.2e-01", "inf", "", ""]
    assert shorten("", -3) == ""
    assert shorten("layers.2.mlp.down.local", 11) == "layer…local"
    assert visible("a\x1b[2J\u202eb\n") == "a\\x1b[2J\\u202eb\\n"
