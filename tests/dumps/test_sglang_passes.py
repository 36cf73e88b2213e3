"""Folders of forward passes that SGLang and vLLM dump."""

from pathlib import Path

import pytest

from aclcmp.labeling.shard.dumped_tensor import ForeignFormatError
from aclcmp.orchestrator.dumps.registry import read_dump
from tests.dumps.atb_writer import values
from tests.dumps.samples import by_name, read, reasons, tensors
from tests.dumps.sglang_writer import BATCH, dump_batches, dump_passes

torch = pytest.importorskip("torch")


def test_passes_are_tasks_in_the_order_of_computation(tmp_path: Path) -> None:
    logits = dump_passes(tmp_path / "d" / "TP0_PP0_Rank0_pid7")
    dump_passes(tmp_path / "d" / "TP1_PP0_Rank1_pid8")
    index = read(tmp_path / "d")
    assert index.tool == "SGLang's passes" and index.order == "calls" and len(index.indices) == 2
    ran = ["model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm.0", "model.norm.1"]
    for rank in (0, 1):
        for number in range(3):
            found = by_name(index, rank, number)
            assert list(found) == BATCH + ran + (["model", "logits_processor"] if number < 2 else [])
            if number < 2:
                assert values(found["logits_processor"]).tolist() == logits[number].tolist()
    assert len(index.notes) == 1 and "of the last pass it is not there" in index.notes[0]


def test_one_rank_one_file_and_many_passes(tmp_path: Path) -> None:
    folder = tmp_path / "TP3_PP1_Rank7_pid100"
    dump_passes(folder, passes=12)
    for where in (folder, folder / "Pass00011.pt"):
        index = read(where)
        assert index.tool == "SGLang's passes" and [each.header.rank for each in index.indices] == [7]
    assert sorted({record.task for _, record, _ in tensors(read(folder))}) == list(range(12))
    assert {record.task for _, record, _ in tensors(read(folder / "Pass00011.pt"))} == {10, 11}


def test_what_a_skipped_pass_left_behind_is_told(tmp_path: Path) -> None:
    """vLLM's dumper can skip passes that warm up: the output of the last of these begins the first file."""
    dump_passes(tmp_path / "d" / "TP0_PP0_Rank0_pid7", skip=1)
    index = read(tmp_path / "d")
    assert "logits_processor" in by_name(index, task=0) and "logits_processor" not in by_name(index, task=1)
    assert any("Pass00000 begins with is left out" in note for note in index.notes)


def test_other_bodies_and_what_runs_before_them(tmp_path: Path) -> None:
    folder = tmp_path / "d" / "TP0_PP0_Rank0_pid7"
    folder.mkdir(parents=True)
    one = torch.ones(2)
    batch = {"language_model.forward_batch_info.input_ids": one}
    torch.save({"visual.patch": one, "language_model.embed": one, **batch}, folder / "Pass00000.pt")
    late = {"language_model.pp_proxy_tensors.hidden": one, "lm_head": one}
    torch.save({**late, "visual.patch": one, "language_model.embed": one, **batch}, folder / "Pass00001.pt")
    index = read(tmp_path / "d")
    own = [*batch, "visual.patch", "language_model.embed"]
    assert list(by_name(index, task=0)) == [*own, *late] and list(by_name(index, task=1)) == own
    torch.save({"lm_head": one}, tmp_path / "Pass00000.pt")
    assert list(by_name(read(tmp_path / "Pass00000.pt"))) == ["lm_head"]


def test_damaged_and_dangerous_passes_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "d" / "TP0_PP0_Rank0_pid7"
    dump_passes(folder)
    whole = (folder / "Pass00001.pt").read_bytes()
    (folder / "Pass00001.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"model.x": torch.ones(1), "evil": Path}, folder / "Pass00002.pt")
    refused = reasons(read(tmp_path / "d"))
    assert list(refused) == ["Pass00001", "Pass00002"]
    assert "truncated" in refused["Pass00001"] and "weights_only=True" in refused["Pass00002"]


def test_two_dumps_of_a_rank_are_not_mixed(tmp_path: Path) -> None:
    for pid in (7, 8):
        dump_passes(tmp_path / "d" / f"TP0_PP0_Rank0_pid{pid}")
    with pytest.raises(ForeignFormatError, match="Rank0_pid7 and TP0_PP0_Rank0_pid8; name one of them"):
        read_dump(tmp_path / "d", "pta", tmp_path / "scratch")


@pytest.mark.parametrize("lost", ["missing", "damaged", "of other inputs", "without inputs"])
def test_names_do_not_go_on_behind_a_pass_that_is_not_understood(tmp_path: Path, lost: str) -> None:
    """In the second pass the first request ends, and another one comes to its length."""
    folder = tmp_path / "d" / "TP0_PP0_Rank0_pid7"
    dump_batches(folder, [[(0, [5, 6])], [(0, [7, 8, 9])], [(3, [1])], [(2, [1])], [(0, [5, 5])]])
    file = folder / "Pass00001.pt"
    if lost == "missing":
        file.unlink()
    elif lost == "damaged":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        inputs = {BATCH[0]: torch.ones(2)} if lost == "of other inputs" else {}
        torch.save({"model.layers.0": torch.ones(2, 4), **inputs}, file)
    index = read(tmp_path / "d")
    (rank,) = index.indices
    rows = {
        record.task: rank.rows[record.rows]
        for record in rank.records
        if record.data_id == BATCH[0] and record.task != 1
    }
    assert [rows[task].numbers[:, 0].tolist() for task in (0, 2, 3, 4)] == [[0, 0], [-1], [-1], [3, 3]]
    assert "2 rows belong to requests that the dump cannot tell apart: they are not compared" in index.notes


def test_rows_without_names_are_counted_once_for_all_ranks(tmp_path: Path) -> None:
    for rank in (0, 1):
        dump_batches(tmp_path / "d" / f"TP{rank}_PP0_Rank{rank}_pid{rank}", [[(3, [5])]])
    assert any(note.startswith("1 rows belong to requests") for note in read(tmp_path / "d").notes)
