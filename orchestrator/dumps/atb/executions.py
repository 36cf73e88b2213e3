"""Match labels with the files of executions: a label precedes its execution, so the next file written is its own."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from aclcmp.labeling.shard.dumped_tensor import NotDumped, printable

TICK = 0.05
"""Seconds by which a file's time may precede the label's: the file system's clock ticks coarsely."""

_SUCCESSIVE = (
    " (labels of one file from one line of the script are successive executions; "
    "to share a dump, label it from different lines)"
)


@dataclass(frozen=True, slots=True)
class FileLabel:
    """A label that names a file. `time`, in seconds since the epoch, is when it was set."""

    seq: int
    task: int
    tensor_path: str
    time: float
    call_site: str


@dataclass(frozen=True, slots=True)
class DumpFile:
    """A file that has the name that labels ask for."""

    path: str
    within: str
    """The folder that it must not lead out of by links."""
    written: float
    """In seconds since the epoch."""
    execution: int = -1
    """The number of its folder; -1 where that has none."""
    task: int | None = None
    """The only task that it belongs to, by the name of its folder; None where that names none."""


@dataclass(frozen=True, slots=True)
class TensorMatch:
    """The tensor of a label: that at `index` in `file`."""

    file: DumpFile
    index: int = 0
    warnings: tuple[str, ...] = ()


def match_labels(
    labels: Sequence[FileLabel], files: Sequence[DumpFile], count: Callable[[DumpFile], int]
) -> list[TensorMatch | NotDumped]:
    """Return the match of each label of one file name; `labels` are in the order in which they were set.

    Labels of one line of the script are successive executions. `files` are all that were found, at least one; `count`
    returns the number of tensors in a file. Where folders are named by tasks, each task's labels are matched with its
    own files.
    """
    files_of: dict[int | None, list[DumpFile]] = defaultdict(list)
    labels_of: dict[int | None, list[FileLabel]] = defaultdict(list)
    for file in files:
        files_of[file.task].append(file)
    for label in labels:
        labels_of[label.task if label.task in files_of else None].append(label)
    found: dict[int, TensorMatch | NotDumped] = {}
    for task, mine in labels_of.items():
        there = sorted(files_of.get(task, ()), key=lambda file: (file.execution, file.written))
        if not there:
            others = ", ".join(map(str, sorted(other for other in files_of if other is not None)[:10]))
            reason = f"{printable(labels[0].tensor_path)} was dumped in task {others}, not in this label's"
            found |= {label.seq: NotDumped(reason) for label in mine}
        else:
            found |= _match_tensors(_match_files(mine, there, count), mine, count)
    return [found[label.seq] for label in labels]


def _match_files(
    labels: list[FileLabel], files: list[DumpFile], count: Callable[[DumpFile], int]
) -> dict[int, TensorMatch | NotDumped]:
    """Match each label with a file; `files` are in the order of executions."""
    if len(files) == 1 and count(files[0]) > 1:
        return {label.seq: _match_file(label, files[0]) for label in labels}
    if len(files) == 1:
        return _match_overwritten(labels, files[0])
    chains: dict[str, list[FileLabel]] = defaultdict(list)
    for label in labels:
        chains[label.call_site].append(label)
    found: dict[int, TensorMatch | NotDumped] = {}
    for chain in chains.values():
        found |= (
            _match_in_order(chain, files)
            if len(chain) == len(files)
            else _match_by_time(chain, sorted(files, key=_write_time))
        )
    return found


def _match_tensors(
    found: dict[int, TensorMatch | NotDumped], labels: list[FileLabel], count: Callable[[DumpFile], int]
) -> dict[int, TensorMatch | NotDumped]:
    """Match labels with tensors in those files to which the library appended, so that they hold several."""
    matches: dict[DumpFile, dict[int, TensorMatch]] = defaultdict(dict)
    for seq, match in found.items():
        if isinstance(match, TensorMatch) and count(match.file) > 1:
            matches[match.file][seq] = match
    for file, theirs in matches.items():
        sharing = [label for label in labels if label.seq in theirs]
        executions = _executions(sharing)
        holds = count(file)
        if holds not in (len(executions), len(sharing)):
            reason = (
                f"cannot tell which of the {holds} tensors in {printable(file.path)} belongs to which label (labels: "
                f"{len(sharing)}, executions: {len(executions)}); label every execution that is dumped, and empty the "
                "dump folder before the run"
            )
            found |= {seq: NotDumped(reason) for seq in theirs}
            continue
        for index, those in enumerate(executions if holds == len(executions) else [[label] for label in sharing]):
            found |= {label.seq: replace(theirs[label.seq], index=index) for label in those}
    return found


def _executions(labels: list[FileLabel]) -> list[list[FileLabel]]:
    """Group labels in the order in which they were set: a line of the script that repeats begins the next execution."""
    executions: list[list[FileLabel]] = []
    lines: set[str] = set()
    for label in labels:
        if not executions or label.call_site in lines:
            executions.append([])
            lines.clear()
        executions[-1].append(label)
        lines.add(label.call_site)
    return executions


def _match_overwritten(labels: list[FileLabel], file: DumpFile) -> dict[int, TensorMatch | NotDumped]:
    """Match the only file, which each execution overwrites: it is of the last one that began before the file's time."""
    executions = _executions(labels)
    firsts = [execution[0] for execution in executions]
    begins = _begins(firsts)
    owner = bisect_right(begins, file.written) - 1 if len(executions) > 1 else 0
    return {
        label.seq: _match_file(label, file) if k == owner else _explain_no_file(k, firsts, begins, [file])
        for k, execution in enumerate(executions)
        for label in execution
    }


def _match_file(label: FileLabel, file: DumpFile) -> TensorMatch:
    early = file.written < label.time - TICK
    return TensorMatch(file, warnings=("the file was written before the label was set",) if early else ())


def _match_in_order(labels: list[FileLabel], files: list[DumpFile]) -> dict[int, TensorMatch | NotDumped]:
    """Match as many files as labels in order; warn where times contradict it, unless files were copied."""
    times = [label.time for label in labels]
    copied = all(file.written >= times[-1] for file in files)
    found: dict[int, TensorMatch | NotDumped] = {}
    for label, file, end in zip(labels, files, [*times[1:], float("inf")], strict=True):
        odd = not copied and not label.time - TICK <= file.written < end + TICK
        warning = "paired by the order of executions, but the file's time is not between its label's and the next's"
        found[label.seq] = TensorMatch(file, warnings=(warning,) if odd else ())
    return found


def _match_by_time(labels: list[FileLabel], files: list[DumpFile]) -> dict[int, TensorMatch | NotDumped]:
    """Match each label with the first file written after it and before the next label; `files` are in that order."""
    begins = _begins(labels)
    if len(labels) > 1 and files[0].written >= begins[-1]:
        reason = (
            f"cannot tell which of the {len(files)} executions that dumped {printable(labels[0].tensor_path)} belongs "
            f"to which of {len(labels)} labels: all were written after the last label; "
            "keep the files' times when copying"
        )
        return {label.seq: NotDumped(reason) for label in labels}
    found: dict[int, TensorMatch | NotDumped] = {}
    for k, label in enumerate(labels):
        first = bisect_left(files, begins[k], key=_write_time)
        stop = bisect_left(files, begins[k + 1], key=_write_time) if k + 1 < len(labels) else len(files)
        if first >= stop:
            found[label.seq] = _explain_no_file(k, labels, begins, files)
        else:
            several = len(labels) == 1 and stop - first > 1
            warning = "several executions followed the label; the first to be written is taken"
            found[label.seq] = TensorMatch(files[first], warnings=(warning,) if several else ())
    return found


def _begins(labels: list[FileLabel]) -> list[float]:
    """Return the earliest time of each label's file, ascending; labels in quick succession leave less tolerance."""
    begins: list[float] = []
    before = 2 * labels[0].time - labels[1].time if len(labels) > 1 else float("-inf")
    for label in labels:
        moment = max(label.time, before)
        begins.append(moment - min(TICK, (moment - before) / 4))
        before = moment
    return begins


def _explain_no_file(k: int, labels: list[FileLabel], begins: list[float], files: list[DumpFile]) -> NotDumped:
    """Return why no file is left for a label; `files` are in the order in which they were written."""
    first = bisect_left(files, begins[k], key=_write_time)
    successive = _SUCCESSIVE if len(labels) > 1 else ""
    if first == len(files):
        return NotDumped(
            f"{printable(files[-1].path)} was last written at {clock(files[-1].written)}, before this label was set "
            f"at {clock(labels[k].time)}; let the library dump more executions (ATB_SAVE_TENSOR_RANGE){successive}"
        )
    later = files[first]
    owner = labels[bisect_right(begins, later.written) - 1]
    return NotDumped(
        f"{printable(later.path)} was written at {clock(later.written)} for a later execution, that of label "
        f"{owner.seq} set at {clock(owner.time)}; this one's was overwritten or not dumped{successive}"
    )


def _write_time(file: DumpFile) -> float:
    return file.written


def clock(moment: float) -> str:
    """Return a time in seconds since the epoch as text, in local time."""
    try:
        return datetime.fromtimestamp(moment).isoformat(" ", "milliseconds")
    except (ValueError, OverflowError, OSError):  # any number may be a file's time
        return str(moment)
