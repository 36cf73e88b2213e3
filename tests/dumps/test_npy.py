"""numpy's files: every header, order and archive that numpy writes, and what nobody should believe."""

import io
import os
import shutil
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, NotDumped
from aclcmp.orchestrator.dumps.npy import read_npy
from aclcmp.orchestrator.dumps.scratch import Scratch
from tests.dumps.atb_writer import values
from tests.dumps.samples import SHAPES, by_name, read, reasons, same_bits, sample, tensors

NUMPY = [name for name, dtype in DTYPES.items() if getattr(np, name, None) and name != "bfloat16"]


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_dtype_and_version_in_place(tmp_path: Path, dtype: str, version: tuple[int, int]) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    for k, shape in enumerate(SHAPES):
        with (folder / f"x{k}.npy").open("wb") as file:
            np.lib.format.write_array(file, sample(dtype, shape, k), version)
    found = by_name(read(folder))
    for k, shape in enumerate(SHAPES):
        tensor = found[f"x{k}"]
        assert (tensor.dtype, tensor.path, tensor.warnings) == (dtype, str(folder / f"x{k}.npy"), ())
        assert same_bits(values(tensor), sample(dtype, shape, k))
    assert not (tmp_path / "scratch-d").exists()


@pytest.mark.parametrize("dtype", NUMPY)
def test_other_orders_are_copied(tmp_path: Path, dtype: str) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    for k, shape in enumerate(SHAPES):
        bits = sample(dtype, shape, k)
        np.save(folder / f"f{k}.npy", np.array(bits, order="F"))
        np.save(folder / f"b{k}.npy", bits.astype(bits.dtype.newbyteorder(">")))
        np.save(folder / f"fb{k}.npy", np.array(bits, bits.dtype.newbyteorder(">"), order="F"))
    found = by_name(read(folder))
    for k, shape in enumerate(SHAPES):
        for kind in ("f", "b", "fb"):
            tensor = found[f"{kind}{k}"]
            reordered = kind != "b" and 0 not in shape and sum(n > 1 for n in shape) > 1
            copied = reordered or ("b" in kind and DTYPES[dtype].itemsize > 1 and 0 not in shape)
            assert (tensor.path != str(folder / f"{kind}{k}.npy")) == copied == bool(tensor.warnings)
            assert same_bits(values(tensor), sample(dtype, shape, k))
            if copied and dtype != "complex32":
                assert same_bits(np.load(tensor.path), sample(dtype, shape, k))


def test_large_copies_go_by_windows(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    whole = {"f": np.arange(1_500_001.0).reshape(-1, 1).repeat(2, 1), "row": np.arange(3_000_000.0).reshape(1, 3, -1)}
    for name, bits in whole.items():
        np.save(tmp_path / "d" / f"{name}.npy", np.array(bits, order="F"))
    found = by_name(read(tmp_path / "d"))
    assert all(np.array_equal(values(found[name]), bits) for name, bits in whole.items())


def test_bfloat16_as_numpy_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    np.save(tmp_path / "d" / "x.npy", np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3))
    found = by_name(read(tmp_path / "d"))["x"]
    assert found.dtype == "bfloat16" and "bfloat16" in found.warnings[0]
    assert values(found).view(ml_dtypes.bfloat16).astype(float).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives(tmp_path: Path, save: Any) -> None:
    (tmp_path / "d").mkdir()
    whole = {f"{dtype}{k}": sample(dtype, shape, k) for dtype in NUMPY for k, shape in enumerate(SHAPES)}
    whole["with/slash and ünïcode"] = sample("float32", (2, 2))
    whole["fortran"] = np.asfortranarray(sample("float32", (20, 30)))
    whole["big"] = sample("float32", (20, 30)).astype(">f4")
    save(tmp_path / "d" / "all.npz", **whole)
    index = read(tmp_path / "d")
    found = by_name(index)
    assert list(found) == list(whole)
    for name, bits in whole.items():
        assert same_bits(values(found[name]), np.array(bits, bits.dtype.newbyteorder("<"), order="C"))
    inside = {Path(tensor.path).name == "all.npz" for name, tensor in found.items() if name not in ("fortran", "big")}
    assert inside == {save is np.savez}


def test_names_ranks_and_steps(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    for path in (
        "layers.10.out.npy",
        "layers.9.out.npy",
        "attn/q.npy",
        "step2/rank1/x.npy",
        "rank_1/step_3/x.npy",
        "rank00002.npy",
        "y_rank3.npy",
        "crank5/z.npy",
        "rank9999999/z.npy",
        ".hidden.npy",
        "a b/ü.npy",
        "evil\n\x1b[2J.npy",
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / path, np.zeros(1))
    index = read(folder)
    names = [(rank, record.task, record.data_id) for rank, record, _ in tensors(index)]
    assert sorted(name for name in names if name[0]) == [(1, 2, "x"), (1, 3, "x"), (2, 0, "tensor"), (3, 0, "y")]
    assert sorted(name[2] for name in names if not name[0]) == [
        ".hidden",
        "a b.ü",
        "attn.q",
        "crank5.z",
        "evil??[2J",
        "layers.10.out",
        "layers.9.out",
        "rank9999999.z",
    ]
    assert {rank.header.world_size for rank in index.indices} == {4}
    assert [rank.header.run_id for rank in index.indices] == ["d"] * 4


def test_lost_ranks_are_told(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for rank in (0, 3):
        np.save(tmp_path / "d" / f"x_rank{rank}.npy", np.zeros(1))
    assert read(tmp_path / "d").notes == ("d: no dump of rank 1, 2 of 4",)


def test_names_within_files_stand_alone_only_where_distinct(tmp_path: Path) -> None:
    content: dict[str, Any] = {"in": np.zeros(1), "out": np.ones(1)}
    for folder, files in (("one", ["golden"]), ("ranks", ["rank0", "rank1"]), ("two", ["layer0", "layer1"])):
        (tmp_path / folder).mkdir()
        for file in files:
            np.savez(tmp_path / folder / f"{file}.npz", **content)
    assert list(by_name(read(tmp_path / "one"))) == ["in", "out"]
    assert list(by_name(read(tmp_path / "one" / "golden.npz"))) == ["in", "out"]
    assert list(by_name(read(tmp_path / "ranks"), rank=1)) == ["in", "out"]
    assert list(by_name(read(tmp_path / "two"))) == ["layer0.in", "layer0.out", "layer1.in", "layer1.out"]


def test_same_name_twice_is_counted(tmp_path: Path) -> None:
    for path in ("a/b.npy", "a.b.npy"):
        (tmp_path / "d" / path).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "d" / path, np.zeros(1))
    assert [(record.data_id, record.occurrence) for _, record, _ in tensors(read(tmp_path / "d"))] == [
        ("a.b", 0),
        ("a.b", 1),
    ]


def header(descr: str = "'<f4'", shape: str = "(2, 3)", fortran: str = "False", extra: str = "") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, {extra}}}\n".encode("latin-1")
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


BAD = {
    "empty": b"",
    "magic only": b"\x93NUMPY",
    "version 4": b"\x93NUMPY\4\0" + bytes(100),
    "no length": b"\x93NUMPY\1\0\1",
    "header too long": b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(100),
    "truncated": header() + bytes(23),
    "code": header(shape="__import__('os').system('true')") + bytes(24),
    "objects": header("'|O'") + bytes(24),
    "structured": header("[('a', '<f4')]") + bytes(24),
    "sub-arrays": header("'(1000000000,)f4'") + bytes(24),
    "long double": header("'<f16'") + bytes(96),
    "negative": header(shape="(-2, -3)") + bytes(24),
    "not integers": header(shape="(2.0, 3)") + bytes(24),
    "true": header(shape="(True, 6)") + bytes(24),
    "a list": header(shape="[2, 3]") + bytes(24),
    "enormous": header(shape="(4611686018427387904, 4)") + bytes(24),
    "wraps": header(shape="(4294967296, 4294967296)"),
    "empty but enormous": header(shape="(0, 9223372036854775807)"),
    "65 dimensions": header(shape=str((1,) * 65)) + bytes(4),
    "nested": header(shape="(" * 20_000 + ")" * 20_000),
    "order": header(fortran="1") + bytes(24),
    "a field more": header(extra="'x': 1") + bytes(24),
    "no fields": header().replace(b"descr", b"descs") + bytes(24),
    "bytes": header("b'<f4'") + bytes(24),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_tensor_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "bad.npy").write_bytes(BAD[name])
    np.save(tmp_path / "d" / "good.npy", np.zeros(3))
    index = read(tmp_path / "d")
    assert list(reasons(index)) == ["bad"] and str(tmp_path / "d" / "bad.npy") in reasons(index)["bad"]
    (bad,) = (found for _, record, found in tensors(index) if record.data_id == "bad")
    assert isinstance(bad, NotDumped) and bad.unreadable


def test_archives_with_bad_members(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    path = tmp_path / "d" / "x.npz"
    content = io.BytesIO()
    np.save(content, np.arange(4.0))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.npy", content.getvalue())
        archive.writestr("text.txt", "hello")
        archive.writestr("object.npy", header("'|O'"))
        archive.writestr("cut.npy", content.getvalue()[:-1])
        archive.writestr("packed.npy", content.getvalue(), zipfile.ZIP_DEFLATED)
        archive.writestr("spoilt.npy", bytes(4096), zipfile.ZIP_DEFLATED)
        archive.writestr("lzma.npy", content.getvalue(), zipfile.ZIP_LZMA)
    index = read(tmp_path / "d")
    assert list(reasons(index)) == ["text.txt", "object", "cut", "spoilt"]
    good = [found for _, record, found in tensors(index) if record.data_id in ("good", "packed", "lzma")]
    assert all(isinstance(found, DumpedTensor) and values(found).tolist() == [0, 1, 2, 3] for found in good)
    path.write_bytes(path.read_bytes()[:-30])
    assert "no archive" in reasons(read(tmp_path / "d"))["x"]


def test_bombs_are_refused_before_they_go_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").mkdir()
    np.savez_compressed(tmp_path / "d" / "x.npz", a=np.zeros(1 << 20))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=(256 << 20) + (1 << 20)))
    assert "no room" in reasons(read(tmp_path / "d"))["a"]
    monkeypatch.undo()
    content = (tmp_path / "d" / "x.npz").read_bytes()
    lying = content.replace(struct.pack("<I", (8 << 20) + 128), struct.pack("<I", 1 << 10))
    assert lying != content
    (tmp_path / "d" / "x.npz").write_bytes(lying)
    assert list(reasons(read(tmp_path / "d"))) == ["a"]
    copies = list((tmp_path / "scratch-d").rglob("*.npy"))
    assert sum(copy.stat().st_size for copy in copies) <= 1 << 10


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_spoilt_members_cost_themselves_alone(tmp_path: Path, compression: int) -> None:
    content = io.BytesIO()
    np.save(content, np.random.default_rng(0).random(1000))
    path = tmp_path / "d" / "x.npz"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a.npy", content.getvalue())
        archive.writestr("b.npy", content.getvalue())
    whole = path.read_bytes()
    for place in range(36, 400, 7):
        path.write_bytes(whole[:place] + bytes(8) + whole[place + 8 :])
        refused = reasons(read(tmp_path / "d"))
        assert set(refused) <= {"a"} and not any(why.endswith("None") for why in refused.values())


def test_what_unpacks_to_far_more_is_refused_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").mkdir()
    values_of: dict[str, Any] = {"a": np.zeros(40 << 20), "b": np.zeros(40 << 20)}  # 320 MiB each, 300 KB packed
    np.savez_compressed(tmp_path / "d" / "x.npz", **values_of)
    why = reasons(read(tmp_path / "d"))
    assert list(why) == ["b"] and str(tmp_path / "d" / "x.npz") in why["b"] and "ACLCMP_MOST_UNPACKED" in why["b"]
    monkeypatch.setenv("ACLCMP_MOST_UNPACKED", str(1 << 30))
    assert not reasons(read(tmp_path / "d"))


def test_archives_with_endless_indices_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d" / "x.npz"
    path.parent.mkdir()
    index = bytes(20 << 20)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 9, 9, len(index), 0, 0)
    path.write_bytes(index + end)
    assert "index is longer" in reasons(read(tmp_path / "d"))["x"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is no .npy file"),
        (b"\x93NUMPY\1\0\x76\0", "its header of 118 bytes is truncated"),
        (header("'<f4'", "(" * 2000 + ")" * 2000), "its header is not numpy's"),
        (header("'<f4'", "(9,)"), "is truncated: 36 of its 36 bytes are missing"),
        (header("'|O'"), "elements of type |O cannot be compared"),
    ],
)
def test_reasons_say_what_is_wrong(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.npy").write_bytes(content)
    assert reasons(read(tmp_path / "d"))["x"].startswith(f"{tmp_path / 'd' / 'x.npy'}: {why}")


def test_links_and_pipes(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    np.save(tmp_path / "outside.npy", np.zeros(1))
    np.save(tmp_path / "d" / "inside.npy", np.zeros(1))
    (tmp_path / "d" / "link.npy").symlink_to("inside.npy")
    (tmp_path / "d" / "out.npy").symlink_to(tmp_path / "outside.npy")
    (tmp_path / "d" / "gone.npy").symlink_to("nowhere.npy")
    (tmp_path / "d" / "loop").symlink_to(tmp_path / "d")
    os.mkfifo(tmp_path / "d" / "pipe.npy")
    index = read(tmp_path / "d")
    assert list(reasons(index)) == ["gone", "out"] and "outside" in reasons(index)["out"]
    assert [record.data_id for _, record, _ in tensors(index)] == ["gone", "inside", "link", "out"]


def test_weird_folders(weird_path: Path, tmp_path: Path) -> None:
    np.save(weird_path / "x.npy", np.arange(3))
    (tmp_path / "link to it").symlink_to(weird_path)
    for folder in (weird_path, tmp_path / "link to it"):
        found = by_name(read(folder))["x"]
        assert values(found).tolist() == [0, 1, 2] and found.path == str(weird_path / "x.npy")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with open(os.fsencode(tmp_path / "d") + b"/\xff\xfe.npy", "wb") as file:  # noqa: PTH123
        np.save(file, np.arange(3))
    assert values(by_name(read(tmp_path / "d"))["??"]).tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.fuzz)])
def test_many_small_files(tmp_path: Path, count: int) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    content = io.BytesIO()
    np.save(content, np.arange(8, dtype=np.float32))
    for k in range(count):
        (folder / f"layers.{k}.npy").write_bytes(content.getvalue())
    index = read(folder)
    assert [record.data_id for record in index.indices[0].records] == [f"layers.{k}" for k in range(count)]
    assert len(by_name(index)) == count


def test_refuses_a_folder_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="directory"):
        read_npy(str(tmp_path), Scratch(tmp_path / "s"))
