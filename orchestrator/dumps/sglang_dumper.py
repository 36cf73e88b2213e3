"""The folder of SGLang's dumper, and of its ports: `step=0___rank=1___dump_index=7___name=attn___layer_id=3.pt`.

A file holds `value` and `meta`; `meta` states how many ranks there are, and how they share the tensor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, NotDumped, printable
from aclcmp.orchestrator.dumps.axis_splits import AxisSplit
from aclcmp.orchestrator.dumps.dump_index import DumpContent, DumpEntry
from aclcmp.orchestrator.dumps.dump_paths import MOST_RANKS, File, check_one_folder
from aclcmp.orchestrator.dumps.format import DumpFiles, DumpFormat, FileContent, Plain
from aclcmp.orchestrator.dumps.sglang_dims import AXES, DimsError, parse_dims
from aclcmp.orchestrator.dumps.torch_files import read_torch

_STEPS = ("step", "forward_pass_id", "curr_step")
_PLACES = ("name", "rank", "dump_index", *_STEPS, "pp_rank", "tp_rank", "cp_rank", "ep_rank", "etp_rank")
"""Tags that are no part of a tensor's name."""
_USUAL = ("recompute_status", "disabled")
_PARALLEL = ("sglang_parallel_info", "megatron_parallel_info", "vllm_parallel_info")
_MOST_NOTES = 20


@dataclass(frozen=True, slots=True)
class _DumperCall:
    """A file, and what its name states of the call that dumped it."""

    file: File
    rank: int
    step: int
    number: int
    """Of the call within its rank."""
    name: str


class SglangDumper(DumpFormat):
    """Tensors in the order of the dumper's calls.

    Tags that tell calls apart are part of the name: `attn.layer_id=3`.
    """

    tool = "SGLang's dumper"

    def recognise(self, file: File) -> bool:
        """Accept files that are named as the dumper names them."""
        return _parse_name(file) is not None

    def read(self, file: File, dump: DumpFiles) -> FileContent:
        """Read `value`, of which the names are `value` and `value.KEY`, and `meta` as metadata."""
        content = read_torch(file.path, dump.scratch)
        tensors = tuple((name, tensor) for name, tensor in content.tensors if not name.startswith("meta."))
        return FileContent(tensors, metadata=content.metadata)

    def index(self, dump: DumpFiles) -> DumpContent:
        """Return the tensors of each rank in the order of its calls.

        Raises ForeignFormatError when several dumps lie below the folder.
        """
        calls = [call for file in dump.files if (call := _parse_name(file)) is not None]
        calls.sort(key=lambda call: (call.rank, call.number))
        check_one_folder((call.rank, call.file) for call in calls)
        entries: list[DumpEntry] = []
        notes: Counter[str] = Counter()
        world_size = 0
        for call in calls:
            content = self.try_read(call.file, dump)
            stated = _natural_number(content.metadata.get("meta.world_size"))
            world_size = max(world_size, stated if stated is not None and stated <= MOST_RANKS else 0)
            axes = _axes(content.metadata)
            if not content.tensors:
                notes["dumps of what is no tensor are left out"] += 1
            for name, tensor in content.tensors:
                splits = None
                try:
                    splits = _splits(content.metadata.get("meta.dims"), tensor, axes)
                except DimsError as error:
                    notes[f"{printable(str(error))}; the layout is inferred"] += 1
                inner = name.removeprefix("value").lstrip(".")
                full = f"{call.name}.{inner}" if inner else call.name
                entries.append(DumpEntry(call.rank, call.step, full, tensor, call.file.path, call.file.time, splits))
        counted = [f"{note} ({count} of them)" for note, count in list(notes.items())[:_MOST_NOTES]]
        return DumpContent(entries, counted, world_size)


def _parse_name(file: File) -> _DumperCall | None:
    """Return what a file's name states; None where the dumper gives no such names."""
    if file.suffix != ".pt":
        return None
    tags: dict[str, str] = {}
    for piece in file.stem.split("___"):
        key, equals, value = piece.partition("=")
        if equals and key not in tags:
            tags[key] = value
        elif tags:  # the separator is part of the last value
            last = next(reversed(tags))
            tags[last] += f"___{piece}"
    rank, number = (_natural_number(tags.get(key)) for key in ("rank", "dump_index"))
    step = next((_natural_number(tags[key]) for key in _STEPS if key in tags), 0)
    if "name" not in tags or rank is None or number is None or step is None or rank >= MOST_RANKS:
        return None
    more = [f".{key}={value}" for key, value in tags.items() if key not in _PLACES and (key, value) != _USUAL]
    return _DumperCall(file, rank, step, number, tags["name"] + "".join(more))


def _natural_number(value: Plain) -> int | None:
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdecimal() and len(value) <= 18 else None
    return value if type(value) is int and 0 <= value < 2**62 else None


def _axes(metadata: Mapping[str, Plain]) -> dict[str, tuple[int, int]]:
    """Return rank and size along the axes of more than one rank that the metadata states."""
    axes: dict[str, tuple[int, int]] = {}
    for axis in AXES:
        for prefix in (*(f"meta.{info}." for info in _PARALLEL), "meta."):
            rank = _natural_number(metadata.get(f"{prefix}{axis}_rank"))
            size = _natural_number(metadata.get(f"{prefix}{axis}_size"))
            if rank is not None and size is not None and rank < size <= MOST_RANKS:
                axes.setdefault(axis, (rank, size))
    return {axis: (rank, size) for axis, (rank, size) in axes.items() if size > 1}


def _splits(
    dims: Plain, tensor: DumpedTensor | NotDumped, axes: Mapping[str, tuple[int, int]]
) -> tuple[AxisSplit, ...] | None:
    """Return the splits that `meta.dims` states, None where it states none. Raises DimsError."""
    if not isinstance(dims, str) or isinstance(tensor, NotDumped):
        return None
    return parse_dims(dims, len(tensor.shape), axes)
