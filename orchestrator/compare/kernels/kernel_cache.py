"""The folder of the kernels' machine code: one for each version of their sources and kind of CPU, shared by all copies.

It lies in the user's cache folder, so that an installation that cannot be written to, a new virtual environment and the
copy that a cluster uploads do not compile anew: that takes a minute.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding  # type: ignore[import-untyped]
import numba
from numba.core.caching import IndexDataCacheFile

_DONE = "compiled"


@cache
def kernel_folder() -> Path | None:
    """Return the folder, which exists then; None where it cannot be made, or belongs to another user."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        folder = (base if base.is_absolute() else Path.home() / ".cache") / "aclcmp" / "kernels" / _version()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_ours = folder.stat().st_uid == os.geteuid() and os.access(folder, os.W_OK)
    except (OSError, RuntimeError):
        return None
    return folder if is_ours else None


def _version() -> str:
    """Return the hash of all that the machine code depends on."""
    features = llvmlite.binding.get_host_cpu_features().flatten()
    parts = [numba.__version__, sys.version, llvmlite.binding.get_host_cpu_name(), features]
    parts += [path.read_text() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def keep_code(dispatcher: Any) -> None:
    """Load what numba compiles for a function from the folder, and keep it there."""
    folder = kernel_folder()
    if folder is None:
        return
    numba.config.CACHE_DIR = str(folder)  # else numba refuses where it can write neither beside the source nor at home
    try:
        dispatcher.enable_caching()
    finally:
        numba.config.CACHE_DIR = ""
    kernels = dispatcher._cache
    # By itself numba adds a folder for the path of the source, and compares that file's time alone.
    kernels._cache_path = str(folder)
    kernels._cache_file = IndexDataCacheFile(str(folder), kernels._impl.filename_base, None)


@contextmanager
def compile_once(announce: Callable[[], None]) -> Iterator[None]:
    """Let one process compile what is missing while others wait to load it; `announce` is called before that."""
    folder = kernel_folder()
    if folder is None or (folder / _DONE).exists():
        if folder is None:
            announce()
        yield
        return
    with (folder / "lock").open("w") as lock:
        announce()
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        (folder / _DONE).touch()
