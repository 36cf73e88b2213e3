"""Files that appear whole or not at all, also where several processes write the same one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def part_path(path: Path) -> Path:
    """Return a name beside a file, of this process and moment alone, to write its content to."""
    return path.with_name(f"{path.name}.{os.getpid()}-{time.monotonic_ns()}.part")


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Give a path to write to, and put it in the place of `path` in one step. Raises OSError; the old file stays then.

    Readers see the old file or the new one. Of two writers the later one remains.
    """
    part = part_path(path)
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):  # as when the folder is read-only
            part.unlink()
