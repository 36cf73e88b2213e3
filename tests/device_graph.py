"""A device whose graphs can be captured and replayed: a stand-in on the CPU, for scripts of tests.

It is SIMULATED, and shows nothing of CUDA or CANN. As on a device, what is captured has no values until a replay, which
runs no Python of the model: it runs the operations of torch that were captured, into the same tensors. Unlike there,
the memory of tensors that are gone is not used again.
"""

DEVICE_GRAPH = """
import sys
import torch
from torch.utils import _pytree as pytree
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode
from aclcmp.labeling import graphs

class Capture(TorchDispatchMode):
    now = None

    def __init__(self, graph):
        super().__init__()
        self.graph = graph

    @classmethod
    def is_infra_mode(cls):
        return True  # so that compiled code runs in it

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.namespace == "aclcmp":  # an operator in Python: a device captures what it calls
            with self:
                return OPDEFS[func._schema.name]._init_fn(*args, **kwargs)
        if func is torch.ops.aten.clone.default and args[0].numel() > self.graph.memory:
            raise torch.OutOfMemoryError("CPU out of memory.\\nTried to allocate")
        outputs = func(*args, **kwargs)
        self.graph.operations.append((func, args, kwargs, outputs))
        before = [each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        memory = {each.untyped_storage().data_ptr() for each in before}
        for each in pytree.tree_leaves(outputs):
            if isinstance(each, torch.Tensor) and each.untyped_storage().data_ptr() not in memory:
                each.untyped_storage().fill_(0)  # nothing is computed yet
        return outputs

class CPUGraph:
    memory = sys.maxsize  # of how many numbers a clone may be

    def capture_begin(self, pool=None, capture_error_mode="global"):
        self.operations = []
        Capture.now = Capture(self)
        Capture.now.__enter__()

    def capture_end(self):
        Capture.now.__exit__(None, None, None)
        Capture.now = None

    def replay(self):
        for func, args, kwargs, outputs in self.operations:
            again = func(*args, **kwargs)
            for place, value in zip(pytree.tree_leaves(outputs), pytree.tree_leaves(again), strict=True):
                if isinstance(place, torch.Tensor) and place.data_ptr() != value.data_ptr():
                    place.copy_(value)

    def reset(self):
        self.operations.clear()

class graph:
    def __init__(self, captured):
        self.captured = captured
    def __enter__(self):
        self.captured.capture_begin()
    def __exit__(self, *error):
        self.captured.capture_end()

torch.cpu.CPUGraph, torch.cpu.graph = CPUGraph, graph
torch.cpu.is_current_stream_capturing = lambda: Capture.now is not None
graphs.DEVICE_GRAPHS["cpu"] = "CPUGraph"
"""
