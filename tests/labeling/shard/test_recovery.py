"""Recovery that is killed, run twice, or out of disk, and shards whose rank died at an odd moment: nothing is lost."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from aclcmp.labeling.errors import ShardError, ShardFormatError
from aclcmp.labeling.shard.journal import JournalWriter, ShardHeader
from aclcmp.labeling.shard.recovery import recover
from aclcmp.labeling.shard.segment import Segment
from aclcmp.labeling.shard.shard_files import ShardFiles, shards_in
from aclcmp.labeling.shard.shard_reader import read_label, read_shard
from aclcmp.labeling.shard.shard_writer import ShardWriter
from tests.labeling.shard.conftest import bits_of, record_of
from tests.labeling.shard.test_damage import write
from tests.processes import PATIENCE

LABELS = 5


def state(folder: Path) -> tuple[int, int]:
    """How many labels are whole, with the values that were written, and how many failed."""
    (files,) = shards_in(folder)
    index = read_shard(files)
    right = [bool((read_label(index, each) == int(each.data_id[1:])).all()) for each in index.records if not each.error]
    assert all(right)
    return len(right), sum(bool(each.error) for each in index.records)


def torn(folder: Path, header: ShardHeader, *, segments: int = 1, damage: bool = False) -> ShardFiles:
    """A shard whose process died, of so many segments that were not sealed, with a label damaged or not."""
    folder.mkdir(exist_ok=True)
    writer = ShardWriter(folder, header)
    for number in range(LABELS):
        if segments > 1 and number in (2, 4):
            assert writer._segment is not None
            writer._segment.abandon()
            writer._segment, writer._number = None, writer._number + 1
        label(writer, number)
    writer.detach()
    if damage:
        record = read_shard(writer.files).records[1]
        with writer.files.segment(record.segment).open("r+b") as file:
            file.seek((record.offset or 0) + 3)
            file.write(b"\x99")
    return writer.files


def label(writer: ShardWriter, number: int) -> None:
    import numpy as np

    values = np.full((10, 10), number, np.float32)
    writer.add(record_of(values, f"x{number}", number), bits_of(values))


def recover_killed(journal: Path, step: int) -> int:
    """Recover in a process that is killed before its step of this number on the disk; return its exit code."""

    def recover_until() -> None:
        count = 0

        def dying(of: Callable[..., object]) -> Callable[..., object]:
            def called(*arguments: object, **options: object) -> object:
                nonlocal count
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return of(*arguments, **options)

            return called

        steps = ((Path, "replace"), (Path, "unlink"), (os, "link"), (os, "fsync"), (os, "write"))
        for owner, name in steps:
            setattr(owner, name, dying(getattr(owner, name)))
        recover(journal)

    child = multiprocessing.get_context("fork").Process(target=recover_until)
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.parametrize("segments", [1, 3])
@pytest.mark.parametrize("damage", [False, True])
def test_killed_at_any_step_and_again(tmp_path: Path, header: ShardHeader, segments: int, damage: bool) -> None:
    files = torn(tmp_path / "torn", header, segments=segments, damage=damage)
    expected = (LABELS - damage, int(damage))
    for step in range(1, 60):
        folder = tmp_path / str(step)
        shutil.copytree(files.folder, folder)
        died = recover_killed(folder / files.journal.name, step)
        assert state(folder) == expected, f"killed at step {step}"
        recover(folder / files.journal.name)
        assert state(folder) == expected and not list(folder.glob("*.part"))
        assert bool(list(folder.glob("*.damaged"))) == damage
        if died == 0:
            break
    assert step > 3 * segments, "it was killed at every step"


@pytest.mark.fuzz
def test_several_at_once(tmp_path: Path, header: ShardHeader) -> None:
    files = torn(tmp_path / "torn", header, segments=3)
    code = "import sys, pathlib\nfrom aclcmp.labeling.shard.recovery import recover\nrecover(pathlib.Path(sys.argv[1]))"
    for number in range(10):
        folder = tmp_path / str(number)
        shutil.copytree(files.folder, folder)
        command = [sys.executable, "-c", code, str(folder / files.journal.name)]
        started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
        told = [each.communicate(timeout=PATIENCE)[1] for each in started]
        assert state(folder) == (LABELS, 0)
        assert all(not text or "being written or recovered by a running process" in text for text in told)
        assert any(each.returncode == 0 for each in started)


def test_a_rank_that_died_before_its_first_label(tmp_path: Path, header: ShardHeader) -> None:
    """Its segment is there, and no line of the journal names it."""
    files = ShardFiles(tmp_path, header.rank)
    JournalWriter(files.journal, header).close()
    Segment(files.segment(0)).abandon()
    assert read_shard(files).records == ()
    assert recover(files.journal).kept == 0 and read_shard(files).records == ()
    assert files.segments() == [] and not read_shard(files).torn


def test_a_rank_that_died_after_it_began_a_further_segment(tmp_path: Path, header: ShardHeader) -> None:
    writer = write(tmp_path, header, LABELS, close=False)
    writer._seal()
    writer._open_segment()
    writer.detach()
    assert state(tmp_path) == (LABELS, 0)
    recover(writer.files.journal)
    assert state(tmp_path) == (LABELS, 0) and writer.files.segments() == [0]


@pytest.mark.parametrize("first", [b"", b"\n", b"garbage {}\n", b"\0" * 40 + b"\n"])
def test_a_damaged_first_line_of_the_journal_keeps_sealed_segments(
    tmp_path: Path, header: ShardHeader, first: bytes
) -> None:
    writer = write(tmp_path, header, LABELS)
    rest = writer.files.journal.read_bytes().split(b"\n", 1)[1] if first else b""
    writer.files.journal.write_bytes(first + rest)
    index = read_shard(writer.files)
    assert state(tmp_path) == (LABELS, 0)
    assert index.damaged == 1 and index.torn and "does not begin with the header" in index.notes[0]
    found = recover(writer.files.journal)
    assert (found.kept, found.damaged) == (LABELS, 1)
    assert state(tmp_path) == (LABELS, 0) and read_shard(writer.files).damaged == 1  # it goes on being told
    assert list(tmp_path.glob("*.journal.damaged"))


def test_a_damaged_first_line_beside_a_torn_segment_is_refused(tmp_path: Path, header: ShardHeader) -> None:
    files = torn(tmp_path, header)
    files.journal.write_bytes(b"garbage\n")
    with pytest.raises(ShardFormatError, match="does not begin with the header"):
        read_shard(files)
    with pytest.raises(ShardFormatError, match="does not begin with the header"):
        recover(files.journal)


def test_a_name_that_is_taken_is_not_overwritten(tmp_path: Path, header: ShardHeader) -> None:
    files = torn(tmp_path, header, damage=True)
    kept = files.segment(0).with_name(files.segment(0).name + ".damaged")
    kept.write_bytes(b"an earlier one")
    recover(files.journal)
    assert kept.read_bytes() == b"an earlier one" and kept.with_name(kept.name + ".1").exists()


def test_others_parts_are_left_alone(tmp_path: Path, header: ShardHeader) -> None:
    files = torn(tmp_path, header)
    other = tmp_path / f"{files.stem}-1.h5.77-8.part"
    mine = tmp_path / f"{files.stem}.h5.77-8.part"
    for path in (other, mine):
        path.write_bytes(b"x")
    recover(files.journal)
    assert other.exists() and not mine.exists()


@pytest.fixture
def ext4(tmp_path: Path):
    """A small ext4 file system, where root may mount one."""
    image, folder = tmp_path / "image", tmp_path / "ext4"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(24 << 20)
    made = shutil.which("mkfs.ext4") and os.geteuid() == 0
    if not made or subprocess.run(["mkfs.ext4", "-q", str(image)], check=False).returncode:
        pytest.skip("no ext4 can be made here")
    if subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, left: int) -> Path:
    """Fill a disk but for so many bytes, about."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)
        file.truncate(max(file.tell() - left, 0))
    return filler


RECOVER = """
import pathlib, sys
from aclcmp.labeling.errors import ShardError
from aclcmp.labeling.shard.recovery import recover
try:
    recover(pathlib.Path(sys.argv[1]))
except ShardError as error:
    print(error)
"""


@pytest.mark.parametrize("left", [0, 4096, 8192, 12_288, 16_384, 40_960])
def test_a_full_disk_changes_nothing(tmp_path: Path, ext4: Path, header: ShardHeader, left: int) -> None:
    copied = torn(tmp_path / "torn", header, damage=True)
    files = replace(copied, folder=ext4 / "shards")  # what this process has open is no file of that disk
    shutil.copytree(copied.folder, files.folder)
    before = {path.name: path.read_bytes() for path in files.folder.iterdir()}
    filler = fill(ext4, left)
    told = python(RECOVER, files.journal)
    assert told.returncode == 0, told.stderr
    if told.stdout:
        assert "cannot be rebuilt" in told.stdout and "what was there is unchanged" in told.stdout
        after = {path.name: path.read_bytes() for path in files.folder.iterdir()}
        assert {name: each for name, each in after.items() if "damaged" not in name} == before
    assert state(files.folder) == (LABELS - 1, 1)
    filler.unlink()
    recover(files.journal)
    assert state(files.folder) == (LABELS - 1, 1)


@pytest.mark.parametrize("left", [0, 3000, 20_000, 70_000, 200_000])
def test_a_moment_of_a_full_disk_silences_no_rank(ext4: Path, left: int) -> None:
    (ext4 / "shards").mkdir()
    root = str(Path(__file__).resolve().parents[3])
    code = f"import sys; sys.path.insert(0, {root!r})\nfrom tests.labeling.shard.test_recovery import label_through"
    told = python(f"{code}\nlabel_through(sys.argv[1], {left})", ext4)
    assert told.returncode == 0, told.stderr
    kept = [int(each) for each in told.stdout.split()]
    assert kept[0] == 0 and kept[-10:] == list(range(60, 70))
    (files,) = shards_in(ext4 / "shards")
    for _ in range(2):
        index = read_shard(files)
        assert [int(each.data_id[1:]) for each in index.records if not each.error] == kept
        assert state(ext4 / "shards") == (len(kept), 0)
        recover(files.journal)
    assert len(list((ext4 / "shards").iterdir())) < 20, "no file for each try"


def label_through(folder: str, left: int) -> None:
    """Label before, while and after the disk is full; print what was acknowledged."""
    disk = Path(folder)
    writer = ShardWriter(disk / "shards", ShardHeader("20260101-000000", 3, 8, 3, 0, "host-a", 42, 1.5))
    label(writer, 0)
    writer._seal()
    kept = [0]
    filler = fill(disk, left)
    for number in range(1, 70):
        if number == 60:
            filler.unlink()
            os.sync()
        with suppress(OSError):
            label(writer, number)
            kept.append(number)
    with suppress(ShardError):  # a segment was left to the journal
        writer.close()
    print(*kept)
