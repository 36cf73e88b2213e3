"""What ATB's probes dumped, all of it: processes are ranks, executions are tasks, paths below them are names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, ForeignFormatError, NotDumped
from aclcmp.orchestrator.dumps.atb.file import read_atb
from aclcmp.orchestrator.dumps.files import File, natural
from aclcmp.orchestrator.dumps.index import Found

_BEGIN = b"$Version="
_CONTAINERS = ("tensors", "data")
_PROCESS = re.compile(r"(thread_)?([0-9]{1,18})(?:_([0-9]{1,18}))?")
_EXECUTION = re.compile(r"(?:[0-9]{1,18}_)?([0-9]{1,18})")
_DEVICES = 64  # no host has more; a number from there on is a process's
_THREADS = 300  # Linux gives no process started later a lower number, and no dump begins at such an execution
_ASIDE = {"before": 0, "after": 2}


@dataclass(frozen=True, slots=True, order=True)
class _Process:
    device: int
    """-1 where its folder does not say."""
    pid: int


@dataclass(frozen=True, slots=True)
class _Dumped:
    file: File
    process: _Process
    execution: int
    below: tuple[str, ...]
    """The file's path below its execution's folder."""


def is_atb(file: File) -> bool:
    """Whether a file is a tensor of ATB's by its first bytes."""
    if file.suffix != ".bin" or file.refused:
        return False
    try:
        with Path(file.path).open("rb") as content:
            return content.read(len(_BEGIN)) == _BEGIN
    except OSError:
        return False


def read_atb_dump(files: Sequence[File], root: Path) -> tuple[list[Found], list[str]]:
    """Return every tensor in the folders of all generations of ATB's probes, in the order of operations, and notes.

    A process folder is `{device}_{pid}`, `{pid}_{tid}`, `{pid}` or `thread_{id}`. Ranks are devices, counted from the
    lowest that is there, where each process has its own, else processes in the order of their numbers. A folder in it
    that is named by a number, or by a task as `{pid}_{n}`, is an execution.
    """
    above = (root.name,) if re.fullmatch(r"[0-9]+_[0-9]+", root.name) else ()
    dumped = [_split(file, above) for file in files if file.suffix == ".bin"]
    ranks, notes = _ranks(dumped)
    tasks = _tasks(dumped)
    dumped.sort(key=lambda each: (ranks[each.process], tasks[each.process, each.execution], _order(each.below)))
    found = []
    for each in dumped:
        rank, task = ranks[each.process], tasks[each.process, each.execution]
        name = "/".join(each.below).removesuffix(".bin")
        found += [
            Found(rank, task, name, tensor, each.file.path, each.file.time) for tensor in _tensors(each.file, root)
        ]
    return found, notes


def _split(file: File, above: tuple[str, ...]) -> _Dumped:
    parts = above + file.parts
    names = [part.lower() for part in parts[:-1]]
    first = next((k + 1 for k, name in enumerate(names) if name in _CONTAINERS), 0)
    for k in range(first, len(names)):
        named = _PROCESS.fullmatch(names[k])
        if named is None:
            continue
        a, b = int(named[2]), int(named[3] or -1)
        process = _Process(a, b) if b >= 0 and a < _DEVICES and a != b and not named[1] else _Process(-1, a)
        execution = _EXECUTION.fullmatch(names[k + 1]) if k + 1 < len(names) else None
        if execution is None:
            return _Dumped(file, process, 0, parts[k + 1 :])
        return _Dumped(file, process, int(execution[1]), parts[k + 2 :])
    return _Dumped(file, _Process(-1, 0), 0, parts)


def _ranks(dumped: Sequence[_Dumped]) -> tuple[dict[_Process, int], list[str]]:
    processes = sorted({each.process for each in dumped})
    devices = [process.device for process in processes]
    if not devices or (devices[0] >= 0 and len(set(devices)) == len(devices)):
        lowest = f"ranks are devices, of which {devices[0]} is the lowest" if devices and devices[0] else ""
        return {process: process.device - devices[0] for process in processes}, [lowest] if lowest else []
    told = ", ".join(str(process.pid) for process in processes[:8]) + (", ..." if len(processes) > 8 else "")
    notes = [f"ranks are processes in the order of their numbers: {told}"] if len(processes) > 1 else []
    return {process: rank for rank, process in enumerate(processes)}, notes


def _tasks(dumped: Sequence[_Dumped]) -> dict[tuple[_Process, int], int]:
    """The tasks of executions: their numbers, except where those are of threads."""
    numbers: dict[_Process, set[int]] = defaultdict(set)
    for each in dumped:
        numbers[each.process].add(each.execution)
    tasks: dict[tuple[_Process, int], int] = {}
    for process, those in numbers.items():
        threads = min(those) >= max(process.pid, _THREADS)
        tasks |= {(process, number): k if threads else number for k, number in enumerate(sorted(those))}
    return tasks


def _order(below: tuple[str, ...]) -> tuple[object, ...]:
    """An operation's inputs, its inner operations by their numbers, its outputs."""
    return tuple((_ASIDE.get(part.lower(), 1), natural(part)) for part in below)


def _tensors(file: File, root: Path) -> Iterator[DumpedTensor | NotDumped]:
    if file.refused:
        yield NotDumped(file.refused, unreadable=True)
        return
    try:
        yield from read_atb(Path(file.path), root)
    except ForeignFormatError as error:
        yield NotDumped(str(error), unreadable=True)
