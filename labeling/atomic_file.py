"""Files that appear whole or not at all, also where several processes write the same one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def part_path(path: Path) -> Path:
    """Return a temporary path beside a file, unique to this process and moment."""
    return path.with_name(f"{path.name}.{os.getpid()}-{time.monotonic_ns()}.part")


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yield a path to write to, and rename it to `path` at the end. Raises OSError; the old file stays then.

    Readers see the old file or the new one. Of two writers the later one remains.
    """
    part = part_path(path)
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):  # as when the folder is read-only
            part.unlink()
