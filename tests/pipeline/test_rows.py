"""Labels that are sets of rows: chunks, batches, padding and ranks on either side, through real shards to verdicts."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.capture import Capture
from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.rows import Rows
from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.orchestrator.core.plan import Plan
from aclcmp.orchestrator.core.regions import Pair
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.core.verdicts import Judgement, Status
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.judge.judge import judge
from aclcmp.orchestrator.pipeline.diagnose import diagnose
from aclcmp.orchestrator.pipeline.resolve_layouts import compare_and_resolve
from aclcmp.orchestrator.plan.planner import plan_two
from tests.models.comparing import compare_pairs
from tests.recorded import recorder_of

Step = Sequence[tuple[int, int, int]]
"""Parts of one forward: (request, first position, end)."""
Array = npt.NDArray[np.float32]
WIDTH = 12


class Job:
    """One side: the recorders of its ranks."""

    def __init__(self, folder: Path, ranks: int, capture: Capture = Capture.FULL) -> None:
        folder.mkdir()
        self._folder = folder
        self._recorders = [recorder_of(folder, rank, ranks, strict=True, capture=capture) for rank in range(ranks)]

    def label(self, rank: int, side: str, name: str, value: npt.NDArray[np.generic], rows: Rows | None) -> None:
        self._recorders[rank].record(side, name, value, None, None, "", None, "f.py:1", rows)

    def indices(self) -> list[ShardIndex]:
        for recorder in self._recorders:
            recorder.close()
        return [read_shard(files) for files in shards_in(self._folder)]


def tokens_of(request: int, size: int) -> list[int]:
    return [1000 * request + position % 7 for position in range(size)]


def value_of(request: int, position: int) -> Array:
    return np.random.default_rng(request * 10_007 + position).standard_normal(WIDTH).astype(np.float32)


def values_of(step: Step) -> Array:
    return np.array([value_of(request, position) for request, begin, end in step for position in range(begin, end)])


def rows_of(step: Step, names: str) -> Rows:
    parts = [(request, position) for request, begin, end in step for position in range(begin, end)]
    requests = [f"{names}{request}" for request, _ in parts]
    return Rows(requests, [at for _, at in parts], [tokens_of(request, at + 1)[at] for request, at in parts], None)


def compare(golden: Job, actual: Job, ranks: int) -> tuple[Plan, Judgement]:
    plan = plan_two(golden.indices(), actual.indices(), ranks)
    assert not plan.questions
    return plan, judge(plan, compare_pairs(plan.pairs), run_failed=False)


@st.composite
def schedules(draw: st.DrawFn, sizes: Sequence[int]) -> list[Step]:
    """Steps of an engine: every request goes from its first position to its last, in chunks of any size."""
    at = [0] * len(sizes)
    steps: list[Step] = []
    while any(a < n for a, n in zip(at, sizes, strict=True)):
        step = []
        for request in draw(st.permutations(range(len(sizes)))):
            chunk = draw(st.integers(0, sizes[request] - at[request]))
            if chunk:
                step.append((request, at[request], at[request] + chunk))
                at[request] += chunk
        if step:
            steps.append(step)
    return steps


@settings(max_examples=40)
@given(st.data())
def test_rows_pair_by_name_wherever_they_lie(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    ranks = data.draw(st.sampled_from([1, 2, 3]))
    shape = data.draw(st.sampled_from(["[n, H]", "[1, n, H]", "[n, heads, d]"]))
    sharded = data.draw(st.booleans()) and ranks > 1
    broken = data.draw(st.sampled_from([(request, at) for request, size in enumerate(sizes) for at in range(size)]))
    steps = data.draw(schedules(sizes))
    with tempfile.TemporaryDirectory() as folder:
        golden, actual = Job(Path(folder, "g"), 1), Job(Path(folder, "a"), ranks)
        for request, size in enumerate(sizes):
            whole = [(request, 0, size)]
            golden.label(0, "pta", "x", values_of(whole)[None], rows_of(whole, "golden "))
            golden.label(0, "pta", "y", values_of(whole)[None], rows_of(whole, "golden "))
        for step in steps:
            values, rows = values_of(step), rows_of(step, "")
            wrong = values.copy()
            names = [(request, at) for request, begin, end in step for at in range(begin, end)]
            if broken in names:
                wrong[names.index(broken)] *= 2
            for rank in range(ranks):
                width = WIDTH // ranks
                mine = slice(rank * width, (rank + 1) * width) if sharded else slice(None)
                for name, tensor in (("x", values), ("y", wrong)):
                    cut = np.ascontiguousarray(tensor[:, mine])
                    cut = cut[None] if shape == "[1, n, H]" else cut.reshape(len(cut), 2, -1) if "d" in shape else cut
                    actual.label(rank, "acl", name, cut, rows)
        plan, judgement = compare(golden, actual, ranks)
    by_name = {label.key.label: label for label in judgement.labels}
    if shape == "[n, heads, d]":  # golden has [n, H]: features that do not fit are told
        assert by_name["x"].status is Status.MISMATCH
        return
    assert by_name["x"].status is Status.MATCH and all(verdict.bitwise for verdict in by_name["x"].ranks)
    assert len(by_name["x"].ranks) == ranks and not plan.notes[:-1]
    assert sum(verdict.stats.n for verdict in by_name["x"].ranks if verdict.stats) == (
        sum(sizes) * WIDTH * (1 if sharded else ranks)
    )
    for verdict in by_name["y"].ranks:
        assert verdict.status is Status.DIVERGED
        assert verdict.worst_row_name.startswith(
            f"request {broken[0]} (golden golden {broken[0]}), position {broken[1]}, token "
        )


@pytest.mark.parametrize(
    ("golden", "actual", "words"),
    [
        ("r2", "a", "request a (golden r2), position 1"),
        ("r2", "r2", "request r2, position 1"),
        ("r2", "", "request r2 of golden, position 1"),
        ("", "a", "request a, position 1"),
        ("", "", "position 1"),
    ],
)
def test_a_request_is_told_by_the_names_of_both_sides(tmp_path: Path, golden: str, actual: str, words: str) -> None:
    jobs = Job(tmp_path / "g", 1), Job(tmp_path / "a", 1)
    right, wrong = values_of([(0, 0, 3)]), values_of([(0, 0, 3)])
    wrong[1] *= 2
    for job, side, name, tensor in zip(jobs, ("pta", "acl"), (golden, actual), (right, wrong), strict=True):
        job.label(0, side, "x", tensor, Rows([name] * 3, range(3), tokens_of(0, 3), None))
    _, judgement = compare(*jobs, 1)
    assert judgement.labels[0].ranks[0].worst_row_name.startswith(f"{words}, token ")


@pytest.mark.parametrize(
    ("shape", "words"),
    [((5, 3, 4), "request a, position 3, token 3"), ((5,), "request a, position 0 to request b, position 4")],
)
def test_rows_of_heads_and_rows_of_one_value_are_named(tmp_path: Path, shape: tuple[int, ...], words: str) -> None:
    """Rows of statistics are along the last dimension: of heads several have one name, of values all are in one."""
    jobs = Job(tmp_path / "g", 1), Job(tmp_path / "a", 1)
    right = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    wrong = right.copy()
    wrong[3] *= 3
    for job, side, tensor in zip(jobs, ("pta", "acl"), (right, wrong), strict=True):
        job.label(0, side, "x", tensor, Rows(["a"] * 4 + ["b"], range(5), range(5), None))
    plan, judgement = compare(*jobs, 1)
    assert judgement.labels[0].ranks[0].worst_row_name == words
    (pattern,) = diagnose(plan, judgement, compare_pairs, lambda _: {}).patterns
    assert len(shape) == 1 or words in str(pattern)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("order", ["[B, T, H]", "[T, B, H]"])
def test_padded_batches(tmp_path: Path, left: bool, order: str) -> None:
    sizes = [4, 2, 5]
    golden, actual = Job(tmp_path / "g", 1), Job(tmp_path / "a", 1)
    for request, size in enumerate(sizes):
        golden.label(0, "pta", "x", values_of([(request, 0, size)]), rows_of([(request, 0, size)], ""))
    mask, ids = np.zeros((2, 3, 5), np.int64)
    batch = np.full((3, 5, WIDTH), np.nan, np.float32)  # what lies in the padding counts nowhere
    for request, size in enumerate(sizes):
        valid = slice(5 - size, 5) if left else slice(size)
        mask[request, valid], ids[request, valid] = 1, tokens_of(request, size)
        batch[request, valid] = values_of([(request, 0, size)])
    value = batch if order == "[B, T, H]" else np.ascontiguousarray(batch.swapaxes(0, 1))
    actual.label(0, "acl", "x", value, Rows(None, None, ids, mask))
    _, judgement = compare(golden, actual, 1)
    (label,) = judgement.labels
    assert label.status is Status.MATCH and label.ranks[0].stats is not None
    assert label.ranks[0].stats.n == sum(sizes) * WIDTH and label.ranks[0].bitwise


def test_data_parallel_ranks_that_use_the_same_names(tmp_path: Path) -> None:
    golden, actual = Job(tmp_path / "g", 1), Job(tmp_path / "a", 2)
    for request in range(4):
        golden.label(0, "pta", "x", values_of([(request, 0, 3)]), rows_of([(request, 0, 3)], ""))
    for rank in range(2):
        for number in range(2):
            step = [(2 * rank + number, 0, 3)]
            ids = tokens_of(2 * rank + number, 3)
            actual.label(rank, "acl", "x", values_of(step), Rows(str(number), range(3), ids, None))
    plan, judgement = compare(golden, actual, 2)
    (label,) = judgement.labels
    assert [verdict.status for verdict in label.ranks] == [Status.MATCH] * 2 and not plan.notes
    assert [verdict.stats.n for verdict in label.ranks if verdict.stats] == [6 * WIDTH] * 2


@pytest.mark.parametrize("ranks", [1, 2])
def test_golden_is_data_parallel_and_actual_mixes_its_batches(tmp_path: Path, ranks: int) -> None:
    """Each actual rank is compared with two golden ranks, block by block, and with the columns that it holds."""
    golden, actual = Job(tmp_path / "g", 2), Job(tmp_path / "a", ranks)
    for request in range(4):
        whole = [(request, 0, 3)]
        golden.label(request % 2, "pta", "x", values_of(whole), rows_of(whole, f"on rank {request % 2}, "))
    for step in ([(3, 0, 2), (0, 0, 3)], [(1, 0, 3), (3, 2, 3), (2, 0, 3)]):
        for rank in range(ranks):
            mine = slice(rank * WIDTH // ranks, (rank + 1) * WIDTH // ranks)
            wrong = values_of(step)[:, mine].copy()
            wrong[-1] *= 1 + (step[0][0] == 1)  # request 2, position 2
            actual.label(rank, "acl", "x", np.ascontiguousarray(values_of(step)[:, mine]), rows_of(step, ""))
            actual.label(rank, "acl", "y", wrong, rows_of(step, ""))
    for request in range(4):
        whole = [(request, 0, 3)]
        golden.label(request % 2, "pta", "y", values_of(whole), rows_of(whole, f"on rank {request % 2}, "))
    plan, judgement = compare(golden, actual, ranks)
    right, wrong_label = judgement.labels
    assert right.status is Status.MATCH and [verdict.rank for verdict in right.ranks] == list(range(ranks))
    assert all(v.bitwise and v.stats is not None and v.stats.n == 12 * WIDTH // ranks for v in right.ranks)
    assert all(
        verdict.worst_row_name.startswith("request 2 (golden on rank 0, 2), position 2,")
        for verdict in wrong_label.ranks
    )
    for label in plan.labels:
        order = [pair.rank for pair in label.pairs]
        assert order == sorted(order) and len(order) == 2 * ranks


def test_ranks_whose_forwards_were_cut_otherwise(tmp_path: Path) -> None:
    """Both ranks hold the same rows, one in one forward, the other in two."""
    golden, actual = Job(tmp_path / "g", 1), Job(tmp_path / "a", 2)
    golden.label(0, "pta", "x", values_of([(0, 0, 6)]), rows_of([(0, 0, 6)], ""))
    for rank, steps in enumerate(([(0, 0, 6)], [(0, 0, 2), (0, 2, 6)])):
        for part in steps:
            actual.label(rank, "acl", "x", values_of([part]), rows_of([part], ""))
    _, judgement = compare(golden, actual, 2)
    (label,) = judgement.labels
    assert [verdict.bitwise for verdict in label.ranks] == [True, True]


@pytest.mark.parametrize("size", [1, 3])
def test_rows_are_not_what_ranks_have_cut(tmp_path: Path, size: int) -> None:
    """Both sides hold columns on some ranks: where these differ, no layout is tried in which ranks hold other rows."""
    golden, actual = Job(tmp_path / "g", 2), Job(tmp_path / "a", 4)
    step = [(0, 0, size)]
    for layer in range(3):
        for job, side, ranks in ((golden, "pta", 2), (actual, "acl", 4)):
            for rank, own in enumerate(np.split(values_of(step), ranks, 1)):
                value = np.ascontiguousarray(own * np.float32(1 + (side == "acl" and layer == 1)))
                job.label(rank, side, f"layers.{layer}", value, rows_of(step, ""))
    resolved = compare_and_resolve(plan_two(golden.indices(), actual.indices(), 4), compare_pairs)
    judgement = judge(resolved.plan, resolved.outcomes, run_failed=False)
    expected = [Status.MATCH, Status.DIVERGED, Status.MATCH]
    assert [label.status for label in judgement.labels] == expected
    assert all(verdict.stats and verdict.stats.n == size * 3 for label in judgement.labels for verdict in label.ranks)


def test_texts_that_part_and_rows_of_a_cache(tmp_path: Path) -> None:
    golden, actual = Job(tmp_path / "g", 1), Job(tmp_path / "a", 1)
    golden.label(0, "pta", "x", values_of([(1, 0, 8)]), Rows("one", range(8), range(10, 18), None))
    ids = [12, 13, 14, 99, 16]
    actual.label(0, "acl", "x", values_of([(1, 2, 7)]), Rows("1-ab", range(2, 7), ids, None))
    plan, judgement = compare(golden, actual, 1)
    (label,) = judgement.labels
    assert label.ranks[0].stats is not None and label.ranks[0].stats.n == 3 * WIDTH
    assert label.ranks[0].bitwise and "golden has no row for 2 rows" in label.ranks[0].uncovered
    assert "another token at position 5: golden 15, actual 99" in plan.notes[0]
    assert "positions 0 to 1 were taken from a cache, or not labelled: they are not compared" in plan.notes[1]


@pytest.mark.parametrize("without", ["golden", "actual"])
def test_requests_that_pair_neither_by_tokens_nor_by_name(tmp_path: Path, without: str) -> None:
    golden, actual = Job(tmp_path / "g", 1), Job(tmp_path / "a", 2)
    for job, side, name, ranks in ((golden, "golden", "p", 1), (actual, "actual", "", 2)):
        rows = rows_of([(1, 0, 4)], name)
        if side == without:
            rows = Rows([f"{name}1"] * 4, range(4), None, None)
        for rank in range(ranks):
            job.label(rank, "pta" if side == "golden" else "acl", "x", values_of([(1, 0, 4)]), rows)
    plan, judgement = compare(golden, actual, 2)
    (label,) = judgement.labels
    assert [verdict.reason for verdict in label.ranks] == ["golden has no row for 4 rows"] * 2
    assert all(verdict.golden is not None and verdict.actual is not None for verdict in label.ranks)
    assert plan.notes[0].startswith(
        f"request '1' could be paired neither by tokens, which {without} did not tell, nor by name: "
    )


def test_rows_that_were_computed_twice_are_both_compared(tmp_path: Path) -> None:
    golden, actual = Job(tmp_path / "g", 1), Job(tmp_path / "a", 1)
    golden.label(0, "pta", "x", values_of([(1, 0, 4)]), rows_of([(1, 0, 4)], ""))
    for wrong in (1, 2):
        actual.label(0, "acl", "x", values_of([(1, 0, 4)]) * np.float32(wrong), rows_of([(1, 0, 4)], ""))
    _, judgement = compare(golden, actual, 1)
    (label,) = judgement.labels
    assert label.status is Status.DIVERGED
    assert label.ranks[0].stats is not None and label.ranks[0].stats.n == 8 * WIDTH


def test_a_label_that_has_rows_in_some_forwards_only(tmp_path: Path) -> None:
    """Logits of the last tokens, [B, V], have as many rows as a decode step, but fewer than a prefill."""
    golden, actual = Job(tmp_path / "g", 1), Job(tmp_path / "a", 1)
    prefill, decode = [(1, 0, 4), (2, 0, 3)], [(1, 4, 5), (2, 3, 4)]
    last = values_of([(1, 3, 4), (2, 2, 3)])
    for job, side, factor in ((golden, "pta", 1), (actual, "acl", -3)):
        job.label(0, side, "logits", last * np.float32(factor), rows_of(prefill, ""))
        job.label(0, side, "logits", values_of(decode), rows_of(decode, ""))
    plan, judgement = compare(golden, actual, 1)
    found = {label.key.occurrence: label.status for label in judgement.labels}
    assert found == {0: Status.DIVERGED, 1: Status.MATCH} and judgement.exit_code == 1
    assert "logits ([2, 12]) has no dimension for the 7 rows that were named: it paired as a tensor without names" in (
        plan.notes
    )


@pytest.mark.parametrize("width", [12, 10])
def test_rows_without_partner_are_told_whatever_the_layout(tmp_path: Path, width: int) -> None:
    """Ten columns on four ranks are padded, which the values must prove; twelve tell the layout by their shapes."""
    golden, actual = Job(tmp_path / "g", 1), Job(tmp_path / "a", 4)
    golden.label(0, "pta", "x", np.ascontiguousarray(values_of([(1, 0, 5)])[:, :width]), rows_of([(1, 0, 5)], ""))
    values = values_of([(1, 0, 8)])
    values[:, width:] = 0
    for rank in range(4):
        mine = np.ascontiguousarray(values[:, 3 * rank : 3 * rank + 3])
        actual.label(rank, "acl", "x", mine, rows_of([(1, 0, 8)], ""))
    compared: list[Pair] = []

    def count_and_compare(pairs: Sequence[Pair]) -> Outcomes:
        compared.extend(pairs)
        return compare_pairs(pairs)

    resolved = compare_and_resolve(plan_two(golden.indices(), actual.indices(), 4), count_and_compare)
    judgement = judge(resolved.plan, resolved.outcomes, run_failed=False)
    (label,) = judgement.labels
    assert [verdict.uncovered for verdict in label.ranks] == ["golden has no row for 3 rows"] * 4
    assert all(verdict.bitwise for verdict in label.ranks) and judgement.exit_code is ExitCode.INCOMPLETE
    assert width == 10 or len(compared) == 4


def test_names_that_several_labels_share_are_stored_once(tmp_path: Path) -> None:
    """Also where labels of two forwards, or of two models, take turns."""
    job = Job(tmp_path / "run", 1)
    steps: list[Step] = [[(1, 0, 3)], [(2, 0, 2)]]
    named = [(values_of(step), rows_of(step, "r")) for step in steps]
    for _ in range(3):
        for value, rows in named:
            job.label(0, "pta", "x", value, rows)
    (index,) = job.indices()
    assert len(index.rows) == 2
    assert [len(index.rows[each.rows].numbers) for each in index.records if each.side == "pta"] == [3, 2] * 3


def test_what_labels_with_the_same_rows_share_is_made_once(tmp_path: Path) -> None:
    """A plan grows with the rows, not with the labels that have them."""
    golden, actual = Job(tmp_path / "g", 1), Job(tmp_path / "a", 2)
    for name in ("x", "y"):
        golden.label(0, "pta", name, values_of([(1, 0, 4)]), rows_of([(1, 0, 4)], ""))
        for rank in range(2):
            actual.label(rank, "acl", name, values_of([(1, 0, 4)]), rows_of([(1, 0, 4)], ""))
    plan, _ = compare(golden, actual, 2)
    assert len(plan.labels) == 2 and len({id(label.rows) for label in plan.labels}) == 1
    for side in ([pair.golden for pair in plan.pairs], [pair.actual for pair in plan.pairs]):
        places = [source.places for source in side if source.places is not None]
        assert len(places) == 4 and len({(id(each.piece), id(each.row)) for each in places}) == 1


def rows_of_pairs(plan: Plan) -> dict[tuple[str, int, int], dict[str, tuple[object, ...]]]:
    """Where each row of a side lies, by its name; by label, rank and side."""
    found = {}
    for label in plan.labels:
        assert label.rows is not None
        for pair in label.pairs:
            names = [label.rows.words(row, row).partition(", ")[2] for row in range(len(label.rows.table))]
            for side, source in enumerate((pair.golden, pair.actual)):
                places = source.places
                assert places is not None and source.shape == (len(names), *source.shape[1:])
                of_piece = [(places.paths[file], at) for file, at in zip(places.file, places.offset, strict=True)]
                facts = (places.checksum.tolist(), places.rows.tolist(), source.dtype, source.shape[1:])
                found[label.key.label, pair.rank, side] = {
                    name: (*of_piece[piece], row, *(each[piece] for each in facts[:2]), *facts[2:])
                    for name, piece, row in zip(names, places.piece, places.row, strict=True)
                }
    return found


@settings(max_examples=25)
@given(st.data())
def test_labels_that_are_planned_together_are_planned_as_each_alone(data: st.DataObject) -> None:
    """Labels of several widths and types, recorded in all forwards or in some, share what is theirs alone nowhere."""
    steps = [[(request, at, at + 1) for request in data.draw(st.permutations(range(2)))] for at in range(4)]
    where = st.sets(st.sampled_from(range(len(steps))), min_size=1)
    labels = {
        name: (data.draw(where), data.draw(st.sampled_from([1, 3])), data.draw(st.sampled_from(["f4", "f8"])))
        for name in ("x", "y", "z")
    }
    with tempfile.TemporaryDirectory() as folder:
        golden, actual = Job(Path(folder, "g"), 1), Job(Path(folder, "a"), 2)
        for whole in [(0, 0, len(steps))], [(1, 0, len(steps))]:
            rows = rows_of(whole, "")
            for name, (_, width, dtype) in labels.items():
                golden.label(0, "pta", name, values_of(whole)[:, :width].astype(dtype), rows)
        for number, step in enumerate(steps):
            rows = rows_of(step, "")  # one table for all labels
            for name, (recorded, width, dtype) in labels.items():
                for rank in range(2) if number in recorded else ():
                    actual.label(rank, "acl", name, values_of(step)[:, :width].astype(dtype), rows)
        runs = golden.indices(), actual.indices()
        together = rows_of_pairs(plan_two(*runs, 2))
        for name in labels:
            own_golden, own_actual = (
                [replace(index, records=tuple(each for each in index.records if each.data_id == name)) for index in run]
                for run in runs
            )
            expected = rows_of_pairs(plan_two(own_golden, own_actual, 2))
            assert len(expected) == 4
            assert {key: rows for key, rows in together.items() if key[0] == name} == expected


def test_summaries_of_all_forwards_are_counted(tmp_path: Path) -> None:
    golden, actual = Job(tmp_path / "g", 1), Job(tmp_path / "a", 1, Capture.FINGERPRINT)
    golden.label(0, "pta", "x", np.ones((4, 5000), np.float32), rows_of([(1, 0, 4)], ""))
    for at in range(4):
        actual.label(0, "acl", "x", np.ones((1, 5000), np.float32), rows_of([(1, at, at + 1)], ""))
    plan, _ = compare(golden, actual, 1)
    assert plan.notes == ("of 4 of 5 tensors only fingerprints were kept",)


def test_lost_names_fail_their_labels_alone(tmp_path: Path) -> None:
    job = Job(tmp_path / "a", 1)
    job.label(0, "acl", "x", values_of([(1, 0, 4)]), rows_of([(1, 0, 4)], ""))
    job.label(0, "acl", "z", values_of([(1, 0, 4)]), None)
    (index,) = job.indices()
    number = next(iter(index.rows))
    assert [record.rows for record in index.records] == [number, -1]
    with (tmp_path / "a/rank00000.h5").open("r+b") as file:
        content = file.read()
        at = content.index(np.array([0, 0, 1000], np.int32).tobytes())
        file.seek(at)
        file.write(b"\xff")
    (index,) = [read_shard(files) for files in shards_in(tmp_path / "a")]
    assert [record.error for record in index.records] == ["the names of its rows are lost", ""]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((None, None, None, None), "positions"),
        ((["a"], [0, 1], None, None), "1 requests are given for 2 positions"),
        (("a", [0.5], None, None), "positions must be integers"),
        (("a", [-1], None, None), "positions must be integers"),
        (("a", [0], [1, 2], None), "2 token ids are given"),
        (("a", [[0], [1]], None, None), "shape"),
        (([1.5], [0], None, None), "named by a float"),
        ((["a", "a"], None, None, [[1], [1]]), "batch of 2"),
        ((None, None, None, [1, 1]), "attention mask"),
    ],
)
def test_impossible_rows(arguments: tuple[Any, ...], told: str) -> None:
    with pytest.raises(LabelError, match=told):
        _ = Rows(*arguments).named
