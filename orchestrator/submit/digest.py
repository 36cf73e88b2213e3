"""A file goes in, the checksum of its first bytes comes out, in bounded memory."""

from __future__ import annotations

from typing import IO

import xxhash

_BLOCK = 1 << 20


def digest_of(file: IO[bytes], size: int) -> xxhash.xxh3_128:
    """Read the first `size` bytes of an open file, from its beginning, and return their running checksum.

    Raises EOFError when there are fewer.
    """
    found = xxhash.xxh3_128()
    file.seek(0)
    while size:
        block = file.read(min(_BLOCK, size))
        if not block:
            raise EOFError("the file is shorter than it was")
        found.update(block)
        size -= len(block)
    return found
