"""Journals followed while they grow."""

from pathlib import Path

from rich.console import Console

from aclcmp.labeling.shard.files import ShardFiles
from aclcmp.labeling.shard.journal import JournalWriter, ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.orchestrator.live import Followed, Tail


def record(number: int, name: str) -> LabelRecord:
    return LabelRecord(number, name, 0, "pta", number, 0.0, "m.py:1")


def text_of(followed: Followed) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(followed.table() or "")
    return capture.get()


def test_ranks_are_shown_as_they_label(tmp_path: Path) -> None:
    followed = Followed(tmp_path, 12)
    assert followed.table() is None
    for rank in range(12):
        writer = JournalWriter(ShardFiles(tmp_path, rank).journal, ShardHeader("r", rank, 12, rank, 0, "here", 1, 0.0))
        for number in range(rank + 1):
            writer.commit(record(number, f"layers.{number}.[b]"))
        writer.close()
    followed = Followed(tmp_path, 12)
    lines = text_of(followed).splitlines()
    assert len(lines) == 9 and "rank 0" in lines[0] and "layers.7.[b]" in lines[7] and "8 labels" in lines[7]
    assert "fewest labels of 12 ranks" in lines[8]


def test_a_tail_counts_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "j"
    tail = Tail(path)
    tail.read()
    assert tail.labels == 0
    path.write_bytes(b'01234567 {"run_id": "x"}\n01234567 [0,"a",0]\n01234567 [0,"b')
    tail.read()
    assert (tail.labels, tail.last) == (1, "a")
    with path.open("ab") as file:
        file.write(b'",0]\n01234567 [1,"c",0]\nxx not ours\n01234567 "end"\n')
    tail.read()
    assert (tail.labels, tail.task, tail.last) == (3, 1, "c")
    with path.open("ab") as file:
        file.write(b"01234567 [broken\n")
    tail.read()
    assert (tail.labels, tail.last) == (4, "c")
