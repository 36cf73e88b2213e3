"""msprobe's dumps: `stepN/rankR/dump.json` lists the tensors in order, `dump_tensor_data/` holds their files.

msprobe writes `dump.json` when it is stopped: in a run that was killed, names and order are those of the files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aclcmp.labeling.shard.dumped_tensor import ForeignFormatError, NotDumped, name_file_in_errors, printable
from aclcmp.orchestrator.dumps.axis_splits import AxisSplit
from aclcmp.orchestrator.dumps.dump_index import DumpContent, DumpEntry
from aclcmp.orchestrator.dumps.dump_paths import File, rank_of, step_of
from aclcmp.orchestrator.dumps.format import DumpFiles, DumpFormat, FileContent
from aclcmp.orchestrator.dumps.tensor_files import TensorFiles

_INDICES = ("dump.json", "debug.json")
_DATA = "dump_tensor_data"
_CATEGORIES = {"input_args": "input", "input_kwargs": "input"}
_GRADIENT = ".parameters_grad."
"""Part of the name of an operation for gradients of parameters; each of its categories is one parameter's."""
_PROCESS = re.compile(r"proc([0-9]{1,10})")
_MAX_JSON = 2 << 30
_TENSOR_FILES = TensorFiles()


@dataclass(slots=True)
class _RankFolder:
    """One rank's folder in one step."""

    step: int = 0
    rank: int | None = None
    process: int = 0
    indices: list[File] = field(default_factory=list)
    data: dict[str, File] = field(default_factory=dict)


class MsprobeDump(DumpFormat):
    """Tensors under msprobe's full names, such as `Module.fc.Linear.forward.0.output.0`."""

    tool = "msprobe"

    def recognise(self, file: File) -> bool:
        """Accept files in a folder of msprobe's tensors, and an index with msprobe's fields."""
        if len(file.parts) > 1 and file.parts[-2] == _DATA:
            return True
        if file.parts[-1] not in _INDICES or file.refused:
            return False
        try:
            return isinstance(_read_json(file).get("data"), dict)
        except ForeignFormatError:
            return False

    def read(self, file: File, dump: DumpFiles) -> FileContent:
        """Read a file of `dump_tensor_data/`."""
        return _TENSOR_FILES.read(file, dump)

    def index(self, dump: DumpFiles) -> DumpContent:
        """Return the tensors that the indices list; each folder `procN` is a rank, in the order of the numbers.

        A tensor that was not saved, as in a dump of statistics, is there with its name only.
        """
        folders = _rank_folders(dump.files)
        processes = sorted({folder.process for folder in folders.values() if folder.rank is None})
        notes = [f"ranks are processes in the order of their numbers: {processes}"] if len(processes) > 1 else []
        entries: list[DumpEntry] = []
        ranks = 0
        for path, folder in folders.items():
            rank = processes.index(folder.process) if folder.rank is None else folder.rank
            ranks = max(ranks, rank + 1)
            before = len(entries)
            where = printable("/".join(path)) or "the dump"
            if not folder.indices:
                notes.append(f"{where} has no dump.json, as after a crash: order and names are the files'")
                for file in sorted(folder.data.values(), key=lambda file: file.time):
                    entries += self._entries_without_index(rank, folder, file, dump)
            for index in folder.indices:
                try:
                    entries += self._entries_of_index(rank, folder, index, dump)
                except ForeignFormatError as error:
                    notes.append(str(error))
                    for file in folder.data.values():
                        entries += self._entries_without_index(rank, folder, file, dump)
            if len(entries) == before:
                notes.append(f"{where} holds no tensor")
        return DumpContent(entries, notes, ranks)

    def _entries_without_index(self, rank: int, folder: _RankFolder, file: File, dump: DumpFiles) -> list[DumpEntry]:
        """Return the tensors of a file of which no index says anything."""
        return self._entries(rank, folder, file, dump) if _TENSOR_FILES.recognise(file) else []

    def _entries(
        self, rank: int, folder: _RankFolder, file: File, dump: DumpFiles, splits: tuple[AxisSplit, ...] | None = None
    ) -> list[DumpEntry]:
        return [
            DumpEntry(
                rank, folder.step, f"{file.stem}.{name}" if name else file.stem, tensor, file.path, file.time, splits
            )
            for name, tensor in self.try_read(file, dump).tensors
        ]

    def _entries_of_index(self, rank: int, folder: _RankFolder, index: File, dump: DumpFiles) -> list[DumpEntry]:
        """Return the tensors that one index lists. Raises ForeignFormatError when it cannot be read."""
        data = _read_json(index).get("data")
        if not isinstance(data, dict):
            raise ForeignFormatError(f"{printable(index.path)}: has no data of msprobe's")
        entries: list[DumpEntry] = []
        for name, fields in _tensors_in(data):
            file_name = fields.get("data_name")
            if isinstance(file_name, str) and file_name in folder.data:
                entries += self._entries(rank, folder, folder.data[file_name], dump, _splits(fields, rank))
                continue
            if isinstance(file_name, str):
                why = f"{printable(file_name)[:300]} is named in {printable(index.path)}, but is not in {_DATA}"
            else:
                why = f"msprobe kept statistics only of {printable(name)}; dump with task tensor"
            entries.append(DumpEntry(rank, folder.step, name, NotDumped(why), index.path, index.time))
        return entries


def _rank_folders(files: Sequence[File]) -> dict[tuple[str, ...], _RankFolder]:
    """Return the folders that hold indices or data, by their paths below the dump."""
    folders: dict[tuple[str, ...], _RankFolder] = {}
    for file in files:
        *above, name = file.parts
        is_data = bool(above) and above[-1] == _DATA
        if not is_data and name not in _INDICES:
            continue
        path = tuple(above[:-1] if is_data else above)
        folder = folders.get(path)
        if folder is None:
            folder = folders[path] = _RankFolder()
            for part in path:
                step, (rank, _), process = step_of(part), rank_of(part), _PROCESS.fullmatch(part)
                folder.step = folder.step if step is None else step
                folder.rank = folder.rank if rank is None else rank
                folder.process = int(process[1]) if process else folder.process
        if is_data:
            folder.data[name] = file
        else:
            folder.indices.append(file)
    return folders


def _tensors_in(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each tensor's full name and its fields, in the order of msprobe's calls."""
    for operation, categories in data.items():
        if isinstance(categories, dict) and "type" not in categories:
            for category, values in categories.items():
                is_gradient = isinstance(values, list) and len(values) == 1 and _GRADIENT in operation
                name = f"{operation}.{_CATEGORIES.get(category, category)}"
                yield from _tensors_below(name, values[0] if is_gradient else values)
        else:
            yield from _tensors_below(operation, categories)


def _tensors_below(name: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, list):
        for k, each in enumerate(value):
            yield from _tensors_below(f"{name}.{k}", each)
    elif isinstance(value, dict) and isinstance(value.get("type"), str):
        if "dtype" in value and "shape" in value:
            yield name, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _tensors_below(f"{name}.{key}", each)


def _splits(fields: Mapping[str, Any], rank: int) -> tuple[AxisSplit, ...] | None:
    """Return the splits that a DTensor's mesh and placements state; None where they are absent or do not fit."""
    placements = fields.get("placements")
    coordinates = _mesh_coordinates(fields.get("device_mesh"), rank)
    if not isinstance(placements, list) or not placements or coordinates is None:
        return None
    if len(coordinates) != len(placements):
        return None
    splits = []
    for (number, size), placement in zip(coordinates, placements, strict=True):
        if not isinstance(placement, dict) or len(placement) != 1:
            return None
        kind, arguments = next(iter(placement.items()))
        dim = arguments.get("dim") if isinstance(arguments, dict) else None
        if kind == "Shard" and type(dim) is int and dim >= 0:
            splits.append(AxisSplit(number, size, dim))
        elif kind == "Partial" and isinstance(arguments, dict) and arguments.get("reduce_op") == "sum":
            splits.append(AxisSplit(number, size, summed=True))
        elif kind == "Replicate":
            splits.append(AxisSplit(number, size))
        else:
            return None
    return tuple(splits)


def _mesh_coordinates(mesh: Any, rank: int) -> tuple[tuple[int, int], ...] | None:
    """Return a rank's index along each dimension of a mesh (nested lists of ranks), each with that dimension's size."""
    if type(mesh) is int:
        return () if mesh == rank else None
    for k, inner in enumerate(mesh if isinstance(mesh, list) else ()):
        below = _mesh_coordinates(inner, rank)
        if below is not None:
            return ((k, len(mesh)), *below)
    return None


def _read_json(file: File) -> dict[str, Any]:
    """Return the content of an index. Raises ForeignFormatError when it cannot be read or is no object."""
    where = printable(file.path)
    if file.refused:
        raise ForeignFormatError(file.refused)
    with name_file_in_errors(file.path), Path(file.path).open("rb") as content:
        text = content.read(_MAX_JSON + 1)
    if len(text) > _MAX_JSON:
        raise ForeignFormatError(f"{where}: is longer than any dump.json of msprobe's")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ForeignFormatError(f"{where}: is not the JSON that msprobe writes; was the run killed?") from error
    if not isinstance(parsed, dict):
        raise ForeignFormatError(f"{where}: is not the JSON that msprobe writes")
    return parsed
