""".safetensors files, by the real writer and by liars."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import ForeignFormatError
from aclcmp.orchestrator.dumps.safetensors import read_safetensors
from aclcmp.orchestrator.dumps.scratch import Scratch
from tests.dumps.atb_writer import values
from tests.dumps.samples import SHAPES, by_name, read, reasons, same_bits, sample, torch_sample

DTYPE_NAMES = [name for name in DTYPES if name not in ("complex32", "complex128")]


@pytest.mark.parametrize("dtype", DTYPE_NAMES)
def test_every_dtype_by_the_real_writer(tmp_path: Path, dtype: str) -> None:
    writer = pytest.importorskip("safetensors.torch")
    (tmp_path / "d").mkdir()
    whole = {f"model.layers.{k}.weight": torch_sample(dtype, shape, k) for k, shape in enumerate(SHAPES)}
    try:
        writer.save_file(whole, tmp_path / "d" / "model.safetensors", {"format": "pt"})
    except KeyError:
        pytest.skip(f"this writer knows no {dtype}")
    found = by_name(read(tmp_path / "d"))
    assert set(found) == set(whole)
    for k, shape in enumerate(SHAPES):
        tensor = found[f"model.layers.{k}.weight"]
        assert tensor.dtype == dtype and same_bits(values(tensor), sample(dtype, shape, k))
    assert not (tmp_path / "scratch-d").exists()


def test_parts_of_a_model_have_the_names_within(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for part in (1, 2):
        entries = {f"layers.{part}": entry(shape=[2], offsets=[0, 8])}
        (tmp_path / "d" / f"model-0000{part}-of-00002.safetensors").write_bytes(written(entries, bytes(8)))
    assert list(by_name(read(tmp_path / "d"))) == ["layers.1", "layers.2"]


def entry(dtype: Any = "F32", shape: Any = (2, 3), offsets: Any = (0, 24), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def written(header: Any, content: bytes = bytes(24), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + content


BAD = {
    "empty": b"",
    "seven bytes": bytes(7),
    "no header": written(b""),
    "header beyond the end": written(b"{}", length=1 << 20),
    "header of exabytes": written(b"{}", length=(1 << 64) - 1),
    "no JSON": written(b"{'a': 1}"),
    "no UTF-8": written(b'{"\xff": 1}'),
    "a list": written([]),
    "deep": written(b"[" * 100_000),
    "twice": written(b'{"a": %s, "a": %s}' % ((json.dumps(entry()).encode(),) * 2)),
    "NaN": written(b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 24]}}'),
    "no entry": written({"a": 1}),
    "a field less": written({"a": {"dtype": "F32", "shape": [6]}}),
    "a field more": written({"a": entry(x=1)}),
    "negative": written({"a": entry(shape=[-2, -3])}),
    "negative offset": written({"a": entry(offsets=[-24, 0])}),
    "backwards": written({"a": entry(offsets=[24, 0])}),
    "no end of tensors": written(b"{" * 100_001),
    "three offsets": written({"a": entry(offsets=[0, 12, 24])}),
    "floats": written({"a": entry(shape=[2.0, 3])}),
    "truth": written({"a": entry(shape=[True, 6])}),
    "text": written({"a": entry(shape="23")}),
    "enormous": written({"a": entry(shape=[1 << 70])}),
    "dimensions": written({"a": entry(shape=[1] * 65, offsets=[0, 4])}),
    "overlap": written({"a": entry(shape=[2], offsets=[0, 8]), "b": entry(shape=[2], offsets=[4, 12])}),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_file_of_tensors_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(BAD[name])
    with pytest.raises(ForeignFormatError, match=r"x\.safetensors") as caught:
        read_safetensors(str(path), Scratch(tmp_path))
    assert str(caught.value).isprintable()


def test_tensors_that_cannot_be_read_leave_the_others(tmp_path: Path) -> None:
    entries = {
        "__metadata__": {"format": "pt"},
        "good": entry(),
        "empty": entry(shape=[0, 5], offsets=[24, 24]),
        "four bits": entry("F4", [8], [24, 28]),
        "wrong size": entry("F32", [8], [28, 32]),
        "wraps": entry("F32", [1 << 31, 1 << 31], [32, 36]),
        "cut": entry("F32", [2], [36, 44]),
        "evil\x1b[2J": entry("?\n", [1], [44, 45]),
    }
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.safetensors").write_bytes(written(entries, bytes(40)))
    index = read(tmp_path / "d")
    unread = {"four bits", "wrong size", "wraps", "cut", "evil?[2J"}
    assert set(reasons(index)) == unread
    assert {record.data_id for record in index.indices[0].records} - unread == {"good", "empty"}
    assert all(DTYPES[tensor.dtype] for tensor in index.indices[0].dumped.values() if hasattr(tensor, "dtype"))
