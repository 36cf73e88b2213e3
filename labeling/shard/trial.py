"""Trial reading of an HDF5 file that may be damaged or foreign, in a process that can be ended.

Where bytes are damaged, HDF5's own code may loop for ever, deaf to Ctrl-C, crash, or ask for all memory.
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
"""The child writes it whenever it has read a few MiB."""
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from aclcmp.labeling.shard.trial import try_whole; sys.exit(try_whole(sys.argv[2], int(sys.argv[3])))"
)


def check_opens(path: Path, seconds: float = SECONDS) -> None:
    """Raise ShardFormatError when a file cannot be read whole, or when reading makes no progress for `seconds`.

    Costs 0.2 s and reading the file once. A missing file is no error here: whoever opens it next will raise.
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
        raise ShardFormatError(
            f"{path} cannot be checked: no process can be started for it ({error.strerror})"
        ) from None
    with child:
        try:
            printed = _read_output(child, path, seconds)
        except BaseException:
            child.kill()
            raise
    if child.returncode < 0:
        raise ShardFormatError(f"{path} cannot be read: HDF5 crashes on it (signal {-child.returncode}); it is damaged")
    if child.returncode:
        raise ShardFormatError(f"{path} cannot be read: {' '.join(printed.split())[-400:]}")


def _read_output(child: subprocess.Popen[bytes], path: Path, seconds: float) -> str:
    """Return the output of the child until it ends. Raises ShardFormatError after `seconds` of silence."""
    assert child.stdout is not None
    output = b""
    while select.select([child.stdout], [], [], seconds)[0]:
        piece = os.read(child.stdout.fileno(), 1 << 16)
        if not piece:
            return output.decode("utf-8", "replace")
        output += piece.replace(_STEP, b"")
    raise ShardFormatError(f"{path} did not open within {seconds:.0f} s: it is damaged")


def try_whole(path: str, memory: int) -> int:
    """Read a file whole in at most `memory` bytes; print the error, if there is one, and return the exit code."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from aclcmp.labeling.shard.plain import read_whole

    try:
        read_whole(path, lambda: os.write(1, _STEP))
    except Exception as error:  # damage may cause any error
        words = " ".join(map(str, error.args)) or type(error).__name__  # str of a KeyError has quotes
        sys.stdout.buffer.write(words.encode("utf-8", "backslashreplace"))
        return 1
    return 0
