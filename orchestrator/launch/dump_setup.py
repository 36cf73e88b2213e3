"""Prepare the dumps of an accelerated library (ATB, or its predecessor acltransformer), and say what was prepared.

The variables are those of the original `ait debug compare aclcmp` and of `msit llm dump`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aclcmp.labeling import identity

MAPS = Path("/tmp")
"""Folder in which the original's hook looks for the map of wanted files, below a folder named by AIT_CMP_TASK_PID."""
MAP_NAME = "ait_compare_acl_map.txt"
CONFIG_NAME = "atb_dump_config.json"
SCARCE = 10 << 30
"""Bytes; the user is warned when less space is free. (CANN's probe stops dumping at 2 GiB.)"""

_CONFIG = {
    "task": "tensor",
    "dump_enable": True,
    "exec_range": "all",
    "ids": "",
    "op_name": "",
    "save_child": True,
    "device": "",
    "filter_level": 0,
}
_MAP = f"the map of wanted files is {MAPS}/$AIT_CMP_TASK_PID/{MAP_NAME}"
_KEPT = "ACLTRANSFORMER_HOME_PATH is kept: acltransformer dumps to"
_CONFIG_KEY = (
    b"exec_range"  # new in the probe that reads everything from the file; older ones crash at the booleans in it
)
_NAME = re.compile(r"libatb_probe_abi[01]\.so")
_WINDOW = 1 << 20
_LONGEST = 4096  # of a symbol's name, in bytes


@dataclass(frozen=True, slots=True)
class DumpOrder:
    """Request to a command's host to prepare dumps."""

    folder: Path
    """Absolute path of the folder for the dumps."""
    given: frozenset[str]
    """Variables that the user set with `--env`: they take precedence."""
    position: int = 0
    """Position of the command among those of its host, which makes the name of its map unique there."""


@dataclass(frozen=True, slots=True)
class DumpSetup:
    """Preparations for the dumps of one command."""

    folder: Path
    variables: Mapping[str, str]
    """Added to the command's environment."""
    probe: str
    """Path of the preloaded probe library, or empty."""
    no_probe: str
    """Reason why there is no probe, or empty."""
    map_file: str
    """Path of the map of wanted files, or empty."""
    no_map: str
    """Reason why there is no map, or empty."""
    elsewhere: str
    """Folder for the oldest library's dumps that the user set instead of ours, or empty."""
    free: int
    """Free bytes in the folder for the dumps."""


def switches(folder: Path, task_pid: str) -> dict[str, str]:
    """Return the variables that turn dumping on and name the folder: they replace what the shell exports."""
    return {
        identity.DUMP_DIR: str(folder),
        "AIT_CMP_TASK": "1",
        "AIT_CMP_TASK_PID": task_pid,
        "AIT_CMP_TASK_DIR": str(folder),
        "ATB_SAVE_TENSOR": "1",
        "ATB_DUMP_TYPE": "tensor",  # without it CANN's probe saves nothing
        "ATB_OUTPUT_DIR": f"{folder}/",  # CANN's probe only appends to it
        "ASDOPS_LOG_TO_FILE_DIR": str(folder),
        "ACLTRANSFORMER_SAVE_TENSOR": "1",
    }


def filters(folder: Path) -> dict[str, str]:
    """Return the variables that select what is dumped, here everything: what the shell exports takes precedence."""
    return {
        "ATB_SAVE_TENSOR_RANGE": f"0,{2**31 - 1}",  # beyond 32 bits the probe takes 0
        "ATB_SAVE_TENSOR_PART": "2",  # inputs and outputs; without it the probe saves neither
        "ATB_SAVE_TENSOR_TIME": "1",  # the first probes crash without it
        "ATB_SAVE_TENSOR_IN_BEFORE_OUT_AFTER": "1",
        "ATB_SAVE_CHILD": "1",
        "ACLTRANSFORMER_SAVE_TENSOR_MAX": "10000",
        # Also the root of the library itself. The original's hook crashes where it is unset.
        "ACLTRANSFORMER_HOME_PATH": str(folder),
    }


def prepare(order: DumpOrder, environ: Mapping[str, str]) -> DumpSetup:
    """Find the probe for a command with the environment `environ`, and make its folder and its map of wanted files.

    The map is named by this process's id and the command's position. Raises OSError when the folder cannot be made.
    """
    folder, given = order.folder, order.given
    folder.mkdir(parents=True, exist_ok=True)
    probe = find_probe(environ)
    variables = switches(folder, f"{os.getpid()}n{order.position}")
    if probe.wants_config and "ATB_DUMP_CONFIG" not in environ:
        (folder / CONFIG_NAME).write_text(json.dumps(_CONFIG, indent=2) + "\n")
        variables["ATB_DUMP_CONFIG"] = str(folder / CONFIG_NAME)
    variables = {name: value for name, value in variables.items() if name not in given}
    variables |= {name: value for name, value in filters(folder).items() if name not in environ}
    if probe.library:
        variables["LD_PRELOAD"] = probe.preload
    map_file, no_map = "", "AIT_CMP_TASK_PID was given by --env"
    if "AIT_CMP_TASK_PID" in variables:
        map_file, no_map = _make_map(MAPS / variables["AIT_CMP_TASK_PID"])
    home, free = environ.get("ACLTRANSFORMER_HOME_PATH", ""), shutil.disk_usage(folder).free
    return DumpSetup(folder, variables, probe.library, probe.why_not, map_file, no_map, home, free)


def _make_map(folder: Path) -> tuple[str, str]:
    """Make an empty map in `folder`, which must be our own, since everybody may write around it.

    Returns the map's path and "", or "" and the reason why there is no map.
    """
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
            return "", f"{folder} is a link or somebody else's"
        if {path.name for path in folder.iterdir()} - {MAP_NAME}:  # our own may be left over from a power failure
            return "", f"{folder} holds other files"
        folder.chmod(0o700)
        path = folder / MAP_NAME
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return str(path), ""
    except OSError as error:
        return "", f"{folder} cannot be made: {error.strerror}"


def sentences(setups: Sequence[DumpSetup]) -> tuple[str, ...]:
    """Describe the preparations for all commands in short sentences; what is the same for all is said once."""
    if not setups:
        return ()
    first, last = setups[0].folder, setups[-1].folder
    lines = [f"the library's dumps go to {first}{f' ... {last.name}' if last != first else ''}"]
    lines += _merge_alike(setups, lambda setup: setup.probe and f"probe library {setup.probe} is preloaded")
    lines += _merge_alike(setups, lambda setup: setup.no_probe and f"no probe library: {setup.no_probe}")
    lines += _merge_alike(
        setups, lambda setup: setup.map_file and f"{_MAP}, for hooks that read one (CANN's probe does not)"
    )
    lines += _merge_alike(setups, lambda setup: setup.no_map and f"no map of wanted files: {setup.no_map}")
    lines += _merge_alike(
        setups, lambda setup: setup.elsewhere and f"{_KEPT} {setup.elsewhere}/tensors, outside of the run"
    )
    if (least := min(setup.free for setup in setups)) < SCARCE:
        lines.append(f"only {least / (1 << 30):.1f} GiB are free where they go")
    return tuple(f"low level: {sentence}" for sentence in lines)


def _merge_alike(setups: Sequence[DumpSetup], say: Callable[[DumpSetup], str]) -> list[str]:
    """Return each different sentence of `say` once, with the folders' names where it does not hold for all."""
    holders: dict[str, list[str]] = {}
    for setup in setups:
        if sentence := say(setup):
            holders.setdefault(sentence, []).append(setup.folder.name)
    return [
        text if len(names) == len(setups) else f"{text} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
        for text, names in holders.items()
    ]


@dataclass(frozen=True, slots=True)
class Probe:
    """The probe library of a command's environment."""

    library: str = ""
    """Path of the library; empty when none is to be preloaded."""
    why_not: str = ""
    """Reason why there is no library, for people."""
    preload: str = ""
    """The value of LD_PRELOAD with the library in it."""
    wants_config: bool = False
    """True for CANN 8.3 and later, whose probe saves only what a file named by ATB_DUMP_CONFIG lists."""


def find_probe(environ: Mapping[str, str]) -> Probe:
    """Return the probe library that fits the ATB of `environ`: abi1 where ATB was built with the C++11 ABI, else abi0.

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
    """Tell whether some name in a binary file contains all of `words`. A name ends with a zero byte, within 4 KiB."""
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
