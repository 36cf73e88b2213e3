"""Labels with rows of which summaries were kept: row by row against a whole golden, through real shards to verdicts."""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.capture import Capture
from aclcmp.labeling.errors import ShardError
from aclcmp.labeling.layout import Shard
from aclcmp.labeling.recorder import Recorder
from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.labeling.shard.summarise import summarise
from aclcmp.labeling.shard.tensor_summary import TensorSummary
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.compare.remote_reads import read_bytes, read_dense, reads_of
from aclcmp.orchestrator.core.plan import Plan
from aclcmp.orchestrator.core.stats import Basis
from aclcmp.orchestrator.core.verdicts import Judgement, Status
from aclcmp.orchestrator.judge.judge import judge
from aclcmp.orchestrator.plan.planner import plan_two
from tests.models.comparing import compare_pairs
from tests.pipeline.test_rows import Step, rows_of, schedules
from tests.recorded import recorder_of

WIDTH = 480
SPLIT = Shard(-1)
Array = npt.NDArray[np.float32]


def values_of(step: Step, width: int = WIDTH) -> Array:
    names = [(request, position) for request, begin, end in step for position in range(begin, end)]
    rngs = [np.random.default_rng(request * 10_007 + position) for request, position in names]
    return np.array([rng.standard_normal(width) for rng in rngs], np.float32)


def side(folder: Path, ranks: int, capture: Capture) -> list[Recorder]:
    folder.mkdir()
    return [recorder_of(folder, rank, ranks, strict=True, capture=capture) for rank in range(ranks)]


def set_label(recorder: Recorder, source: str, value: Array, step: Step, layout: Shard | None = None) -> None:
    recorder.record(source, "x", np.ascontiguousarray(value), None, layout, "", None, "f.py:1", rows_of(step, ""))


def compare(folder: Path, ranks: int) -> tuple[Plan, Judgement]:
    golden, actual = ([read_shard(files) for files in shards_in(folder / name)] for name in ("g", "a"))
    plan = plan_two(golden, actual, ranks)
    return plan, judge(plan, compare_pairs(plan.pairs), run_failed=False)


@settings(max_examples=40)
@given(st.data())
def test_rows_pair_by_name_wherever_they_lie(data: st.DataObject) -> None:
    """Chunks and batches of any order, slices on ranks, a golden that is whole or summed up: one wrong row is named."""
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    ranks = data.draw(st.sampled_from([1, 2, 3]))
    sharded = data.draw(st.booleans()) and ranks > 1
    kept = data.draw(st.sampled_from([Capture.FINGERPRINT, Capture.STATS]))
    golden_kept = Capture.FULL if sharded else data.draw(st.sampled_from(list(Capture)))
    wrong_row = data.draw(st.none() | st.sampled_from([(r, at) for r, size in enumerate(sizes) for at in range(size)]))
    steps = data.draw(schedules(sizes))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        golden, actual = side(folder / "g", 1, golden_kept), side(folder / "a", ranks, kept)
        for request, size in enumerate(sizes):
            set_label(golden[0], "pta", values_of([(request, 0, size)])[None], [(request, 0, size)])
        for step in steps:
            values = values_of(step) * np.float32(1 + 1e-6)
            names = [(request, at) for request, begin, end in step for at in range(begin, end)]
            if wrong_row in names:
                values[names.index(wrong_row)] *= 2
            for rank, recorder in enumerate(actual):
                mine = np.array_split(np.arange(WIDTH), ranks)[rank] if sharded else np.arange(WIDTH)
                set_label(recorder, "acl", values[:, mine], step, SPLIT if sharded else None)
        for recorder in (*golden, *actual):
            recorder.close()
        _, judgement = compare(folder, ranks)
    (label,) = judgement.labels
    norms = Capture.STATS in (kept, golden_kept)
    assert len(label.ranks) == ranks
    for verdict in label.ranks:
        assert verdict.stats is not None and verdict.metrics is not None
        assert verdict.stats.basis is (Basis.NORMS if norms else Basis.ROW_FINGERPRINT)
        assert verdict.stats.n == sum(sizes) * (WIDTH // ranks if sharded else WIDTH)
        if wrong_row is None:
            assert verdict.status is Status.MATCH and verdict.metrics.rel_l2 == pytest.approx(1e-6, rel=0.5)
            continue
        assert verdict.status is Status.DIVERGED
        assert verdict.worst_row_name.startswith(f"request {wrong_row[0]}, position {wrong_row[1]}, token ")


def test_summaries_of_other_slices_cannot_be_compared(tmp_path: Path) -> None:
    golden, actual = side(tmp_path / "g", 1, Capture.FINGERPRINT), side(tmp_path / "a", 2, Capture.FINGERPRINT)
    step = [(1, 0, 4)]
    set_label(golden[0], "pta", values_of(step), step)
    for rank, recorder in enumerate(actual):
        set_label(recorder, "acl", values_of(step)[:, 240 * rank : 240 * (rank + 1)], step, SPLIT)
    for recorder in (*golden, *actual):
        recorder.close()
    _, judgement = compare(tmp_path, 2)
    (label,) = judgement.labels
    assert [verdict.status for verdict in label.ranks] == [Status.MISMATCH] * 2
    assert "only the fingerprint of a side was kept, of which no slice or sum" in label.ranks[0].reason


def test_a_disk_that_runs_short_changes_what_is_kept_in_the_middle(tmp_path: Path) -> None:
    """From one forward on there are fingerprints: both parts are compared, and each wrong row is seen."""
    for place in (1, 6):
        folder = tmp_path / str(place)
        folder.mkdir()
        golden, actual = side(folder / "g", 1, Capture.FULL), side(folder / "a", 2, Capture.FULL)
        set_label(golden[0], "pta", values_of([(1, 0, 8)]), [(1, 0, 8)])
        for begin in range(0, 8, 2):
            step = [(1, begin, begin + 2)]
            values = values_of(step)
            if begin <= place < begin + 2:
                values[place - begin] *= -1
            for rank, recorder in enumerate(actual):
                if begin == 4:
                    assert recorder._budget is not None
                    recorder._budget._switch_down("short")
                set_label(recorder, "acl", values[:, 240 * rank : 240 * (rank + 1)], step, SPLIT)
        for recorder in (*golden, *actual):
            recorder.close()
        _, judgement = compare(folder, 2)
        (label,) = judgement.labels
        for verdict in label.ranks:
            assert verdict.status is Status.DIVERGED and verdict.worst_row_name.startswith(
                f"request 1, position {place},"
            )
            assert verdict.stats is not None and verdict.stats.n == 8 * 240
            assert verdict.stats.basis is Basis.ROW_FINGERPRINT


def test_rows_are_kept_whole_where_their_summaries_are_no_smaller(tmp_path: Path) -> None:
    (recorder,) = side(tmp_path / "a", 1, Capture.FINGERPRINT)
    for width in (92, 93):
        step = [(width, 0, 3)]
        set_label(recorder, "acl", values_of(step, width), step)
    recorder.close()
    (index,) = [read_shard(files) for files in shards_in(tmp_path / "a")]
    records = [record for record in index.records if record.side == "acl"]
    assert [(record.capture, record.nbytes) for record in records] == [("full", 3 * 368), ("fingerprint", 3 * 368)]


@pytest.mark.parametrize("kept", [Capture.FINGERPRINT, Capture.STATS])
def test_what_lies_on_another_host_is_sent(tmp_path: Path, kept: Capture) -> None:
    golden, actual = side(tmp_path / "g", 1, Capture.FULL), side(tmp_path / "a", 2, kept)
    steps = [[(1, 0, 5)], [(2, 0, 3), (1, 5, 9)]]
    for step in steps:
        set_label(golden[0], "pta", values_of(step), step)
        for rank, recorder in enumerate(actual):
            set_label(recorder, "acl", 1.5 * values_of(step)[:, 240 * rank : 240 * (rank + 1)], step, SPLIT)
    for recorder in (*golden, *actual):
        recorder.close()
    plan, _ = compare(tmp_path, 2)
    assert len(plan.pairs) == 2
    for pair in plan.pairs:
        fetched = {read: read_dense(read) for read in reads_of(pair)}
        assert [len(each) for each in fetched.values()] == [read_bytes(read) for read in fetched]
        here, there = read_pair_stats(pair), read_pair_stats(pair, fetched)
        assert repr(here) == repr(there) and here.rows.count == 12
        assert here.sum_dd == pytest.approx(0.25 * here.sum_xx, rel=0.5)


def test_damage_is_refused(tmp_path: Path) -> None:
    golden, actual = side(tmp_path / "g", 1, Capture.FULL), side(tmp_path / "a", 1, Capture.FINGERPRINT)
    step = [(1, 0, 5)]
    set_label(golden[0], "pta", values_of(step), step)
    set_label(actual[0], "acl", values_of(step), step)
    for recorder in (*golden, *actual):
        recorder.close()
    plan, judgement = compare(tmp_path, 1)
    assert judgement.labels[0].ranks[0].bitwise
    source = plan.pairs[0].actual
    assert source.places is not None
    with Path(source.path).open("r+b") as file:
        file.seek(int(source.places.offset[0]) + 50)
        file.write(b"\x55")
    with pytest.raises(ShardError, match="not those that were recorded"):
        read_pair_stats(plan.pairs[0])


def test_the_summary_of_a_tensor_tells_nothing_of_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As versions before wrote it of labels with rows."""
    golden, actual = side(tmp_path / "g", 1, Capture.FULL), side(tmp_path / "a", 1, Capture.FINGERPRINT)
    step = [(1, 0, 50)]
    set_label(golden[0], "pta", values_of(step), step)

    def packed(tensor: object, rows: int, *, sketch: bool) -> npt.NDArray[np.uint8]:
        summary: TensorSummary = summarise(
            values_of(step).reshape(-1).view(np.uint8), "float32", (50, WIDTH), sketch=sketch
        )
        return summary.pack().view(np.uint8)

    monkeypatch.setattr("aclcmp.labeling.summarised.packed_summary", packed)
    set_label(actual[0], "acl", values_of(step), step)
    for recorder in (*golden, *actual):
        recorder.close()
    _, judgement = compare(tmp_path, 1)
    (verdict,) = judgement.labels[0].ranks
    assert verdict.status is Status.FAILED and "its summaries tell nothing of its rows" in verdict.reason
