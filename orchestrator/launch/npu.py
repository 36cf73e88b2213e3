"""Why a host has no NPU to offer, in words for people. Only looks: neither torch_npu nor CANN is loaded."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path


def what_is_missing(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> str:
    """What of an NPU's device files, torch-npu and CANN is there on this host, below `root`; one line."""
    devices = sorted((root / "dev").glob("davinci[0-9]*"))
    found = f"this host has {len(devices)} of /dev/davinci*" if devices else "this host has no /dev/davinci*"
    return f"{found}; {_torch_npu()}; {_cann(environ)}"


def _torch_npu() -> str:
    try:
        return f"torch-npu {importlib.metadata.version('torch-npu')} is installed"
    except importlib.metadata.PackageNotFoundError:
        return "torch-npu is not installed"


def _cann(environ: Mapping[str, str]) -> str:
    home = environ.get("ASCEND_TOOLKIT_HOME") or environ.get("ASCEND_HOME_PATH")
    if not home:
        return "ASCEND_TOOLKIT_HOME is not set: source CANN's set_env.sh"
    folders = [Path(home) / "lib64", *map(Path, filter(None, environ.get("LD_LIBRARY_PATH", "").split(":")))]
    library = next((folder / "libascendcl.so" for folder in folders if (folder / "libascendcl.so").exists()), None)
    return f"CANN is at {home}" if library else f"{home} has no lib64/libascendcl.so: is CANN installed whole?"
