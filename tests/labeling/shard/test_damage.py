"""Torn, damaged and hostile shards: what was committed is read, the rest is named, nothing outside is touched."""

import os
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from aclcmp.labeling.errors import ShardError, ShardFormatError
from aclcmp.labeling.shard.hdf5_types import decode_text
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.recovery import recover
from aclcmp.labeling.shard.segment import index_checksum
from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.labeling.shard.shard_writer import ShardWriter
from tests.labeling.shard.conftest import bits_of, record_of


def write(folder: Path, header: ShardHeader, count: int = 5, *, close: bool = True) -> ShardWriter:
    writer = ShardWriter(folder, header)
    for number in range(count):
        values = np.full((10, 10), number, np.float32)
        writer.add(record_of(values, f"x{number}", number), bits_of(values))
    if close:
        writer.close()
    return writer


def test_torn_shard_is_recovered(tmp_path: Path, header: ShardHeader) -> None:
    writer = write(tmp_path, header, close=False)
    path = writer.files.segment(0)
    with pytest.raises(ShardError, match="running process"):
        recover(path)
    writer.detach()  # as if the process had died
    result = recover(path)
    assert (result.kept, result.lost, result.rebuilt) == (5, (), (path,))
    index = read_shard(writer.files)
    assert not index.notes and not index.torn
    with h5py.File(path) as file:
        assert file["tasks/0/x3/0/pta"][0, 0] == 3
    assert recover(path).rebuilt == ()
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob("*.damaged"))


def test_truncated_after_sealing_is_named_and_recovered_in_part(tmp_path: Path, header: ShardHeader) -> None:
    writer = write(tmp_path, header)
    path = writer.files.segment(0)
    third = read_shard(writer.files).records[3]
    os.truncate(path, (third.offset or 0) + 10)
    with pytest.raises(ShardFormatError, match="damaged after it was sealed"):
        read_shard(writer.files)
    result = recover(path)
    assert [record.data_id for record in result.lost] == ["x3", "x4"]
    assert path.with_name(path.name + ".damaged").exists()
    index = read_shard(writer.files)
    assert [bool(record.error) for record in index.records] == [False] * 3 + [True] * 2


def test_flipped_byte_in_torn_shard_fails_that_label_alone(tmp_path: Path, header: ShardHeader) -> None:
    writer = write(tmp_path, header, close=False)
    second = read_shard(writer.files).records[2]
    with writer.files.segment(0).open("r+b") as file:
        file.seek((second.offset or 0) + 7)
        file.write(b"\x99")
    index = read_shard(writer.files)
    assert [bool(record.error) for record in index.records] == [False, False, True, False, False]
    assert "checksum" in index.records[2].error


def test_torn_journal_line_is_ignored_and_damage_is_told(tmp_path: Path, header: ShardHeader) -> None:
    writer = write(tmp_path, header, close=False)
    lines = writer.files.journal.read_bytes().splitlines(keepends=True)
    writer.files.journal.write_bytes(b"".join(lines[:2]) + b"garbage\n" + b"".join(lines[3:5]) + lines[5][:20])
    index = read_shard(writer.files)
    assert [record.data_id for record in index.records] == ["x0", "x2", "x3"]
    assert any("1 damaged line;" in note for note in index.notes) and index.torn


@pytest.mark.parametrize("content", [b"", b"not hdf5 at all", b"\x89HDF\r\n\x1a\n and then nothing"])
def test_no_hdf5(tmp_path: Path, header: ShardHeader, content: bytes) -> None:
    writer = write(tmp_path, header)
    writer.files.segment(0).write_bytes(content)
    writer.files.journal.unlink()
    with pytest.raises(ShardFormatError, match="no journal"):
        read_shard(writer.files)


def test_schema_from_the_future(tmp_path: Path, header: ShardHeader) -> None:
    writer = write(tmp_path, header)
    writer.files.journal.unlink()
    with h5py.File(writer.files.segment(0), "r+") as file:
        file.attrs["header"] = decode_text(file.attrs["header"]).replace('"schema": 1', '"schema": 2')
    with pytest.raises(ShardFormatError, match=r"schema 2.*use the version that wrote it"):
        read_shard(writer.files)


@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize("link", [h5py.ExternalLink("/etc/passwd", "/x"), h5py.SoftLink("/labels")])
def test_links_are_refused(tmp_path: Path, header: ShardHeader, link: object, journal: bool) -> None:
    writer = write(tmp_path, header)
    if not journal:
        writer.files.journal.unlink()
    with h5py.File(writer.files.segment(0), "r+") as file:
        file["tasks/0/evil"] = link
    with pytest.raises(ShardFormatError, match=r"link.*refused"):
        read_shard(writer.files)


@pytest.mark.parametrize(
    ("column", "value"),
    [("offset", 10**12), ("nbytes", 2), ("shape", b"[-1]"), ("shape", b"{"), ("side", b"zzz"), ("dtype", b"f99")],
)
def test_impossible_rows_are_refused(tmp_path: Path, header: ShardHeader, column: str, value: object) -> None:
    writer = write(tmp_path, header)
    writer.files.journal.unlink()
    with h5py.File(writer.files.segment(0), "r+") as file:
        row = file["labels"][:]
        row[column][1] = value
        file["labels"][:] = row
        file.attrs["checksum"] = index_checksum(decode_text(file.attrs["header"]), 0, row)
    with pytest.raises(ShardFormatError, match=r"table of labels|truncated|do not make"):
        read_shard(writer.files)


def test_an_index_that_was_changed_after_sealing_is_refused(tmp_path: Path, header: ShardHeader) -> None:
    writer = write(tmp_path, header)
    with h5py.File(writer.files.segment(0), "r+") as file:
        row = file["labels"][:]
        row["data_id"][1], row["data_id"][2] = row["data_id"][2], row["data_id"][1]
        file["labels"][:] = row
    with pytest.raises(ShardFormatError, match=r"damaged after it was sealed .*checksum of its table"):
        read_shard(writer.files)
    assert recover(writer.files.segment(0)).kept == 5
    assert [record.data_id for record in read_shard(writer.files).records] == ["x0", "x1", "x2", "x3", "x4"]


def test_a_segment_under_the_name_of_another_is_refused(tmp_path: Path, header: ShardHeader) -> None:
    writer = write(tmp_path, header)
    writer.files.journal.unlink()
    writer.files.segment(0).rename(writer.files.segment(1))
    with pytest.raises(ShardFormatError, match="checksum of its table"):
        read_shard(writer.files)


def test_a_shard_of_an_earlier_version_is_read(tmp_path: Path, header: ShardHeader) -> None:
    writer = write(tmp_path, header)
    with h5py.File(writer.files.segment(0), "r+") as file:
        del file.attrs["checksum"]
        for name in ("header", "run_id", "host", "versions"):
            file.attrs[name] = decode_text(file.attrs[name])  # of variable length
    assert len(read_shard(writer.files).records) == 5


def test_journal_of_the_future_and_no_journal_at_all(tmp_path: Path, header: ShardHeader) -> None:
    writer = write(tmp_path, header, close=False)
    text = header.to_json().replace('"schema": 1', '"schema": 7').encode()
    writer.files.journal.write_bytes(f"{zlib.crc32(text):08x} ".encode() + text + b"\n")
    with pytest.raises(ShardFormatError, match="schema 7"):
        read_shard(writer.files)
    writer.files.journal.write_bytes(b"hello\n")
    with pytest.raises(ShardFormatError, match="does not begin"):
        read_shard(writer.files)


def journal_with(folder: Path, header: ShardHeader, *lines: str) -> ShardWriter:
    """Make a torn shard and append lines with right checksums to its journal."""
    writer = write(folder, header, close=False)
    writer.detach()
    with writer.files.journal.open("ab") as file:
        for text in lines:
            file.write(f"{zlib.crc32(text.encode()):08x} {text}\n".encode())
    return writer


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[" * 100_000,
        "[1,2]",
        '[0,"x",0,"pta",9,0.5,"f:1","float32",[4],"cpu","","","",0,null,16,0]',
        '[0,"x",0,"pta",9,0.5,"f:1","",[4],"cpu","","","",0,64,16,0]',
        '[0,"x",0,"both",9,0.5,"f:1","float32",[4],"cpu","","","",0,64,16,0]',
        '[1180591620717411303424,"x",0,"pta",9,0.5,"f:1","float32",[4],"cpu","","","",0,64,16,0]',
        '[0,"x",0,"pta",9,0.5,"f:1","float32",[-4],"cpu","","","",0,64,16,0]',
        '[0,"x",0,"pta",9,0.5,"f:1","float32",[4],"cpu","{\\"placements\\": [\\"S\\"], \\"whole_shape\\": [4], '
        '\\"start\\": [9]}","","",0,64,16,0]',
    ],
)
def test_impossible_journal_lines_are_damage(tmp_path: Path, header: ShardHeader, line: str) -> None:
    writer = journal_with(tmp_path, header, line)
    index = read_shard(writer.files)
    assert len(index.records) == 5 and index.damaged == 1
    result = recover(writer.files.segment(0))
    assert (result.kept, result.damaged) == (5, 1)
    assert len(list(tmp_path.glob("*.damaged"))) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("rank", '"q"'), ("world_size", '"8"'), ("world_size", "99999999999"), ("rank", "4"), ("started", "[]")],
)
def test_impossible_headers_are_refused(tmp_path: Path, header: ShardHeader, field: str, value: str) -> None:
    import re

    writer = write(tmp_path, header, close=False)
    writer.detach()
    text = re.sub(rf'"{field}": [^,}}]+', f'"{field}": {value}', header.to_json())
    lines = writer.files.journal.read_bytes().splitlines(keepends=True)
    lines[0] = f"{zlib.crc32(text.encode()):08x} {text}\n".encode()
    writer.files.journal.write_bytes(b"".join(lines))
    with pytest.raises(ShardFormatError):
        read_shard(writer.files)


def test_labels_that_are_no_plain_table_are_refused(tmp_path: Path, header: ShardHeader) -> None:
    for number, make in enumerate(
        (
            lambda file: file.create_group("labels"),
            lambda file: file.create_dataset("labels", shape=(2**33,), dtype="u1", chunks=(1 << 20,)),
            lambda file: file.create_dataset("labels", data=np.zeros(3)),
            lambda file: file.create_dataset("labels", shape=(8,), dtype="u1", external=[("/etc/hostname", 0, 8)]),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        writer = write(folder, header)
        writer.files.journal.unlink()
        with h5py.File(writer.files.segment(0), "r+") as file:
            del file["labels"]
            make(file)
        with pytest.raises(ShardFormatError, match="table of labels"):
            read_shard(writer.files)
