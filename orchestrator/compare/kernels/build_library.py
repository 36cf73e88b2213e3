"""Build the kernels' library from the C sources beside this file. Standard library only: setup.py runs it too."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

NAME = "kernels.so"
_FOLDER = Path(__file__).parent

# Without -ffast-math, which drops the tests for non-finite values, and without fused multiply-adds, which not all CPUs
# have: every CPU gives the same bits.
_FLAGS = ["-std=c11", "-O3", "-shared", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]


def source_version() -> str:
    """Return the hash of all that the library is built from; it is also in the library."""
    sources = sorted([*_FOLDER.glob("*.c"), *_FOLDER.glob("*.h")])
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
        command = [compiler, *_FLAGS, version, *flags, str(_FOLDER / "kernels.c"), "-o", str(library)]
        subprocess.run(command, check=True, capture_output=True, text=True, errors="replace")
        library.replace(target)
