"""The CANN that is installed on this host, and whether torch-npu was released for it. Neither is loaded.

Source of the pairs: COMPATIBILITY.en.md of github.com/Ascend/pytorch, as of CANN 9.1.0.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_HOMES = ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH")
_USUAL = ("usr/local/Ascend/ascend-toolkit/latest", "usr/local/Ascend/cann")
_CFG = re.compile(r"^toolkit_(?:running|installed)_version=\[[^\]:]*:(?:CANN-)?([^\]]+)\]", re.MULTILINE)
_INFO = re.compile(r"^version=(\S+)", re.MULTILINE)
_DRIVER = re.compile(r"^Version=(\S+)", re.MULTILINE)

RELEASED_FOR: Mapping[str, str] = {
    "2.12.0": "9.1.0",
    "2.11.0": "9.1.0",
    "2.10.0.post4": "9.1.0",
    "2.9.0.post6": "9.1.0",
    "2.7.1.post8": "9.1.0",
    "2.9.0.post2": "9.0.0",
    "2.8.0.post4": "9.0.0",
    "2.7.1.post4": "9.0.0",
    "2.9.0": "8.5.0",
    "2.8.0.post2": "8.5.0",
    "2.7.1.post2": "8.5.0",
    "2.6.0.post5": "8.5.0",
    "2.8.0": "8.3.RC1",
    "2.7.1": "8.3.RC1",
    "2.6.0.post3": "8.3.RC1",
    "2.1.0.post17": "8.3.RC1",
    "2.6.0": "8.2.RC1",
    "2.5.1.post1": "8.2.RC1",
    "2.1.0.post13": "8.2.RC1",
    "2.5.1": "8.1.RC1",
    "2.4.0.post4": "8.1.RC1",
    "2.3.1.post6": "8.1.RC1",
    "2.1.0.post12": "8.1.RC1",
    "2.4.0.post2": "8.0.0",
    "2.3.1.post4": "8.0.0",
    "2.1.0.post10": "8.0.0",
    "2.4.0": "8.0.RC3",
    "2.3.1.post2": "8.0.RC3",
    "2.1.0.post8": "8.0.RC3",
    "2.3.1": "8.0.RC2",
    "2.2.0.post2": "8.0.RC2",
    "2.1.0.post6": "8.0.RC2",
    "2.2.0": "8.0.RC1",
    "2.1.0.post4": "8.0.RC1",
    "2.1.0": "7.0.0",
}
"""torch-npu's version -> the CANN that it was released for. It belongs to the torch of the same X.Y.Z."""


@dataclass(frozen=True, slots=True)
class Ascend:
    """The CANN of one host; "" stands for not found."""

    cann: str = ""
    home: str = ""
    """The folder in which CANN was found."""
    sourced: bool = False
    """Whether CANN's set_env.sh was sourced in the environment of this process."""
    driver: str = ""


def find_ascend(root: Path, environ: Mapping[str, str]) -> Ascend:
    """Find CANN by its variables, else where it is usually installed below `root`, and the driver's version."""
    homes = [Path(environ[name]) for name in _HOMES if environ.get(name)]
    driver = _first_match(root / "usr/local/Ascend/driver/version.info", _DRIVER)
    for home in (*homes, *(root / place for place in _USUAL)):
        if cann := _cann(home):
            return Ascend(cann, str(home), home in homes, driver)
    return Ascend(sourced=bool(homes), driver=driver)


def check_pairing(torch_npu: str, torch: str, cann: str) -> tuple[bool | None, str]:
    """Say whether three versions were released for each other: True, False, or None where that is not known.

    False is only what the naming of torch-npu's releases itself says: X.Y.Z[.postN] is for torch X.Y.Z.
    """
    base = torch.partition("+")[0]
    if not re.match(rf"{re.escape(base)}(?!\d)", torch_npu):
        return False, f"torch-npu {torch_npu} is for torch {_base(torch_npu)}, and torch {torch} is installed"
    meant = RELEASED_FOR.get(torch_npu)
    if not cann or meant is None:
        return None, f"whether torch-npu {torch_npu} fits CANN {cann or '(not found)'} is not known"
    if meant.lower() == cann.lower():
        return True, f"torch-npu {torch_npu} was released for torch {base} and CANN {cann}"
    return None, f"torch-npu {torch_npu} was released for CANN {meant}; whether it fits {cann} is not known"


def _base(torch_npu: str) -> str:
    match = re.match(r"\d+(\.\d+)*", torch_npu)
    return match.group() if match else torch_npu


def _cann(home: Path) -> str:
    info = home / f"{platform.machine()}-linux" / "ascend_toolkit_install.info"
    return _first_match(info, _INFO) or _first_match(home / "version.cfg", _CFG)


def _first_match(path: Path, pattern: re.Pattern[str]) -> str:
    try:
        match = pattern.search(path.read_text("utf-8", "replace"))
    except OSError:
        return ""
    return match.group(1) if match else ""
