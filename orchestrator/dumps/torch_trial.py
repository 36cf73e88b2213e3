"""Trial of `torch.load` in a process that can be ended.

A key of a dict, an element of a set or the name of a storage may be made so that its hash takes for ever, within code
that is deaf to Ctrl-C.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from aclcmp.labeling.shard.dumped_tensor import ForeignFormatError, name_file_in_errors, printable

AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
"""With "0", torch loads no devices' backends by itself: files are read into the CPU's memory."""
_SECONDS = 20
_SLOWEST = 20 << 20  # bytes in a second that a disk gives at least
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from aclcmp.orchestrator.dumps.torch_trial import try_files; try_files(sys.stdin.buffer)"
)


def check_loads(path: str, *, mapped: bool) -> None:
    """Raise ForeignFormatError when loading a file takes far too long, or crashes; any other error is none here.

    torch must load here. The first call costs as long as that takes; the process then stays for the next files.
    """
    with name_file_in_errors(path):
        size = Path(path).stat().st_size
    seconds = _SECONDS + (0 if mapped else size // _SLOWEST)
    try:
        child = _start_child()
    except OSError as error:
        raise ForeignFormatError(
            f"{printable(path)}: no process can be started to try torch.load in ({error.strerror})"
        ) from error
    try:
        answer = _ask(child, json.dumps((str(Path(path).absolute()), mapped, seconds)))
    except BaseException:
        _end(child)
        raise
    if answer:
        return
    child.wait()
    _end(child)
    if child.returncode == -signal.SIGALRM:
        raise ForeignFormatError(f"{printable(path)}: torch.load does not end within {seconds} s; it is damaged")
    raise ForeignFormatError(f"{printable(path)}: torch.load crashes on it (exit code {child.returncode})")


def _ask(child: subprocess.Popen[bytes], line: str) -> bytes:
    """Return the answer of the child, b"" where it has ended."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(line.encode() + b"\n")
        child.stdin.flush()
    except BrokenPipeError:
        return b""
    return child.stdout.readline()


@cache
def _start_child() -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-I", "-c", _CHILD, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {AUTOLOAD: "0"},
    )
    atexit.register(_end, child)
    return child


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child, and let the next file have another one."""
    atexit.unregister(_end)
    _start_child.cache_clear()
    child.kill()
    child.communicate()


def try_files(asked: Iterable[bytes]) -> None:
    """Load the file of each line, [path, mapped, seconds], and answer with a line; a slow file ends the process."""
    import torch

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for line in asked:
        path, mapped, seconds = json.loads(line)
        signal.alarm(seconds)
        _try_file(torch, path, mapped)
        signal.alarm(0)
        os.write(1, b"\n")


def _try_file(torch: Any, path: str, mapped: bool) -> None:
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception:  # whoever loads the file next will tell it
        return
