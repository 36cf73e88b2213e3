"""Find CANN's probe library, without which today's ATB dumps nothing, and put it before a command's LD_PRELOAD."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_CONFIG_KEY = b"exec_range"  # new with the probe that reads all from the file; one before it dies of the booleans in it
_NAME = re.compile(r"libatb_probe_abi[01]\.so")
_WINDOW = 1 << 20
_LONGEST = 4096  # of a symbol's name, in bytes


@dataclass(frozen=True, slots=True)
class Probe:
    """The probe library of a command's environment."""

    library: str = ""
    """Its path; empty when there is none to be preloaded."""
    why_not: str = ""
    """What is missing, in words for people."""
    preload: str = ""
    """The value of LD_PRELOAD with the library in it."""
    wants_config: bool = False
    """It is of CANN 8.3 or later: it saves only what a file named by ATB_DUMP_CONFIG tells it to."""


def find_probe(environ: Mapping[str, str]) -> Probe:
    """The probe library that fits the ATB of `environ`: abi1 where ATB was built with the C++11 ABI, else abi0.

    msit chooses by `nm -D libatb.so | grep Probe | grep cxx11` (components/llm/msit_llm/dump/initial.py).
    """
    try:
        return _find(environ)
    except OSError as error:
        return Probe(why_not=f"{error.filename} cannot be read: {error.strerror}")


def _find(environ: Mapping[str, str]) -> Probe:
    old = environ.get("LD_PRELOAD", "")
    if given := next((path for path in re.split("[: ]", old) if _NAME.fullmatch(path.rpartition("/")[2])), None):
        return Probe(given, preload=old, wants_config=has_symbol(Path(given), _CONFIG_KEY))
    home = environ.get("ASCEND_TOOLKIT_HOME") or environ.get("ASCEND_HOME_PATH")
    if not home:
        return Probe(why_not="ASCEND_TOOLKIT_HOME is not set (source CANN's set_env.sh before aclcmp)")
    folder = Path(home) / "tools/ait_backend/dump"
    if not folder.is_dir():
        return Probe(why_not=f"CANN has no {folder}")
    atb = next((path for path in _libatb(environ, Path(home)) if path.is_file()), None)
    if atb is None:
        return Probe(why_not="libatb.so was not found, which tells the probe that fits (source ATB's set_env.sh)")
    library = folder / f"libatb_probe_abi{int(has_symbol(atb, b'Probe', b'cxx11'))}.so"
    if not library.is_file():
        return Probe(why_not=f"{library} does not exist")
    if re.search(r"[:\s]", str(library)):
        return Probe(why_not=f"{library} has a blank or a colon in its path, which LD_PRELOAD cannot hold")
    return Probe(str(library), "", ":".join(filter(None, (str(library), old))), has_symbol(library, _CONFIG_KEY))


def has_symbol(library: Path, *words: bytes) -> bool:
    """Whether a name in a binary file has all of `words` in it. A name ends with a zero byte, within 4 KiB."""
    tail = b""
    with library.open("rb") as file:
        while chunk := file.read(_WINDOW):
            window = tail + chunk
            at = window.find(words[0])
            while at >= 0:
                end = window.find(b"\0", at)
                end = len(window) if end < 0 else end
                name = window[window.rfind(b"\0", 0, at) + 1 : end]
                if all(word in name for word in words):
                    return True
                at = window.find(words[0], end)
            tail = window[-_LONGEST:]
    return False


def _libatb(environ: Mapping[str, str], cann: Path) -> Iterator[Path]:
    if home := environ.get("ATB_HOME_PATH"):
        yield Path(home) / "lib/libatb.so"
    for folder in (*filter(None, environ.get("LD_LIBRARY_PATH", "").split(":")), str(cann / "lib64")):
        yield Path(folder) / "libatb.so"
