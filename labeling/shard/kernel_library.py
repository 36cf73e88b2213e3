"""The library of the kernels in C: how it is built from its sources, where it lies, how it is opened.

Standard library only: setup.py runs this file too. A job's uploaded copy of the package may land on another kind of
machine, and a clone may change after it was installed: a library is used only if it holds the hash of the sources.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

NAME = "kernels.so"
SOURCES = Path(__file__).parents[2] / "orchestrator" / "compare" / "kernels"

# Without -ffast-math, which drops the tests for non-finite values, and without fused multiply-adds, which not all CPUs
# have: every CPU gives the same bits, but for the sums of summaries, which vectors of other sizes add in another order.
_FLAGS = ["-std=c11", "-O3", "-shared", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]


@cache
def source_version() -> str:
    """Return the hash of all that the library is built from; it is also in the library."""
    sources = sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.h")])
    parts = [" ".join(_FLAGS).encode(), *(path.read_bytes() for path in sources)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def find_compiler() -> str | None:
    """Return the path of a C compiler: $CC's, or the system's."""
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")))), None)


def build_library(target: Path, compiler: str, *flags: str) -> None:
    """Write the library; `target` appears when it is complete. Raises subprocess.CalledProcessError and OSError."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        library = Path(folder, NAME)
        version = f'-DKERNEL_VERSION="{source_version()}"'
        command = [compiler, *_FLAGS, version, *flags, str(SOURCES / "kernels.c"), "-o", str(library)]
        subprocess.run(command, check=True, capture_output=True, text=True, errors="replace")
        library.replace(target)


def cache_folder() -> Path | None:
    """Return where this user keeps a library of these sources on this kind of machine; None without a home."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        base = base if base.is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "aclcmp" / "kernels" / f"{source_version()}-{platform.machine()}"


def open_library(path: Path) -> ctypes.CDLL | None:
    """Open a library; None if there is none, or it is of another machine, version or user."""
    try:
        if path.parent != SOURCES and path.parent.stat().st_uid != os.geteuid():
            return None
        library = ctypes.CDLL(str(path))
        library.kernel_version.restype = ctypes.c_char_p
        if library.kernel_version() != source_version().encode():
            return None
    except (OSError, AttributeError):
        return None
    library.use_target(ctypes.c_int(2))
    library.has_failed.restype = ctypes.c_bool
    library.sum_errors.restype = ctypes.c_int64
    return library


def find_library() -> ctypes.CDLL | None:
    """Return the library that was installed with the package, or that this user built before; None without one."""
    folder = cache_folder()
    return open_library(SOURCES / NAME) or (open_library(folder / NAME) if folder else None)
