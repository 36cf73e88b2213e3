"""From the labels of a process that name files of ATB to the tensors that answer them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from aclcmp.labeling.foreign.atb_executions import LAST, DumpFile, Wanted, answers
from aclcmp.labeling.foreign.atb_file import read_atb
from aclcmp.labeling.foreign.atb_places import DumpPlaces
from aclcmp.labeling.foreign.dumped import DumpedTensor, ForeignFormatError, NotDumped

__all__ = ["Wanted", "find_dumps"]


def find_dumps(wanted: Sequence[Wanted], pid: int, roots: Sequence[Path]) -> dict[int, DumpedTensor | NotDumped]:
    """Return by `seq` the tensor that each label of process `pid` means, or why there is none.

    A relative path is looked for below `roots` in all generations of ATB's folders, an absolute one is the file itself.
    Labels of one path and one line of the script are successive executions; labels of one path on different lines
    share the file. Nothing is kept between calls: a call later may find more. Raises nothing.
    """
    places = DumpPlaces(pid, roots)
    find = cache(places.find)

    @cache
    def read(file: DumpFile) -> tuple[DumpedTensor, ...] | NotDumped:
        try:
            return read_atb(Path(file.path), Path(file.within))
        except ForeignFormatError as error:
            return NotDumped(str(error), unreadable=True)

    def count(file: DumpFile) -> int:
        tensors = read(file)
        return 1 if isinstance(tensors, NotDumped) else len(tensors)

    chains: dict[tuple[str, str], list[Wanted]] = defaultdict(list)
    for label in sorted(wanted, key=lambda label: label.seq):
        chains[label.tensor_path, label.call_site].append(label)
    found: dict[int, DumpedTensor | NotDumped] = {}
    for (tensor_path, _), chain in chains.items():
        files = find(tensor_path)
        if isinstance(files, NotDumped):
            found |= {label.seq: files for label in chain}
            continue
        for label, answer in zip(chain, answers(chain, files, count), strict=True):
            if isinstance(answer, NotDumped):
                found[label.seq] = answer
                continue
            tensors = read(answer.file)
            if isinstance(tensors, NotDumped):
                found[label.seq] = tensors
                continue
            tensor, warnings = tensors[answer.index], answer.warnings
            if answer.index == LAST and len(tensors) > 1:
                warnings += (f"the file was dumped again; the last of its {len(tensors)} tensors is taken",)
            found[label.seq] = replace(tensor, warnings=tensor.warnings + warnings)
    return found
