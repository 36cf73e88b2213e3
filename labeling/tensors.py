"""Conversion of torch.Tensor, DTensor and numpy array to dense values, and to bytes in host memory."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.device_graphs import see_device_graphs
from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.graphs import DEVICE_GRAPHS, reason_not_copyable
from aclcmp.labeling.layout import Layout, dtensor_placement, layout_of
from aclcmp.labeling.shard.dtypes import DTYPES

_BYTE = np.dtype(np.uint8)
_NUMPY = frozenset(name for name, dtype in DTYPES.items() if dtype.memory.name == name)
"""Element types that torch and numpy share."""


@dataclass(frozen=True, slots=True)
class LabelledTensor:
    """A tensor's values, dense in C order, and its properties; the values may share the caller's memory."""

    values: Any
    """torch.Tensor on its device, or numpy array in little-endian order."""
    nbytes: int
    dtype: str
    shape: tuple[int, ...]
    device: str
    layout: Layout | None

    @property
    def is_on_accelerator(self) -> bool:
        """Whether its values must be copied to be read here."""
        return not isinstance(self.values, np.ndarray) and self.values.device.type != "cpu"

    def bits(self) -> npt.NDArray[np.uint8]:
        """Return the dense bytes in host memory, flat; copies from a device are complete on return."""
        values = self.values
        if isinstance(values, np.ndarray):
            return values.reshape(-1).view(np.uint8)
        # a 0-d tensor cannot be viewed as bytes, so it is reshaped first. Each torch call costs 2 us in a cold cache
        if self.dtype in _NUMPY:
            bits: npt.NDArray[np.uint8] = values.cpu().numpy().reshape(-1).view(_BYTE)
        else:
            bits = values.cpu().reshape(-1).view(sys.modules["torch"].uint8).numpy()
        return bits


def labelled_tensor(value: Any, layout: Any = None) -> LabelledTensor:
    """Return the tensor of a value, dense on its device. Raises LabelError for a value that is none."""
    recorded = None if layout is None else layout_of(layout)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.device.type in DEVICE_GRAPHS:
            see_device_graphs()
        if reason := reason_not_copyable(torch, value):
            raise LabelError(reason)
        if type(value) is not torch.Tensor and hasattr(value, "to_local") and hasattr(value, "placements"):
            recorded = recorded or _dtensor_layout(value)
            value = value.to_local()
        return _from_torch(torch, value, recorded)
    if isinstance(value, (np.ndarray, np.generic)):
        return _from_numpy(np.asarray(value), recorded)
    hint = "; label its tensors one by one" if isinstance(value, (list, tuple, dict)) else ""
    raise LabelError(f"data_val is a {type(value).__name__}, not a torch.Tensor or numpy array{hint}")


def _from_torch(torch: Any, value: Any, layout: Layout | None) -> LabelledTensor:
    check_dense(torch, value)
    plain = value.detach()
    if plain.is_conj() or plain.is_neg():
        plain = plain.resolve_conj().resolve_neg()
    plain = plain.contiguous()
    name = str(value.dtype).removeprefix("torch.")
    return LabelledTensor(plain, plain.nbytes, name, tuple(value.shape), str(value.device), layout)


def check_dense(torch: Any, value: Any) -> None:
    """Raise LabelError for a torch.Tensor that cannot be recorded, whatever its values are."""
    name = str(value.dtype).removeprefix("torch.")
    if value.layout != torch.strided or value.is_quantized or value.is_nested or value.device.type == "meta":
        kind = "meta (it has no data)" if value.device.type == "meta" else str(value.layout).removeprefix("torch.")
        raise LabelError(f"data_val is a {name} tensor without plain dense data: {kind}")
    if name not in DTYPES:
        raise LabelError(f"data_val has dtype {name}, which cannot be recorded")


def _from_numpy(value: npt.NDArray[Any], layout: Layout | None) -> LabelledTensor:
    name = value.dtype.name
    if name not in DTYPES or value.dtype.hasobject:
        raise LabelError(f"data_val is a numpy array of dtype {name}, which cannot be recorded")
    little = value.dtype.newbyteorder("<") if value.dtype.kind in "iufc" else value.dtype
    dense = np.ascontiguousarray(value, dtype=little)
    return LabelledTensor(dense, dense.nbytes, name, value.shape, "numpy", layout)


def _dtensor_layout(value: Any) -> Layout:
    """Return the layout of a DTensor: its placements, their ranks, and the place of the local tensor in the whole."""
    import torch.distributed as dist
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    mesh, here = value.device_mesh, value.device_mesh.get_coordinate()
    groups: list[list[int] | None] = []
    for dim in range(len(value.placements)):
        place = tuple(slice(None) if each == dim else number for each, number in enumerate(here or ()))
        ranks = mesh.mesh[place].tolist()
        groups.append(None if len(ranks) == dist.get_world_size() else ranks)
    shape, start = compute_local_shape_and_global_offset(value.shape, mesh, value.placements)
    spans = tuple(((int(begin), int(size)),) for begin, size in zip(start, shape, strict=True))
    placements = tuple(dtensor_placement(each, ranks) for each, ranks in zip(value.placements, groups, strict=True))
    return Layout(placements, tuple(value.shape), spans)
