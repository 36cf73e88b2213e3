"""Load the kernels' library: the one that was installed with the package, or else one that is built for this user.

A job's uploaded copy of the package may land on another kind of machine, and a clone may change after it was installed:
a library is used only if it holds the hash of the sources beside this file.
"""

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
from aclcmp.orchestrator.compare.kernels.build_library import NAME, build_library, find_compiler, source_version

_loaded: list[ctypes.CDLL] = []
_loading = threading.Lock()


def load_library(announce: Callable[[], None] = lambda: None) -> ctypes.CDLL:
    """Return the library, the same for the whole process; `announce` is called if it is built now (some seconds).

    Raises AclcmpError where there is neither a library for this machine nor a C compiler.
    """
    with _loading:
        if not _loaded:
            version = source_version()
            library = _open(Path(__file__).with_name(NAME), version) or _build_once(version, announce)
            library.use_target(ctypes.c_int(2))
            library.has_failed.restype = ctypes.c_bool
            _loaded.append(library)
    return _loaded[0]


def _open(path: Path, version: str) -> ctypes.CDLL | None:
    """Open a library; None if there is none, or it is of another machine or version."""
    try:
        library = ctypes.CDLL(str(path))
        library.kernel_version.restype = ctypes.c_char_p
        return library if library.kernel_version() == version.encode() else None
    except (OSError, AttributeError):
        return None


def _build_once(version: str, announce: Callable[[], None]) -> ctypes.CDLL:
    """Return the library in the user's cache folder; one process builds it while others wait."""
    folder = _cache_folder(f"{version}-{platform.machine()}")
    if folder is None:
        announce()
        with tempfile.TemporaryDirectory() as once:
            return _build(Path(once), version)
    if (library := _open(folder / NAME, version)) is not None:
        return library
    announce()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _open(folder / NAME, version) or _build(folder, version)


def _cache_folder(name: str) -> Path | None:
    """Return a folder for this name, which exists then; None where it cannot be made, or belongs to another user."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        folder = (base if base.is_absolute() else Path.home() / ".cache") / "aclcmp" / "kernels" / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_ours = folder.stat().st_uid == os.geteuid() and os.access(folder, os.W_OK)
    except (OSError, RuntimeError):
        return None
    return folder if is_ours else None


def _build(folder: Path, version: str) -> ctypes.CDLL:
    host = platform.node()
    remedy = f"install aclcmp on {host} with pip, or a C compiler (gcc)"
    compiler = find_compiler()
    if compiler is None:
        raise AclcmpError(f"host {host} has neither the comparison kernels nor a C compiler to build them: {remedy}")
    try:
        build_library(folder / NAME, compiler)
        library, told = _open(folder / NAME, version), "what it built cannot be loaded"
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        library, told = None, next((line for line in said.splitlines() if "error" in line), said or "it failed")
    if library is None:
        raise AclcmpError(f"host {host}: {compiler} cannot build the comparison kernels ({told}): {remedy}")
    return library
