"""msprobe's dumps: `stepN/rankR/dump.json` tells the tensors in order, `dump_tensor_data/` holds their files.

msprobe writes `dump.json` when it is stopped: of a run that was killed the files' names and times tell the order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aclcmp.labeling.shard.dumped_tensor import ForeignFormatError, NotDumped, name_file_in_errors, printable
from aclcmp.orchestrator.dumps.files import File, rank_of, step_of
from aclcmp.orchestrator.dumps.index import Found, Split
from aclcmp.orchestrator.dumps.scratch import Scratch
from aclcmp.orchestrator.dumps.tensor_files import SUFFIXES, read_tensors

_INDICES = ("dump.json", "debug.json")
_DATA = "dump_tensor_data"
_CATEGORIES = {"input_args": "input", "input_kwargs": "input"}
_GRADIENT = ".parameters_grad."
"""What the operation of parameters' gradients has in its name; each of its categories is one parameter's."""
_PROCESS = re.compile(r"proc([0-9]{1,10})")
_MAX_JSON = 2 << 30


@dataclass(slots=True)
class _Dump:
    """One rank's folder in one step."""

    step: int = 0
    rank: int | None = None
    process: int = 0
    indices: list[File] = field(default_factory=list)
    data: dict[str, File] = field(default_factory=dict)


def is_msprobe(files: Sequence[File]) -> bool:
    """Whether there is a folder of msprobe's tensors, or an index with its fields."""
    for file in files:
        if len(file.parts) > 1 and file.parts[-2] == _DATA:
            return True
        if file.parts[-1] in _INDICES and not file.refused:
            try:
                if isinstance(_parsed(file).get("data"), dict):
                    return True
            except ForeignFormatError:
                continue
    return False


def read_msprobe(files: Sequence[File], scratch: Scratch) -> tuple[list[Found], list[str], int]:
    """Return msprobe's tensors under msprobe's full names, notes, and how many ranks there are folders of.

    Of dumps of statistics, and of tensors that were not saved, there is only the name. A `procN` is a rank in the order
    of processes.
    """
    dumps = _dumps(files)
    processes = sorted({dump.process for dump in dumps.values() if dump.rank is None})
    notes = [f"ranks are processes in the order of their numbers: {processes}"] if len(processes) > 1 else []
    found: list[Found] = []
    ranks = 0
    for folder, dump in dumps.items():
        rank = processes.index(dump.process) if dump.rank is None else dump.rank
        ranks = max(ranks, rank + 1)
        before = len(found)
        where = printable("/".join(folder)) or "the dump"
        if not dump.indices:
            notes.append(f"{where} has no dump.json, as after a crash: order and names are the files'")
            for file in sorted(dump.data.values(), key=lambda file: file.time):
                found += _of_file(rank, dump.step, file, scratch)
        for index in dump.indices:
            try:
                found += _indexed(rank, dump, index, scratch)
            except ForeignFormatError as error:
                notes.append(str(error))
                found += [each for file in dump.data.values() for each in _of_file(rank, dump.step, file, scratch)]
        if len(found) == before:
            notes.append(f"{where} holds no tensor")
    return found, notes, ranks


def _dumps(files: Sequence[File]) -> dict[tuple[str, ...], _Dump]:
    dumps: dict[tuple[str, ...], _Dump] = {}
    for file in files:
        *above, name = file.parts
        data = bool(above) and above[-1] == _DATA
        if not data and name not in _INDICES:
            continue
        folder = tuple(above[:-1] if data else above)
        dump = dumps.get(folder)
        if dump is None:
            dump = dumps[folder] = _Dump()
            for part in folder:
                step, (rank, _), process = step_of(part), rank_of(part), _PROCESS.fullmatch(part)
                dump.step = dump.step if step is None else step
                dump.rank = dump.rank if rank is None else rank
                dump.process = int(process[1]) if process else dump.process
        if data:
            dump.data[name] = file
        else:
            dump.indices.append(file)
    return dumps


def _of_file(rank: int, step: int, file: File, scratch: Scratch) -> Iterator[Found]:
    if file.suffix in SUFFIXES:
        name = file.parts[-1].removesuffix(file.suffix)
        for inner, tensor in read_tensors(file, scratch):
            yield Found(rank, step, f"{name}.{inner}" if inner else name, tensor, file.path, file.time)


def _indexed(rank: int, dump: _Dump, index: File, scratch: Scratch) -> Iterator[Found]:
    data = _parsed(index).get("data")
    if not isinstance(data, dict):
        raise ForeignFormatError(f"{printable(index.path)}: has no data of msprobe's")
    for name, leaf in _leaves(data):
        file_name = leaf.get("data_name")
        splits = _splits(leaf, rank)
        if not isinstance(file_name, str):
            why = NotDumped(f"msprobe kept statistics only of {printable(name)}; dump with task tensor")
            yield Found(rank, dump.step, name, why, index.path, index.time)
        elif file_name not in dump.data:
            why = NotDumped(f"{printable(file_name)[:300]} is named in {printable(index.path)}, but is not in {_DATA}")
            yield Found(rank, dump.step, name, why, index.path, index.time)
        else:
            file = dump.data[file_name]
            told = file_name.removesuffix(file.suffix)
            for inner, tensor in read_tensors(file, scratch):
                full = f"{told}.{inner}" if inner else told
                yield Found(rank, dump.step, full, tensor, file.path, file.time, splits)


def _leaves(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield msprobe's full names and what it wrote of each tensor, in the order of its calls."""
    for operation, categories in data.items():
        if isinstance(categories, dict) and "type" not in categories:
            for category, values in categories.items():
                lone = isinstance(values, list) and len(values) == 1 and _GRADIENT in operation
                name = f"{operation}.{_CATEGORIES.get(category, category)}"
                yield from _below(name, values[0] if lone else values)
        else:
            yield from _below(operation, categories)


def _below(name: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, list):
        for k, each in enumerate(value):
            yield from _below(f"{name}.{k}", each)
    elif isinstance(value, dict) and isinstance(value.get("type"), str):
        if "dtype" in value and "shape" in value:
            yield name, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _below(f"{name}.{key}", each)


def _splits(leaf: Mapping[str, Any], rank: int) -> tuple[Split, ...] | None:
    """What a DTensor's mesh and placements say; None where there are none, or they do not fit each other."""
    mesh, placements = leaf.get("device_mesh"), leaf.get("placements")
    place = _place(mesh, rank)
    if not isinstance(placements, list) or place is None or len(place) != len(placements) or not placements:
        return None
    splits = []
    for (number, size), placement in zip(place, placements, strict=True):
        if not isinstance(placement, dict) or len(placement) != 1:
            return None
        kind, fields = next(iter(placement.items()))
        dim = fields.get("dim") if isinstance(fields, dict) else None
        if kind == "Shard" and type(dim) is int and dim >= 0:
            splits.append(Split(number, size, dim))
        elif kind == "Partial" and isinstance(fields, dict) and fields.get("reduce_op") == "sum":
            splits.append(Split(number, size, summed=True))
        elif kind == "Replicate":
            splits.append(Split(number, size))
        else:
            return None
    return tuple(splits)


def _place(mesh: Any, rank: int) -> tuple[tuple[int, int], ...] | None:
    """Where a rank is in a mesh of ranks, nested lists: its index and the size of each dimension."""
    if type(mesh) is int:
        return () if mesh == rank else None
    for k, inner in enumerate(mesh if isinstance(mesh, list) else ()):
        below = _place(inner, rank)
        if below is not None:
            return ((k, len(mesh)), *below)
    return None


def _parsed(file: File) -> dict[str, Any]:
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
