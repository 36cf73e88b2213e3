"""Files that HDF5 may not survive: tried by a process of its own, refused in words."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from aclcmp.labeling.errors import ShardFormatError
from aclcmp.labeling.shard.trial import check_opens


def whole(path: Path) -> bytes:
    with h5py.File(path, "w") as file:
        for number in range(20):
            file.attrs[f"text{number}"] = "of variable length " * number
        file["texts"] = np.array([b"text %d" % number for number in range(100)], dtype=h5py.string_dtype())
        file.create_dataset("table", data=np.zeros(100, [("a", "i8"), ("b", "S9")]), compression="gzip", shuffle=True)
        file["group/plain"] = np.arange(10.0)
        file["scalar"] = 1
    return path.read_bytes()


def test_a_whole_file_opens(tmp_path: Path) -> None:
    whole(tmp_path / "x.h5")
    check_opens(tmp_path / "x.h5")


def test_a_file_on_which_hdf5_hangs_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    content = whole(path)
    heap = content.index(b"GCOL") + 64
    path.write_bytes(content[:heap] + bytes(1000) + content[heap + 1000 :])
    with pytest.raises(ShardFormatError, match=r"x\.h5 did not open within 1 s: it is damaged"):
        check_opens(path, 1.0)


@pytest.mark.parametrize("content", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n and then nothing"])
def test_what_is_no_hdf5_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(ShardFormatError, match=r"x\.h5 cannot be read: Unable to"):
        check_opens(tmp_path / "x.h5")


def test_what_is_not_there_is_left_to_who_opens_it(tmp_path: Path) -> None:
    check_opens(tmp_path / "nothing.h5")


def under_two_names(file: h5py.File) -> None:
    file["group/again"] = file["/"]


def large(name: str, kind: object, count: int, **packing: object) -> Callable[[h5py.File], None]:
    def add(file: h5py.File) -> None:
        file.create_dataset(name, (count,), kind, **packing)

    return add


def zeros(file: h5py.File) -> None:
    table = file.create_dataset("zeros", (1_500_000,), [("a", "S100")], chunks=(100_000,), compression="gzip")
    table[:] = np.zeros(len(table), table.dtype)


def in_another_file(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "i8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_virtual_dataset("virtual", layout)


def view_of(source: str, count: int) -> Callable[[h5py.File], None]:
    def add(file: h5py.File) -> None:
        file.create_dataset("packed", data=np.zeros(1000), chunks=(1000,), compression="gzip")
        layout = h5py.VirtualLayout((count,), "f8")
        layout[:8] = h5py.VirtualSource(".", source, (8,))
        file.create_virtual_dataset("view", layout)

    return add


def test_view_of_a_contiguous_dataset_is_plain(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["block"] = np.arange(8.0)
        view_of("/block", 8)(file)
    check_opens(tmp_path / "x.h5")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (view_of("/packed", 8), "view lies in another file"),
        (view_of("/view", 8), "view lies in another file"),
        (view_of("/none", 8), "view lies in another file"),
        (view_of("/texts", 10**9), "view lies in another file"),
        (lambda file: file.update({"soft": h5py.SoftLink("/texts")}), "soft is a link"),
        (lambda file: file.update({"out": h5py.ExternalLink("/etc/passwd", "/x")}), "out is a link"),
        (lambda file: file.update({"kind": np.dtype("i4")}), "kind is neither a group nor a dataset"),
        (under_two_names, "group/again is there under two names"),
        (in_another_file, "virtual lies in another file"),
        (large("far", "u1", 8, external=[("/etc/hostname", 0, 8)]), "far lies in another file"),
        (large("filtered", "i8", 8, chunks=(8,), compression="lzf"), "filtered is packed as aclcmp does not do it"),
        (large("table", "i8", 2**33, chunks=(2**20,), compression="gzip"), "table has 0 bytes, but would unpack to"),
        (large("one", "u1", 2**27, chunks=(2**27,), compression="gzip"), "one has 0 bytes, but would unpack to"),
        (large("empty", "i8", 2**40), "empty has 8796093022208 bytes, which are not in the file"),
        (zeros, "but would unpack to 150000000"),
    ],
)
def test_what_is_not_stored_plainly_is_refused(tmp_path: Path, change: Callable[[h5py.File], None], why: str) -> None:
    path = tmp_path / "x.h5"
    whole(path)
    with h5py.File(path, "r+") as file:
        if why.startswith("table"):
            del file["table"]
        change(file)
    with pytest.raises(ShardFormatError, match=why) as caught:
        check_opens(path)
    assert str(path) in str(caught.value)


def test_it_takes_no_part_in_what_lies_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "h5py.py").write_text("raise SystemExit('taken for h5py')")
    whole(tmp_path / "x.h5")
    monkeypatch.chdir(tmp_path)
    check_opens(Path("x.h5"))
