"""Writer of files that follow ATB's grammar to the letter, as its probes write them."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, NotDumped

CODES = {
    "float32": 0,
    "float16": 1,
    "int8": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 6,
    "uint16": 7,
    "uint32": 8,
    "int64": 9,
    "uint64": 10,
    "float64": 11,
    "bool": 12,
    "complex64": 16,
    "complex128": 17,
    "bfloat16": 27,
    "complex32": 33,
    "float8_e5m2": 35,
    "float8_e4m3fn": 36,
    "float8_e8m0fnu": 37,
}


def atb_header(
    dims: Sequence[int],
    dtype: int,
    length: int,
    *,
    format: int | None = 2,
    extra: Sequence[str] = (),
    end: str = "$End=1",
    data: bool = True,
) -> bytes:
    lines = ["$Version=1.0", f"$Object.Count={int(data)}", f"$Object.Length={length}"]
    lines += [] if format is None else [f"format={format}"]
    lines += [f"dtype={dtype}", f"dims={','.join(map(str, dims))}", *extra]
    lines += [f"$Object.data=0,{length}"] if data else []
    return "\n".join([*lines, end, ""]).encode("utf-8", "surrogateescape")


def write_atb(
    path: Path,
    bits: npt.NDArray[np.generic],
    dtype: int | None = None,
    *,
    format: int | None = 2,
    again: bool = False,
    at: float | None = None,
) -> Path:
    """Write one tensor, appended if `again`, with the file's time `at` in seconds since the epoch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = np.ascontiguousarray(bits).tobytes()
    code = CODES[bits.dtype.name] if dtype is None else dtype
    with path.open("ab" if again else "wb") as file:
        file.write(atb_header(bits.shape, code, len(payload), format=format) + payload)
    if at is not None:
        os.utime(path, (at, at))
    return path


def write_pointer(path: Path, dims: Sequence[int], dtype: int, target: str) -> Path:
    """Write the pointer that the probe leaves where it has stored the same bytes before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(atb_header(dims, dtype, 0, extra=[f"data={target}"], data=False))
    return path


def values(tensor: DumpedTensor | NotDumped) -> npt.NDArray[np.generic]:
    """Return a tensor's elements in `DType.memory`, shaped."""
    assert isinstance(tensor, DumpedTensor), tensor
    memory = DTYPES[tensor.dtype].memory
    count = math.prod(tensor.shape)
    with Path(tensor.path).open("rb") as file:
        file.seek(tensor.offset)
        content = file.read(count * memory.itemsize)
    return np.frombuffer(content, memory, count).reshape(tensor.shape)
