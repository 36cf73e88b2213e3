"""Numbers of rows, such as token ids and positions, read from the tensors of a dump."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, NotDumped, name_file_in_errors

RowNumbers = npt.NDArray[np.int64]
_LIMIT = 2**31
_INTEGERS = {"int32": "<i4", "int64": "<i8"}


def read_numbers(tensor: DumpedTensor | NotDumped | None) -> RowNumbers | None:
    """Return the integers of a tensor of one dimension, None for any other."""
    if not isinstance(tensor, DumpedTensor) or tensor.dtype not in _INTEGERS or len(tensor.shape) != 1:
        return None
    with name_file_in_errors(tensor.path):
        return np.fromfile(tensor.path, _INTEGERS[tensor.dtype], tensor.shape[0], offset=tensor.offset).astype(np.int64)


def are_of_rows(numbers: RowNumbers) -> bool:
    """Tell whether all of them can be token ids, positions or lengths."""
    return not numbers.size or bool(numbers.min() >= 0 and numbers.max() < _LIMIT)
