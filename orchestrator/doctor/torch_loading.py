"""A test that loads torch and torch_npu on this host, in a process of its own that may die or hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from aclcmp.orchestrator.cluster.versions import Versions

LOADING_SECONDS = 60.0
"""torch is read from the disk, some 100 MB; a cold network file system takes tens of seconds."""
_KEPT = 256 << 10
_LINES, _WIDTH = 200, 600
_VISIBLE = ("ASCEND_RT_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
_LOADED = 42
_SCRIPT = f"""
import os
import sys
sys.path[:] = [folder for folder in sys.path if folder]  # without the working directory
import torch
torch.ones(1).numpy()
print("loaded torch", flush=True)
if "torch_npu" in sys.argv:
    import torch_npu
    print("loaded torch_npu", flush=True)
os._exit({_LOADED})
"""
"""It exits at once, because the libraries' own clean-up is not tested, with a code that torch itself never uses."""


@dataclass(frozen=True, slots=True)
class Loading:
    """The result of loading torch and torch_npu, as far as they are installed."""

    tried: tuple[str, ...] = ()
    """The modules to load, in order."""
    failed: str = ""
    """The module that could not be loaded; "" if all could."""
    signal: str = ""
    """The signal that ended the process, as SIGSEGV."""
    seconds: float = 0.0
    in_time: bool = True
    lines: tuple[str, ...] = ()
    """The last lines that were printed, where it failed."""


def try_loading(versions: Versions, environ: Mapping[str, str], seconds: float = LOADING_SECONDS) -> Loading:
    """Load torch, and torch_npu where it is installed, as a user's script would; without torch load nothing."""
    if not versions.torch:
        return Loading()
    tried = ("torch", "torch_npu") if versions.torch_npu else ("torch",)
    # A Ray worker hides the devices from tasks that asked for none.
    environment = {name: value for name, value in environ.items() if value or name not in _VISIBLE}
    begun = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", _SCRIPT, *tried],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
        took = time.monotonic() - begun
        lines = _last_lines(output)
    if code == _LOADED:
        return Loading(tried, seconds=took)
    failed = next((name for name in tried if f"loaded {name}" not in lines), tried[-1])
    killed = signal.Signals(-code).name if code and code < 0 else ""
    return Loading(tried, failed, killed, took, code is not None, lines)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its children. One that hangs in a file server is not waited for longer than 5 s."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5.0)


def _last_lines(output: IO[bytes]) -> tuple[str, ...]:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _KEPT))
    lines = output.read().decode(errors="replace").splitlines()
    return tuple(line[:_WIDTH] for line in lines[-_LINES:])
