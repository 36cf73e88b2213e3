"""Which execution's file answers which label: a label is set before the library runs, the next file written is its."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from aclcmp.labeling.foreign.dumped import NotDumped, shown

LAST = -1

_CLOCK = 0.05  # Seconds that a file system's time may be behind the label's: its clock ticks coarsely.


@dataclass(frozen=True, slots=True)
class Wanted:
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
    """The folder that it must not lead out of."""
    written: float
    """In seconds since the epoch."""
    execution: int = -1
    """As its folder is numbered; -1 where it is not."""
    task: int | None = None
    """The only task that it belongs to, as its folder is named; None where it is not."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The tensor that a label means: that at `index` in `file`, or its last."""

    file: DumpFile
    index: int = LAST
    warnings: tuple[str, ...] = ()


def answers(
    chain: Sequence[Wanted], files: Sequence[DumpFile], count: Callable[[DumpFile], int]
) -> list[Answer | NotDumped]:
    """Return what answers each label of a chain: the labels of one file name and one line of the script, in order.

    They are successive executions. `files` are all that were found, at least one; `count` tells how many tensors a
    file holds. Where folders are named by tasks, a task's labels and files are taken by themselves.
    """
    files_of: dict[int | None, list[DumpFile]] = defaultdict(list)
    labels_of: dict[int | None, list[Wanted]] = defaultdict(list)
    for file in files:
        files_of[file.task].append(file)
    for label in chain:
        labels_of[label.task if label.task in files_of else None].append(label)
    found: dict[int, Answer | NotDumped] = {}
    for task, labels in labels_of.items():
        mine = sorted(files_of.get(task, ()), key=lambda file: (file.execution, file.written))
        if not mine:
            others = ", ".join(map(str, sorted(other for other in files_of if other is not None)[:10]))
            reason = f"{shown(chain[0].tensor_path)} was dumped in task {others}, not in this label's"
            found |= {label.seq: NotDumped(reason) for label in labels}
        elif len(mine) == 1:
            found |= _in_one_file(labels, mine[0], count(mine[0]))
        elif len(mine) == len(labels):
            found |= _in_order(labels, mine)
        else:
            found |= _by_time(labels, sorted(mine, key=_written))
    return [found[label.seq] for label in chain]


def _in_one_file(labels: list[Wanted], file: DumpFile, count: int) -> dict[int, Answer | NotDumped]:
    """Every execution wrote the same file: it replaced what was there, or went on at its end."""
    begins = _begins(labels)
    asked = bisect_right(begins, file.written)
    found: dict[int, Answer | NotDumped] = {
        label.seq: _without(k, labels, begins, [file]) for k, label in enumerate(labels)
    }
    if count in (len(labels), asked):
        early = (
            () if asked else (f"the file was written {labels[0].time - file.written:.1f} s before the label was set",)
        )
        found |= {label.seq: Answer(file, k, early) for k, label in enumerate(labels[:count])}
    elif asked:
        found[labels[asked - 1].seq] = Answer(file)
    return found


def _in_order(labels: list[Wanted], files: list[DumpFile]) -> dict[int, Answer | NotDumped]:
    """Pair as many files as labels, and tell where times contradict that do not look like a later copy's."""
    begins = _begins(labels)
    copied = all(file.written >= begins[-1] for file in files)
    found: dict[int, Answer | NotDumped] = {}
    for label, file, begin, end in zip(labels, files, begins, [*begins[1:], float("inf")], strict=True):
        odd = not copied and not begin <= file.written < end
        warning = f"paired by the order of executions, but {_clock(file.written)}, its time, is not between its labels'"
        found[label.seq] = Answer(file, warnings=(warning,) if odd else ())
    return found


def _by_time(labels: list[Wanted], files: list[DumpFile]) -> dict[int, Answer | NotDumped]:
    """Give each label the first file that was written after it and before the next label; `files` are in that order."""
    begins = _begins(labels)
    if len(labels) > 1 and files[0].written >= begins[-1]:
        reason = (
            f"cannot tell which of the {len(files)} executions that dumped {shown(labels[0].tensor_path)} belongs to "
            f"which of {len(labels)} labels: all were written after the last label; keep the files' times when copying"
        )
        return {label.seq: NotDumped(reason) for label in labels}
    found: dict[int, Answer | NotDumped] = {}
    for k, label in enumerate(labels):
        first = bisect_left(files, begins[k], key=_written)
        stop = bisect_left(files, begins[k + 1], key=_written) if k + 1 < len(labels) else len(files)
        if first >= stop:
            found[label.seq] = _without(k, labels, begins, files)
        else:
            several = len(labels) == 1 and stop - first > 1
            warning = f"{stop - first} executions followed the label; the first to be written is taken"
            found[label.seq] = Answer(files[first], warnings=(warning,) if several else ())
    return found


def _begins(labels: list[Wanted]) -> list[float]:
    """From when on a file may be each label's, never falling. Labels in quick succession leave a clock less room."""
    begins: list[float] = []
    before = 2 * labels[0].time - labels[1].time if len(labels) > 1 else float("-inf")
    for label in labels:
        moment = max(label.time, before)
        begins.append(moment - min(_CLOCK, (moment - before) / 4))
        before = moment
    return begins


def _without(k: int, labels: list[Wanted], begins: list[float], files: list[DumpFile]) -> NotDumped:
    """Say why no file is left for a label; `files` are in the order in which they were written."""
    first = bisect_left(files, begins[k], key=_written)
    if first == len(files):
        return NotDumped(
            f"{shown(files[-1].path)} was last written at {_clock(files[-1].written)}, before this label was set "
            f"at {_clock(labels[k].time)}; let the library dump more executions (ATB_SAVE_TENSOR_RANGE)"
        )
    later = files[first]
    owner = labels[bisect_right(begins, later.written) - 1]
    return NotDumped(
        f"{shown(later.path)} was written at {_clock(later.written)} for a later execution, that of label {owner.seq} "
        f"set at {_clock(owner.time)}; this one's was overwritten or not dumped"
    )


def _written(file: DumpFile) -> float:
    return file.written


def _clock(moment: float) -> str:
    try:
        return datetime.fromtimestamp(moment).isoformat(" ", "milliseconds")
    except (ValueError, OverflowError, OSError):  # a file's time may be anything
        return str(moment)
