"""Checksums of stored bytes: XXH3, of 64 bits for a label, of 128 bits for a file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_WINDOW = 8 << 20


def payload_checksum(bits: npt.NDArray[np.uint8]) -> int:
    """Return the XXH3 hash (64 bits) of a label's bytes.

    It detects damaged bytes, and ranks that hold the same tensor. It is as fast as a sum of words (0.2 us for 1 KiB,
    28 GB/s for 64 MiB), which would miss a permutation.
    """
    return int(xxhash.xxh3_64_intdigest(bits))


def pieces_checksum(pieces: Iterable[bytes]) -> int:
    """Return the hash of `payload_checksum` for bytes that come in pieces."""
    hasher = xxhash.xxh3_64()
    for piece in pieces:
        hasher.update(piece)
    return int(hasher.intdigest())


def hash_start(file: IO[bytes], size: int) -> xxhash.xxh3_128:
    """Read the first `size` bytes of an open file, from its beginning, and return their running hash (XXH3, 128 bits).

    Raises EOFError when there are fewer.
    """
    hasher = xxhash.xxh3_128()
    file.seek(0)
    while size:
        block = file.read(min(_WINDOW, size))
        if not block:
            raise EOFError("the file is shorter than it was")
        hasher.update(block)
        size -= len(block)
    return hasher
