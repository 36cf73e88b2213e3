"""Whole dumps of ATB's probes: processes are ranks, executions are steps, paths below them are names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aclcmp.orchestrator.dumps.atb.atb_file import HEADER_BEGIN, read_atb
from aclcmp.orchestrator.dumps.dump_index import DumpContent, DumpEntry
from aclcmp.orchestrator.dumps.dump_paths import File, natural
from aclcmp.orchestrator.dumps.format import DumpFiles, DumpFormat, FileContent

_CONTAINERS = ("tensors", "data")
_PROCESS = re.compile(r"(thread_)?([0-9]{1,18})(?:_([0-9]{1,18}))?")
_EXECUTION = re.compile(r"(?:[0-9]{1,18}_)?([0-9]{1,18})")
_DEVICES = 64  # no host has more; a number from there on is a process's
_THREADS = 300  # Linux gives no process started later a lower number, and no dump begins at such an execution
_MOST_LISTED = 8
_SIDE_OF_OPERATION = {"before": 0, "after": 2}  # operations inside it are 1


@dataclass(frozen=True, slots=True, order=True)
class _Process:
    device: int
    """-1 where its folder does not say."""
    pid: int


@dataclass(frozen=True, slots=True)
class _ExecutionFile:
    file: File
    process: _Process
    execution: int
    below: tuple[str, ...]
    """The file's path below its execution's folder."""


class AtbDump(DumpFormat):
    """Every tensor in the folders of all generations of ATB's probes.

    A process folder is `{device}_{pid}`, `{pid}_{tid}`, `{pid}` or `thread_{id}`. Ranks are devices, counted from the
    lowest that is there, where each process has its own, else processes in the order of their numbers. A folder in it
    that is named by a number, or by a task as `{pid}_{n}`, is an execution.
    """

    tool = "ATB"

    def recognise(self, file: File) -> bool:
        """Accept files that begin as ATB's do."""
        if file.suffix != ".bin" or file.refused:
            return False
        try:
            with Path(file.path).open("rb") as content:
                return content.read(len(HEADER_BEGIN)) == HEADER_BEGIN
        except OSError:
            return False

    def read(self, file: File, dump: DumpFiles) -> FileContent:
        """Read a file of the probe; it may point to another one below the dump's root."""
        return FileContent(tuple(("", tensor) for tensor in read_atb(Path(file.path), dump.root)))

    def index(self, dump: DumpFiles) -> DumpContent:
        """Return the tensors of each execution in the order of operations."""
        above = (dump.root.name,) if re.fullmatch(r"[0-9]+_[0-9]+", dump.root.name) else ()
        files = [_parse_path(file, above) for file in dump.files if file.suffix == ".bin"]
        ranks, notes = _ranks(files)
        steps = _steps(files)
        files.sort(key=lambda each: (ranks[each.process], steps[each.process, each.execution], _order(each.below)))
        entries = []
        for each in files:
            rank, step = ranks[each.process], steps[each.process, each.execution]
            name = "/".join(each.below).removesuffix(".bin")
            for _, tensor in self.try_read(each.file, dump).tensors:
                entries.append(DumpEntry(rank, step, name, tensor, each.file.path, each.file.time))
        return DumpContent(entries, notes)


def _parse_path(file: File, above: tuple[str, ...]) -> _ExecutionFile:
    """Return what a file's path states of process and execution; `above` are folders that lead to the dump's root."""
    parts = above + file.parts
    folders = [part.lower() for part in parts[:-1]]
    first = next((k + 1 for k, name in enumerate(folders) if name in _CONTAINERS), 0)
    for k in range(first, len(folders)):
        named = _PROCESS.fullmatch(folders[k])
        if named is None:
            continue
        a, b = int(named[2]), int(named[3] or -1)
        process = _Process(a, b) if b >= 0 and a < _DEVICES and a != b and not named[1] else _Process(-1, a)
        execution = _EXECUTION.fullmatch(folders[k + 1]) if k + 1 < len(folders) else None
        if execution is None:
            return _ExecutionFile(file, process, 0, parts[k + 1 :])
        return _ExecutionFile(file, process, int(execution[1]), parts[k + 2 :])
    return _ExecutionFile(file, _Process(-1, 0), 0, parts)


def _ranks(files: Sequence[_ExecutionFile]) -> tuple[dict[_Process, int], list[str]]:
    """Return the rank of each process, and notes on how they were numbered."""
    processes = sorted({each.process for each in files})
    devices = [process.device for process in processes]
    if not devices or (devices[0] >= 0 and len(set(devices)) == len(devices)):
        lowest = f"ranks are devices, of which {devices[0]} is the lowest" if devices and devices[0] else ""
        return {process: process.device - devices[0] for process in processes}, [lowest] if lowest else []
    pids = ", ".join(str(process.pid) for process in processes[:_MOST_LISTED])
    pids += ", ..." if len(processes) > _MOST_LISTED else ""
    notes = [f"ranks are processes in the order of their numbers: {pids}"] if len(processes) > 1 else []
    return {process: rank for rank, process in enumerate(processes)}, notes


def _steps(files: Sequence[_ExecutionFile]) -> dict[tuple[_Process, int], int]:
    """Return the step of each execution: its number, or its place among them where the numbers are threads' ids."""
    executions: dict[_Process, set[int]] = defaultdict(set)
    for each in files:
        executions[each.process].add(each.execution)
    steps: dict[tuple[_Process, int], int] = {}
    for process, numbers in executions.items():
        are_threads = min(numbers) >= max(process.pid, _THREADS)
        steps |= {(process, number): k if are_threads else number for k, number in enumerate(sorted(numbers))}
    return steps


def _order(below: tuple[str, ...]) -> tuple[object, ...]:
    """Return a sort key: an operation's inputs, its inner operations by their numbers, its outputs."""
    return tuple((_SIDE_OF_OPERATION.get(part.lower(), 1), natural(part)) for part in below)
