"""Whether an HDF5 file that was damaged, or that others wrote, can be read: tried by a process that can be ended.

HDF5's own code may loop for ever, crash, or ask for all memory where bytes are damaged, and is deaf to Ctrl-C then.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
from pathlib import Path

from aclcmp.labeling.errors import ShardFormatError

SECONDS = 10.0
_MEMORY = 1 << 30
_STEP = b"\0"
"""What the child says whenever it has read a little."""
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from aclcmp.labeling.shard.trial import try_whole; sys.exit(try_whole(sys.argv[2], int(sys.argv[3])))"
)


def check_opens(path: Path, seconds: float = SECONDS) -> None:
    """Raise ShardFormatError when a file cannot be read whole, or when reading it stands still for `seconds`.

    Costs 0.2 s and reading the file once. FileNotFoundError and its like are left to whoever opens the file next.
    """
    try:
        memory = _MEMORY + 2 * path.stat().st_size
    except OSError:
        return
    command = [sys.executable, "-I", "-c", _CHILD, json.dumps(sys.path), os.fspath(path.absolute()), str(memory)]
    one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | one_thread,
        )
    except OSError as error:
        raise ShardFormatError(f"{path} cannot be tried by a process of its own: {error.strerror}") from None
    with child:
        try:
            said = _followed(child, path, seconds)
        except BaseException:
            child.kill()
            raise
    if child.returncode < 0:
        raise ShardFormatError(f"{path} cannot be read: HDF5 crashes on it (signal {-child.returncode}); it is damaged")
    if child.returncode:
        raise ShardFormatError(f"{path} cannot be read: {' '.join(said.split())[-400:]}")


def _followed(child: subprocess.Popen[bytes], path: Path, seconds: float) -> str:
    """Return what the child says until it ends."""
    assert child.stdout is not None
    said = b""
    while select.select([child.stdout], [], [], seconds)[0]:
        piece = os.read(child.stdout.fileno(), 1 << 16)
        if not piece:
            return said.decode("utf-8", "replace")
        said += piece.replace(_STEP, b"")
    raise ShardFormatError(f"{path} did not open within {seconds:.0f} s: it is damaged")


def try_whole(path: str, memory: int) -> int:
    """Read a file whole with at most so many bytes of memory; print why it cannot be, and return the exit code."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from aclcmp.labeling.shard.plain import read_whole

    try:
        read_whole(path, lambda: os.write(1, _STEP))
    except Exception as error:  # whatever damage makes of it
        words = " ".join(map(str, error.args)) or type(error).__name__  # str of a KeyError has quotes
        sys.stdout.buffer.write(words.encode("utf-8", "backslashreplace"))
        return 1
    return 0
