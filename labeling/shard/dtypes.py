"""The element types a label may have, by torch's names, and how each is stored.

Types that numpy knows are stored as they are. bfloat16 is stored as a custom HDF5 float, so that plain h5py reads right
values (as float32); the float8 types are stored as uint8 bits. Every dataset also has the attribute `torch_dtype`.
"""

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

_LOWEST = {"float64": -1.79e308, "float32": -3.38e38, "bfloat16": -3.38e38, "float16": -6.5e4}


class Kind(Enum):
    """Kinds of values. Only tensors of the same kind can be compared; others are a mismatch."""

    FLOAT = "float"
    INT = "int"
    BOOL = "bool"
    COMPLEX = "complex"


@dataclass(frozen=True, slots=True)
class DType:
    """An element type.

    `memory` is the little-endian numpy type of one element's bits; `eps` the distance from 1 to the next larger value
    (of one component for complex types), None for exact types.
    """

    name: str
    kind: Kind
    memory: np.dtype[np.generic]
    eps: float | None = None

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.memory.itemsize

    @property
    def lowest(self) -> float:
        """Values up to this one, near the type's lowest, count as -inf in masks: scores added to them are lost."""
        return _LOWEST.get(self.name, -math.inf)


_COMPLEX32 = np.dtype([("r", "<f2"), ("i", "<f2")])

_ALL = (
    DType("float64", Kind.FLOAT, np.dtype("<f8"), 2.0**-52),
    DType("float32", Kind.FLOAT, np.dtype("<f4"), 2.0**-23),
    DType("float16", Kind.FLOAT, np.dtype("<f2"), 2.0**-10),
    DType("bfloat16", Kind.FLOAT, np.dtype("<u2"), 2.0**-7),
    DType("float8_e4m3fn", Kind.FLOAT, np.dtype("u1"), 2.0**-3),
    DType("float8_e4m3fnuz", Kind.FLOAT, np.dtype("u1"), 2.0**-3),
    DType("float8_e5m2", Kind.FLOAT, np.dtype("u1"), 2.0**-2),
    DType("float8_e5m2fnuz", Kind.FLOAT, np.dtype("u1"), 2.0**-2),
    DType("float8_e8m0fnu", Kind.FLOAT, np.dtype("u1"), 1.0),
    DType("int8", Kind.INT, np.dtype("i1")),
    DType("int16", Kind.INT, np.dtype("<i2")),
    DType("int32", Kind.INT, np.dtype("<i4")),
    DType("int64", Kind.INT, np.dtype("<i8")),
    DType("uint8", Kind.INT, np.dtype("u1")),
    DType("uint16", Kind.INT, np.dtype("<u2")),
    DType("uint32", Kind.INT, np.dtype("<u4")),
    DType("uint64", Kind.INT, np.dtype("<u8")),
    DType("bool", Kind.BOOL, np.dtype("?")),
    DType("complex32", Kind.COMPLEX, _COMPLEX32, 2.0**-10),
    DType("complex64", Kind.COMPLEX, np.dtype("<c8"), 2.0**-23),
    DType("complex128", Kind.COMPLEX, np.dtype("<c16"), 2.0**-52),
)

DTYPES: dict[str, DType] = {dtype.name: dtype for dtype in _ALL}
"""All element types by torch's name."""
