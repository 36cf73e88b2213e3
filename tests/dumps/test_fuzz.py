"""Random damage: files are read within their bounds, or refused in words."""

import io
import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from aclcmp.orchestrator.dumps.axis_splits import AxisSplit
from aclcmp.orchestrator.dumps.registry import read_dump
from tests.dumps.atb_writer import write_atb
from tests.dumps.samples import check, torch_sample

pytestmark = pytest.mark.fuzz


def contents() -> dict[str, bytes]:
    npy, npz, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(npy, np.arange(12, dtype=">f4").reshape(3, 4))
    np.savez(npz, a=np.arange(5), b=np.ones((2, 3), order="F"))
    np.savez_compressed(packed, a=np.arange(5), b=np.ones((2, 3), order="F"))
    entries = {
        "x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "y": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    }
    text = json.dumps(entries).encode()
    return {
        "a.npy": npy.getvalue(),
        "b.npz": npz.getvalue(),
        "c.npz": packed.getvalue(),
        "d.safetensors": struct.pack("<Q", len(text)) + text + bytes(32),
    }


def damaged(content: bytes, rng: random.Random) -> bytes:
    spoilt = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(spoilt)) if spoilt else 0
        kind = rng.randrange(5)
        if kind == 0:
            del spoilt[place:]
        elif kind == 1:
            spoilt[place:place] = rng.randbytes(rng.randint(1, 30))
        elif kind == 2:
            del spoilt[place : place + rng.randint(1, 30)]
        elif kind == 3:
            spoilt[place : place + 4] = rng.choice((b"\xff" * 4, bytes(4), b"9999", b"-111", b'": [', b"\0\0\0\x7f"))
        elif spoilt:
            spoilt[place % len(spoilt)] = rng.randrange(256)
    return bytes(spoilt)


@pytest.mark.parametrize("seed", range(8))
def test_damaged_tensor_files(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    whole = contents()
    folder = tmp_path / "d"
    folder.mkdir()
    for _ in range(60):
        for name, content in whole.items():
            (folder / name).write_bytes(damaged(content, rng))
        index = read_dump(folder, "acl", tmp_path / "scratch")
        assert index is not None
        check(index, "acl")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_indices_and_names(tmp_path: Path, seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = random.Random(seed)
    for k in range(20):
        folder = tmp_path / f"d{k}"
        data = folder / "step0" / "rank0" / "dump_tensor_data"
        data.mkdir(parents=True)
        torch.save(torch_sample("float32", (2, 3)), data / "x.output.0.pt")
        leaf = {"type": "torch.Tensor", "dtype": "torch.float32", "shape": [2, 3], "data_name": "x.output.0.pt"}
        leaf |= {"device_mesh": [[0, 1], [2, 3]], "placements": [{"Shard": {"dim": 0}}, {"Replicate": {}}]}
        text = json.dumps({"task": "tensor", "data": {"x": {"output": [leaf], "input_args": [leaf]}}}).encode()
        (data.parent / "dump.json").write_bytes(damaged(text, rng))
        dumper = tmp_path / f"s{k}"
        dumper.mkdir()
        name = "step=0___rank=1___dump_index=2___name=x___layer_id=3"
        spoilt = "".join(
            character for character in damaged(name.encode(), rng).decode("latin-1") if character not in "\0/"
        )
        for each in (name, spoilt[:200] or "x"):
            torch.save({"value": torch_sample("float32", (2, 3)), "meta": {"dims": "t h[tp]"}}, dumper / f"{each}.pt")
        atb = tmp_path / f"a{k}"
        for each in ("0_Op/after/outtensor0", damaged(b"0_77/0/0_Op", rng).decode("latin-1").replace("\0", "")):
            path = atb / "data" / (each.replace("..", "").lstrip("/")[:100] + ".bin")
            if not path.exists() and not path.is_dir():
                write_atb(path, np.ones(3, np.float32))
        for dump in (folder, dumper, atb):
            index = read_dump(dump, "pta", tmp_path / "scratch")
            assert index is not None
            check(index, "pta")


def test_splits_of_any_numbers() -> None:
    from aclcmp.labeling.layout import Layout
    from aclcmp.labeling.shard.dumped_tensor import DumpedTensor
    from aclcmp.orchestrator.dumps.dump_index import DumpContent, DumpEntry, build_index

    rng = random.Random(0)
    for _ in range(2_000):
        found = []
        for rank in range(rng.randint(1, 4)):
            shape = tuple(rng.randint(0, 3) for _ in range(rng.randint(0, 3)))
            splits = tuple(
                AxisSplit(
                    rng.choice((0, rank, 9)),
                    rng.choice((1, 2, 1_000_000)),
                    rng.choice((None, 0, 1, 5)),
                    rng.random() < 0.2,
                )
                for _ in range(rng.randint(0, 3))
            )
            found.append(DumpEntry(rank, 0, "x", DumpedTensor("/x", 0, "float32", shape), "/x", splits=splits))
        for index in build_index("any", Path("/x"), "pta", DumpContent(found)).indices:
            for record in index.records:
                assert record.layout is None or Layout.from_json(record.layout.to_json()) == record.layout
