"""torch's files: places within the archives, and what weights_only and we refuse."""

import io
import os
import random
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, ForeignFormatError
from aclcmp.orchestrator.dumps.scratch import Scratch
from aclcmp.orchestrator.dumps.torch_files import read_torch
from tests.dumps.atb_writer import values
from tests.dumps.samples import SHAPES, by_name, read, reasons, same_bits, sample, torch_sample

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", [name for name in DTYPES if hasattr(torch, name)])
@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_every_dtype(tmp_path: Path, dtype: str, legacy: bool) -> None:
    (tmp_path / "d").mkdir()
    whole = {str(k): torch_sample(dtype, shape, k) for k, shape in enumerate(SHAPES)}
    try:
        torch.save(whole, tmp_path / "d" / "x.pt", _use_new_zipfile_serialization=not legacy)
        torch.load(tmp_path / "d" / "x.pt")
    except (KeyError, AttributeError, RuntimeError):
        pytest.skip(f"torch itself cannot keep {dtype} so")
    found = by_name(read(tmp_path / "d"))
    for k, shape in enumerate(SHAPES):
        assert found[str(k)].dtype == dtype and same_bits(values(found[str(k)]), sample(dtype, shape, k))
        assert (found[str(k)].path == str(tmp_path / "d" / "x.pt")) == (not legacy or 0 in shape)


def test_nested_views_and_orders(tmp_path: Path) -> None:
    base = torch.arange(60.0).reshape(3, 4, 5)
    whole: dict[Any, Any] = OrderedDict(
        a={"b": [base, (base[1], base[:, 1:3])]},
        transposed=base.t() if base.ndim == 2 else base.transpose(0, 2),
        expanded=torch.ones(1).expand(1000),
        again=base,
        parameter=torch.nn.Parameter(torch.ones(2)),
        scalar=torch.tensor(3.5),
        conjugate=torch.ones(2, dtype=torch.complex64).mul(1j).conj(),
        channels=torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
        number=3,
        text="x",
        nothing=None,
    )
    whole[7] = base[2]
    (tmp_path / "d").mkdir()
    torch.save(whole, tmp_path / "d" / "x.pth")
    index = read(tmp_path / "d")
    found = by_name(index)
    assert list(found)[:4] == ["a.b.0", "a.b.1.0", "a.b.1.1", "transposed"] and list(found)[-1] == "7"
    expected = {"a.b.0": base, "a.b.1.0": base[1], "a.b.1.1": base[:, 1:3], "7": base[2], **whole}
    for name, tensor in found.items():
        assert values(tensor).tolist() == expected[name].resolve_conj().tolist(), name
    inside = {name for name, tensor in found.items() if tensor.path == str(tmp_path / "d" / "x.pth")}
    assert set(found) - inside == {"a.b.1.1", "transposed", "expanded", "conjugate", "channels"}
    assert found["again"].offset == found["a.b.0"].offset and found["7"].offset == found["a.b.0"].offset + 160


def test_weird_paths_are_read_in_place(weird_path: Path) -> None:
    for name in ("x.pt", "new\nline.pt", "tab\t\\012.pt", " (deleted).pt"):
        torch.save(torch.arange(9), weird_path / name)
    found = by_name(read(weird_path))
    assert len(found) == 4
    for tensor in found.values():
        assert Path(tensor.path).parent == weird_path and values(tensor).tolist() == list(range(9))


def test_one_tensor_is_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "d" / "rank1").mkdir(parents=True)
    torch.save(torch.arange(5), tmp_path / "d" / "rank1" / "logits.pt")
    torch.save([torch.arange(5), torch.arange(3)], tmp_path / "d" / "rank1" / "several.pt")
    torch.save({"only": "text"}, tmp_path / "d" / "rank1" / "nothing.pt")
    index = read(tmp_path / "d")
    assert set(by_name(index, rank=1)) == {"logits", "0", "1"}
    assert "rank1/nothing.pt holds no tensor" in index.notes


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    whole = {
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.ones(3, device="meta"),
        "good": torch.ones(3),
    }
    torch.save(whole, tmp_path / "d" / "x.pt")
    assert list(reasons(read(tmp_path / "d"))) == ["sparse", "meta"]


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def test_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    torch.save({"a": torch.ones(1), "b": Evil(tmp_path / "mark")}, tmp_path / "d" / "new.pt")
    torch.save(
        {"a": torch.ones(1), "b": Evil(tmp_path / "mark")},
        tmp_path / "d" / "old.pt",
        _use_new_zipfile_serialization=False,
    )
    refused = reasons(read(tmp_path / "d"))
    assert list(refused) == ["new", "old"] and all("weights_only" in reason for reason in refused.values())
    assert all("GLOBAL" in reason for reason in refused.values())
    assert all(len(reason) < 700 for reason in refused.values())
    assert not (tmp_path / "mark").exists()


def test_archives_that_torch_does_not_write(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    content = io.BytesIO()
    torch.save(torch.ones(1000), content)
    for name, kind in (("packed", zipfile.ZIP_DEFLATED), ("stored", zipfile.ZIP_STORED)):
        with zipfile.ZipFile(content) as source, zipfile.ZipFile(tmp_path / "d" / f"{name}.pt", "w", kind) as target:
            for member in source.infolist():
                target.writestr(member.filename, source.read(member))
    with zipfile.ZipFile(content) as source, zipfile.ZipFile(tmp_path / "d" / "big.pt", "w") as target:
        for member in source.infolist():
            big = source.read(member)
            if member.filename.endswith("/byteorder"):
                big = b"big"
            elif "/data/" in member.filename:
                big = torch.ones(1000).numpy().astype(">f4").tobytes()
            target.writestr(member.filename, big)
    index = read(tmp_path / "d")
    assert list(reasons(index)) == ["packed"]
    good = {record.data_id: index.indices[0].dumped[record.seq] for record in index.indices[0].records}
    for name in ("stored", "big"):
        tensor = good[name]
        assert isinstance(tensor, DumpedTensor) and values(tensor).tolist() == [1.0] * 1000
        assert ("scratch-d" in tensor.path) == (name == "big")


def test_views_larger_than_any_disk(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for legacy in (False, True):
        whole = {"bomb": torch.ones(1).expand(10**15), "complex": torch.ones(1).mul(1j).conj().expand(10**15)}
        torch.save(whole, tmp_path / "d" / "x.pt", _use_new_zipfile_serialization=not legacy)
        refused = reasons(read(tmp_path / "d"))
        assert list(refused) == ["bomb", "complex"] and "would unpack to" in refused["bomb"]
        assert refused["bomb"].count("x.pt") == 1 and refused["bomb"].endswith("to the bytes that it may take")
    torch.save({"bomb": whole["bomb"]}, tmp_path / "d" / "x.pt")
    (why,) = reasons(read(tmp_path / "d")).values()
    assert why.count("x.pt") == 1 and why.endswith("to the bytes that it may take")


def test_lists_within_themselves(tmp_path: Path) -> None:
    endless: list[Any] = [torch.ones(1)]
    endless.append(endless)
    torch.save(endless, tmp_path / "endless.pt")
    doubled: list[Any] = [torch.ones(1)]
    for _ in range(40):
        doubled = [doubled, doubled]
    torch.save(doubled, tmp_path / "doubled.pt")
    for name in ("endless", "doubled"):
        with pytest.raises(ForeignFormatError, match="within itself"):
            read_torch(str(tmp_path / f"{name}.pt"), Scratch(tmp_path / "s"))


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"PK\3\4" + bytes(1000), b"\x80\x02.", b"hello", bytes(1000)])
def test_garbage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(ForeignFormatError, match=r"x\.pt") as caught:
        read_torch(str(tmp_path / "x.pt"), Scratch(tmp_path / "s"))
    assert str(caught.value).isprintable()


@pytest.mark.fuzz
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_damage(tmp_path: Path, seed: int, legacy: bool) -> None:
    rng = random.Random(seed)
    content = io.BytesIO()
    whole = {"a": torch.arange(10), "b": [torch.ones(3, 4), torch.zeros(2, dtype=torch.bfloat16)]}
    torch.save(whole, content, _use_new_zipfile_serialization=not legacy)
    path = tmp_path / "x.pt"
    for _ in range(150):
        damaged = bytearray(content.getvalue())
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(damaged))
            if rng.random() < 0.7:
                damaged[place] = rng.randrange(256)
            elif rng.random() < 0.5:
                del damaged[place : place + rng.randint(1, 60)]
            else:
                damaged = damaged[: max(place, 1)]
        path.write_bytes(damaged)
        try:
            found = read_torch(str(path), Scratch(tmp_path / "s"))
        except ForeignFormatError as error:
            assert str(error).isprintable() and len(str(error)) < 2_000
            continue
        for _, tensor in found.tensors:
            if isinstance(tensor, DumpedTensor):
                assert tensor.offset + values(tensor).nbytes <= Path(tensor.path).stat().st_size


@pytest.mark.parametrize(
    ("torch_py", "words"),
    [
        (
            "raise ModuleNotFoundError('no torch', name='torch')",
            "torch is needed to read it (no archive); install torch here",
        ),
        ("import numpi", "cannot be loaded (No module named 'numpi'); `aclcmp doctor` tells more"),
        ("raise ImportError('libgomp.so.1: cannot open')", "cannot be loaded (libgomp.so.1: cannot open)"),
        ("raise OSError('libstdc++.so.6')", "cannot be loaded (libstdc++.so.6)"),
        (
            "raise RuntimeError('Failed to load the backend\\n extension')",
            "cannot be loaded (Failed to load the backend)",
        ),
    ],
)
@pytest.mark.parametrize("before", [None, "1"])
def test_a_torch_that_cannot_be_loaded(tmp_path: Path, torch_py: str, words: str, before: str | None) -> None:
    (tmp_path / "torch.py").write_text(
        f"import os\nassert os.environ['TORCH_DEVICE_BACKEND_AUTOLOAD'] == '0'\n{torch_py}\n"
    )
    (tmp_path / "x.pt").write_bytes(b"older than torch 1.6")
    script = """
import os, pathlib
from aclcmp.labeling.shard.dumped_tensor import ForeignFormatError
from aclcmp.orchestrator.dumps.scratch import Scratch
from aclcmp.orchestrator.dumps.torch_files import read_torch
try:
    read_torch("x.pt", Scratch(pathlib.Path()))
except ForeignFormatError as error:
    print(error)
print(os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD"))
"""
    environ = {name: value for name, value in os.environ.items() if name != "TORCH_DEVICE_BACKEND_AUTOLOAD"}
    environ |= {"TORCH_DEVICE_BACKEND_AUTOLOAD": before} if before else {}
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    done = subprocess.run([sys.executable, "-c", script], env=environ, cwd=tmp_path, capture_output=True, text=True)
    said, after = done.stdout.splitlines()
    assert (
        said.startswith("x.pt: torch is needed to read it (no archive)") and words in said and after == str(before)
    ), done


def test_a_comparison_imports_no_torch(tmp_path: Path) -> None:
    for side in ("golden", "actual"):
        (tmp_path / side).mkdir()
        torch.save({"layers.0": torch.arange(9.0), "layers.1": torch.ones(3, 4).t()}, tmp_path / side / "x.pt")
    (tmp_path / "torch.py").write_text("raise RuntimeError('imported')")
    environ = os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))}
    command = [sys.executable, "-m", "aclcmp", "compare", "golden", "actual"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "All match, bit for bit: 2 labels" in done.stdout, done
