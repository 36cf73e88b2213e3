"""Everything a torch.Tensor can be, recorded in a process of its own and read back bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aclcmp.labeling.layout import Layout, Partial, Replicate, Shard
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.shard_reader import read_label
from tests.labeling.test_api import run_script

pytestmark = pytest.mark.model

PREAMBLE = """
import numpy as np, torch, warnings
warnings.simplefilter("ignore")
from aclcmp import set_label, Shard, Replicate
torch.manual_seed(0)
"""


def test_every_dtype_and_shape(tmp_path: Path) -> None:
    script = (
        PREAMBLE
        + f"""
for name in {sorted(DTYPES)!r}:
    dtype = getattr(torch, name)
    for shape in ((), (0, 3), (5,), (4, 6), (2, 3, 5)):
        size = int(np.prod(shape)) * dtype.itemsize
        raw = torch.randint(0, 2 if name == "bool" else 256, (size,), dtype=torch.uint8)
        x = raw.view(dtype).reshape(shape)
        np.save(f"{tmp_path}/{{name}}-{{x.numel()}}.npy", raw.numpy())
        set_label("pta", f"{{name}}-{{x.numel()}}", x)
        if len(shape) == 2 and size:
            set_label("pta", f"{{name}}-t", x.t()[::2])
            set_label("acl", f"{{name}}-t", x.t()[::2].contiguous())
"""
    )
    shards = tmp_path / "shards"
    shards.mkdir()
    (index,), stderr = run_script(shards, script)
    assert stderr == ""
    views: dict[str, Any] = {}
    for record in index.records:
        assert not record.error
        bits = read_label(index, record).reshape(-1).view(np.uint8).tobytes()
        if record.data_id.endswith("-t"):
            views.setdefault(record.data_id, []).append(bits)
        else:
            assert bits == np.load(tmp_path / f"{record.data_id}.npy").tobytes(), record
        assert record.dtype == record.data_id.split("-")[0]
    assert len(views) == len(DTYPES)
    assert all(golden == actual for golden, actual in views.values())


def test_every_kind_of_tensor(tmp_path: Path) -> None:
    script = (
        PREAMBLE
        + """
x = torch.randn(6, 4)
want = {}
def label(name, value, plain=None, **options):
    set_label("acl", name, value, **options)
    want[name] = (value if plain is None else plain).detach().clone()
label("grad", x.clone().requires_grad_())
label("parameter", torch.nn.Parameter(x.clone()))
label("expanded", torch.ones(1, 4).expand(6, 4))
label("strided", x[::2, 1:])
label("conj", torch.view_as_complex(torch.randn(3, 2)).conj())
label("neg", torch._neg_view(x))
with torch.inference_mode():
    label("inference", x + 1)
buffer = x.clone()
label("overwritten", buffer, buffer.clone())
buffer.zero_()
label("large", torch.randn(1 << 20))
label("sharded", x, layout=Shard(-1))
label("torch layout", x, layout=torch.distributed.tensor.Shard(1)) if hasattr(torch.distributed, "tensor") else None
set_label("acl", "sparse", x.to_sparse())
set_label("acl", "meta", torch.empty(3, device="meta"))
set_label("acl", "quantized", torch.quantize_per_tensor(x, 0.1, 0, torch.qint8))
for name, value in want.items():
    value = value.resolve_conj().resolve_neg().contiguous()
    np.save(f"FOLDER/{name}.npy", value.numpy())
""".replace("FOLDER", str(tmp_path))
    )
    shards = tmp_path / "shards"
    shards.mkdir()
    (index,), _ = run_script(shards, script)
    for record in index.records:
        if record.data_id in ("sparse", "meta", "quantized"):
            assert "without plain dense data" in record.error or "cannot be recorded" in record.error
            continue
        assert not record.error, record
        np.testing.assert_array_equal(read_label(index, record), np.load(tmp_path / f"{record.data_id}.npy"))
        assert record.device == "cpu"
    layouts = {record.data_id: record.layout for record in index.records}
    assert layouts["sharded"] == Layout((Shard(-1),))


def test_dtensor_tells_placements_and_place(tmp_path: Path) -> None:
    script = (
        PREAMBLE
        + """
import os, torch.distributed as dist
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
dist.init_process_group("fake", rank=3, world_size=4, store=FakeStore())
mesh = init_device_mesh("cpu", (2, 2))
whole = torch.arange(48.0).reshape(6, 8)
for name, placements in {
    "shard": (Shard(0), Shard(1)),
    "uneven": (Replicate(), Shard(0)),
    "replicate": (Replicate(), Replicate()),
    "partial": (Partial(), Replicate()),
    "maximum": (Partial("max"), Replicate()),
}.items():
    local = whole[3:, 4:] if name == "shard" else whole[3:] if name == "uneven" else whole
    set_label("acl", name, DTensor.from_local(local, mesh, placements, shape=whole.shape, stride=whole.stride()))
flat = init_device_mesh("cpu", (4,))
row = DTensor.from_local(whole[6:], flat, (Shard(0),), shape=whole.shape, stride=whole.stride())
set_label("acl", "on all", row)
dist.destroy_process_group()
"""
    )
    (index,), _ = run_script(tmp_path, script, RANK="3", WORLD_SIZE="4")
    told = {record.data_id: record for record in index.records}
    assert not [record.error for record in index.records if record.error]
    assert told["shard"].layout == Layout(
        (Shard(0, ranks=range(1, 4, 2)), Shard(1, ranks=range(2, 4))), (6, 8), (((3, 3),), ((4, 4),))
    )
    np.testing.assert_array_equal(read_label(index, told["shard"]), np.arange(48.0).reshape(6, 8)[3:, 4:])
    assert told["uneven"].layout == Layout(
        (Replicate(range(1, 4, 2)), Shard(0, ranks=range(2, 4))), (6, 8), (((3, 3),), ((0, 8),))
    )
    assert told["replicate"].layout is not None and told["replicate"].layout.is_replicate
    assert told["partial"].layout is not None and told["partial"].layout.placements[0] == Partial(range(1, 4, 2))
    assert told["maximum"].layout is not None and told["maximum"].layout.brief == "Partial(max), Replicate()"
    assert told["on all"].layout == Layout((Shard(0),), (6, 8), (((6, 0),), ((0, 8),)))
