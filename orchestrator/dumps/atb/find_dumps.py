"""Find the dumped tensors that a process's labels name by files of ATB."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import replace
from functools import cache
from pathlib import Path

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, ForeignFormatError, NotDumped
from aclcmp.orchestrator.dumps.atb.atb_file import read_atb
from aclcmp.orchestrator.dumps.atb.dump_folders import DumpFolders
from aclcmp.orchestrator.dumps.atb.executions import DumpFile, FileLabel, TensorMatch, match_labels

__all__ = ["FileLabel", "find_dumps"]


def find_dumps(
    wanted: Sequence[FileLabel],
    pid: int,
    roots: Sequence[Path],
    *,
    own: Set[Path] = frozenset(),
    since: float = -math.inf,
) -> dict[int, DumpedTensor | NotDumped]:
    """Return the tensor of each label of process `pid`, by `seq`, or the reason why there is none.

    A relative path is searched below `roots` in all generations of ATB's folders; an absolute path is the file itself.
    A root is searched only if those before it hold no such file. Only this rank's processes dump below the roots in
    `own`: there, folders that name no process count too. `since` is when the process began to label, in seconds since
    the epoch; files that are older belong to an earlier run. Labels of one path and one line of the script are
    successive executions; labels of one path on different lines share the file. Nothing is kept between calls: a
    later call may find more. Raises nothing.
    """
    folders = DumpFolders(pid, roots, own, since)

    @cache
    def read(file: DumpFile) -> tuple[DumpedTensor, ...] | NotDumped:
        try:
            return read_atb(Path(file.path), Path(file.within))
        except ForeignFormatError as error:
            return NotDumped(str(error), unreadable=True)

    def count(file: DumpFile) -> int:
        tensors = read(file)
        return 1 if isinstance(tensors, NotDumped) else len(tensors)

    def tensor(match: TensorMatch | NotDumped) -> DumpedTensor | NotDumped:
        if isinstance(match, NotDumped):
            return match
        tensors = read(match.file)
        if isinstance(tensors, NotDumped):
            return tensors
        named = tensors[match.index]
        return replace(named, warnings=named.warnings + match.warnings)

    labels_of: dict[str, list[FileLabel]] = defaultdict(list)
    for label in sorted(wanted, key=lambda label: label.seq):
        labels_of[label.tensor_path].append(label)
    found: dict[int, DumpedTensor | NotDumped] = {}
    for tensor_path, labels in labels_of.items():
        files = folders.find(tensor_path)
        matches = [files] * len(labels) if isinstance(files, NotDumped) else match_labels(labels, files, count)
        found |= {label.seq: tensor(match) for label, match in zip(labels, matches, strict=True)}
    return found
