"""Samples of the files that aclcmp reads: each kind says how a small whole one is made, and how it is read."""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import NotDumped
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.dumps.registry import read_dump
from aclcmp.orchestrator.inputs.id_map_file import read_map
from aclcmp.orchestrator.inputs.layout_file import read_layouts
from aclcmp.orchestrator.inputs.policy_file import read_policy
from aclcmp.orchestrator.report.as_json import json_pieces
from aclcmp.orchestrator.report.h5 import sealed_file
from aclcmp.orchestrator.report.h5.reader import read_h5
from aclcmp.orchestrator.report.h5.writer import write_h5
from aclcmp.orchestrator.run.record_file import load_record, save_record
from aclcmp.orchestrator.submit.cluster_file import read_cluster_file
from tests.report.made_up import decoder_labels, record_of, report_of


@dataclass(frozen=True, slots=True)
class Answer:
    """Result of reading a file: the digest of all content, and all messages about what is wrong."""

    content: str
    messages: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of file. `make` fills a folder and returns the file to be damaged; `read` takes both."""

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path, Path], Answer]
    checked: bool = False
    """True if the format has a checksum of its content: then nothing else than what was written may be read."""


def _digest(*parts: Any) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode("utf-8", "backslashreplace")).hexdigest()


def _dump(folder: Path, path: Path) -> Answer:
    """Read a folder as `aclcmp compare` does, with the bytes of all its tensors."""
    scratch = folder.parent / f"{folder.name}-copies"
    index = read_dump(folder, "pta", scratch)
    content, messages = [], []
    if index is None:
        return Answer("", "no known tool's")
    messages += index.notes
    for rank in index.indices:
        for record in rank.records:
            found = rank.dumped[record.seq]
            name = f"{rank.header.rank} {record.task} {record.data_id} {record.occurrence} {record.layout}"
            if isinstance(found, NotDumped):
                messages.append(found.reason)
                continue
            messages += found.warnings
            nbytes = math.prod(found.shape) * DTYPES[found.dtype].itemsize
            with Path(found.path).open("rb") as file:
                file.seek(found.offset)
                bits = file.read(min(nbytes, 1 << 20))
            content.append(f"{name} {found.dtype} {found.shape} {hashlib.sha256(bits).hexdigest()}")
    shutil.rmtree(scratch, ignore_errors=True)
    return Answer(_digest(*sorted(content)), "; ".join(sorted(messages)))  # files' times decide the order


def _tensors(seed: int = 0) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    return {
        "layers.0.attn": chance.random((4, 6), np.float32),
        "layers.0.mlp": np.asfortranarray(chance.random((5, 3))),
        "ids": np.arange(300, dtype=np.int32).astype(">i4"),
    }


def _npy(folder: Path) -> Path:
    for name, value in _tensors().items():
        np.save(folder / f"{name}.npy", value)
    return folder / "layers.0.mlp.npy"


def _npz(folder: Path) -> Path:
    np.savez(folder / "x.npz", **_tensors())
    return folder / "x.npz"


def _packed_npz(folder: Path) -> Path:
    np.savez_compressed(folder / "x.npz", **_tensors())
    return folder / "x.npz"


def _safetensors(folder: Path) -> Path:
    entries, content = {}, b""
    for name, value in _tensors().items():
        bits = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
        kind = {"f4": "F32", "f8": "F64", "i4": "I32"}[value.dtype.str[1:]]
        entries[name] = {"dtype": kind, "shape": value.shape, "data_offsets": [len(content), len(content) + len(bits)]}
        content += bits
    header = json.dumps(entries).encode()
    (folder / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + content)
    return folder / "x.safetensors"


def _torch(value: dict[str, Any]) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(each.astype(each.dtype.newbyteorder("="))) for name, each in value.items()}


def _pt(folder: Path, *, zipped: bool = True) -> Path:
    import torch

    torch.save(_torch(_tensors()), folder / "x.pt", _use_new_zipfile_serialization=zipped)
    return folder / "x.pt"


def _old_pt(folder: Path) -> Path:
    return _pt(folder, zipped=False)


def _pass(folder: Path) -> Path:
    import torch

    above = folder / "TP0_PP0_Rank0_pid7"
    above.mkdir()
    batch = {"model.forward_batch_info.input_ids": torch.arange(5), "model.embed_tokens": torch.ones(5, 8)}
    for number in range(2):
        torch.save(batch | {"model.layers.0": torch.rand(5, 8)}, above / f"Pass{number:05d}.pt")
    return above / "Pass00001.pt"


def _msprobe(folder: Path) -> Path:
    above = folder / "step0" / "rank0"
    (above / "dump_tensor_data").mkdir(parents=True)
    data: dict[str, Any] = {}
    for name, value in _tensors().items():
        np.save(above / "dump_tensor_data" / f"Module.{name}.forward.0.output.0.npy", value)
        leaf = {"type": "torch.Tensor", "dtype": "torch.float32", "shape": list(value.shape)}
        leaf |= {"data_name": f"Module.{name}.forward.0.output.0.npy", "device_mesh": [0, 1]}
        leaf |= {"placements": [{"Shard": {"dim": 0}}]}
        data[f"Module.{name}.forward.0"] = {"input_args": [], "output": [leaf]}
    (above / "dump.json").write_text(json.dumps({"task": "tensor", "level": "L0", "data": data}, indent=1))
    return above / "dump.json"


def _atb(folder: Path) -> Path:
    above = folder / "ait_dump" / "tensors" / "0_77" / "0" / "0_Model" / "after"
    above.mkdir(parents=True)
    for number, value in enumerate(_tensors().values()):
        bits = np.ascontiguousarray(value, "<f4").tobytes()
        dims = ",".join(map(str, value.shape))
        lines = ["$Version=1.0", "$Object.Count=1", f"$Object.Length={len(bits)}", "format=2", "dtype=0"]
        lines += [f"dims={dims}", f"$Object.data=0,{len(bits)}", "$End=1", ""]
        (above / f"outtensor{number}.bin").write_bytes("\n".join(lines).encode() + bits)
    return above / "outtensor1.bin"


def made_report() -> Report:
    """Return a small report with everything that a report can have."""
    return report_of(decoder_labels(1, 2, ("layers.0.mlp.down.local", 1)), run=record_of(2))


def _report(folder: Path) -> Path:
    write_h5(made_report(), folder / "report.h5")
    return folder / "report.h5"


def _unsealed_report(folder: Path) -> Path:
    path = _report(folder)
    path.write_bytes(path.read_bytes()[: -sealed_file.SEAL_LENGTH])
    return path


def _earlier_report(folder: Path) -> Path:
    """Write a report as earlier versions did: with texts of variable length."""
    path = _report(folder)
    with h5py.File(path, "r+") as file:
        notes = file["notes"][:].tolist()
        del file["notes"]
        file["notes"] = np.array(notes, dtype=h5py.string_dtype())
        owners: list[Any] = [file]
        file.visititems(lambda name, found: owners.append(found))
        for owner in owners:
            for name, value in list(owner.attrs.items()):
                if isinstance(value, bytes):
                    owner.attrs[name] = value.decode()
    return path


def _read_report(folder: Path, path: Path) -> Answer:
    return Answer(_digest(*json_pieces(read_h5(path, None))))


def _run_json(folder: Path) -> Path:
    save_record(record_of(2), folder / "run.json")
    return folder / "run.json"


_POLICY = """\
fail_on = "own"
[limits.bfloat16]
warn = 0.02
fail = 0.1
[[label]]
pattern = "layers.*.attn.**"
level = "op"
warn = 0.05
fail = 0.3
[[allow]]
pattern = "head.sampled"
up_to = 0.5
ranks = [0, 1]
reason = "sampled with another generator"
[jump]
factor = 2.5
"""
_CLUSTER = """\
address: http://10.0.0.1:8265
aclcmp:
  exec: bash run.sh --batch 4
  ranks: 8
  nodes: 2
  env: {OMP_NUM_THREADS: "4"}
  output: /data/runs
"""
_MAP = 'layers.*.attn -> model.layers.*.self_attn\n# comment\n"a b" -> -\n'
_LAYOUTS = "actual layers.*.qkv -> Shard(dim=-1)\ngolden x -> Replicate()\n"


def _text(name: str, content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name

    return make


def _reader(read: Callable[[Path], Any]) -> Callable[[Path, Path], Answer]:
    return lambda folder, path: Answer(_digest(read(path)))


KINDS = (
    Kind(".npy", _npy, _dump),
    Kind(".npz", _npz, _dump, checked=True),
    Kind(".npz, packed", _packed_npz, _dump, checked=True),
    Kind(".safetensors", _safetensors, _dump),
    Kind(".pt", _pt, _dump),
    Kind(".pt, legacy", _old_pt, _dump),
    Kind("SGLang's pass", _pass, _dump),
    Kind("msprobe's dump.json", _msprobe, _dump),
    Kind("ATB's .bin", _atb, _dump),
    Kind("report.h5", _report, _read_report, checked=True),
    Kind("report.h5, no seal", _unsealed_report, _read_report),
    Kind("report.h5, earlier", _earlier_report, _read_report),
    Kind("run.json", _run_json, _reader(load_record)),
    Kind("policy", _text("p.toml", _POLICY), _reader(read_policy)),
    Kind("cluster file", _text("c.yaml", _CLUSTER), _reader(read_cluster_file)),
    Kind("map of ids", _text("m.txt", _MAP), _reader(read_map)),
    Kind("layouts", _text("l.txt", _LAYOUTS), _reader(read_layouts)),
)


def damage(whole: bytes, chance: random.Random) -> bytes:
    """Return a file's bytes with one to three damages: a flipped bit, a missing end, a changed or lost block."""
    spoilt = bytearray(whole)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        size = max(len(spoilt), 1)
        block = chance.choice((16, 64, 512, 4096))
        place = chance.randrange(size)
        if chance.random() < 0.7:
            place = place // block * block
        kind = chance.choice(("flip", "flip", "cut", "zeros", "ones", "splice", "insert", "lose"))
        if kind == "flip" and spoilt:
            spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
        elif kind == "cut":
            del spoilt[place:]
        elif kind in ("zeros", "ones"):
            spoilt[place : place + block] = (b"\0" if kind == "zeros" else b"\xff") * len(spoilt[place : place + block])
        elif kind == "splice":
            other = chance.randrange(size) // block * block
            piece = whole[other : other + block]
            spoilt[place : place + len(piece)] = piece
        elif kind == "insert":
            spoilt[place:place] = chance.randbytes(chance.randint(1, 64))
        else:
            del spoilt[place : place + block]
    return bytes(spoilt)
