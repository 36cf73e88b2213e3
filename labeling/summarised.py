"""The packed summary of a tensor, or of each of its rows where they have names; computed where the tensor is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.row_summaries import named_row_width, row_size
from aclcmp.labeling.shard.summarise import summarise, summarise_rows
from aclcmp.labeling.shard.tensor_summary import packed_size
from aclcmp.labeling.tensors import LabelledTensor


def packed_summary(tensor: LabelledTensor, rows: int, *, sketch: bool) -> npt.NDArray[np.uint8] | None:
    """Return the packed summary of a tensor, of which `rows` rows have names (0: none); None if it is no smaller.

    Where rows have names it is a `RowSummaries`, else a `TensorSummary`.
    """
    by_row = named_row_width(tensor.shape, rows) is not None
    if (8 * rows * row_size(sketch) if by_row else packed_size(tensor.shape, sketch)) >= tensor.nbytes:
        return None
    if tensor.is_on_accelerator and tensor.nbytes:
        from aclcmp.labeling.device_summary import summarise_there

        packed = summarise_there(tensor.values, tensor.dtype, rows if by_row else 0, sketch=sketch)
        if packed is not None:
            return packed
    if by_row:
        return summarise_rows(tensor.bits(), tensor.dtype, rows, sketch=sketch).pack()
    return summarise(tensor.bits(), tensor.dtype, tensor.shape, sketch=sketch).pack().view(np.uint8)
