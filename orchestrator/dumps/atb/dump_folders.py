"""The folders of ATB's probes, of four generations, searched without regard to case and listed once each."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

from aclcmp.labeling.shard.dumped_tensor import NotDumped, error_text, printable
from aclcmp.orchestrator.dumps.atb.atb_file import execution_folder
from aclcmp.orchestrator.dumps.atb.executions import TICK, DumpFile, clock

_CONTAINER = re.compile(r"atb_temp|atb_dump_data|(?:ait|msit)_dump.*", re.IGNORECASE)
_INSIDE = ("tensors", "data", "")
_DEVICES = 64  # No host has more; a number below may be a device's or a process's in a container.
_MOST_HINTS = 100  # Finding similar names takes milliseconds in a large folder, and nobody reads more.
_MOST_LISTED = 8
_MOST_COMPARED = 1_000
_MAX_PATH = 4096  # the limit of ATB's probe and of Linux
_MAX_DEPTH = 128
_MAX_FOLDERS = 64  # Circular links whose names differ in case would make 2 ** depth of them.


@dataclass(frozen=True, slots=True)
class _ExecutionFolder:
    """A folder in which tensor paths begin."""

    root: str
    """Without links."""
    folder: str
    execution: int = -1
    task: int | None = None


class DumpFolders:
    """Finds the files that one process dumped below some folders, each of which is listed once.

    Make a new object to look again.
    """

    def __init__(self, pid: int, roots: Sequence[Path], own: Set[Path], since: float) -> None:
        """Search `roots` in their order. `own` and `since` are those of `find_dumps`."""
        self._pid = pid
        self._roots = list(dict.fromkeys(map(str, roots)))
        self._real = list(dict.fromkeys(map(os.path.realpath, self._roots)))
        self._own = set(map(os.path.realpath, own))
        self._since = since
        self._ambiguous: list[str] = []
        self._hints_left = _MOST_HINTS
        self._list_errors: dict[str, str] = {}
        self._names = cache(self._list)
        self._folders = cache(self._descend)
        self._realpath = cache(os.path.realpath)
        self._executions = {root: list(self._execution_folders(root)) for root in self._real}

    def find(self, tensor_path: str) -> tuple[DumpFile, ...] | NotDumped:
        """Return every file of that name, one for each execution, or why there is none."""
        if "\0" in tensor_path or len(tensor_path) > _MAX_PATH:
            return NotDumped(f"{printable(tensor_path)[:80]!r} is no path of at most {_MAX_PATH} characters")
        if tensor_path.startswith("/"):
            return self._absolute(tensor_path)
        parts = tuple(part for part in tensor_path.split("/") if part not in ("", "."))
        if not parts or ".." in parts or len(parts) > _MAX_DEPTH:
            return NotDumped(
                f"{printable(tensor_path)!r} does not lead into a dump folder; give the file's path below it"
            )
        refused: NotDumped | None = None
        for root, executions in self._executions.items():
            for places in (executions, [_ExecutionFolder(root, root)]):
                found: dict[int, dict[str, DumpFile]] = defaultdict(dict)
                for place in places:
                    for unlikeness, path in self._matches(place.folder, parts):
                        file = self._check_file(path, place)
                        if isinstance(file, DumpFile):
                            found[unlikeness].setdefault(file.path, file)
                        else:
                            refused = refused or file
                if found:
                    return tuple(found[min(found)].values())
        return refused or self._not_found(tensor_path, parts)

    def _check_file(self, path: str, place: _ExecutionFolder) -> DumpFile | NotDumped:
        """Return the file without links, or the reason if it is outside the root or of an earlier run."""
        parent, name = os.path.split(path)
        try:
            linked = stat.S_ISLNK(os.lstat(path).st_mode)
            real = os.path.realpath(path) if linked else f"{self._realpath(parent)}/{name}"
            if os.path.commonpath((real, place.root)) != place.root:
                why = f"{printable(path)} leads outside {printable(place.root)}, which is refused; copy the file there"
                return NotDumped(why, unreadable=True)
            written = Path(real).stat().st_mtime
            if written < self._since - TICK:
                return NotDumped(
                    f"{printable(path)} was last written at {clock(written)}, before this process began to label at "
                    f"{clock(self._since)}: it is an earlier run's, or the label came too late; label before the "
                    "library runs, or give an absolute path"
                )
            return DumpFile(real, place.root, written, place.execution, place.task)
        except OSError as error:
            return NotDumped(f"{printable(path)}: {error_text(error)}", unreadable=True)

    def _absolute(self, tensor_path: str) -> tuple[DumpFile, ...] | NotDumped:
        path = Path(os.path.realpath(tensor_path))
        try:
            return (DumpFile(str(path), str(execution_folder(path)), path.stat().st_mtime),)
        except FileNotFoundError:
            return NotDumped(f"{printable(tensor_path)} does not exist{self._near(str(path.parent), path.name)}")
        except OSError as error:
            return NotDumped(f"{printable(tensor_path)}: {error_text(error)}", unreadable=True)

    def _execution_folders(self, root: str) -> Iterator[_ExecutionFolder]:
        own = re.compile(rf"{self._pid}_([0-9]{{1,18}})")
        inherited = re.compile(r"[0-9]+_([0-9]{1,18})")  # a child keeps its parent's AIT_CMP_TASK_ID
        for process in self._process_folders(root):
            named = own.fullmatch(Path(process).name)
            task = int(named[1]) if named else self._pid
            yield _ExecutionFolder(
                root, process, task=task if task < self._pid else None
            )  # from the pid on, a thread's number
            for name in self._all_names(process):
                if named := inherited.fullmatch(name):
                    yield _ExecutionFolder(root, f"{process}/{name}", task=int(named[1]))
                elif re.fullmatch(r"[0-9]{1,18}", name):
                    yield _ExecutionFolder(root, f"{process}/{name}", execution=int(name))

    def _process_folders(self, root: str) -> Iterator[str]:
        whole = str(self._pid)
        for base in self._bases(root):
            names = self._all_names(base)
            threads = [name for name in names if re.fullmatch(rf"{whole}_[0-9]+", name)]
            devices = [name for name in names if re.fullmatch(rf"[0-9]{{1,3}}_{whole}", name)]
            devices = [name for name in devices if int(name.split("_")[0]) < _DEVICES]
            if devices and self._pid < _DEVICES and f"{whole}_{whole}" not in names:
                threads = []  # they are those of device number `pid`, of other processes
            named = [name for name in names if name == whole] + threads + devices
            if not named:
                named = [name for name in names if re.fullmatch(r"thread_[0-9]+", name)]
                if named and root not in self._own:
                    self._ambiguous.append(base)
                    continue
            yield from (f"{base}/{name}" for name in dict.fromkeys(named))

    def _bases(self, root: str) -> Iterator[str]:
        containers = filter(_CONTAINER.fullmatch, self._all_names(root))
        for container in [root, *(f"{root}/{name}" for name in sorted(containers))]:
            for inside in _INSIDE:
                yield from self._folders(container, (inside,)) if inside else (container,)

    def _matches(self, folder: str, parts: tuple[str, ...]) -> Iterator[tuple[int, str]]:
        """Yield the files that a path may name, each with a number: the smallest is the best match.

        The case of the name counts most: `outTensor0` is a kernel's, `outtensor0` an operation's.
        """
        *above, name = parts
        exact = "/".join((folder, *above))
        for parent in self._folders(folder, tuple(above)):
            names = self._names(parent)
            same = names.get(name.casefold(), ())
            stem, _, suffix = name.casefold().rpartition(".")
            if name in same:
                yield int(parent != exact), f"{parent}/{name}"
            elif same:
                if len(same) == 1:
                    yield 2, f"{parent}/{same[0]}"
            elif suffix == "bin":
                longer = [key for key in names if key.startswith(f"{stem}_") and key.endswith(f".{suffix}")]
                if len(longer) == 1 and len(names[longer[0]]) == 1:
                    yield 3, f"{parent}/{names[longer[0]][0]}"

    def _descend(self, folder: str, parts: tuple[str, ...]) -> tuple[str, ...]:
        """Return the folders that a path leads to, those in its exact case before others."""
        if not parts:
            return (folder,)
        *above, last = parts
        found = (
            f"{parent}/{name}"
            for parent in self._folders(folder, tuple(above))
            for name in sorted(self._names(parent).get(last.casefold(), ()), key=lambda name: name != last)
        )
        return tuple(islice(found, _MAX_FOLDERS))

    def _list(self, folder: str) -> dict[str, list[str]]:
        """Return the names in a folder by their case-folded names; none where it is no folder."""
        names: dict[str, list[str]] = {}
        try:
            with os.scandir(folder) as entries:
                for name in sorted(entry.name for entry in entries):
                    names.setdefault(name.casefold(), []).append(name)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            self._list_errors[folder] = error_text(error)
        return names

    def _all_names(self, folder: str) -> list[str]:
        return [name for names in self._names(folder).values() for name in names]

    def _not_found(self, tensor_path: str, parts: tuple[str, ...]) -> NotDumped:
        pid = self._pid
        roots = ", ".join(
            printable(root) + ("" if Path(root).is_dir() else " (no such folder)") for root in self._roots
        )
        unlisted = "".join(
            f"; {printable(folder)}: {why}" for folder, why in list(self._list_errors.items())[:_MOST_LISTED]
        )
        if self._ambiguous:
            unlisted += (
                f"; thread_* folders in {printable(', '.join(self._ambiguous[:_MOST_LISTED]))} were not taken because "
                "they may be another rank's: call set_task_id() before the library runs"
            )
        threads = ",thread_*" if self._own else ""
        return NotDumped(
            f"{printable(tensor_path)} was not dumped: looked in {roots or 'no folder'} for it and for "
            "{,atb_temp/,ait_dump*/,msit_dump*/,atb_dump_data/}{,tensors/,data/}"
            f"{{{pid},{pid}_*,*_{pid}{threads}}}/{{,*/}}{printable(tensor_path)}{unlisted}{self._hint(parts)}"
        )

    def _hint(self, parts: tuple[str, ...]) -> str:
        """Return a hint: the deepest folder on the path that exists, and the names in it."""
        executions = [place for places in self._executions.values() for place in places]
        if not executions:
            bases = [base for root in self._real for base in self._bases(root) if base not in self._real]
            holding = [base for base in bases if self._names(base)]
            return self._near(holding[0], str(self._pid)) if holding else ""
        folders = [*self._real, *(place.folder for place in executions)][-2 * _MOST_LISTED :][::-1]
        for known in range(len(parts) - 1, -1, -1):
            for folder in folders:
                for parent in self._folders(folder, parts[:known]):
                    if self._names(parent):
                        return self._near(parent, parts[known])
        return ""

    def _near(self, folder: str, name: str) -> str:
        listing = self._names(folder)
        if not listing or not self._hints_left:
            return ""
        self._hints_left -= 1
        keys = difflib.get_close_matches(name.casefold(), list(listing)[:_MOST_COMPARED], _MOST_LISTED // 2, 0.8)
        if near := [name for key in keys for name in listing[key]]:
            return f"; {printable(folder)} holds no {printable(name)}; did you mean {printable(', '.join(near))}?"
        names = self._all_names(folder)
        more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
        return (
            f"; {printable(folder)} holds no {printable(name)}, but {printable(', '.join(names[:_MOST_LISTED]))}{more}"
        )
