"""Labels of tensors on a device of type `npu`, without an NPU: the device is SIMULATED.

It is torch's PrivateUse1 backend under the name `npu`, as torch_npu's is, with a few operations written in Python. Its
memory is host memory, and its one stream is a queue: work that is handed to it, copies among it, is done in order when
somebody synchronizes. That shows whether a label waits for its copy; it shows nothing of torch_npu, CANN or a device.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aclcmp.labeling.shard.shard_reader import read_label
from tests.labeling.test_api import run_script

pytestmark = pytest.mark.model

DEVICE = """
import collections
import torch
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from aclcmp import set_label

_setup_privateuseone_for_python_backend("npu")
stream, done = collections.deque(), collections.Counter()

def launch(work):
    stream.append(work)

def synchronize():
    done["synchronize"] += 1
    while stream:
        stream.popleft()()

class NpuTensor(torch.Tensor):
    @staticmethod
    def __new__(cls, memory):
        tensor = torch._C._acc.create_empty_tensor(tuple(memory.shape), memory.dtype)
        tensor.__class__ = cls
        return tensor

    def __init__(self, memory):
        self.memory = memory

def implemented(name):
    return torch.library.impl(f"aten::{name}", "privateuseone")

@implemented("empty_strided")
def empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
    return NpuTensor(torch.empty_strided(size, stride, dtype=dtype))

@implemented("empty.memory_format")
def empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    return NpuTensor(torch.empty(size, dtype=dtype))

@implemented("detach")
def detach(tensor):
    return NpuTensor(tensor.memory)

@implemented("mul_.Tensor")
def mul_(tensor, other):
    launch(lambda: tensor.memory.mul_(other))
    return tensor

@implemented("_copy_from")
def _copy_from(source, target, non_blocking=False):
    done[f"{source.device.type} to {target.device.type}"] += 1
    from_, to = (each.memory if each.device.type == "npu" else each for each in (source, target))
    launch(lambda: to.copy_(from_))
    if not non_blocking:
        synchronize()
    return target
"""

LABELS = """
import warnings
warnings.simplefilter("ignore")  # torch's, about complex32
for number, name in enumerate(sorted(DTYPES)):
    dtype = getattr(torch, name)
    for shape in ((), (5,), (4, 6), (0, 3)):
        size = torch.Size(shape).numel() * dtype.itemsize
        raw = (torch.arange(size) % (2 if name == "bool" else 251)).to(torch.uint8)
        x = raw.view(dtype).reshape(shape).to("npu:0")
        assert (str(x.device), x.dtype, tuple(x.shape)) == ("npu:0", dtype, shape)
        for side in ("pta", "acl"):
            before = dict(done)
            set_label(side, f"{name}{list(shape)}", x)
            assert not stream, "work is left on the stream"
            assert done["npu to cpu"] == before.get("npu to cpu", 0) + 1, "more than one copy"
            x.memory.view(torch.uint8).fill_(1) if x.dim() else x.memory.zero_()  # at once: the copy must be over
            x = raw.view(dtype).reshape(shape).to("npu:0")
"""

QUEUED = """
x = torch.arange(6.0).reshape(2, 3).to("npu")
x.mul_(2)
x.mul_(5)
assert len(stream) == 2 and x.memory[0, 1] == 1  # an operation returns before its work is done
set_label("pta", "x", x)
x.mul_(0)
set_label("acl", "x", x)
x.memory.fill_(float("nan"))
set_label("acl", "grad", torch.ones(3).to("npu").requires_grad_())
"""

HASTY = """
torch.Tensor.cpu = lambda tensor: torch.zeros(tensor.shape).copy_(tensor, non_blocking=True)
"""


def test_every_dtype_comes_off_the_device_whole_and_at_once(tmp_path: Path) -> None:
    script = f"{DEVICE}\nfrom aclcmp.labeling.shard.dtypes import DTYPES\n{LABELS}"
    (index,), stderr = run_script(tmp_path, script)
    assert stderr == ""
    assert not [record.error for record in index.records if record.error]
    assert {record.device for record in index.records} == {"npu:0"}
    assert {record.side for record in index.records} == {"pta", "acl"}
    for record in index.records:
        bits = read_label(index, record).reshape(-1).view(np.uint8)
        expected = np.arange(bits.size) % (2 if record.dtype == "bool" else 251)
        assert bits.tolist() == expected.tolist(), record


def test_a_label_waits_for_the_work_before_it_and_for_its_copy(tmp_path: Path) -> None:
    (index,), stderr = run_script(tmp_path, DEVICE + QUEUED)
    assert stderr == ""
    golden, actual, grad = (read_label(index, record) for record in index.records)
    assert golden.tolist() == [[0.0, 10.0, 20.0], [30.0, 40.0, 50.0]]
    assert actual.tolist() == [[0.0] * 3] * 2 and grad.tolist() == [1.0] * 3
    assert [record.device for record in index.records] == ["npu:0"] * 3


def test_the_simulation_would_show_a_copy_that_is_not_awaited(tmp_path: Path) -> None:
    script = DEVICE + HASTY + QUEUED
    (index,), _ = run_script(tmp_path, script)
    assert read_label(index, index.records[0]).tolist() == [[0.0] * 3] * 2
