"""From the labels of a process that name files of ATB to the tensors that answer them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import replace
from functools import cache
from pathlib import Path

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, ForeignFormatError, NotDumped
from aclcmp.orchestrator.dumps.atb.atb_file import read_atb
from aclcmp.orchestrator.dumps.atb.dump_folders import DumpPlaces
from aclcmp.orchestrator.dumps.atb.executions import Answer, DumpFile, Wanted, answers

__all__ = ["Wanted", "find_dumps"]


def find_dumps(
    wanted: Sequence[Wanted],
    pid: int,
    roots: Sequence[Path],
    *,
    own: Set[Path] = frozenset(),
    since: float = -math.inf,
) -> dict[int, DumpedTensor | NotDumped]:
    """Return by `seq` the tensor that each label of process `pid` means, or why there is none.

    A relative path is looked for below `roots` in all generations of ATB's folders, an absolute one is the file itself.
    A root is searched only where those before it have no such file. Below roots in `own`, in which only this rank's
    processes dump, folders that name no process count too. Files that were written before `since`, in seconds since
    the epoch when the process began to label, are an earlier run's. Labels of one path and one line of the script are
    successive executions; labels of one path on different lines share the file. Nothing is kept between calls: a call
    later may find more. Raises nothing.
    """
    places = DumpPlaces(pid, roots, own, since)

    @cache
    def read(file: DumpFile) -> tuple[DumpedTensor, ...] | NotDumped:
        try:
            return read_atb(Path(file.path), Path(file.within))
        except ForeignFormatError as error:
            return NotDumped(str(error), unreadable=True)

    def count(file: DumpFile) -> int:
        tensors = read(file)
        return 1 if isinstance(tensors, NotDumped) else len(tensors)

    def tensor(answer: Answer | NotDumped) -> DumpedTensor | NotDumped:
        if isinstance(answer, NotDumped):
            return answer
        tensors = read(answer.file)
        if isinstance(tensors, NotDumped):
            return tensors
        meant = tensors[answer.index]
        return replace(meant, warnings=meant.warnings + answer.warnings)

    labels_of: dict[str, list[Wanted]] = defaultdict(list)
    for label in sorted(wanted, key=lambda label: label.seq):
        labels_of[label.tensor_path].append(label)
    found: dict[int, DumpedTensor | NotDumped] = {}
    for tensor_path, labels in labels_of.items():
        files = places.find(tensor_path)
        answered = [files] * len(labels) if isinstance(files, NotDumped) else answers(labels, files, count)
        found |= {label.seq: tensor(answer) for label, answer in zip(labels, answered, strict=True)}
    return found
