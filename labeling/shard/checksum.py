"""The checksum of stored bytes: XXH3, 64 bits."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import xxhash


def payload_checksum(bits: npt.NDArray[np.uint8] | Iterable[bytes]) -> int:
    """Return the XXH3 hash (64 bits) of a label's bytes, given as an array or in pieces.

    It tells bytes that are not those that were recorded, and which ranks hold the same tensor. It is as fast as summing
    up words (0.2 us for 1 KiB, 28 GB/s for 64 MiB), which would not see a permutation.
    """
    if isinstance(bits, np.ndarray):
        return int(xxhash.xxh3_64_intdigest(bits))
    hasher = xxhash.xxh3_64()
    for piece in bits:
        hasher.update(piece)
    return int(hasher.intdigest())
