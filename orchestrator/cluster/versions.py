"""Versions of the packages in a host's Python, from their metadata: nothing heavy is imported."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions on one host; "" is not installed_versions there."""

    aclcmp: str
    python: str
    ray: str = ""
    numpy: str = ""
    h5py: str = ""
    torch: str = ""
    torch_npu: str = ""


def installed_versions() -> Versions:
    """Read the versions of this process's Python."""
    packages = ("aclcmp", "ray", "numpy", "h5py", "torch", "torch_npu")
    return Versions(python=platform.python_version(), **{name: _version(name) for name in packages})


def code_digest() -> str:
    """Return a digest of this installation's code: two of the same version may differ (a checkout, a branch)."""
    root = Path(__file__).parent.parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.glob("labeling/**/*.py")) + sorted(root.glob("orchestrator/**/*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
