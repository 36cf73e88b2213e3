"""Random damage: a file is read within its bounds, or refused with the one documented error."""

import math
import random
from pathlib import Path

import numpy as np
import pytest

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import ForeignFormatError
from aclcmp.orchestrator.dumps.atb.atb_file import read_atb
from tests.dumps.atb_writer import CODES, atb_header, write_atb, write_pointer

pytestmark = pytest.mark.fuzz

_LINES = (
    "$Object.Length=24",
    "$Object.Length=99999999999999999999",
    "$Object.Length=9223372036854775807",
    "$Object.Count=-1",
    "$Object.data=0,9223372036854775807",
    "$Object.data=9223372036854775807,1",
    "$Object.data=24,0",
    "$Version=1.0",
    "$End=1",
    "$END",
    "dims=",
    "dims=0",
    "dims=" + "1," * 5_000 + "1",
    "dims=-1",
    "dims=3037000500,3037000500",
    "dtype=29",
    "dtype=11",
    "format=-99",
    "data=x.bin",
    "data=y.bin",
    "data=/dev/zero",
    "data=" + "../" * 2_000 + "etc/passwd",
    "data=\0",
    "data=0_1_outtensor0.bin",
    "=",
    "",
    "\x1b[2J=ü",
)


def check(path: Path, within: Path) -> bool:
    """Read a file; whether it could be. Everything else than an answer within its bounds fails the test."""
    try:
        tensors = read_atb(path, within)
    except ForeignFormatError as error:
        assert str(error).isprintable() and len(str(error)) < 20_000
        return False
    assert tensors
    for tensor in tensors:
        assert Path(tensor.path).resolve().is_relative_to(within.resolve())
        size = math.prod(tensor.shape) * DTYPES[tensor.dtype].itemsize
        assert 0 <= tensor.offset <= tensor.offset + size <= Path(tensor.path).stat().st_size
        assert all(warning.isprintable() for warning in tensor.warnings)
    return True


def whole_files(folder: Path, rng: random.Random) -> bytes:
    path = folder / "whole.bin"
    path.unlink(missing_ok=True)
    for number in range(rng.randint(1, 3)):
        shape = [rng.randint(0, 5) for _ in range(rng.randint(0, 4))]
        bits = np.frombuffer(rng.randbytes(math.prod(shape) * 4), "<u4").reshape(shape)
        if rng.random() < 0.2:
            write_pointer(folder / "pointer.bin", shape, CODES["uint32"], rng.choice(["x.bin", "y.bin", "whole.bin"]))
            path.write_bytes((path.read_bytes() if number else b"") + (folder / "pointer.bin").read_bytes())
        else:
            write_atb(path, bits, CODES["uint32"], format=rng.choice([None, 2, 29, 4]), again=number > 0)
    return path.read_bytes()


def damage(content: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(6)
    place = rng.randrange(len(content))
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
    if kind == 2:
        return content[:place] + rng.randbytes(rng.randint(1, 40)) + content[place:]
    if kind == 3:
        return content[:place] + content[place + rng.randint(1, 20) :]
    lines = content.split(b"\n")
    line = rng.choice(_LINES).encode()
    index = rng.randrange(min(len(lines), 9))
    return b"\n".join([*lines[:index], line, *lines[index + (kind == 5) :]])


@pytest.mark.parametrize("seed", range(20))
def test_damaged_files(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    write_atb(tmp_path / "dump" / "x.bin", np.arange(6, dtype=np.uint32).reshape(2, 3))
    write_pointer(tmp_path / "dump" / "y.bin", (2, 3), CODES["uint32"], "z.bin")
    path = tmp_path / "dump" / "z.bin"
    read = 0
    for _ in range(500):
        content = whole_files(path.parent, rng)
        for _ in range(rng.randint(0, 3)):
            content = damage(content, rng) if content else content
        path.write_bytes(content)
        read += check(path, path.parent)
    assert 0 < read < 500


@pytest.mark.parametrize("seed", range(5))
def test_garbage(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "z.bin"
    pieces = [line.encode() + b"\n" for line in _LINES]
    pieces += [atb_header((2, 3), 0, 24), bytes(24), b"dims=2,3\n", b"dtype=0\n", b"$Object.Length=0\n"]
    for _ in range(500):
        path.write_bytes(b"".join(rng.choices(pieces, k=rng.randint(0, 12))))
        check(path, tmp_path)
        path.write_bytes(rng.randbytes(rng.randint(0, 5_000)))
        assert not check(path, tmp_path)


def test_megabytes_of_headers_and_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "z.bin"
    for content in (b"a" * (8 << 20), b"a=\n" * (1 << 20), b"\n" * (8 << 20), b"$x=" * (4 << 20), b"$=\n" * (1 << 20)):
        path.write_bytes(content)
        assert not check(path, tmp_path)
    with path.open("wb") as file:
        file.write(atb_header((1 << 20, 1 << 20), 2, 1 << 40))
        file.truncate(file.tell() + (1 << 40))  # a hole: nothing of it may be read
    assert check(path, tmp_path)
