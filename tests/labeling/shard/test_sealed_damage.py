"""Flipped bits and zeroed blocks in every region of a sealed shard: each label reads right or not at all, in time."""

from __future__ import annotations

import multiprocessing
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest

from aclcmp.labeling.errors import AclcmpError, ShardFormatError
from aclcmp.labeling.shard import shard_reader
from aclcmp.labeling.shard.hdf5_types import decode_text
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.recovery import recover
from aclcmp.labeling.shard.shard_files import ShardFiles, shards_in
from aclcmp.labeling.shard.shard_reader import read_label, read_shard
from aclcmp.labeling.shard.trial import check_opens
from aclcmp.orchestrator.compare.remote_reads import read_dense
from aclcmp.orchestrator.core.regions import Region
from aclcmp.orchestrator.plan.rank_labels import labels_by_rank
from tests.labeling.shard.test_damage import write

LABELS = 6
SECONDS_EACH = 60


def outcome(folder: Path) -> str:
    """What comes of reading the shard the way that a comparison does."""
    try:
        (files,) = shards_in(folder)
        index = read_shard(files)
        ((_, held),) = labels_by_rank([index])
    except AclcmpError:
        return "refused"
    told = bool(index.notes) or index.torn
    right = 0
    for each in held:
        if each.record.error:
            told = True
            continue
        try:
            values = read_dense((each.source, Region.whole(each.shape))).view(np.float32)
        except AclcmpError:
            told = True
            continue
        if each.key.label != f"x{int(values[0])}" or not (values == values[0]).all() or each.shape != (10, 10):
            return "wrong"
        right += 1
    return "right" if right == LABELS else "told" if told else "lost silently"


def outcomes(folder: Path, damages: Sequence[Callable[[bytearray], None]], then: str) -> Iterator[tuple[str, str]]:
    """For each damage to the segment, what reading gives and what it gives after `recover`."""
    (files,) = shards_in(folder)
    sealed = files.segment(0).read_bytes()
    work = folder / "work"
    for damage in damages:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        content = bytearray(sealed)
        damage(content)
        (work / files.segment(0).name).write_bytes(content)
        if then == "with journal":
            shutil.copy(files.journal, work)
        before = outcome(work)
        try:
            recover(work / files.segment(0).name)
        except AclcmpError:
            yield before, "not recovered"
        else:
            yield before, outcome(work)


def counted(folder: Path, damages: Sequence[Callable[[bytearray], None]], then: str) -> Counter[tuple[str, str]]:
    """Count outcomes in a child with a time limit: what hangs in HDF5 hears no signal but SIGKILL."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def put_all() -> None:
        for each in outcomes(folder, damages, then):
            queue.put(each)

    child = context.Process(target=put_all)
    child.start()
    try:
        return Counter(queue.get(timeout=SECONDS_EACH) for _ in damages)
    finally:
        child.kill()
        child.join()


def zeroed(begin: int, size: int) -> Callable[[bytearray], None]:
    def damage(content: bytearray) -> None:
        content[begin : begin + size] = bytes(len(content[begin : begin + size]))

    return damage


def flipped(bit: int) -> Callable[[bytearray], None]:
    def damage(content: bytearray) -> None:
        content[bit // 8] ^= 1 << bit % 8

    return damage


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> ShardFiles:
    header = ShardHeader("20260101-000000", 3, 8, 3, 0, "host-a", 42, 1.5, {"aclcmp": "0.1.0"})
    return write(tmp_path_factory.mktemp("sealed"), header, LABELS).files


@pytest.mark.fuzz
@pytest.mark.parametrize("then", ["with journal", "alone"])
@pytest.mark.parametrize("size", [64, 512, 4096])
def test_zeroed_blocks(sealed: ShardFiles, size: int, then: str) -> None:
    length = sealed.segment(0).stat().st_size
    found = counted(sealed.folder, [zeroed(begin, size) for begin in range(0, length, min(size, 512))], then)
    assert not any("silently" in each or each == "wrong" for pair in found for each in pair), found
    assert any(before != "right" for before, _ in found)


@pytest.mark.fuzz
@pytest.mark.parametrize("then", ["with journal", "alone"])
def test_flipped_bits(sealed: ShardFiles, then: str) -> None:
    bits = random.Random(5).sample(range(8 * sealed.segment(0).stat().st_size), 400)
    found = counted(sealed.folder, [flipped(bit) for bit in bits], then)
    assert not any("silently" in each or each == "wrong" for pair in found for each in pair), found
    assert found["told", "told" if then == "with journal" else "not recovered"], found


def test_a_flipped_bit_of_a_label_fails_it_alone_and_recovery_keeps_the_others(tmp_path: Path) -> None:
    header = ShardHeader("20260101-000000", 3, 8, 3, 0, "host-a", 42, 1.5)
    files = write(tmp_path, header, LABELS).files
    record = read_shard(files).records[2]
    with files.segment(0).open("r+b") as file:
        file.seek((record.offset or 0) + 3)
        file.write(b"\x99")
    ((_, held),) = labels_by_rank([read_shard(files)])
    for each in held:
        if each.key.label == "x2":
            with pytest.raises(AclcmpError, match=r"rank00003\.h5: the 400 bytes .* not those that were recorded"):
                read_dense((each.source, Region.whole((10, 10))))
            with pytest.raises(AclcmpError, match=r"x2.*damaged"):
                read_label(read_shard(files), each.record)
        else:
            read_dense((each.source, Region((1, 2), (3, 4))))
    assert [lost.data_id for lost in recover(files.segment(0)).lost] == ["x2"]
    assert [bool(each.error) for each in read_shard(files).records] == [number == 2 for number in range(LABELS)]
    assert files.segment(0).with_name("rank00003.h5.damaged").exists()
    assert recover(files.segment(0)).lost == ()


def test_what_a_damaged_journal_lost_is_told_after_recovery_too(tmp_path: Path) -> None:
    header = ShardHeader("20260101-000000", 3, 8, 3, 0, "host-a", 42, 1.5)
    writer = write(tmp_path, header, LABELS, close=False)
    writer.detach()
    lines = writer.files.journal.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"x2", b"x7")
    writer.files.journal.write_bytes(b"".join(lines))
    for _ in range(2):
        assert recover(writer.files.journal).damaged == 1
        index = read_shard(writer.files)
        assert (len(index.records), index.damaged) == (LABELS - 1, 1) and "labels may be missing" in index.notes[0]


def test_a_line_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    header = ShardHeader("20260101-000000", 3, 8, 3, 0, "host-a", 42, 1.5)
    writer = write(tmp_path, header, LABELS, close=False)
    writer.detach()
    lines = writer.files.journal.read_bytes().splitlines(keepends=True)
    writer.files.journal.write_bytes(b"".join([*lines, *lines[2:4]]))
    index = read_shard(writer.files)
    assert (len(index.records), index.damaged) == (LABELS, 2)


@pytest.mark.parametrize("journal", [True, False])
def test_a_damaged_heap_in_a_shard_of_an_earlier_version_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: bool
) -> None:
    header = ShardHeader("20260101-000000", 3, 8, 3, 0, "host-a", 42, 1.5)
    files = write(tmp_path, header, LABELS).files
    with h5py.File(files.segment(0), "r+") as file:
        del file.attrs["checksum"]
        for name in ("header", "run_id", "host", "versions"):
            file.attrs[name] = decode_text(file.attrs[name])
    content = bytearray(files.segment(0).read_bytes())
    heap = content.index(b"GCOL")
    content[heap + 16 : heap + 512] = bytes(496)
    files.segment(0).write_bytes(content)
    monkeypatch.setattr(shard_reader, "check_opens", partial(check_opens, seconds=2))
    if not journal:
        files.journal.unlink()
    with pytest.raises(ShardFormatError, match=r"did not open within 2 s|cannot be read"):
        read_shard(files)
    if journal:
        assert recover(files.segment(0)).kept == LABELS
        assert len(read_shard(files).records) == LABELS
