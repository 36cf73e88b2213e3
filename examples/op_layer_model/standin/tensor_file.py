"""One tensor as ATB writes it: a text header that ends in `$End=1`, then the dense bytes."""

import os
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {
    torch.float32: 0,
    torch.float16: 1,
    torch.int8: 2,
    torch.int32: 3,
    torch.uint8: 4,
    torch.int16: 6,
    torch.int64: 9,
    torch.float64: 11,
    torch.bool: 12,
    torch.bfloat16: 27,
}
"""ATB's numbers of the element types."""

_ND = 2
"""ATB's number of the plain row-major format."""


def encode(tensor: Tensor) -> bytes:
    """Return the file of a tensor of any shape. Raises KeyError for an element type without a number."""
    shape = tensor.shape or (1,)  # ATB has no 0-d tensors
    data: bytes = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    header = (
        "$Version=1.0\n"
        "$Object.Count=1\n"
        f"$Object.Length={len(data)}\n"
        f"format={_ND}\n"
        f"dtype={DTYPES[tensor.dtype]}\n"
        f"dims={','.join(map(str, shape))}\n"
        f"$Object.data=0,{len(data)}\n"
        "$End=1\n"
    )
    return header.encode("ascii") + data


def write(path: Path, tensor: Tensor) -> None:
    """Write the file of a tensor, readable by the owner and the group, making its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "wb") as file:
        file.write(encode(tensor))
