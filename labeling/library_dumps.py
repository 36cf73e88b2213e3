"""Agreements with the library that dumps the files that labels name: its folders, the wanted files, the end."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from aclcmp.labeling.identity import DUMP_DIR

_FOLDERS = ("ATB_OUTPUT_DIR", "ASDOPS_LOG_TO_FILE_DIR", "ACLTRANSFORMER_HOME_PATH")
_OFF = {"ATB_SAVE_TENSOR": "0", "ATB_DUMP_TYPE": "none", "ACLTRANSFORMER_SAVE_TENSOR": "0"}
"""With ATB_DUMP_TYPE unset some probes would go on, with files that have only a header."""
_MAP = "ait_compare_acl_map.txt"


def dump_folders(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the absolute folders below which this process's library dumps: the launcher's first, the working one last.

    The library's own default, `atb_temp`, lies in the working directory.
    """
    named = (environ.get(name, "") for name in (DUMP_DIR, *_FOLDERS))
    try:
        here = Path.cwd()
    except OSError:  # somebody removed the working directory
        here = Path("/")
    return tuple(dict.fromkeys(str(here / folder) for folder in (*filter(None, named), "")))


def map_of_wanted_files(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file in which a preloaded probe looks up what to dump; None unless the launcher prepared one."""
    name = environ.get("AIT_CMP_TASK_PID", "")
    if environ.get("AIT_CMP_TASK") != "1" or not name.isalnum():
        return None
    path = Path("/tmp") / name / _MAP
    try:
        # anybody can make folders in /tmp: write only to one that belongs to this user alone
        status = path.parent.lstat()
        ours = status.st_uid == os.getuid() and not path.parent.is_symlink() and not status.st_mode & 0o022
        return path if ours else None
    except OSError:
        return None


class WantedFiles:
    """The map of the files that the library is to dump; it dumps no others."""

    def __init__(self, path: Path | None) -> None:
        """Take the path of the map of wanted files, None where there is none."""
        self._path = path
        self._asked: set[str] = set()

    def add(self, tensor_path: str) -> None:
        """Ask for a file. A map that cannot be written is no failure: the library may dump the file all the same."""
        if self._path is None or tensor_path in self._asked or "\n" in tensor_path:
            return
        self._asked.add(tensor_path)
        with suppress(OSError):
            # one write appends one whole line, whichever processes write at the same time
            descriptor = os.open(
                self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            try:
                os.write(descriptor, f"{tensor_path}\n".encode("utf-8", "surrogateescape"))
            finally:
                os.close(descriptor)


def stop_dumping() -> None:
    """Switch the library's dump off. It works where the library reads its variables or configuration again."""
    for name, off in _OFF.items():
        if name in os.environ:
            os.environ[name] = off
    config, ours = os.environ.get("ATB_DUMP_CONFIG", ""), os.environ.get(DUMP_DIR, "")
    if config and ours and Path(config).resolve().parent == Path(ours).resolve():
        with suppress(OSError, ValueError):
            wishes = json.loads(Path(config).read_text())
            Path(config).write_text(json.dumps(wishes | {"dump_enable": False}))
