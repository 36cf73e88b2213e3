"""Pickles of torch's: read as torch reads them; hostile ones are refused, and run, import and fill nothing."""

import io
import pickle
import random
import struct
import sys
import tracemalloc
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, ForeignFormatError, NotDumped
from aclcmp.orchestrator.dumps import torch_files, torch_pickle, torch_trial
from aclcmp.orchestrator.dumps.format import FileContent
from aclcmp.orchestrator.dumps.scratch import Scratch
from aclcmp.orchestrator.dumps.torch_files import read_torch
from aclcmp.orchestrator.dumps.torch_load import load_with_torch
from aclcmp.orchestrator.dumps.torch_pickle import read_pickle
from tests.dumps.atb_writer import values
from tests.dumps.samples import SHAPES, torch_sample

torch = pytest.importorskip("torch")

DICT = b"ccollections\nOrderedDict\n)R"
VIEW = b"ctorch._utils\n_rebuild_tensor_v2\n"


def storage(key: str = "0", size: int = 4, kind: str = "torch\nFloatStorage", location: str = "cpu") -> bytes:
    return b"(" + text("storage") + b"c" + kind.encode() + b"\n" + text(key) + text(location) + whole(size) + b"tQ"


def text(content: str) -> bytes:
    return b"X" + struct.pack("<I", len(content.encode())) + content.encode()


def whole(number: int) -> bytes:
    size = number.bit_length() // 8 + 1
    return b"\x8a" + bytes((size,)) + number.to_bytes(size, "little", signed=True)


def numbers(*content: int) -> bytes:
    return b"(" + b"".join(map(whole, content)) + b"t"


def view(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, of: bytes = storage(), more: bytes = b""
) -> bytes:
    return VIEW + b"(" + of + whole(offset) + numbers(*shape) + numbers(*strides) + b"\x89" + DICT + more + b"tR"


def archive(path: Path, pickled: bytes, records: dict[str, bytes] | None = None) -> Path:
    """Write an archive as torch does, with four floats as storage 0."""
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("x/data.pkl", pickled)
        records = records or {"byteorder": b"little", "data/0": struct.pack("<4f", 1, 2, 3, 4)}
        for name, content in ({"version": b"3\n"} | records).items():
            made.writestr(f"x/{name}", content)
    return path


def without_checksum(path: Path) -> None:
    """Overwrite the checksum that the archive has of its first record, the pickle."""
    with zipfile.ZipFile(path) as made:
        entry = made.start_dir
    content = bytearray(path.read_bytes())
    content[entry + 16 : entry + 20] = b"none"
    path.write_bytes(content)


def read(path: Path) -> dict[str, DumpedTensor | NotDumped]:
    return dict(read_torch(str(path), Scratch(path.parent / "copies")).tensors)


def read_by_torch(path: Path) -> dict[str, DumpedTensor | NotDumped]:
    return dict(content_by_torch(path).tensors)


def content_by_torch(path: Path) -> FileContent:
    loaded = load_with_torch(str(path), Scratch(path.parent / "copies"), "it is asked for", in_place=True)
    return torch_files._file_content(str(path), *loaded)


def same(ours: Mapping[str, DumpedTensor | NotDumped], theirs: Mapping[str, DumpedTensor | NotDumped]) -> bool:
    """Tell whether all tensors lie in the same places, or are copies of the same bytes."""

    def bits(tensor: DumpedTensor | NotDumped) -> object:
        if isinstance(tensor, NotDumped):
            return tensor
        copied = "copies" in tensor.path
        return tensor.dtype, tensor.shape, tensor.warnings, values(tensor).tobytes() if copied else tensor.offset

    return {name: bits(each) for name, each in ours.items()} == {name: bits(each) for name, each in theirs.items()}


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)


def contents() -> dict[str, Any]:
    """Return what users save, by what is special in it."""
    base = torch.arange(60.0).reshape(3, 4, 5)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    attributes = torch.nn.Parameter(torch.ones(2))
    attributes.kind = "weight"
    deep: Any = base
    for _ in range(60):
        deep = [deep]
    return {
        "views": [base, base[1], base[:, 1:3], base.transpose(0, 2), base[..., ::2], base.expand(2, 3, 4, 5)],
        "one": base,
        "scalars": {"a": torch.tensor(3.5), "b": torch.tensor(True), 7: torch.tensor(1), 2.5: torch.tensor(2)},
        "empty": {"a": torch.empty(0), "b": torch.empty(3, 0, 2, dtype=torch.float8_e5m2)},
        "state": {"model": model.state_dict(), "optimizer": optimizer.state_dict()},
        "parameters": [torch.nn.Parameter(base), attributes, base.clone().requires_grad_()],
        "others": [torch.float32, torch.Size([2, 3]), torch.device("cuda:1"), b"x", 1j, {1}, bytearray(3)],
        "plain": {"a": None, "b": [1, -1, 1 << 70, True, "\u4e2d\ud800", 1.5, float("nan")], "c": (), "d": {}},
        "meta": {"a": torch.ones(2, 3, device="meta"), "b": base},
        "storages": {"a": torch.ones(3).untyped_storage(), "b": base},
        "deep": deep,
        "many": OrderedDict((f"layers.{k}.weight", torch.full((2, 2), float(k))) for k in range(300)),
        **{dtype: [torch_sample(dtype, shape, k) for k, shape in enumerate(SHAPES)] for dtype in DTYPES},
    }


CONTENTS = contents()


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_torch_reads_the_same(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.pt"
    torch.save(CONTENTS[name], path)
    theirs = content_by_torch(path)
    monkeypatch.setitem(sys.modules, "torch", None)
    ours = read_torch(str(path), Scratch(tmp_path / "copies"))
    assert same(dict(ours.tensors), dict(theirs.tensors)) and repr(ours.metadata) == repr(theirs.metadata)
    assert len(ours.tensors) + len(ours.metadata)


@pytest.mark.parametrize("seed", range(6))
def test_any_views_of_one_storage(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    views: list[Any] = []
    while len(views) < 60:
        storage_of = torch_sample(rng.choice(("float32", "bfloat16", "uint16", "complex64", "bool")), (60,), seed)
        shape = [rng.choice((0, 1, 1, 2, 3, 4)) for _ in range(rng.randint(0, 4))]
        strides = [rng.choice((0, 1, 2, 3, 4, 6, 12)) for _ in shape]
        offset = rng.randint(0, 10)
        if offset + sum(max(size - 1, 0) * stride for size, stride in zip(shape, strides, strict=True)) < 60:
            views.append(storage_of.as_strided(shape, strides, offset))
    torch.save(views, tmp_path / "x.pt")
    ours = read(tmp_path / "x.pt")
    assert same(ours, read_by_torch(tmp_path / "x.pt"))
    for number, each in enumerate(views):
        found = ours[str(number)]
        assert isinstance(found, DumpedTensor)
        dense = each.reshape(-1).clone(memory_format=torch.contiguous_format)
        expected = dense.view(torch.uint8).numpy().tobytes() if each.numel() else b""
        assert values(found).tobytes() == expected


@pytest.mark.parametrize("location", ["cuda:0", "npu:0", "npu:15", "xpu", "meta", "hpu:1"])
def test_devices_do_not_matter(tmp_path: Path, no_torch: None, location: str) -> None:
    path = archive(tmp_path / "x.pt", b"\x80\x02" + view((2, 2), (2, 1), of=storage(location=location)) + b".")
    (tensor,) = read(path).values()
    assert isinstance(tensor, DumpedTensor) and values(tensor).tolist() == [[1, 2], [3, 4]]


def test_what_torch_npu_saves(tmp_path: Path, no_torch: None) -> None:
    made = view((4,), (1,), of=storage(location="npu:0"), more=b"\x88").replace(
        VIEW, b"ctorch_npu.utils.storage\n_rebuild_npu_tensor\n"
    )
    (tensor,) = read(archive(tmp_path / "x.pt", b"\x80\x02" + made + b".")).values()
    assert isinstance(tensor, DumpedTensor) and values(tensor).tolist() == [1, 2, 3, 4]
    private_format = made.replace(b"\x88tR", b"K\x1dtR")
    with pytest.raises(ForeignFormatError, match="torch is needed"):
        read(archive(tmp_path / "x.pt", b"\x80\x02" + private_format + b"."))


LEFT_TO_TORCH: dict[str, Callable[[], Any]] = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "conjugate": lambda: torch.ones(2, dtype=torch.complex64).conj(),
    "negative": lambda: torch.ones(2, dtype=torch.complex64).conj().imag,
    "counter": lambda: Counter("aab"),
    "keys": lambda: {(1, "x"): torch.ones(2), torch.float32: torch.ones(3)},
    "layout": lambda: torch.strided,
    "bits": lambda: torch.ones(2, dtype=torch.uint8).view(torch.bits8),
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("kind", LEFT_TO_TORCH)
def test_what_is_left_to_torch(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": LEFT_TO_TORCH[kind](), "b": torch.ones(3)}, path)
    assert same(read(path), read_by_torch(path))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ForeignFormatError, match=r"x\.pt: torch is needed to read it \(.+\); install torch here"):
        read(path)


def test_checksums_that_torch_leaves_out(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(9)}, tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert same(read(tmp_path / "x.pt"), read_by_torch(tmp_path / "x.pt"))


@pytest.mark.parametrize(
    ("pickled", "why"),
    [
        (view((5,), (1,)), "more than the 4 elements"),
        (view((2, 2), (3, 1)), "more than the 4 elements"),
        (view((2,), (1,), offset=3), "more than the 4 elements"),
        (view((2,), (-1,), offset=3), "impossible shape"),
        (view((-2,), (1,)), "impossible shape"),
        (view((2,), (1,), offset=-1), "impossible shape"),
        (view((2,), (1, 1)), "impossible shape"),
        (view((1 << 62,), (0,)), "impossible shape"),
        (view((1,) * 65, (1,) * 65), "impossible shape"),
        (view((2,), (1,), of=text("0")), "torch.save does not write"),
        (view((2,), (1,), of=storage(size=-1)), "no storage"),
        (b"(" + text("tensor") + b"tQ", "no storage"),
        (VIEW + b")R", "torch.save does not write"),
        (b"ctorch\nfloat32\n)R", "calls what is no function"),
    ],
)
def test_impossible_tensors_are_refused(tmp_path: Path, no_torch: None, pickled: bytes, why: str) -> None:
    with pytest.raises(ForeignFormatError, match=rf"x\.pt: cannot be read: .*{why}"):
        read(archive(tmp_path / "x.pt", b"\x80\x02" + pickled + b"."))


def test_records_that_do_not_fit(tmp_path: Path, no_torch: None) -> None:
    pickled = b"\x80\x02]" + view((2,), (1,)) + b"a" + view((2,), (1,), of=storage("1")) + b"a."
    good = {"data/0": bytes(16), "data/1": bytes(16)}
    assert not any(isinstance(each, NotDumped) for each in read(archive(tmp_path / "x.pt", pickled, good)).values())
    for records, why in (
        ({"data/0": bytes(16)}, "data/1, are not in the archive"),
        (good | {"data/1": bytes(15)}, "has 15 bytes, but the pickle states 16"),
        (good | {"data/1": bytes(20)}, "has 20 bytes, but the pickle states 16"),
    ):
        found = read(archive(tmp_path / "x.pt", pickled, records))
        assert isinstance(found["0"], DumpedTensor) and isinstance(found["1"], NotDumped)
        assert why in found["1"].reason and "x.pt (1)" in found["1"].reason
    assert isinstance(read(archive(tmp_path / "x.pt", pickled, good | {"data/1": bytes(19)}))["1"], DumpedTensor)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_records_that_are_there_twice_or_outside(tmp_path: Path, no_torch: None) -> None:
    path = archive(tmp_path / "x.pt", b"\x80\x02" + view((4,), (1,)) + b".")
    with zipfile.ZipFile(path, "a") as more:
        more.writestr("x/data/0", bytes(16))
    with pytest.raises(ForeignFormatError, match=r"holds data/0 twice"):
        read(path)
    content = bytearray(archive(path, b"\x80\x02" + view((4,), (1,)) + b".").read_bytes())
    entry = content.rindex(b"PK\1\2")
    content[entry + 42 : entry + 46] = struct.pack("<I", len(content) - 30)
    path.write_bytes(content)
    (tensor,) = read(path).values()
    assert isinstance(tensor, NotDumped) and "does not begin where the archive says" in tensor.reason


def test_records_beyond_4_gib(tmp_path: Path, no_torch: None) -> None:
    path, size = tmp_path / "x.pt", 5 << 28
    pickled = view((size,), (1,), of=storage(size=size)) + b"a" + view((4,), (1,), of=storage("1")) + b"a."
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("x/data.pkl", b"\x80\x02]" + pickled)
        with made.open("x/data/0", "w", force_zip64=True) as record:
            record.write(b"\0")
        made.getinfo("x/data/0").file_size = made.getinfo("x/data/0").compress_size = 4 * size
        made.start_dir += 4 * size - 1  # a hole in the file
        made.writestr("x/data/1", struct.pack("<4f", 1, 2, 3, 4))
    found = read(path)
    assert isinstance(found["0"], DumpedTensor) and found["0"].shape == (size,)
    assert isinstance(found["1"], DumpedTensor) and found["1"].offset > 4 * size
    assert values(found["1"]).tolist() == [1, 2, 3, 4]


ONES = b"(" + b"K\1" * 100_000 + b"t"
HOSTILE = {
    "system": b"cos\nsystem\n" + text("touch mark") + b"\x85R.",
    "posix": b"cposix\nsystem\n" + text("touch mark") + b"\x85R.",
    "eval": b"cbuiltins\neval\n" + text("open('mark', 'w')") + b"\x85R.",
    "eval of Python 2": b"c__builtin__\neval\n" + text("open('mark', 'w')") + b"\x85R.",
    "getattr": b"cbuiltins\ngetattr\ncos\n__dict__\n" + text("system") + b"\x86R" + text("touch mark") + b"\x85R.",
    "getattr of ours": b"cbuiltins\ngetattr\n" + VIEW + text("__globals__") + b"\x86R.",
    "dotted": b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
    "own function": b"caclcmp.orchestrator.dumps.torch_pickle\nread_pickle\n" + text("x") + b"\x85R.",
    "torch function": b"ctorch\nload\n" + text("x") + b"\x85R.",
    "torch hub": b"ctorch.hub\nload\n" + text("x") + b"\x85R.",
    "state": DICT + b"}" + text("__setstate__") + b"cos\nsystem\nsb.",
    "state of a tensor": view((4,), (1,)) + b"}" + text("__class__") + b"cos\nsystem\nsb.",
    "state of a function": VIEW + b"N}" + text("__code__") + text("x") + b"s\x86b.",
    "new object": b"csubprocess\nPopen\n" + text("touch mark") + b"\x85\x81.",
    "called plain value": b"K\1)R.",
    "called list": b"])R.",
    "called tensor": view((4,), (1,)) + b")R.",
    "arguments that are none": b"ccollections\nOrderedDict\n]R.",
    "extension 1": b"\x82\1)R.",
    "extension 2": b"\x83\1\0)R.",
    "extension 4": b"\x84\1\0\0\0)R.",
    "instance": b"(" + text("touch mark") + b"ios\nsystem\n.",
    "object": b"(cos\nsystem\n" + text("touch mark") + b"o.",
    "global from the stack": b"\x8c\2os\x8c\6system\x93\x8c\1x\x85R.",
    "new object with keywords": b"cos\nsystem\n)}\x92.",
    "persistent id in text": b"Pstorage\n.",
    "persistent id of anything": b"K\1Q.",
    "reduce across a mark": b"cos\nsystem\n(R.",
    "long text": b"X\xff\xff\xff\xff" + b"a" * 1000 + b".",
    "longer text": b"\x8d" + b"\xff" * 8 + b"a.",
    "long bytes": b"\x8e" + b"\xff" * 7 + b"\0a.",
    "long bytearray": b"\x96" + b"\xff" * 7 + b"\0a.",
    "long integer": b"\x8b\xff\xff\xff\x7fa.",
    "frame": b"\x95" + b"\xff" * 8 + b"N.",
    "decimal": b"I" + b"9" * 100_000 + b"\n.",
    "decimal long": b"L" + b"9" * 100_000 + b"L\n.",
    "long line": b"c" + b"a" * 5_000_000 + b"\n" + b"b" * 5_000_000 + b"\n.",
    "line without end": b"c" + b"a" * 5_000_000,
    "unknown of the memo": b"h\7.",
    "far memo": b"Nr\xff\xff\xff\xffj\xfe\xff\xff\xff.",
    "nothing": b"",
    "only the end": b".",
    "no end": b"NNN",
    "pop": b"N0.",
    "twice": b"N2.",
    "mark alone": b"(.",
    "items without a dict": b"(K\1K\2u.",
    "items without a mark": b"}K\1K\2u.",
    "one item": b"}(K\1u.",
    "items of a list": b"](K\1K\2u.",
    "append to a dict": b"}K\1a.",
    "tuple of nothing": b"\x87.",
    "text that is none": b"X\2\0\0\0\xff\xff.",
    "name that is none": b"c\xff\n\xff\n.",
    "list as a key": b"}]K\1s.",
    "nested key": b"}K\1" + b"\x85" * 100_000 + b"K\1s.",
    "long key": b"}(" + b"K\1" * 100_000 + b"tK\1s.",
    "large keys": b"}(" + b"".join(whole(k * (2**61 - 1)) + b"N" for k in range(1, 50_000)) + b"u.",
    "deep lists": b"]" * 150_000 + b"a" * 149_999 + b".",
    "deep tuples": b"K\1" + b"\x85" * 150_000 + b".",
    "many lists": b"(" + b"]" * 300_000 + b"t.",
    "many marks": b"(" * 300_000 + b".",
    "many memo entries": b"N" + b"".join(b"r" + struct.pack("<I", k) for k in range(300_000)) + b".",
    "doubled": b"K\1\x85" + b"q\0h\0\x86" * 100 + b".",
    "doubled list": b"]K\1a" + b"q\0](h\0h\0e" * 100 + b".",
    "within itself": b"]q\0h\0a.",
    "dict within itself": b"}q\0" + text("a") + b"h\0s.",
    "shape shared by many": VIEW + b"q\0" + storage() + b"q\1" + ONES + b"q\2(" + b"h\0(h\1K\0h\2h\2tR" * 1000 + b"t.",
    "arguments shared by many": b"ccollections\nOrderedDict\nq\0" + ONES + b"q\1h\0h\1R.",
    "more values than any file": b"](" + b"N" * 200_000 + b"e.",
    "long name of many": b"}" + text("a" * 5_000_000) + b"](" + b"N" * 90_000 + b"es.",
    "long names": b"N" + (b"q\0}" + text("a" * 100) + b"h\0s") * 60 + b".",
}  # fmt: skip


@pytest.fixture
def few_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_pickle, "_MOST_OBJECTS", 200_000)


@pytest.mark.usefixtures("few_objects")
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("torch_there", [False, True])
@pytest.mark.parametrize("form", ["", "big", "no checksum"])
def test_hostile_pickles(
    tmp_path: Path, name: str, torch_there: bool, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch_trial, "_SECONDS", 1)  # torch reads a long line a letter at a time
    if not torch_there:
        monkeypatch.setitem(sys.modules, "torch", None)
    pickled = b"\x80\x02" + HOSTILE[name]
    path = archive(tmp_path / "x.pt", pickled, {"byteorder": b"big"} if form == "big" else None)
    if form == "no checksum":
        without_checksum(path)
    before = set(sys.modules)
    with pytest.raises(ForeignFormatError) as caught:
        read(path)
    said = str(caught.value)
    assert said.startswith(str(path)) and said.isprintable() and len(said) < 700
    assert not (tmp_path / "mark").exists()
    assert torch_there or set(sys.modules) == before


SLOW = b"K\1\x85" + b"q\0h\0\x86" * 60  # a nested tuple, of which hashing visits 2**60
LEFT = b"ccollections\nCounter\n}\x85R"  # makes a list torch's
LONG_HASHES = {
    "key of what is torch's": b"ccollections\nCounter\n](" + SLOW + b"e\x85R.",
    "element of a set": b"](cbuiltins\nset\n](" + SLOW + b"e\x85R" + LEFT + b"e.",
    "key of a state": b"](" + DICT + b"](" + SLOW + b"N\x86eb" + LEFT + b"e.",
}


@pytest.mark.parametrize("name", [*LONG_HASHES, "other name", "no archive"])
def test_what_torch_would_hash_for_ever_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_trial, "_SECONDS", 1)
    pickled, path = b"\x80\x02" + LONG_HASHES.get(name, b"}" + SLOW + b"Ns."), tmp_path / "x.pt"
    if name == "other name":  # torch does not tell DATA.PKL from data.pkl
        with zipfile.ZipFile(path, "w") as made:
            made.writestr("x/DATA.PKL", pickled)
            made.writestr("x/version", b"3\n")
    elif name == "no archive":
        begin: tuple[Any, ...] = (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {})
        path.write_bytes(b"".join(pickle.dumps(each, 2) for each in begin) + pickled)
    else:
        archive(path, pickled)
    with pytest.raises(ForeignFormatError, match=r"x\.pt: torch\.load does not end within 1 s; it is damaged"):
        read(path)
    torch.save([torch.ones(2).to_sparse()], tmp_path / "next.pt")
    monkeypatch.undo()
    assert isinstance(read(tmp_path / "next.pt")["0"], NotDumped)


def test_a_file_on_which_torch_crashes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_trial._end(torch_trial._start_child())
    monkeypatch.setattr(torch_trial, "_CHILD", "import sys; sys.stdin.readline(); sys.exit(3)")
    torch.save([torch.ones(2).to_sparse()], tmp_path / "x.pt")
    with pytest.raises(ForeignFormatError, match=r"x\.pt: torch\.load crashes on it \(exit code 3\)"):
        read(tmp_path / "x.pt")


@pytest.mark.usefixtures("few_objects")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_take_no_more_memory_than_their_length_allows(name: str) -> None:
    pickled = b"\x80\x02" + HOSTILE[name]
    tracemalloc.start()
    try:
        read_pickle(pickled)
    except ValueError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 100 * len(pickled) + 100_000


def test_a_pickle_longer_than_any(tmp_path: Path, no_torch: None) -> None:
    path = archive(tmp_path / "x.pt", b"\x80\x02" + b"N0" * (9 << 20) + b".")
    with pytest.raises(ForeignFormatError, match=r"x\.pt: data\.pkl is longer than any of torch\.save's"):
        read(path)


@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    for pickled in (content, b"\x80\x02" + content + b"."):
        try:
            read_pickle(pickled)
        except ValueError as error:
            assert str(error).isprintable() and str(error)


@given(
    st.lists(
        st.sampled_from([bytes((k,)) for k in range(256)] + [DICT, VIEW, storage(), numbers(2, 2), view((2,), (1,))]),
        max_size=40,
    )
)
def test_any_opcodes(opcodes: list[bytes]) -> None:
    try:
        read_pickle(b"\x80\x02" + b"".join(opcodes) + b".")
    except ValueError as error:
        assert str(error).isprintable() and str(error)


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(4))
def test_damaged_pickles_are_never_read_otherwise_than_by_torch(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    buffer = io.BytesIO()
    base = torch.arange(24.0).reshape(2, 3, 4)
    whole = {"a": base, "b": [base[1], base[:, 1], torch.ones(3, dtype=torch.uint16)], "c": OrderedDict(x=base)}
    torch.save(whole, buffer)
    with zipfile.ZipFile(buffer) as whole_archive:
        records = {name.partition("/")[2]: whole_archive.read(name) for name in whole_archive.namelist()}
    pickled = records.pop("data.pkl")
    read_right = 0
    for _ in range(500):
        damaged = bytearray(pickled)
        for _ in range(rng.randint(1, 2)):
            place = rng.randrange(len(damaged))
            if rng.random() < 0.8:
                damaged[place] = rng.choice((rng.randrange(256), damaged[place] ^ 1, 1, 0))
            else:
                del damaged[place : place + rng.randint(1, 3)]
        path = archive(tmp_path / "x.pt", bytes(damaged), records)
        try:
            ours = read(path)
        except ForeignFormatError as error:
            assert str(error).isprintable() and len(str(error)) < 2_000
            continue
        try:
            theirs = read_by_torch(path)
        except ForeignFormatError:
            continue
        readable = {name: each for name, each in ours.items() if isinstance(each, DumpedTensor)}
        assert ours.keys() == theirs.keys() and same(readable, {name: theirs[name] for name in readable})
        read_right += 1
    assert read_right
