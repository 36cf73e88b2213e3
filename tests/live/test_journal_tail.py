"""Journals read on while they grow: torn, damaged, rotating, many at once."""

from pathlib import Path

import numpy as np
import pytest

from aclcmp.labeling.errors import ShardFormatError
from aclcmp.labeling.shard.journal import JournalWriter, ShardHeader, read_journal, read_journal_from
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.orchestrator.live import journal_tail
from aclcmp.orchestrator.live.journal_tail import read_new_records
from tests.live.growing import Rank

HEADER = ShardHeader("run", 0, 1, 0, 0, "host", 1, 0.0)


def record(number: int, name: str = "x") -> LabelRecord:
    return LabelRecord(0, f"{name}{number}", 0, "pta", number, 0.0, "m.py:1", error="none")


def test_a_journal_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with pytest.raises(FileNotFoundError):
        read_journal_from(path, 0, 1 << 20)
    writer = JournalWriter(path, HEADER)
    first = read_journal_from(path, 0, 1 << 20)
    assert first.header == HEADER and first.records == () and first.offset == path.stat().st_size
    assert read_journal_from(path, first.offset, 1 << 20).offset == first.offset
    writer.commit(record(0))
    writer.commit(record(1))
    second = read_journal_from(path, first.offset, 1 << 20)
    assert [each.data_id for each in second.records] == ["x0", "x1"] and second.header is None and not second.ended
    writer.mark_end()
    writer.close()
    last = read_journal_from(path, second.offset, 1 << 20)
    assert last.ended and last.records == () and last.offset == path.stat().st_size
    assert (*first.records, *second.records, *last.records) == read_journal(path).records


def test_what_is_torn_waits_and_what_is_damaged_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "j"
    writer = JournalWriter(path, HEADER)
    for number in range(4):
        writer.commit(record(number))
    writer.close()
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(len(whole)):  # wherever a reader comes in
        path.write_bytes(whole[:cut])
        found = read_journal_from(path, 0, 1 << 20)
        path.write_bytes(whole)
        rest = read_journal_from(path, found.offset, 1 << 20)
        assert found.offset == sum(map(len, whole[:cut].splitlines(keepends=True)[: whole[:cut].count(b"\n")]))
        assert [each.seq for each in (*found.records, *rest.records)] == [0, 1, 2, 3]
    lines[2] = lines[2].replace(b"x1", b"y1")
    path.write_bytes(b"".join(lines))
    assert [each.seq for each in read_journal_from(path, 0, 1 << 20).records] == [0, 2, 3]
    path.write_bytes(b"".join(lines[1:]))
    with pytest.raises(ShardFormatError):
        read_journal_from(path, 0, 1 << 20)


def test_each_look_is_bounded_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "j"
    writer = JournalWriter(path, HEADER)
    for number in range(50):
        writer.commit(record(number, "x" * (number * 7 % 40)))
    writer.close()
    longest = max(map(len, path.read_bytes().splitlines(keepends=True)))
    offset, seen = 0, []
    while (found := read_journal_from(path, offset, 100)).offset > offset:
        assert found.offset - offset <= 100 + longest
        offset = found.offset
        seen += [each.seq for each in found.records]
    assert seen == list(range(50))


def test_of_many_journals_those_least_read_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_tail, "_MOST_BYTES", 1000)
    monkeypatch.setattr(journal_tail, "_AT_ONCE", 400)
    ranks = [Rank(tmp_path, rank, 6) for rank in range(6)]
    for rank in ranks:
        for number in range(8):
            rank.label("pta", f"layers.{number}", np.zeros(2, np.float32))
    known: dict = {}
    seen: dict[int, int] = {}
    for _ in range(40):
        found = read_new_records(tmp_path, frozenset({0, 1, 2, 3, 4}), known)
        assert len(found) <= 4
        for each in found:
            known[each.files] = each.part.offset
            seen[each.files.rank] = seen.get(each.files.rank, 0) + len(each.part.records)
        if min(seen.values()) > 0 and len(seen) == 5 and max(seen.values()) < 8:
            break  # all have been heard before any was read to its end
    else:
        pytest.fail("one was read to its end before others")
    (tmp_path / "rank00001.journal").write_text("garbage\n")
    read_new_records(tmp_path, frozenset({1}), {})
    assert read_new_records(tmp_path / "missing", frozenset({1}), {}) == []
