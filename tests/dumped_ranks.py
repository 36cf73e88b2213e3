"""Dumps of ranks as another tool leaves them: a folder for each, with tensors by name."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Tensors = dict[str, npt.NDArray[Any]]


def dump(folder: Path, *ranks: Tensors) -> Path:
    """Write the tensors of each rank into a folder of its own, those of a single one into the folder itself."""
    for rank, tensors in enumerate(ranks):
        place = folder / f"rank{rank}" if len(ranks) > 1 else folder
        place.mkdir(parents=True)
        np.savez(place / "t.npz", allow_pickle=False, **tensors)
    return folder
