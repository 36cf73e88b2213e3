"""The interface of a dump format: how one tool's dumps are recognised, indexed and read. `registry.py` lists them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, ForeignFormatError, NotDumped, printable
from aclcmp.orchestrator.dumps.dump_index import DumpContent, DumpEntry
from aclcmp.orchestrator.dumps.dump_paths import File, parse_path
from aclcmp.orchestrator.dumps.order import OrderBasis, find_order
from aclcmp.orchestrator.dumps.scratch import Scratch

Plain = str | int | float | bool | None
NamedTensor = tuple[str, DumpedTensor | NotDumped]


@dataclass(frozen=True, slots=True)
class FileContent:
    """Tensors and other values of one file."""

    tensors: tuple[NamedTensor, ...]
    """In the file's order, each with its name within the file: "" for a tensor that is the whole file."""
    in_call_order: bool = False
    """True where the file keeps the order in which its tensors were given."""
    metadata: Mapping[str, Plain] = field(default_factory=dict)
    """Other values, by dotted names such as `a.b.0`."""


@dataclass(frozen=True, slots=True)
class DumpFiles:
    """The files of a folder that is to be read, and the place for copies of tensors."""

    root: Path
    """The folder, without links; of a single file, the folder that holds it."""
    files: Sequence[File]
    scratch: Scratch
    """For tensors that do not lie dense and little-endian in their files."""


class DumpFormat(ABC):
    """One tool's way of dumping tensors. Its objects have no state.

    Indexing yields where each tensor's bytes lie (file, offset, dtype, shape), so that comparing needs no format.
    """

    tool: ClassVar[str]
    """The tool's name in reports."""

    @abstractmethod
    def recognise(self, file: File) -> bool:
        """Tell whether this file shows that its folder is a dump of this tool.

        Look at the name first: this is called for every file. Raises nothing.
        """

    @abstractmethod
    def read(self, file: File, dump: DumpFiles) -> FileContent:
        """Return the tensors of a file of this format.

        A tensor that cannot be read is a NotDumped with the reason. Raises ForeignFormatError when none can be read.
        """

    def index(self, dump: DumpFiles) -> DumpContent:
        """Return every tensor with its rank, step and name, each rank's steps in the order of computation.

        This default reads the files that `recognise` accepts. `rankN` in a path is the rank and a folder `stepN` the
        step; both are 0 otherwise. A tensor's name is its file's path with dots, then its name within the file. Where
        the names within files are distinct in each step of each rank, they alone are taken, so that states saved under
        other file names, or split otherwise, pair up. Raises ForeignFormatError when the folder cannot be understood.
        """
        contents = [(file, self.try_read(file, dump)) for file in dump.files if self.recognise(file)]
        notes = [
            f"{printable('/'.join(file.parts))} holds no tensor" for file, content in contents if not content.tensors
        ]
        places = [parse_path(file.parts) for file, _ in contents]
        short_names = Counter(
            (rank, step, inner or outer)
            for (rank, step, outer), (_, content) in zip(places, contents, strict=True)
            for inner, _ in content.tensors
        )
        distinct = max(short_names.values(), default=0) == 1
        steps: dict[tuple[int, int], list[DumpEntry]] = defaultdict(list)
        for (rank, step, outer), (file, content) in zip(places, contents, strict=True):
            for inner, tensor in content.tensors:
                name = (inner or outer) if distinct else ".".join(filter(None, (outer, inner)))
                steps[rank, step].append(DumpEntry(rank, step, name, tensor, file.path, file.time))
        in_call_order = {file.path for file, content in contents if content.in_call_order}
        basis, entries = OrderBasis.CALLS, list[DumpEntry]()
        for step_entries in steps.values():
            step_basis, ordered = _sort_entries(step_entries, in_call_order)
            basis = max(basis, step_basis, key=list(OrderBasis).index)
            entries += ordered
        return DumpContent(entries, notes, order=basis)

    def try_read(self, file: File, dump: DumpFiles) -> FileContent:
        """Return what `read` returns; where the file must not or cannot be read, a NotDumped with the reason."""
        try:
            if file.refused:
                raise ForeignFormatError(file.refused)
            return self.read(file, dump)
        except ForeignFormatError as error:
            return FileContent((("", NotDumped(str(error), unreadable=True)),))


def unreadable(error: ForeignFormatError, path: str, where: str) -> NotDumped:
    """Return why a tensor in a file cannot be read; `where` names both, the error perhaps the file already."""
    text = str(error)
    return NotDumped(text if text.startswith(printable(path)) else f"{where}: {text}", unreadable=True)


def _sort_entries(entries: list[DumpEntry], in_call_order: set[str]) -> tuple[OrderBasis, list[DumpEntry]]:
    """Sort the tensors of one step of one rank, and tell by what; `in_call_order` are files that keep that order."""
    paths = {entry.path for entry in entries}
    if len(entries) == 1 or (len(paths) == 1 and paths <= in_call_order):
        return OrderBasis.CALLS, entries
    one_per_file = len(paths) == len(entries)  # else equal times mean one file
    times = [entry.time if one_per_file else 0.0 for entry in entries]
    basis, order = find_order([entry.name for entry in entries], times)
    return basis, [entries[place] for place in order]
