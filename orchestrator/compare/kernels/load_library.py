"""Load the kernels' library: the one that was installed with the package, or else one that is built for this user."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from aclcmp.labeling.errors import AclcmpError
from aclcmp.labeling.shard.kernel_library import (
    NAME,
    build_library,
    cache_folder,
    find_compiler,
    find_library,
    open_library,
)

_loaded: list[ctypes.CDLL] = []
_loading = threading.Lock()


def load_library(announce: Callable[[], None] = lambda: None) -> ctypes.CDLL:
    """Return the library, the same for the whole process; `announce` is called if it is built now (some seconds).

    Raises AclcmpError where there is neither a library for this machine nor a C compiler.
    """
    with _loading:
        if not _loaded:
            _loaded.append(find_library() or _build_once(announce))
    return _loaded[0]


def _build_once(announce: Callable[[], None]) -> ctypes.CDLL:
    """Return the library in the user's cache folder; one process builds it while others wait."""
    announce()
    folder = _make_cache_folder()
    if folder is None:
        with tempfile.TemporaryDirectory() as once:
            return _build(Path(once))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return open_library(folder / NAME) or _build(folder)


def _make_cache_folder() -> Path | None:
    """Return the user's folder, which exists then; None where it cannot be made, or belongs to another user."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_ours = folder.stat().st_uid == os.geteuid() and os.access(folder, os.W_OK)
    except OSError:
        return None
    return folder if is_ours else None


def _build(folder: Path) -> ctypes.CDLL:
    host = platform.node()
    remedy = f"install aclcmp on {host} with pip, or a C compiler (gcc)"
    compiler = find_compiler()
    if compiler is None:
        raise AclcmpError(f"host {host} has neither the comparison kernels nor a C compiler to build them: {remedy}")
    try:
        build_library(folder / NAME, compiler)
        library, told = open_library(folder / NAME), "what it built cannot be loaded"
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        library, told = None, next((line for line in said.splitlines() if "error" in line), said or "it failed")
    if library is None:
        raise AclcmpError(f"host {host}: {compiler} cannot build the comparison kernels ({told}): {remedy}")
    return library
