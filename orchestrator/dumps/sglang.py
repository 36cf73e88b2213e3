"""The folder of SGLang's dumper, and of its ports: `step=0___rank=1___dump_index=7___name=attn___layer_id=3.pt`.

A file holds `value` and `meta`; `meta` says how many ranks there are, and how they share the tensor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, ForeignFormatError, NotDumped, printable
from aclcmp.orchestrator.dumps.files import MOST_RANKS, File, check_one_folder
from aclcmp.orchestrator.dumps.index import Found, Split
from aclcmp.orchestrator.dumps.scratch import Scratch
from aclcmp.orchestrator.dumps.sglang_dims import AXES, DimsError, splits_of
from aclcmp.orchestrator.dumps.torch_files import Plain, TorchFile, read_torch

_STEPS = ("step", "forward_pass_id", "curr_step")
_PLACES = ("name", "rank", "dump_index", *_STEPS, "pp_rank", "tp_rank", "cp_rank", "ep_rank", "etp_rank")
_USUAL = ("recompute_status", "disabled")
_PARALLEL = ("sglang_parallel_info", "megatron_parallel_info", "vllm_parallel_info")


@dataclass(frozen=True, slots=True)
class SglangDump:
    """Its tensors, and what it says of the number of ranks (0: nothing)."""

    found: tuple[Found, ...]
    world_size: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Named:
    file: File
    rank: int
    step: int
    number: int
    name: str


def is_sglang(file: File) -> bool:
    """Whether a file is named as the dumper names files."""
    return file.suffix == ".pt" and _named(file) is not None


def read_sglang(files: Sequence[File], scratch: Scratch) -> SglangDump:
    """Return the tensors of a dump in the order of its calls.

    What else tells calls apart is part of the name: `attn.layer_id=3`. Raises ForeignFormatError when several dumps
    lie below the folder.
    """
    named = sorted(filter(None, map(_named, files)), key=lambda each: (each.rank, each.number))
    check_one_folder((each.rank, each.file) for each in named)
    found: list[Found] = []
    notes: dict[str, int] = defaultdict(int)
    world_size = 0
    for each in named:
        try:
            if each.file.refused:
                raise ForeignFormatError(each.file.refused)
            content = read_torch(each.file.path, scratch)
        except ForeignFormatError as error:
            content = TorchFile((("", NotDumped(str(error), unreadable=True)),), {})
        size = _number(content.plain.get("meta.world_size"))
        world_size = max(world_size, size if size is not None and size <= MOST_RANKS else 0)
        axes = _axes(content.plain)
        tensors = [(name, tensor) for name, tensor in content.tensors if not name.startswith("meta.")]
        if not tensors:
            notes["dumps of what is no tensor are left out"] += 1
        for name, tensor in tensors:
            splits = None
            try:
                splits = _splits(content.plain.get("meta.dims"), tensor, axes)
            except DimsError as error:
                notes[f"{printable(str(error))}; the layout is inferred"] += 1
            inner = name.removeprefix("value").lstrip(".")
            full = f"{each.name}.{inner}" if inner else each.name
            found.append(Found(each.rank, each.step, full, tensor, each.file.path, each.file.time, splits))
    told = tuple(f"{note} ({count} of them)" for note, count in list(notes.items())[:20])
    return SglangDump(tuple(found), world_size, told)


def _named(file: File) -> _Named | None:
    tags: dict[str, str] = {}
    for piece in file.parts[-1].removesuffix(".pt").split("___"):
        key, equals, value = piece.partition("=")
        if equals and key not in tags:
            tags[key] = value
        elif tags:  # a value with the separator in it
            last = next(reversed(tags))
            tags[last] += f"___{piece}"
    numbers = [_number(tags.get(key)) for key in ("rank", "dump_index")]
    rank, number = numbers
    step = next((_number(tags[key]) for key in _STEPS if key in tags), 0)
    if "name" not in tags or rank is None or number is None or step is None or rank >= MOST_RANKS:
        return None
    rest = [f".{key}={value}" for key, value in tags.items() if key not in _PLACES and (key, value) != _USUAL]
    return _Named(file, rank, step, number, tags["name"] + "".join(rest))


def _number(value: Plain) -> int | None:
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdecimal() and len(value) <= 18 else None
    return value if type(value) is int and 0 <= value < 2**62 else None


def _axes(plain: Mapping[str, Plain]) -> dict[str, tuple[int, int]]:
    """Rank and size along the axes that the meta tells, of more than one rank."""
    axes: dict[str, tuple[int, int]] = {}
    for axis in AXES:
        for where in (*(f"meta.{info}." for info in _PARALLEL), "meta."):
            rank, size = _number(plain.get(f"{where}{axis}_rank")), _number(plain.get(f"{where}{axis}_size"))
            if rank is not None and size is not None and rank < size <= MOST_RANKS:
                axes.setdefault(axis, (rank, size))
    return {axis: place for axis, place in axes.items() if place[1] > 1}


def _splits(
    words: Plain, tensor: DumpedTensor | NotDumped, axes: Mapping[str, tuple[int, int]]
) -> tuple[Split, ...] | None:
    if not isinstance(words, str) or isinstance(tensor, NotDumped):
        return None
    return splits_of(words, len(tensor.shape), axes)
